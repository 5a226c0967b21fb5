"""What the loss asks: a teacher's logits for the kept candidates of a batch's steps.

The loss cannot tell a stored signal from a teacher that answers now (`TeacherSource`).
"""

from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, Shaped
from torch import Tensor

from hoserkd.engine.config import Window
from hoserkd.engine.identity import Identity, teacher_identity
from hoserkd.engine.teacher.fit import road_cells
from hoserkd.engine.teacher.full_context import batches_of_spans, full_hidden
from hoserkd.engine.teacher.prefix_trie import (
    build_trie,
    candidate_logits,
    ragged_index,
    walk_trie,
)
from hoserkd.engine.teacher.signal_files import SignalFiles, context_name
from hoserkd.engine.teacher.storage import Teacher
from hoserkd.engine.types import RoadNetwork, StepBatch, TeacherSignal
from hoserkd.errors import TeacherError


class TeacherSource(Protocol):
    """Whoever answers for the teacher."""

    @property
    def identity(self) -> Identity:
        """Which teacher answers; a training that continues must hear the same one."""
        ...

    @property
    def form(self) -> str:
        """How it answers, such as `window-4-float16` or `online`; forms round differently."""
        ...

    def signal(self, batch: StepBatch, step: Int[Tensor, " Q"]) -> TeacherSignal:
        """Return raw logits for the kept candidates of the batch's steps `step`, in order."""
        ...


class StoredTeacher:
    """Answers from what `precompute` stored for a split."""

    def __init__(self, files: SignalFiles, cells: Int64[np.ndarray, " R"], window: Window,
                 device: torch.device) -> None:
        """Bring the signal to the device.

        Args:
            files: One split's arrays; they serve `window`.
            cells: Grid token of each road.
            window: Tokens after SOT.
            device: Where the batches are.
        """
        self.identity = Identity("teacher", str(files.meta["teacher"]),
                                 str(files.meta["teacher_sha256"]))
        self.form = f"{context_name(files.meta['window'])}-{files.meta['dtype']}"
        self._cells = torch.as_tensor(cells, device=device)
        self._logits = _tensor(files.logits, device)
        self._row_offset = _tensor(files.row_offset, device)
        self._step_row = None
        if files.step_row is not None:
            self._step_row = _tensor(rows_at(files, window), device)

    def signal(self, batch: StepBatch, step: Int[Tensor, " Q"]) -> TeacherSignal:
        """Look the answers up by the steps' numbers in the split."""
        kept = _KeptCandidates(batch, step)
        row = batch.step_id[step]
        if self._step_row is not None:
            row = self._step_row[row].long()
        first = self._row_offset[row].long()
        logits = self._logits[first[kept.owner] + kept.slot]
        return kept.signal(logits.float(), self._cells)


class OnlineTeacher:
    """Asks the teacher at every batch: each distinct context of the batch once."""

    def __init__(self, teacher: Teacher, network: RoadNetwork, window: Window,
                 device: torch.device, batch_size: int = 4096) -> None:
        """Prepare to answer for a city.

        Args:
            teacher: On `device`.
            network: Its roads lie in the teacher's grid (`check_grid_fit`).
            window: Tokens after SOT, or `full`.
            device: Where the batches are.
            batch_size: Contexts that go through the teacher at once.
        """
        check_window(window, teacher)
        self.identity, self.form = teacher_identity(teacher.card), "online"
        self._model, self._sot_id = teacher.model, teacher.sot_id
        self._window, self._batch_size = window, batch_size
        self._cells = torch.as_tensor(road_cells(teacher.grid, network), device=device)

    @torch.no_grad()
    def signal(self, batch: StepBatch, step: Int[Tensor, " Q"]) -> TeacherSignal:
        """Ask about the batch's steps."""
        kept = _KeptCandidates(batch, step)
        token = self._cells[batch.road]
        if self._window == "full":
            hidden, row = self._full(token, batch.offset), step
        else:
            hidden, row = self._windows(token, batch.offset, step, self._window)
        logits = candidate_logits(self._model, hidden, row[kept.owner], self._cells[kept.road])
        return kept.signal(logits.float(), self._cells)

    def _full(self, token: Tensor, offset: Tensor) -> Float[Tensor, "S C"]:
        model = self._model
        hidden = token.new_zeros((len(token), model.dimensions.n_embd), dtype=torch.float32)
        trips = offset.cpu().numpy()
        for spans in batches_of_spans(trips, model.dimensions.block_size, 4 * self._batch_size):
            answered, states = full_hidden(model, token, self._sot_id, spans)
            hidden[answered] = states
        return hidden

    def _windows(self, token: Tensor, offset: Tensor, step: Tensor, window: int
                 ) -> tuple[Float[Tensor, "M C"], Int[Tensor, " Q"]]:
        """Return the hidden states of the contexts asked about, and which is each step's."""
        if len(step) == len(token):
            sequence, trips, last = token, offset.long(), step
        else:
            trip = torch.searchsorted(offset, step, right=True) - 1
            first = torch.maximum(offset[trip], step - window + 1)
            sequence, _ = ragged_index(first, step - first + 1)
            sequence = token[sequence]
            trips = torch.cat([step.new_zeros(1), (step - first + 1).cumsum(0)])
            last = trips[1:] - 1
        # Candidates follow from the step, so contexts need no road of their own here.
        trie, contexts = build_trie(sequence, torch.zeros_like(sequence), trips, window)
        hidden = token.new_zeros((len(contexts.road), self._model.dimensions.n_embd),
                                 dtype=torch.float32)

        def keep(depth: int, first: int, end: int, states: Tensor) -> None:
            row = trie.levels[depth - 1].row[first:end + 1]
            index, owner = ragged_index(row[:-1], row.diff())
            hidden[index] = states[owner]

        walk_trie(self._model, trie, self._sot_id, keep, batch_size=self._batch_size)
        return hidden, contexts.step_row[last]


class _KeptCandidates:
    """The candidates of the asked steps, packed in the batch's order."""

    def __init__(self, batch: StepBatch, step: Int[Tensor, " Q"]) -> None:
        first = batch.candidate_offset[step]
        count = batch.candidate_offset[step + 1] - first
        total = len(batch.candidate_road) if len(step) == batch.steps else None
        index, self.owner = ragged_index(first, count, total)
        self.slot = batch.candidate_slot[index]
        self.road = batch.candidate_road[index]
        self._step = step
        self._offset = torch.cat([count.new_zeros(1), count.cumsum(0)])

    def signal(self, logits: Float[Tensor, " K'"], cells: Int[Tensor, " R"]) -> TeacherSignal:
        """Return the record with these logits."""
        return TeacherSignal(self._step, self._offset, logits, cells[self.road])


def check_window(window: Window, teacher: Teacher) -> None:
    """Check that a context fits into the teacher's positions.

    Raises:
        TeacherError: It does not.
    """
    room = teacher.model.dimensions.block_size - 1
    if window != "full" and window > room:
        raise TeacherError(
            f"a window of {window} and SOT need {window + 1} positions, but teacher "
            f"{teacher.card.name} has {room + 1} (block_size)", hint=f"use a window up to {room}")


def rows_at(files: SignalFiles, window: Window) -> Int[np.ndarray, " S"]:
    """Return each step's row for a window that may be shorter than the stored one."""
    step_row = np.asarray(files.step_row)
    if files.row_shorter is None or files.row_depth is None or window == "full":
        return step_row
    depth, shorter = np.asarray(files.row_depth), np.asarray(files.row_shorter)
    row = np.arange(len(depth), dtype=step_row.dtype)
    while (long := depth[row] > window).any():
        row[long] = shorter[row[long]]
    found: Int[np.ndarray, " S"] = row[step_row]
    return found


def _tensor(array: Shaped[np.ndarray, " N"], device: torch.device) -> Tensor:
    """Return a copy on the device: the map's file may be replaced while a training runs."""
    return torch.from_numpy(np.array(array)).to(device)
