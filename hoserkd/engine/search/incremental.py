"""The student, one road at a time: a path grows by one token, not by a new forward pass.

A node's state depends on its ancestors only through their keys and values, which are remembered, so
one token through the trajectory encoder gives exactly what the whole path would (ENGINE.md 5.7).
"""

import numpy as np
import torch
from jaxtyping import Float, Int32
from torch import Tensor
from torch.nn import functional

from hoserkd.engine.search.candidates import compiled_features, log_softmax, places_of
from hoserkd.engine.search.memory import (
    CompiledMemory,
    Memory,
    PaddedMemory,
    RowPool,
    bytes_per_row,
)
from hoserkd.engine.search.queries import Continuation, Expansion
from hoserkd.engine.student.features import candidate_features, clock_features
from hoserkd.engine.student.hoser import Hoser
from hoserkd.engine.student.tables import NetworkTables
from hoserkd.engine.types import TimeStatistics
from hoserkd.errors import CheckpointError

ROW_MULTIPLE = 16
"""Batches are padded to a multiple of so many rows: BLAS treats fewer, or a rest, differently, and
a search's answer would depend on its company in the last bit."""
LONGEST_STEP_S = 1e6
DEFAULT_MEMORY_BYTES = 1 << 31


class IncrementalStudent:
    """Continues paths with a student, remembering each expanded node."""

    @torch.no_grad()
    def __init__(self, model: Hoser, tables: NetworkTables, times: TimeStatistics, *,
                 memory_bytes: int = DEFAULT_MEMORY_BYTES) -> None:
        self._model = model.eval()
        self._tables = tables
        self._times = times
        self._encoding = model.encode_network(tables)
        if not bool(self._encoding.road.isfinite().all() & self._encoding.key.isfinite().all()):
            raise CheckpointError("the student's weights give embeddings that are not numbers",
                                  hint="use an earlier checkpoint, or train again")
        self._pool = RowPool(memory_bytes // bytes_per_row(model))
        on_cpu = tables.device.type == "cpu"
        self._places = places_of(tables) if on_cpu else None
        self._memory: Memory = (CompiledMemory if on_cpu else PaddedMemory)(model, tables)

    def claim(self, count: int) -> Int32[np.ndarray, "M"] | None:
        """Return `count` free rows, or None if memory has no room for them."""
        return self._pool.claim(count)

    def release(self, rows: Int32[np.ndarray, "M"]) -> None:
        """Give rows back."""
        self._pool.release(rows)

    def reserve(self, rows: int) -> None:
        """Make sure that at least `rows` rows fit at once."""
        self._pool.limit = max(self._pool.limit, rows)

    @torch.no_grad()
    def expand(self, expansion: Expansion) -> Continuation:
        """Return probabilities and times of what follows each node."""
        state = self._states(expansion)
        count = np.diff(expansion.candidate_offset)
        step = self._put(np.repeat(np.arange(len(expansion)), count))
        road = self._put(expansion.candidate_road)
        logits = self._logits(expansion, state, step, road)
        log_prob = log_softmax(logits.cpu().numpy(), expansion.candidate_offset)
        return Continuation(log_prob, self._seconds(state, step, road).cpu().numpy())

    def _put(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(self._tables.device)

    def _states(self, expansion: Expansion) -> Float[Tensor, "P c"]:
        """Return the trajectory encoder's states of the new nodes, padded with idle rows."""
        encoder, device = self._model.trajectory_encoder, self._tables.device
        time_of_day, elapsed_min = clock_features(
            torch.from_numpy(expansion.entered_at_s), torch.from_numpy(expansion.departure_s),
            self._tables.features)
        self._memory.open(expansion, elapsed_min.numpy(), self._pool.made)
        padding = -len(expansion) % ROW_MULTIPLE
        road = functional.pad(self._put(expansion.road), (0, padding))
        time_of_day = functional.pad(time_of_day.to(device), (0, padding))
        x: Tensor = encoder.embed_points(self._encoding.spatial[road], time_of_day)
        for layer, block in enumerate(encoder.blocks):
            gathered = self._memory.gather(layer, block.attn.c_attn(block.ln_1(x)))
            x = block.finish(x, block.attn.output(gathered))
        return x

    def _logits(self, expansion: Expansion, state: Float[Tensor, "P c"], step: Tensor,
                road: Tensor) -> Float[Tensor, "K"]:
        navigator, encoding = self._model.navigator, self._encoding
        query = functional.linear(state, navigator.q_proj.weight[:, :state.shape[1]])
        zone = encoding.road_zone[self._put(expansion.destination)]
        query = query[:len(expansion)] + encoding.zone_query[zone]
        distance, angle = self._candidate_features(expansion)
        mixed = query[step] + encoding.key[road]
        mixed = mixed + distance[:, None] * encoding.distance + angle[:, None] * encoding.angle
        # A sum over columns, where a matrix times a vector would depend on the number of rows.
        return (mixed.tanh() * navigator.v_proj.weight[0]).sum(1)

    def _candidate_features(
        self, expansion: Expansion
    ) -> tuple[Float[Tensor, "K"], Float[Tensor, "K"]]:
        if self._places is None:
            found = candidate_features(
                self._tables, self._put(expansion.road), self._put(expansion.destination),
                self._tables.max_candidates, len(expansion.candidate_road))
            return found.distance, found.angle
        distance, angle = compiled_features(
            self._places, expansion.road, expansion.destination, expansion.candidate_offset,
            expansion.candidate_road)
        return torch.from_numpy(distance), torch.from_numpy(angle)

    def _seconds(self, state: Float[Tensor, "P c"], step: Tensor, road: Tensor) -> Tensor:
        """Return whole seconds: the head's log1p, taken back and rounded half to even."""
        navigator = self._model.navigator
        hidden = functional.gelu(navigator.time_estimator_linear_1(state))
        head = navigator.time_estimator_linear_3
        own = (hidden * head.weight[0, :hidden.shape[1]]).sum(1) + head.bias
        standardised = own[step] + self._encoding.time[road]
        seconds = torch.expm1(standardised * self._times.log1p_std + self._times.log1p_mean)
        return seconds.clamp(0, LONGEST_STEP_S).round().to(torch.int32)
