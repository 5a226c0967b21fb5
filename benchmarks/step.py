"""One training step of the student: forward, backward, parts and memory, against the plain form.

    python -m benchmarks.step [--cases "beijing batch 64" ...] [--batches 8]

Both forms work through the same batches of trips. Where a batch does not fit into memory in the
plain form, that form works through it in pieces (`plain_pieces`), the road network encoded once
for all of them. Figures are means over the batches. Each form of each case runs in a process of
its own, so that its peak memory is its own; with a GPU both run there. The San Francisco cases
need real trips: HOSERKD_REAL_DATA names their folder (default ../shared/data).
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._report import Apart, Report, peak_mb, run_apart
from hoserkd.engine.types import TrajectorySet

CASES = {
    "san_francisco batch 64": ("san_francisco", 64),
    "san_francisco batch 512": ("san_francisco", 512),
    "beijing batch 64": ("beijing", 64),
    "beijing batch 512": ("beijing", 512),
}
MADE_UP_TRIPS = 20000


def main() -> None:
    """Run the cases and print them."""
    options = _options()
    report = Report("step")
    with tempfile.TemporaryDirectory() as folder:
        city = prepared_san_francisco(Path(folder)) if any(
            CASES[case][0] == "san_francisco" for case in options.cases
        ) else None
        for case in options.cases:
            if CASES[case][0] == "san_francisco" and city is None:
                print(f"{case}: skipped, HOSERKD_REAL_DATA names no real trips", file=sys.stderr)
                continue
            fast, plain = (
                run_apart("benchmarks.step", form, case=case, city=city and str(city),
                          count=2 if options.quick else options.batches, threads=options.threads)
                for form in ("run_fast", "run_plain")
            )
            _add(report, case, fast, plain)
    report.finish()


def prepared_san_francisco(folder: Path) -> Path | None:
    """Return the prepared 20,000-trip city, or None where its files are not there."""
    from hoserkd.engine.config import CityConfig
    from hoserkd.engine.events import Silent, never_stop
    from hoserkd.engine.prepare import prepare_city

    root = Path(__file__).resolve().parents[1]
    data = Path(os.environ.get("HOSERKD_REAL_DATA", root.parent / "shared" / "data"))
    source = data / "san_francisco_20k"
    if not source.is_dir():
        return None
    prepare_city(CityConfig(name="san_francisco"), source, folder / "city",
                 force=False, observer=Silent(), stop=never_stop)
    return folder / "city"


def run_fast(case: str, city: str | None, count: int, threads: int | None) -> dict[str, Any]:
    """Measure our own step."""
    import torch

    from hoserkd.engine.config import DataConfig
    from hoserkd.engine.student.tables import build_network_tables
    from hoserkd.engine.training.losses import supervised
    from hoserkd.engine.trips.batches import TripSource

    if threads:
        torch.set_num_threads(threads)
    network, trips, times, members = _inputs(case, city, count)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tables = build_network_tables(network, "geographic", device)
    model = _model(network).to(device)
    source = TripSource(trips, tables, DataConfig(), device)

    def step(trip: np.ndarray, clock: Callable[[str], None]) -> float:
        model.zero_grad(set_to_none=True)
        batch = source.batch(trip)
        clock("data")
        encoding = model.encode_network(tables, [batch])
        clock("forward_network")
        leaves = encoding.leaves()
        output = model.forward_encoded(leaves, batch)
        clock("forward_trips")
        road, seconds = supervised(output, batch, times)[:2]
        loss = road.mean() + seconds.mean()
        clock("loss")
        loss.backward()
        clock("backward_trips")
        encoding.backward_from(leaves)
        clock("backward_network")
        return loss.item()

    length = np.diff(trips.offset)
    batches = [b[np.argsort(length[b], kind="stable")] for b in np.split(members, count)]
    return _measured(step, batches)


def run_plain(case: str, city: str | None, count: int, threads: int | None) -> dict[str, Any]:
    """Measure the plain form on the same trips and weights."""
    import torch

    from benchmarks.plain_hoser import PlainHoser, plain_batch, plain_loss, plain_trip
    from hoserkd.engine.student.tables import build_network_tables

    if threads:
        torch.set_num_threads(threads)
    network, trips, times, members = _inputs(case, city, count)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pieces = _plain_pieces(trips, np.split(members, count), device)
    tables = build_network_tables(network, "geographic", device)
    plain = PlainHoser(_model(network), network, tables)
    steps = np.diff(trips.offset) - 1

    def step(trip: np.ndarray, clock: Callable[[str], None]) -> float:
        plain.zero_grad(set_to_none=True)
        road, zone = plain.encode()
        clock("forward_network")
        cut = [part.detach().requires_grad_() for part in (road, zone)]
        total = 0.0
        for piece in np.array_split(trip, pieces):
            batch = plain_batch([plain_trip(network, trips, int(t)) for t in piece]).to(device)
            clock("data")
            logits, seconds = plain.answer(*cut, batch)
            clock("forward_trips")
            loss = plain_loss(logits, seconds, batch, times.log1p_mean, times.log1p_std)
            loss = loss * float(steps[piece].sum() / steps[trip].sum())
            clock("loss")
            loss.backward()
            total += loss.item()
            clock("backward_trips")
        torch.autograd.backward([road, zone], [part.grad for part in cut])
        clock("backward_network")
        return total

    return {**_measured(step, np.split(members, count)), "pieces": pieces}


def _plain_pieces(trips: TrajectorySet, batches: list[np.ndarray], device: Any) -> int:
    """Return in how many pieces a batch must be cut for its (B, T, T, h) tensors to fit.

    Two of 128 float32 a pair and block are kept for the backward pass, and their gradients made.
    """
    import torch

    from hoserkd.engine.trips.residency import available_ram

    free = torch.cuda.mem_get_info()[0] if device.type == "cuda" else available_ram()
    length = np.diff(trips.offset) - 1
    pieces = 1
    while pieces < len(batches[0]):
        cut = [piece for batch in batches for piece in np.array_split(batch, pieces)]
        pairs = max(len(piece) * int(length[piece].max()) ** 2 for piece in cut)
        if 6 * 128 * 4 * pairs + 4e9 < free:
            break
        pieces *= 2
    return pieces


def _measured(
    step: Callable[[np.ndarray, Callable[[str], None]], float],
    batches: list[np.ndarray],
) -> dict[str, Any]:
    """Run the first batch as a warm-up, whose loss both forms share, then every batch once."""
    import torch

    parts: dict[str, float] = {}
    last = 0.0

    def clock(part: str) -> None:
        nonlocal last
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        parts[part] = parts.get(part, 0.0) + 1000 * (now - last) / len(batches)
        last = now

    def run(batch: np.ndarray) -> float:
        nonlocal last
        last = time.perf_counter()
        return step(batch, clock)

    loss = run(batches[0])
    parts.clear()
    began = time.process_time()
    for batch in batches:
        run(batch)
    cpu_s = (time.process_time() - began) / len(batches)
    peak = peak_mb()
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 1e6
    return {"parts_ms": parts, "peak_mb": peak, "loss": loss, "cpu_s": cpu_s,
            "threads": torch.get_num_threads()}


def _inputs(case: str, city: str | None, count: int):  # type: ignore[no-untyped-def]
    """Return the network, trips, time statistics and the trips of `count` batches."""
    from benchmarks.made_up import made_up_network, made_up_trips
    from hoserkd.engine.city.storage import load_city
    from hoserkd.engine.types import TimeStatistics

    name, batch_size = CASES[case]
    if name == "beijing":
        network = made_up_network()
        trips = made_up_trips(network, MADE_UP_TRIPS)
        times = TimeStatistics(3.3, 0.6)
    else:
        assert city is not None
        loaded = load_city(Path(city))
        network, trips, times = loaded.network, loaded.split("train"), loaded.times
    members = np.random.default_rng(0).permutation(len(trips))[: count * batch_size]
    return network, trips, times, members


def _model(network):  # type: ignore[no-untyped-def]
    import torch

    from hoserkd.engine.config import StudentConfig
    from hoserkd.engine.student.storage import new_student

    torch.manual_seed(0)
    return new_student(StudentConfig(), network)


def _add(report: Report, case: str, fast: Apart, plain: Apart) -> None:
    ours, theirs = fast.value, plain.value
    step = _without_data(ours["parts_ms"])
    data = ours["parts_ms"]["data"]
    figures = {
        "data_share": data / (step + data),
        **{f"{part}_ms": ms for part, ms in ours["parts_ms"].items()},
        **{name: ours[name] for name in ("cpu_s", "loss", "threads")},
    }
    figures |= {f"plain_{part}_ms": ms for part, ms in theirs["parts_ms"].items()}
    figures |= {f"plain_{name}": theirs[name] for name in ("cpu_s", "loss", "peak_mb", "pieces")}
    report.add(
        case, step / 1000, _without_data(theirs["parts_ms"]) / 1000, ours["peak_mb"],
        peak_ratio=theirs["peak_mb"] / ours["peak_mb"], **figures,
    )


def _without_data(parts_ms: dict[str, float]) -> float:
    return sum(parts_ms.values()) - parts_ms["data"]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES)
    parser.add_argument("--batches", type=int, default=8, help="batches to average over")
    parser.add_argument("--threads", type=int, help="of torch; default: its own choice")
    parser.add_argument("--quick", action="store_true", help="two batches, of 64 trips alone")
    options = parser.parse_args()
    if options.cases is None:
        options.cases = [c for c, (_, size) in CASES.items() if size == 64 or not options.quick]
    return options


if __name__ == "__main__":
    main()
