"""One job: ask the teacher about every step of a split, once, and store what it says.

A piece's logits are on the disk before it is ticked off, so a killed job goes on where it was; the
split's folder gets its name at the end. Several processes (`torchrun`) take the pieces in turn.
"""

import os
import re
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from numpy.lib.format import open_memmap
from torch import Tensor

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import EngineConfig
from hoserkd.engine.events import Observer, Progress, StopRequested
from hoserkd.engine.files import read_json, write_json
from hoserkd.engine.npy import save_npy
from hoserkd.engine.teacher.fit import check_grid_fit, road_cells
from hoserkd.engine.teacher.prefix_trie import candidate_logits, ragged_index
from hoserkd.engine.teacher.quality import SignalQuality, judge_signal
from hoserkd.engine.teacher.questions import (
    FullQuestions,
    Questions,
    WindowQuestions,
    plain_tokens,
)
from hoserkd.engine.teacher.signal import check_window
from hoserkd.engine.teacher.signal_files import (
    MAX_WINDOW,
    META,
    AskedWindow,
    open_signal,
    signal_directory,
)
from hoserkd.engine.teacher.storage import Teacher
from hoserkd.engine.training.distributed import Ranks
from hoserkd.engine.types import RoadNetwork, TrajectorySet
from hoserkd.errors import InterruptedRunError, TeacherError

__all__ = ["PrecomputeReport", "precompute_signal", "signal_directory"]


@dataclass(frozen=True, slots=True)
class PrecomputeReport:
    """What one split cost and what the teacher is worth on it."""

    directory: Path
    split: str
    steps: int
    contexts: int
    """Tokens that go through the teacher: distinct prefixes, or all of them for `full`."""
    rows: int
    """Distinct (context, road) pairs whose logits are stored."""
    plain_tokens: int
    """Tokens that asking step by step would evaluate."""
    seconds: float
    """Of this run; less than the whole job where it went on with an earlier one."""
    reused: bool
    """True: the signal was there already and nothing was computed."""
    quality: SignalQuality

    def to_json(self) -> dict[str, Any]:
        """Return the fields, the path as text."""
        return asdict(self) | {"directory": str(self.directory)}


def precompute_signal(
    config: EngineConfig,
    city: City,
    teacher: Teacher,
    split: str,
    *,
    observer: Observer,
    stop: StopRequested,
    device: torch.device,
    window: AskedWindow | None = None,
    directory: Path | None = None,
    ranks: Ranks | None = None,
    force: bool = False,
) -> PrecomputeReport:
    """Store the teacher's candidate logits for every step of a split.

    Args:
        config: Its `precompute` section, and `distill.window` where `window` is None.
        city: Prepared.
        teacher: On `device`.
        split: train, val or test.
        observer: Hears of progress in contexts.
        stop: Asked between pieces.
        device: Where the teacher is.
        window: A window, `full`, or `every` (each window from 1 to 8 in one trie).
        directory: Folder of the signal; None: beside the city, under its key.
        ranks: This process among those that share the work.
        force: Compute again what is there.

    Raises:
        TeacherError: The teacher does not fit the city, the window or the number type.
        InterruptedRunError: `stop` said so; the next call goes on from here.
    """
    window = config.distill.window if window is None else window
    ranks = ranks or Ranks()
    check_grid_fit(teacher.grid, city.network, teacher=teacher.card.name, city=city.name)
    check_window(MAX_WINDOW if window == "every" else window, teacher)
    dtype = config.precompute.dtype
    home = directory or signal_directory(city, teacher, window, dtype)
    final, partial = home / split, home / f".{split}.partial"
    if not force and (final / META).is_file():
        return _report(final, open_signal(final, city, teacher).meta, 0.0, reused=True)
    start = time.perf_counter()
    trips = city.split(split)
    job = _Job(teacher, city.network, trips, window, config, device)
    meta = {"teacher": teacher.card.name, "teacher_sha256": teacher.sha256, "city": city.name,
            "city_sha256": city.sha256, "split": split, "window": window, "dtype": dtype,
            "steps": trips.steps, **job.counts}
    if ranks.first:
        job.lay_out(partial, meta)
    ranks.wait()
    job.run(partial, f"asking the teacher ({split})", ranks, observer, stop)
    ranks.wait()
    if ranks.first:
        write_json(partial / META, meta | {"quality": asdict(job.judge(partial, trips))})
        _finish(partial, final)
    ranks.wait()
    found = open_signal(final, city, teacher).meta
    return _report(final, found, time.perf_counter() - start, reused=False)


class _Job:
    """The questions of one split, and where their answers go."""

    def __init__(self, teacher: Teacher, network: RoadNetwork, trips: TrajectorySet,
                 window: AskedWindow, config: EngineConfig, device: torch.device) -> None:
        self._teacher, self._network = teacher, network
        self._dtype, self._batch_size = config.precompute.dtype, config.precompute.batch_size
        self._cells = torch.as_tensor(road_cells(teacher.grid, network), device=device)
        candidates = network.candidates
        self._candidate_offset = torch.tensor(candidates.offset, device=device)
        self._candidate_road = torch.tensor(candidates.road, device=device).long()
        inner = np.ones(len(trips.road), dtype=bool)
        inner[trips.offset[1:] - 1] = False
        road = torch.tensor(np.asarray(trips.road)[inner], device=device).long()
        offset = np.asarray(trips.step_offset())
        self._questions = self._build(self._cells[road], road, offset, window)
        counts = np.diff(candidates.offset)[self._questions.row_road.cpu().numpy()]
        self._row_offset = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.counts = {
            "contexts": int(self._questions.sizes.sum()), "rows": len(counts),
            "plain_tokens": plain_tokens(offset, MAX_WINDOW if window == "every" else window)}

    def _build(self, token: Tensor, road: Tensor, offset: Int64[np.ndarray, " N+1"],
               window: AskedWindow) -> Questions:
        if window == "full":
            block_size = self._teacher.model.dimensions.block_size
            return FullQuestions(token, road, offset, block_size, 4 * self._batch_size)
        every = window == "every"
        return WindowQuestions(token, road, offset, MAX_WINDOW if every else int(window),
                               every_window=every)

    def lay_out(self, partial: Path, meta: dict[str, Any]) -> None:
        """Make the folder of unfinished work, or keep it where it is of the same job."""
        plan, wanted = partial / "plan.json", meta | {"sizes": self._questions.sizes.tolist()}
        try:
            if read_json(plan) == wanted:
                return
        except (OSError, ValueError):
            pass  # no unfinished work, or a job killed while it laid this out
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        small = self._row_offset[-1] < 2**31
        save_npy(partial / "row_offset.npy",
                 self._row_offset.astype(np.int32) if small else self._row_offset)
        for name, array in self._questions.arrays().items():
            save_npy(partial / f"{name}.npy", array)
        # Zeros are written out: a full disk is then an error here, not a crash in the map later.
        # And an empty file could not be mapped.
        length = max(int(self._row_offset[-1]), 1)
        save_npy(partial / "logits.npy", np.zeros(length, dtype=self._dtype))
        write_json(plan, wanted)

    def run(self, partial: Path, name: str, ranks: Ranks, observer: Observer, stop: StopRequested
            ) -> None:
        """Ask about the pieces of this process that no run has ticked off."""
        sizes, done = self._questions.sizes, _ticked(partial)
        total = int(sizes.sum())
        finished = before = int(sum(sizes[piece] for piece in done))
        logits = open_memmap(partial / "logits.npy", mode="r+")
        start = time.perf_counter()
        observer.notify(Progress(name, finished, total, "contexts"))
        for first in range(0, len(sizes), ranks.world):
            # Asked together, so that no process waits for one that has stopped.
            if ranks.any(stop()):
                raise InterruptedRunError(
                    f"stopped after {finished:,} of {total:,} contexts; what is done is kept",
                    hint="run the same command again to go on")
            piece = first + ranks.rank
            if piece >= len(sizes) or piece in done:
                continue
            self._questions.ask(piece, self._teacher, self._batch_size,
                                lambda row, hidden: self._keep(row, hidden, logits))
            logits.flush()
            _tick(partial / f"done-{ranks.rank}.txt", piece)
            # The others are about as far.
            finished = min(finished + ranks.world * int(sizes[piece]), total)
            rate = (finished - before) / max(time.perf_counter() - start, 1e-9)
            observer.notify(Progress(name, finished, total, "contexts", {
                "contexts_per_s": rate, "eta_s": (total - finished) / max(rate, 1e-9)}))

    def judge(self, partial: Path, trips: TrajectorySet) -> SignalQuality:
        """Hold the finished logits against the trips."""
        step_row = partial / "step_row.npy"
        return judge_signal(
            np.load(partial / "logits.npy", mmap_mode="r"), self._row_offset,
            np.load(step_row) if step_row.exists() else None, self._network, trips,
            self._cells.cpu().numpy())

    def _keep(self, row: Int[Tensor, " m"], hidden: Float[Tensor, "m C"],
              logits: np.ndarray[Any, Any]) -> None:
        """Write the candidate logits of some rows."""
        road = self._questions.row_road[row]
        first = self._candidate_offset[road]
        index, owner = ragged_index(first, self._candidate_offset[road + 1] - first)
        cell = self._cells[self._candidate_road[index]]
        found = candidate_logits(self._teacher.model, hidden, owner, cell).cpu().numpy()
        with np.errstate(over="ignore"):
            stored = found.astype(self._dtype)
        if not np.isfinite(stored).all():
            raise TeacherError(
                f"teacher {self._teacher.card.name} gives logits up to "
                f"{np.abs(found).max():g}, which {self._dtype} cannot hold",
                hint="use --set precompute.dtype=float32")
        place = self._row_offset[row.cpu().numpy()][owner.cpu().numpy()]
        logits[place + (index - first[owner]).cpu().numpy()] = stored


def _tick(path: Path, piece: int) -> None:
    with path.open("a", encoding="ascii") as file:
        file.write(f"\n{piece} done\n")
        file.flush()
        os.fsync(file.fileno())


def _ticked(partial: Path) -> set[int]:
    """Return the finished pieces; a line that a kill cut short does not count."""
    text = "\n".join(path.read_text(encoding="ascii") for path in partial.glob("done-*.txt"))
    return {int(piece) for piece in re.findall(r"^(\d+) done$", text, re.MULTILINE)}


def _finish(partial: Path, final: Path) -> None:
    """Give the finished folder its name; one that is there already makes way."""
    # Hidden before it is taken apart, so that nobody meets half of it.
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    partial.rename(final)
    for path in (final / "plan.json", *final.glob("done-*.txt")):
        path.unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)


def _report(directory: Path, meta: dict[str, Any], seconds: float, *, reused: bool
            ) -> PrecomputeReport:
    counts = {name: int(meta[name]) for name in ("steps", "contexts", "rows", "plain_tokens")}
    return PrecomputeReport(directory=directory, split=str(meta["split"]), seconds=seconds,
                            reused=reused, quality=SignalQuality(**meta["quality"]), **counts)
