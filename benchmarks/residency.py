"""Batches from a split on the device, in RAM and on disk, against features made trip by trip.

    python -m benchmarks.residency [--quick]

The last case trains from a split that is larger than the memory its process may take.
"""

import resource
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks._report import Report, arguments, run_apart
from hoserkd.engine.types import RoadNetwork, TrajectorySet

BATCH = 64
BOUND = 1_600_000_000
"""Bytes that the last case's process may take (`ulimit -d`)."""
LARGE = 2_500_000_000
"""Bytes of the split that it trains from."""
BYTES_A_POINT = 12
PLAIN_TRIPS = 500
NAMES = ("offset", "road", "entered_at_s")


def main() -> None:
    """Run the cases and print them."""
    options = arguments(__doc__.splitlines()[0])
    trips, batches = (20_000, 50) if options.quick else (200_000, 500)
    report = Report("residency")
    with tempfile.TemporaryDirectory() as folder:
        write_split(Path(folder), trips)
        plain = run_apart("benchmarks.residency", "plain_features", folder=folder)
        for where in ("device", "ram", "stream"):
            done = run_apart("benchmarks.residency", "read_batches", folder=folder,
                             where=where, batches=batches)
            value = done.value
            report.add(where, ours_s=value["batch_s"], plain_s=plain.value["batch_s"],
                       peak_mb=done.peak_mb, trips_per_s=BATCH / value["batch_s"],
                       why=value["why"])
    if not options.quick:
        with tempfile.TemporaryDirectory() as folder:
            size = write_split(Path(folder), trips, copies=_copies(trips))
            done = run_apart("benchmarks.residency", "train_bounded", folder=folder, steps=30)
            report.add("stream, bounded", ours_s=done.value["step_s"], peak_mb=done.peak_mb,
                       own_mb=done.value["own_mb"],
                       split_mb=size / 1e6, bound_mb=BOUND / 1e6,
                       data_share=done.value["data_share"], why=done.value["why"])
    report.finish()


def write_split(folder: Path, trips: int, copies: int = 1) -> int:
    """Write a made-up split, several times over, and return its size in bytes."""
    from benchmarks.made_up import made_up_network, made_up_trips

    made = made_up_trips(made_up_network(), trips)
    points = len(made.road)
    size = {"offset": trips * copies + 1, "road": points * copies, "entered_at_s": points * copies}
    for name in NAMES:
        values = getattr(made, name)
        stored = np.lib.format.open_memmap(
            folder / f"{name}.npy", "w+", values.dtype, (size[name],)
        )
        for copy in range(copies):
            if name == "offset":
                stored[copy * trips : (copy + 1) * trips + 1] = values + copy * points
            else:
                stored[copy * points : (copy + 1) * points] = values
        stored.flush()
    return points * copies * BYTES_A_POINT


def read_batches(
    folder: str, where: Literal["device", "ram", "stream"], batches: int
) -> dict[str, Any]:
    """Return the seconds that a batch takes on the way to the model."""
    import torch

    from hoserkd.engine.config import DataConfig
    from hoserkd.engine.student.tables import build_network_tables
    from hoserkd.engine.trips.batches import TripSource, epoch_batches

    network, trips = _city(folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tables = build_network_tables(network, "geographic", device)
    source = TripSource(trips, tables, DataConfig(), device, where)
    chosen = epoch_batches(trips, BATCH, seed=0, epoch=0, shuffle=True)[:batches]
    for batch in source.prefetch(chosen[:3]):
        del batch
    began = time.perf_counter()
    steps = sum(batch.steps for batch in source.prefetch(chosen))
    if device.type == "cuda":
        torch.cuda.synchronize()
    return {"batch_s": (time.perf_counter() - began) / batches, "steps": steps, "why": source.why}


def plain_features(folder: str) -> dict[str, float]:
    """Return the seconds that a batch of features made trip by trip takes."""
    from benchmarks.plain_hoser import plain_batch, plain_trip

    network, trips = _city(folder)
    members = np.random.default_rng(0).permutation(len(trips))[:PLAIN_TRIPS]
    began = time.perf_counter()
    for start in range(0, PLAIN_TRIPS, BATCH):
        plain_batch([plain_trip(network, trips, int(t)) for t in members[start : start + BATCH]])
    return {"batch_s": (time.perf_counter() - began) * BATCH / PLAIN_TRIPS}


def train_bounded(folder: str, steps: int) -> dict[str, Any]:
    """Train a few steps with less memory than the split has, wherever `auto` puts it."""
    import torch

    from hoserkd.engine.config import DataConfig, StudentConfig
    from hoserkd.engine.student.storage import new_student
    from hoserkd.engine.student.tables import build_network_tables
    from hoserkd.engine.training.losses import supervised
    from hoserkd.engine.trips.batches import TripSource, epoch_batches
    from hoserkd.engine.types import TimeStatistics

    network, trips = _city(folder)
    resource.setrlimit(resource.RLIMIT_DATA, (BOUND, BOUND))
    device, times = torch.device("cpu"), TimeStatistics(3.3, 0.6)
    tables = build_network_tables(network, "geographic", device)
    source = TripSource(trips, tables, DataConfig(residency="auto"), device)
    model = new_student(StudentConfig(), network)
    optimiser = torch.optim.AdamW(model.parameters())
    chosen = epoch_batches(trips, BATCH, seed=0, epoch=0, shuffle=True)
    waited, began = 0.0, time.perf_counter()
    feed = source.prefetch(chosen)
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(feed)
        waited += time.perf_counter() - asked
        road, seconds, *_ = supervised(model(tables, batch), batch, times)
        (road.mean() + seconds.mean()).backward()
        optimiser.step()
        optimiser.zero_grad()
    total = time.perf_counter() - began
    return {"step_s": total / steps, "data_share": waited / total, "why": source.why,
            "own_mb": own_mb()}


def own_mb() -> float:
    """Return the memory that this process holds beside mapped files, which cost nothing to drop."""
    status = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024 / 1e6


def _city(folder: str) -> tuple[RoadNetwork, TrajectorySet]:
    from benchmarks.made_up import made_up_network

    arrays = (np.load(Path(folder) / f"{name}.npy", mmap_mode="r") for name in NAMES)
    return made_up_network(), TrajectorySet(*arrays)


def _copies(trips: int) -> int:
    """Return how often a split of `trips` made-up trips must be repeated to be too large."""
    return 1 + LARGE // (trips * 28 * BYTES_A_POINT)


if __name__ == "__main__":
    main()
