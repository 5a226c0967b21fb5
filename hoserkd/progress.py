"""The engine's events as a bar on stderr, or as few plain lines where stderr is no terminal."""

import time
from collections.abc import Mapping

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from hoserkd.console import Console
from hoserkd.engine.events import (
    CheckpointSaved,
    EpochDone,
    Event,
    Note,
    Rewound,
    SplitJudged,
    StepDone,
)
from hoserkd.engine.events import Progress as Done
from hoserkd.text import duration_text, number_text

REFRESH_S = 0.5
"""Pause between two drawings of the bar: often enough to look alive, cheap enough not to count."""
LINE_S = 10.0
"""Pause between two plain lines of one job."""
SHOWN_METRICS = ("loss", "val_accuracy", "accuracy", "loss_kl", "trips_per_s", "completion",
                 "expansions_per_trip")


class Job:
    """One running job: what is done, since when, and how fast."""

    def __init__(self, name: str, now: float, done: int) -> None:
        self.name = name
        self.started = now
        self.first = done
        self.shown = now
        self.task: TaskID | None = None

    def pace(self, now: float, done: int, total: int | None) -> tuple[float | None, float | None]:
        """Return units a second and seconds to go, None where not known yet."""
        elapsed = now - self.started
        if elapsed < 0.2 or done <= self.first:
            return None, None
        rate = (done - self.first) / elapsed
        return rate, (total - done) / rate if total is not None else None


class ProgressObserver:
    """Shows progress, epochs and notes for one command."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.stderr.is_terminal and not console.quiet
        self._jobs: dict[str, Job] = {}
        self._bars: Progress | None = None
        console.before_output(self.close)

    def notify(self, event: Event) -> None:
        """Show `event` if the time has come."""
        match event:
            case StepDone():
                self._advance("training", event.step, event.total_steps, "optimiser steps",
                              event.metrics)
            case Done():
                self._advance(event.job, event.done, event.total, event.unit, event.metrics)
            case EpochDone():
                self._tell(f"epoch {event.epoch + 1}: {metrics_text(event.metrics)}")
            case SplitJudged():
                self._tell(f"{event.split}: {metrics_text(event.metrics)}")
            case CheckpointSaved():
                self._console.detail(f"{event.kind} checkpoint: {event.path}")
            case Rewound():
                self._jobs.pop("training", None)
                if event.step:
                    self._console.note(f"going on from step {event.step}")
            case Note():
                say = self._console.warn if event.level == "warning" else self._console.note
                say(event.message)

    def close(self) -> None:
        """Remove the bar and forget the jobs."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
        self._jobs.clear()

    def _tell(self, message: str) -> None:
        (self._console.note if self._live else self._console.detail)(message)

    def _advance(self, name: str, done: int, total: int | None, unit: str,
                 metrics: Mapping[str, float]) -> None:
        if self._console.quiet or not (self._live or self._console.verbosity):
            return
        now = time.monotonic()
        job = self._jobs.get(name)
        if job is None:
            job = self._jobs[name] = Job(name, now, done if total is None or done < total else 0)
        finished = total is not None and done >= total
        if not finished and now - job.shown < (REFRESH_S if self._live else LINE_S):
            return
        job.shown = now
        text = pace_text(*job.pace(now, done, total), unit, metrics)
        if self._live:
            self._draw(job, done, total, unit, text)
        else:
            of = f" of {total}" if total is not None else ""
            self._console.detail(f"{name}: {done}{of} {unit}{text and ', '}{text}")
        if finished:
            self._finish(name, job)

    def _draw(self, job: Job, done: int, total: int | None, unit: str, text: str) -> None:
        if self._bars is None:
            self._bars = Progress(
                TextColumn("{task.description}", markup=False), BarColumn(bar_width=24),
                TextColumn("{task.fields[count]}", markup=False),
                TextColumn("{task.fields[pace]}", style="dim", markup=False),
                console=self._console.stderr, auto_refresh=False, transient=True,
            )
            self._bars.start()
        if job.task is None:
            job.task = self._bars.add_task(job.name, total=total, count="", pace="")
        count = f"{done} {unit}" if total is None else f"{done}/{total} {unit}"
        self._bars.update(job.task, completed=done, total=total, count=count, pace=text)
        self._bars.refresh()

    def _finish(self, name: str, job: Job) -> None:
        del self._jobs[name]
        if self._bars is not None and job.task is not None:
            self._bars.remove_task(job.task)
            self._bars.refresh()
            if not self._jobs:
                self._bars.stop()
                self._bars = None


def pace_text(
    rate: float | None, left_s: float | None, unit: str, metrics: Mapping[str, float]
) -> str:
    """Return rate, time to go and the figures worth showing, as one short text."""
    parts = []
    if rate is not None:
        parts.append(f"{rate:,.0f} {unit}/s" if rate >= 100 else f"{rate:.3g} {unit}/s")
    if left_s is not None and left_s > 0:
        parts.append(f"{duration_text(left_s)} left")
    parts += [f"{k} {number_text(metrics[k])}" for k in SHOWN_METRICS if k in metrics]
    return ", ".join(parts)


def metrics_text(metrics: Mapping[str, float]) -> str:
    """Return metrics as `name value` pairs."""
    return "  ".join(f"{name} {number_text(value)}" for name, value in metrics.items())
