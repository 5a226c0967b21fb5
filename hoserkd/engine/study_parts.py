"""Parts of the test trips, on which the trainings of a study are judged apart."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import DataConfig, EngineConfig
from hoserkd.engine.device import resolve_amp, resolve_device
from hoserkd.engine.events import Observer, StopRequested
from hoserkd.engine.metrics.packed import destinations, origins
from hoserkd.engine.student.storage import load_student
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.study import ALL, PART_FIGURES, PartSize, metric_key
from hoserkd.engine.train import deterministic_algorithms
from hoserkd.engine.training.validation import judge_split
from hoserkd.engine.trips.batches import TripSource, epoch_batches
from hoserkd.engine.trips.shares import drawn_members


def trip_parts(city: City, data: DataConfig) -> dict[str, Int64[np.ndarray, " _"]]:
    """Return the ids of the test trips in each of `study.PARTS`; a part may be empty."""
    test, train = city.split("test"), city.split("train")
    steps = np.diff(test.offset) - 1
    long = steps > np.median(steps)
    roads = city.network.roads
    members = drawn_members(len(train), data)
    known = origins(train) * roads + destinations(train)
    seen = np.isin(origins(test) * roads + destinations(test),
                   known if members is None else known[members])
    masks = {"short": ~long, "long": long, "seen": seen, "unseen": ~seen}
    return {name: np.flatnonzero(mask) for name, mask in masks.items()}


def part_sizes(
    city: City, parts: Mapping[str, Int64[np.ndarray, " _"]]
) -> dict[str, PartSize]:
    """Return the size of the test split and of its parts."""
    steps = np.diff(city.split("test").offset) - 1
    return {ALL: PartSize(len(steps), int(steps.sum())),
            **{name: PartSize(len(trips), int(steps[trips].sum()))
               for name, trips in parts.items()}}


def judge_parts(
    config: EngineConfig, city: City, model: Path,
    parts: Mapping[str, Int64[np.ndarray, " _"]], observer: Observer, stop: StopRequested,
) -> dict[str, float]:
    """Return the figures of a student file on parts of the test split, as `test_PART_FIGURE`.

    Raises:
        InterruptedRunError: `stop` said so.
    """
    device = resolve_device(config.device)
    test = city.split("test")
    found: dict[str, float] = {}
    with deterministic_algorithms(config.train.deterministic, device):
        student = load_student(model, city)
        tables = build_network_tables(city.network, student.meta.config.features, device)
        network = student.model.to(device)
        source = TripSource(test, tables, student.meta.data(config.data), device)
        for part, trips in parts.items():
            if not len(trips):
                continue
            batches = epoch_batches(test, config.train.validation_batch_size, 0, 0,
                                    shuffle=False, members=trips)
            metrics = judge_split(
                network, tables, source, batches, student.meta.times,
                amp=resolve_amp(config.train.amp, device), observer=observer, stop=stop,
                job=f"judging {part} test trips").metrics
            found |= {metric_key(part, figure): metrics[figure] for figure in PART_FIGURES}
    return found
