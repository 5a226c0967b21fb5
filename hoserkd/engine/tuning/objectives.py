"""What a trial is judged by."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import EngineConfig
from hoserkd.engine.device import resolve_device
from hoserkd.engine.student.storage import load_student
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.training.validation import judge_split
from hoserkd.engine.trips.batches import TripSource, epoch_batches

ENOUGH_TRIPS = 512
"""Validation trips that a measurement of speed judges at most."""
TIMES = 3


@dataclass(frozen=True, slots=True)
class Objective:
    """One figure that trials are ranked by."""

    name: str
    metric: str
    direction: Literal["maximize", "minimize"]
    by_epoch: bool = True
    """Whether every epoch of a training tells it, so that Hyperband can prune by it."""

    def better(self, one: float, other: float) -> bool:
        """Return whether `one` is better than `other`."""
        return one > other if self.direction == "maximize" else one < other


OBJECTIVES = {
    "accuracy": Objective("accuracy", "val_accuracy", "maximize"),
    "calibration": Objective("calibration", "val_ece", "minimize"),
    "throughput": Objective("throughput", "val_trip_steps_per_s", "maximize", by_epoch=False),
}


def objectives_of(names: tuple[str, ...]) -> tuple[Objective, ...]:
    """Return the objectives of these names."""
    return tuple(OBJECTIVES[name] for name in names)


def values_of(objectives: tuple[Objective, ...], metrics: Mapping[str, float]) -> list[float]:
    """Return the figures of a training in the objectives' order."""
    return [float(metrics[each.metric]) for each in objectives]


def measure_throughput(config: EngineConfig, city: City, student: Path) -> dict[str, float]:
    """Return `val_trip_steps_per_s`: how many trip steps a second a student judges here.

    The median of three passes over at most 512 validation trips, after one that warms up. Other
    work on the machine slows it, so that trials compare only where workers do not share a machine.
    """
    device = resolve_device(config.device)
    model = load_student(student, city)
    tables = build_network_tables(city.network, config.student.features, device)
    trips = city.split("val")
    source = TripSource(trips, tables, config.data, device)
    batches = epoch_batches(trips, config.train.validation_batch_size, 0, 0, shuffle=True)
    kept, count = [], 0
    for batch in batches:
        kept.append(batch)
        count += len(batch)
        if count >= ENOUGH_TRIPS:
            break
    steps = sum(int((trips.offset[i + 1] - trips.offset[i]) - 1) for batch in kept for i in batch)
    net = model.model.to(device)
    seconds = []
    for number in range(TIMES + 1):
        began = time.perf_counter()
        judge_split(net, tables, source, kept, model.meta.times)
        if number:
            seconds.append(time.perf_counter() - began)
    return {"val_trip_steps_per_s": steps / statistics.median(seconds)}
