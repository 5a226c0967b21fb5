"""What happened at every step, brought from the device in small parcels."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hoserkd.engine.events import Observer, StepDone
from hoserkd.engine.training.distributed import Ranks
from hoserkd.engine.training.schedule import StepValues
from hoserkd.engine.training.timing import PartTimer
from hoserkd.errors import DivergenceError

PARCEL_STEPS = 10
"""Steps between two readings of the device, and so the longest life of a loss that is not a
number."""
PARCEL_S = 1.0
"""Slow steps are reported at least this often."""

Figures = Callable[[Mapping[str, float]], dict[str, float]]
"""Turns the sums of a step into its metrics."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One optimiser step whose figures are still on the device."""

    step: int
    epoch: int
    sums: Float[Tensor, " M"]
    norm: Float[Tensor, ""]
    values: StepValues
    trips: int


class Journal:
    """Collects steps, and tells an observer about them a few at a time."""

    def __init__(
        self, names: tuple[str, ...], figures: Figures, total_steps: int, timer: PartTimer,
        observer: Observer, ranks: Ranks, tolerates_overflow: bool,
    ) -> None:
        self._names = names
        self._figures = figures
        self._total_steps = total_steps
        self._timer = timer
        self._observer = observer
        self._ranks = ranks
        self._tolerates_overflow = tolerates_overflow
        self._records: list[StepRecord] = []
        self._since = time.perf_counter()

    def add(self, record: StepRecord) -> None:
        """Keep a step for the next parcel."""
        self._records.append(record)

    @property
    def empty(self) -> bool:
        """Whether every step so far has been reported."""
        return not self._records

    def due(self) -> bool:
        """Return whether a parcel is full, or old enough."""
        waited = time.perf_counter() - self._since
        return len(self._records) >= PARCEL_STEPS or (self._ranks.world == 1 and waited > PARCEL_S)

    def restart_clock(self) -> None:
        """Leave what happened since the last parcel out of the throughput."""
        self._since = time.perf_counter()

    def flush(self, epoch_sums: dict[str, float]) -> None:
        """Report the steps of this parcel and add their sums to `epoch_sums`.

        Raises:
            DivergenceError: a loss or a gradient is not a number.
        """
        if not self._records:
            return
        records, self._records = self._records, []
        sums = self._ranks.add_up(torch.stack([r.sums for r in records]))
        norm = torch.stack([r.norm for r in records]).to(sums.dtype)
        rows = torch.cat([sums, norm[:, None]], dim=1).tolist()
        now = time.perf_counter()
        elapsed, self._since = now - self._since, now
        timings = self._timer.collect()
        position = self._names.index("steps")
        speed = {"trips_per_s": sum(r.trips for r in records) / elapsed,
                 "trip_steps_per_s": sum(row[position] for row in rows) / elapsed,
                 "optimiser_steps_per_s": len(records) / elapsed}
        for record, row in zip(records, rows, strict=True):
            named = dict(zip(self._names, row[:-1], strict=True))
            self._check(record, named, row[-1])
            if "kl" in named:
                # The weight may change from step to step: an epoch's loss needs their products.
                named["weighted_kl"] = record.values.lambda_kl * named["kl"]
            for name, value in named.items():
                epoch_sums[name] = epoch_sums.get(name, 0.0) + value
            self._observer.notify(StepDone(
                record.step, record.epoch, self._total_steps,
                {**self._figures(named), **speed,
                 **self._values(record.values, row[-1], named)},
                timings.get(record.step, {}),
            ))

    def _check(self, record: StepRecord, sums: Mapping[str, float], norm: float) -> None:
        finite = math.isfinite(norm) or self._tolerates_overflow
        if finite and all(map(math.isfinite, sums.values())):
            return
        what = ", ".join(k for k, v in sums.items() if not math.isfinite(v)) or "gradient"
        raise DivergenceError(
            f"training diverged at optimiser step {record.step} (epoch {record.epoch + 1}): "
            f"not a number: {what}")

    @staticmethod
    def _values(
        values: StepValues, norm: float, sums: Mapping[str, float]
    ) -> dict[str, float]:
        shown = {"learning_rate": values.learning_rate}
        if math.isfinite(norm):
            shown["grad_norm"] = norm
        if "informative" in sums:
            shown["temperature"] = values.temperature
        if "asked" in sums:  # self-distillation has weights of its own
            shown["lambda_kl"] = values.lambda_kl
        return shown
