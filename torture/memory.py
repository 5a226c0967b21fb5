"""Memory of a run as long as a day's: a hundred thousand steps, told and recorded as ever."""

import math
import sys
import time
from pathlib import Path

from torture.ledger import Ledger, Tally

STEPS = 100_000
EVERY = 1000
"""Steps between two epochs' ends and checkpoints."""
GROWTH_MB = 16.0
"""More than this over the last four fifths is growth."""


def long_run(folder: Path, ledger: Ledger, steps: int = STEPS) -> None:
    """Record a long run while it is shown and followed; its memory must stay flat."""
    from hoserkd.console import Console
    from hoserkd.engine.events import Broadcast, EpochDone, Progress, StepDone
    from hoserkd.progress import ProgressObserver
    from hoserkd.store.runs import RunStore

    store = RunStore(folder / "long")
    tally = Tally("memory of a long run", "record, show and follow")
    run = store.create_run("train", "torture", "long")
    listeners = Broadcast((ProgressObserver(Console(quiet=True)), run))
    held, offset, began = [], 0, time.monotonic()
    for step in range(1, steps + 1):
        metrics = {f"metric_{number}": math.sin(step * number) for number in range(14)}
        listeners.notify(StepDone(step, step // EVERY, steps, metrics))
        if step % EVERY == 0:
            listeners.notify(EpochDone(step // EVERY, step, {"val_accuracy": step / steps}))
            listeners.notify(Progress("judging", step, steps, "trips"))
            _, offset = store.tail(run.run_id, offset)
        if step % (steps // 10) == 0:
            store.sync()
            held.append(resident_mb())
    run.finish("finished")
    growth = held[-1] - held[1]
    tally.more = {"steps": steps, "rss_mb": [round(value) for value in held],
                  "growth_mb": round(growth, 1),
                  "recorded_optimiser_steps_per_s": round(steps / (time.monotonic() - began))}
    tally.judge(f"{steps} steps", [f"memory grew by {growth:.0f} MB: {held}"] * (
        growth > GROWTH_MB))
    ledger.enter(tally)


def resident_mb() -> float:
    """Return the memory that this process holds, in MB."""
    import psutil

    return float(psutil.Process().memory_info().rss / 1e6)


def long_training(folder: Path, ledger: Ledger, steps: int) -> None:
    """Train a small student for many steps; its memory must stay flat."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "engine"))
    from toy_training import toy_city, toy_config

    from hoserkd.engine.events import Event, StepDone
    from hoserkd.engine.train import train_student

    held: list[float] = []

    class Watch:
        def notify(self, event: Event) -> None:
            """Look at the memory now and then."""
            if isinstance(event, StepDone) and event.step % max(steps // 10, 1) == 0:
                held.append(resident_mb())

    tally = Tally("memory of a long run", "train")
    began = time.monotonic()
    train_student(toy_config(epochs=steps // 5 + 1, max_steps=steps),
                  toy_city(folder / "toy"), directory=folder / "training", observer=Watch())
    growth = held[-1] - held[1]
    tally.more = {"steps": steps, "rss_mb": [round(value) for value in held],
                  "growth_mb": round(growth, 1),
                  "optimiser_steps_per_s": round(steps / (time.monotonic() - began))}
    tally.judge(f"{steps} steps", [f"memory grew by {growth:.0f} MB: {held}"] * (
        growth > GROWTH_MB))
    ledger.enter(tally)
