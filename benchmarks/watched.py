"""By how much a training is slowed by its own recording, and by a dashboard that watches it.

    python -m benchmarks.watched [--steps 1500] [--page run] [--quick]

Trains the demo's student in one process, in short segments of steps in random order: `bare`
(nothing recorded, the dashboard halted), `recorded` (recorded, the dashboard halted), `watched`
(recorded, the dashboard at work on this run). Every step learns the same batch. Each triple of
segments gives two ratios; the figures are their medians with the error that a bootstrap gives
them, by the wall clock and by the training's own processor time, which other programs add little
to. `notify_percent` is the time spent in recording itself, measured call by call.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._report import Report
from benchmarks._terminal import Watcher
from hoserkd.engine.events import StepDone
from hoserkd.store.recorder import RunRecorder
from hoserkd.store.runs import RunStore

MODES = ("bare", "recorded", "watched")
SEGMENT = 10
"""Steps of a segment; what they tell comes to the recorder in parcels of as many."""
WARMUP = 20
BOOTSTRAPS = 400


@dataclass
class Segment:
    """Some steps done in one way."""

    mode: str
    wall_s: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)


class Alternating:
    """Passes a training's events to its recorder in some segments, and lets the dashboard work in
    some of those."""

    def __init__(self, recorder: RunRecorder, watcher: Watcher) -> None:
        self.segments: list[Segment] = []
        self.notify_s = 0.0
        self._recorder, self._watcher = recorder, watcher
        self._chance = random.Random(0)
        self._left: list[str] = []
        self._seen = 0
        self._wall, self._processor = time.perf_counter(), time.process_time()
        watcher.halt()

    def notify(self, event: Any) -> None:
        """Take an event of the training."""
        if not isinstance(event, StepDone):
            return
        if not self.segments:
            self._recorder.notify(event)
        elif self.segments[-1].mode != "bare":
            began = time.perf_counter()
            self._recorder.notify(event)
            self.notify_s += time.perf_counter() - began

    def __call__(self) -> bool:
        """Take the end of a step, after its events; never ask to stop."""
        self._seen += 1
        wall, processor = time.perf_counter(), time.process_time()
        if self.segments:
            self.segments[-1].wall_s.append(wall - self._wall)
            self.segments[-1].processor_s.append(processor - self._processor)
        if self._seen >= WARMUP and (self._seen - WARMUP) % SEGMENT == 0:
            self._change()
        self._wall, self._processor = time.perf_counter(), time.process_time()
        return False

    def _change(self) -> None:
        if not self._left:
            self._left = self._chance.sample(MODES, len(MODES))
        mode = self._left.pop()
        self.segments.append(Segment(mode))
        (self._watcher.go if mode == "watched" else self._watcher.halt)()


def slowdown(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the median of the pairs' ratios less one, and its bootstrap error; percent."""
    ratios = [100 * (ours / plain - 1) for ours, plain in pairs]
    chance = random.Random(1)
    drawn = [statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(BOOTSTRAPS)]
    return statistics.median(ratios), statistics.pstdev(drawn)


def add(report: Report, seen: Alternating, mode: str, against: str) -> None:
    """Print one comparison of segments."""
    triples = [seen.segments[i:i + 3] for i in range(0, len(seen.segments) - 3, 3)]
    figures: dict[str, float] = {"triples": len(triples)}
    means: dict[str, list[tuple[float, float]]] = {"wall_s": [], "processor_s": []}
    for triple in triples:
        by_mode = {segment.mode: segment for segment in triple}
        for clock, pairs in means.items():
            pairs.append((statistics.mean(getattr(by_mode[mode], clock)),
                          statistics.mean(getattr(by_mode[against], clock))))
    for clock, pairs in means.items():
        name = clock.removesuffix("_s")
        figures[f"slower_{name}_percent"], figures[f"error_{name}_percent"] = slowdown(pairs)
    recorded = [second for one in seen.segments if one.mode != "bare" for second in one.wall_s]
    figures["notify_percent"] = 100 * seen.notify_s / max(sum(recorded), 1e-9)
    report.add(f"{mode} against {against}",
               statistics.median(ours for ours, _ in means["wall_s"]),
               statistics.median(plain for _, plain in means["wall_s"]), **figures)


def train(folder: Path, steps: int, page: str) -> Alternating:
    """Train the demo's student and return what was seen of it."""
    import torch

    from hoserkd.engine.city.storage import load_city
    from hoserkd.engine.train import train_student
    from hoserkd.settings import config_json, load_profile, profile_folders, resolve_settings

    torch.set_num_threads(1)
    command = [sys.executable, "-m", "hoserkd", "prepare", "--profile", "demo", "--quiet",
               "--data-dir", str(folder), "--store", str(folder / "store")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    profile = load_profile("demo", profile_folders(folder))
    # One batch is the whole split, so that every step computes the same and steps can be compared.
    sets = ["distill.enabled=false", f"train.max_steps={steps}", "train.epochs=1000000",
            "train.validate_every=1000000", "data.train_share=0.02", "train.batch_size=100"]
    config = resolve_settings(profile, sets=sets).config
    store = RunStore(folder / "store")
    with store.create_run("train", "demo", "watched", config_json(config), 0, "cpu") as recorder:
        watcher = Watcher(store.directory, page, "watched")
        watcher.wait_for("watched", 120.0)
        seen = Alternating(recorder, watcher)
        try:
            train_student(config, load_city(folder / "cities" / "demo"),
                          directory=recorder.directory, observer=seen, stop=seen)
        finally:
            watcher.go()
            watcher.quit()
    return seen


def main() -> None:
    """Run the training and compare its segments."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--page", default="run", help="the page that the dashboard shows")
    parser.add_argument("--quick", action="store_true", help="300 steps")
    options = parser.parse_args()
    report = Report("watched")
    with tempfile.TemporaryDirectory() as folder:
        seen = train(Path(folder), 300 if options.quick else options.steps, options.page)
    add(report, seen, "recorded", "bare")
    add(report, seen, "watched", "recorded")
    add(report, seen, "watched", "bare")
    report.finish()


if __name__ == "__main__":
    main()
