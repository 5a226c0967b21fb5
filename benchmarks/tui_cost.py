"""What the dashboard costs: to start beside many runs, and while it watches a live one.

    python -m benchmarks.tui_cost [--runs 200] [--seconds 30] [--quick]

Makes a store with ended runs and one that a second process keeps writing (10 steps a second), and
starts real dashboards on terminals of 160 x 48. `start`: processor time until the live run is
shown, the bare start of Python taken off (`plain_s`). `idle PAGE`: processor seconds a second on
a page, which is the share of one core, and redraws a second.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._report import Report
from benchmarks._terminal import Watcher
from hoserkd.engine.config import EngineConfig
from hoserkd.engine.events import EpochDone, StepDone
from hoserkd.store.recorder import RunRecorder
from hoserkd.store.runs import RunStore

STEPS_PER_S = 10
STARTS = 3
SETTLING_S = 6.0
PATIENCE_S = 120.0


def step(recorder: RunRecorder, number: int, total: int) -> None:
    """Record one step as a distilled training does."""
    fall = math.exp(-number / 300)
    recorder.notify(StepDone(number, number // 1000, total, {
        "loss": 0.4 + 2 * fall, "loss_road": 0.3 + 1.5 * fall, "loss_time": 0.1 + 0.5 * fall,
        "loss_kl": 0.2 + fall, "accuracy": 0.9 - 0.5 * fall, "learning_rate": 1e-3,
        "grad_norm": 1.0, "temperature": 2.0, "lambda_kl": 0.01, "trips_per_s": 210.0,
        "trip_steps_per_s": 3400.0, "optimiser_steps_per_s": 10.0, "agreement": 0.8}, {
            "data": 2.0, "forward": 90.0, "backward": 130.0}
        if number % 20 == 0 else {}))


def make_store(directory: Path, runs: int) -> None:
    """Fill a store with ended runs of 400 steps."""
    store = RunStore(directory)
    config = json.dumps(EngineConfig().model_dump(mode="json"))
    for number in range(runs):
        with store.create_run("train", "demo", f"run-{number}", config, number, "cpu") as recorder:
            for index in range(1, 401):
                step(recorder, index, 400)
            recorder.notify(EpochDone(0, 400, {"val_accuracy": 0.8}))


def write_live(directory: Path) -> None:
    """Keep one run going until killed; it starts with 5,000 steps."""
    config = json.dumps(EngineConfig().model_dump(mode="json"))
    recorder = RunStore(directory).create_run("train", "demo", "live", config, 0, "cpu")
    number = 0
    while True:
        number += 1
        step(recorder, number, 100_000)
        if number > 5000:
            time.sleep(1 / STEPS_PER_S)


def bare_start_s() -> float:
    """Return the processor seconds of a Python that does nothing."""
    before = os.times()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    after = os.times()
    return (after.children_user + after.children_system
            - before.children_user - before.children_system)


def start(report: Report, place: Path, runs: int) -> None:
    """Measure how long it takes until the live run stands on the terminal."""
    bare = min(bare_start_s() for _ in range(STARTS))
    found = []
    for _ in range(STARTS):
        watcher = Watcher(place, "runs", "live")
        found.append(watcher.wait_for("live", PATIENCE_S))
        watcher.quit()
    report.add(f"start with {runs} runs", min(own for _, own in found) - bare, bare,
               wall_s=min(wall for wall, _ in found))


def idle(report: Report, place: Path, page: str, seconds: float) -> None:
    """Measure what watching costs a second."""
    watcher = Watcher(place, page, "live")
    watcher.wait_for("live", PATIENCE_S)
    time.sleep(SETTLING_S)
    used, drawn, began = watcher.processor_s(), watcher.redraws, time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - began
    report.add(f"idle {page}", (watcher.processor_s() - used) / passed,
               redraws_per_s=(watcher.redraws - drawn) / passed, seconds=passed)
    watcher.quit()


def main() -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--page", action="append")
    parser.add_argument("--quick", action="store_true", help="ten seconds on each of two pages")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write_live(options.write)
    report = Report("tui_cost")
    pages = options.page or ["runs", "run", *(() if options.quick else ("store",))]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "store"
        make_store(place, options.runs)
        writer = subprocess.Popen([sys.executable, "-m", "benchmarks.tui_cost",
                                   "--write", str(place)])
        try:
            while not any(run.name == "live" for run in RunStore(place).runs(limit=5)):
                time.sleep(0.2)
            start(report, place, options.runs)
            for page in pages:
                idle(report, place, page, 10.0 if options.quick else options.seconds)
        finally:
            writer.kill()
            writer.wait()
    report.finish()


if __name__ == "__main__":
    main()
