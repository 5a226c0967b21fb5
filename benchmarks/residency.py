"""Batches from a split on the device, in RAM and on disk, against features made trip by trip.

    python -m benchmarks.residency [--quick]

The last case runs `hoserkd train` on a split that is larger than the memory its process may take
(`ulimit -d`), against the same training from RAM without a bound.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks._report import REPOSITORY, Report, arguments, run_apart
from hoserkd.engine.types import RoadNetwork, TrajectorySet

BATCH = 64
BOUND = 1_600_000_000
"""Bytes that the last case's process may take beside mapped files (`ulimit -d`)."""
LARGE = 2_500_000_000
"""Bytes of the split that it trains from."""
BYTES_A_POINT = 12
PLAIN_TRIPS = 500
TRAINED_STEPS = 30
WARMUP_STEPS = 4
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
            size = write_city(Path(folder), trips)
            bounded = train(Path(folder), "auto", BOUND)
            free = train(Path(folder), "ram", None)
            report.add("stream, bounded", ours_s=bounded["step_s"], plain_s=free["step_s"],
                       peak_mb=bounded["own_mb"], split_mb=size / 1e6, bound_mb=BOUND / 1e6,
                       data_share=bounded["data_share"], why=bounded["why"],
                       plain_peak_mb=free["own_mb"], same_accuracy=(
                           bounded["accuracy"] == free["accuracy"]))
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


def write_city(folder: Path, trips: int) -> int:
    """Prepare a city whose training split is too large for the bound; return that split's bytes."""
    from benchmarks.made_up import made_up_network, made_up_trips
    from hoserkd.engine.city.storage import save_city
    from hoserkd.engine.types import TimeStatistics

    network = made_up_network()
    size = write_split(folder, trips, copies=_copies(trips))
    splits = {"train": _city(str(folder))[1], "val": made_up_trips(network, 500, 1),
              "test": made_up_trips(network, 10, 2)}
    save_city(folder / "city", "large", network, splits, TimeStatistics(3.3, 0.6))
    return size


def train(folder: Path, residency: str, bound: int | None) -> dict[str, Any]:
    """Run `hoserkd train` for some steps; return what it took.

    Args:
        bound: Bytes that its process may take beside mapped files; None: no bound.
    """
    command = [sys.executable, "-m", "hoserkd", "train", "--no-distill", "--json",
               "--city", str(folder / "city"), "--max-steps", str(TRAINED_STEPS),
               "--store", str(folder / f"store-{residency}"), "--data-dir", str(folder),
               "--set", f"data.residency={residency}", "--set", f"train.batch_size={BATCH}",
               "--set", "profiling.interval=1", "--quiet"]

    def limit() -> None:
        if bound is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))

    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
                               preexec_fn=limit)
    most = 0.0
    while process.poll() is None:
        most = max(most, own_mb(process.pid))
        time.sleep(0.1)
    if process.returncode or process.stdout is None:
        raise SystemExit(f"residency: {' '.join(command)} failed")
    answer = json.loads(process.stdout.read())
    spool = Path(answer["directory"]) / "events.jsonl"
    events = [json.loads(line) for line in spool.read_text().splitlines()]
    parts = [event["ms"] for event in events if event["type"] == "step"][WARMUP_STEPS:]
    notes = [event["message"] for event in events if event["type"] == "note"]
    why = next(note for note in notes if "trips are kept" in note)
    return {"step_s": statistics.median(part["step"] for part in parts) / 1000,
            "data_share": sum(p["data"] for p in parts) / sum(p["step"] for p in parts),
            "own_mb": most, "why": why,
            "accuracy": answer["metrics"]["val_accuracy"]}


def own_mb(pid: int) -> float:
    """Return the memory that a process holds beside mapped files, which cost nothing to drop."""
    try:
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    found = [line for line in status if line.startswith("RssAnon")]
    return int(found[0].split()[1]) * 1024 / 1e6 if found else 0.0


def _city(folder: str) -> tuple[RoadNetwork, TrajectorySet]:
    from benchmarks.made_up import made_up_network

    arrays = (np.load(Path(folder) / f"{name}.npy", mmap_mode="r") for name in NAMES)
    return made_up_network(), TrajectorySet(*arrays)


def _copies(trips: int) -> int:
    """Return how often a split of `trips` made-up trips must be repeated to be too large."""
    return 1 + LARGE // (trips * 28 * BYTES_A_POINT)


if __name__ == "__main__":
    main()
