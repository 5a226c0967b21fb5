"""How long the teacher's word on every training step takes, beside asking step by step.

    python -m benchmarks.teacher [--quick] [--cases "window 4" ...]

Cases: `window 4`, `window 8` and `full` contexts on all training trips of San Francisco (0.001
degree cells), with a teacher of the full size (8 x 12 x 768) or a small one (4 x 4 x 128), weights
random: they do not change the cost. The plain form asks about each step by itself, 64 at a time,
with the head over the whole vocabulary, as the known implementation does; it is measured on a
sample of steps and extrapolated to all, and our stored logits are held against its answers
(`max_error`). `--quick` takes 20,000 trips or, without real trips, a made-up city, and the small
teacher alone; window 8 at the full size is run only where it is named. Real trips:
HOSERKD_REAL_DATA, default ../shared/data.
"""

import argparse
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._report import REPOSITORY, Report, run_apart

if TYPE_CHECKING:
    from hoserkd.engine.city.storage import City
    from hoserkd.engine.config import Window
    from hoserkd.engine.teacher.storage import Teacher

SIZES = {"full size": (8, 12, 768), "small": (4, 4, 128)}
PLAIN_BATCH = 64
CELL_DEG = 0.001


@dataclass(frozen=True, slots=True)
class Wanted:
    """One case."""

    window: str
    size: str
    sample: int
    """Steps that the plain form is measured on."""

    @property
    def name(self) -> str:
        """What the report calls it."""
        context = "full" if self.window == "full" else f"window {self.window}"
        return context if self.size == "full size" else f"{context}, {self.size} teacher"


CASES = (Wanted("4", "full size", 256), Wanted("4", "small", 2048), Wanted("8", "small", 2048),
         Wanted("full", "small", 2048))
LONG = (Wanted("8", "full size", 256),)


def main() -> None:
    """Run all cases."""
    options = _options()
    quick = options.quick
    cases = [c for c in CASES + LONG if c.name in options.cases] if options.cases else [
        c for c in CASES if not quick or c.size == "small"]
    report = Report("teacher")
    work = Path(tempfile.mkdtemp(prefix="hoserkd-teacher-"))
    try:
        name = prepare(work / "city", quick)
        for case in cases:
            run_case(report, case, work, name)
    finally:
        shutil.rmtree(work)
    report.finish()


def prepare(directory: Path, quick: bool) -> str:
    """Prepare the city to ask about and return what it is."""
    from hoserkd.engine.config import CityConfig
    from hoserkd.engine.events import Silent, never_stop
    from hoserkd.engine.prepare import prepare_city

    real = Path(os.environ.get("HOSERKD_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    source = real / ("san_francisco_20k" if quick else "san_francisco")
    if (source / "roadmap.geo").is_file():
        prepare_city(CityConfig(name=source.name), source, directory, force=False,
                     observer=Silent(), stop=never_stop)
        return source.name
    from benchmarks.made_up import made_up_network, made_up_trips
    from hoserkd.engine.city.storage import save_city
    from hoserkd.engine.types import TimeStatistics

    network = made_up_network(side=30, zones=16)
    train = made_up_trips(network, 14_000 if quick else 100_000)
    few = made_up_trips(network, 10, seed=1)
    save_city(directory, "made_up", network, {"train": train, "val": few, "test": few},
              TimeStatistics(3.0, 1.0))
    return "made_up"


def run_case(report: Report, case: Wanted, work: Path, city: str) -> None:
    """Measure one case, ours and plain, each in a process of its own."""
    common = {"city": str(work / "city"), "window": case.window, "size": case.size,
              "directory": str(work / "signal")}
    ours = run_apart("benchmarks.teacher", "precompute", **common)
    plain = run_apart("benchmarks.teacher", "ask_plainly", sample=case.sample, **common)
    seconds = ours.value["seconds"]
    report.add(
        case.name, seconds, plain.value["seconds_a_step"] * ours.value["steps"], ours.peak_mb,
        city=city, steps=ours.value["steps"], contexts=ours.value["contexts"],
        plain_tokens=ours.value["plain_tokens"], contexts_per_s=ours.value["contexts"] / seconds,
        plain_sample_steps=case.sample, max_error=plain.value["max_error"])
    shutil.rmtree(work / "signal")


def load(city: str, size: str) -> "tuple[City, Teacher]":
    """Return the city and a teacher of that size with random weights, the same every time."""
    import torch

    from hoserkd.engine.city.grid import Grid
    from hoserkd.engine.city.storage import load_city
    from hoserkd.engine.device import resolve_device
    from hoserkd.engine.teacher.lmtad import LMTAD, LMTADDimensions
    from hoserkd.engine.teacher.storage import Teacher, TeacherCard

    town = load_city(Path(city))
    grid = Grid.covering(np.asarray(town.network.centroid_lonlat), CELL_DEG)
    torch.manual_seed(0)
    layers, heads, width = SIZES[size]
    model = LMTAD(LMTADDimensions(grid.cells + 3, 512, layers, heads, width))
    model = model.requires_grad_(False).eval().to(resolve_device("auto"))
    return town, Teacher(model, TeacherCard(
        size.replace(" ", "-"), model.dimensions, grid, sot_id=grid.cells + 2,
        eot_id=grid.cells + 1, pad_id=grid.cells, weights_sha256="", meta={}))


def precompute(city: str, window: str, size: str, directory: str) -> dict[str, Any]:
    """Store the signal of the training split; return what it took."""
    from hoserkd.engine.config import EngineConfig, PrecomputeConfig
    from hoserkd.engine.events import Silent, never_stop
    from hoserkd.engine.precompute import precompute_signal

    town, teacher = load(city, size)
    report = precompute_signal(
        EngineConfig(precompute=PrecomputeConfig(dtype="float32")), town, teacher, "train",
        observer=Silent(), stop=never_stop, device=teacher.model.device, window=_window(window),
        directory=Path(directory))
    return {"seconds": report.seconds, "steps": report.steps, "contexts": report.contexts,
            "plain_tokens": report.plain_tokens}


def ask_plainly(city: str, window: str, size: str, directory: str, sample: int) -> dict[str, Any]:
    """Ask about a sample of steps one context each; return the time and the largest difference."""
    import torch

    from hoserkd.engine.teacher.signal_files import open_signal

    town, teacher = load(city, size)
    files = open_signal(Path(directory) / "train", town, teacher)
    cells = teacher.grid.tokens(np.asarray(town.network.centroid_lonlat))
    trips, candidates = town.split("train"), town.network.candidates
    rng = np.random.default_rng(0)
    steps = rng.choice(trips.steps, size=sample, replace=False)
    trip = np.searchsorted(trips.step_offset(), steps, side="right") - 1
    point = steps + trip
    room = teacher.model.dimensions.block_size - 1 if window == "full" else int(window)
    first = np.maximum(trips.offset[trip], point - room + 1)
    contexts = [[teacher.sot_id, *cells[trips.road[a:b + 1]].tolist()]
                for a, b in zip(first, point, strict=True)]
    seconds, error = 0.0, 0.0
    for i in range(0, sample, PLAIN_BATCH):
        chosen = contexts[i:i + PLAIN_BATCH]
        began = time.perf_counter()
        answers = _last_logits(teacher, chosen)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds += time.perf_counter() - began
        for j, logits in enumerate(answers.cpu().numpy(), start=i):
            road = trips.road[point[j]]
            kept = candidates.road[candidates.offset[road]:candidates.offset[road + 1]]
            row = int(steps[j]) if files.step_row is None else int(files.step_row[steps[j]])
            stored = files.logits[files.row_offset[row]:files.row_offset[row + 1]]
            error = max(error, float(np.abs(stored - logits[cells[kept]]).max()))
    return {"seconds_a_step": seconds / sample, "max_error": error}


def _last_logits(teacher: "Teacher", contexts: list[list[int]]) -> Any:
    """Return the whole vocabulary's logits after each context, from one padded batch."""
    import torch

    longest = max(map(len, contexts))
    padded = torch.tensor([c + [teacher.pad_id] * (longest - len(c)) for c in contexts],
                          device=teacher.model.device)
    last = torch.tensor([len(c) - 1 for c in contexts], device=padded.device)
    with torch.no_grad():
        hidden = teacher.model(padded)
        return teacher.model.all_logits(hidden[torch.arange(len(contexts)), last])


def _window(text: str) -> "Window":
    return "full" if text == "full" else int(text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES + LONG])
    parser.add_argument("--quick", action="store_true", help="fewer trips, the small teacher")
    return parser.parse_args()


if __name__ == "__main__":
    main()
