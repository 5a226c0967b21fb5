"""Following one run's spool: what it has told so far, without the database."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from hoserkd.engine.metrics.catalogue import current_name
from hoserkd.store.spool import SPOOL, tail_events
from hoserkd.text import number_text
from hoserkd.tui.snapshot import CURVE_POINTS, Curve, thinned

TAIL_BYTES = 1 << 16
"""Enough of a spool's end for the newest figures of a run."""
TIMING_SAMPLES = 20
SPEED_SAMPLES = 50
NOTES = 200
ROUGH_POINTS = 8 * CURVE_POINTS
"""Points of a metric that are kept before they are thinned."""


@dataclass(slots=True)
class Following:
    """What has been read of a spool, brought up to date by `advance`.

    Attributes:
        whole: read from the start, so that curves are complete; else only the newest figures.
    """

    directory: Path
    whole: bool
    step: int | None = None
    total_steps: int | None = None
    epoch: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    evaluations: list[Mapping[str, Any]] = field(default_factory=list)
    artifacts: list[tuple[str, str]] = field(default_factory=list)
    """(kind, path) of the files that the run wrote."""
    _points: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    _of_epochs: set[str] = field(default_factory=set)
    """Names of the figures that epochs tell, not steps."""
    _timings: deque[Mapping[str, float]] = field(
        default_factory=lambda: deque(maxlen=TIMING_SAMPLES))
    _notes: deque[str] = field(default_factory=lambda: deque(maxlen=NOTES))
    _clock: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=SPEED_SAMPLES))
    _offset: int | None = None

    def advance(self) -> bool:
        """Read what is new; tell whether there was anything."""
        path = self.directory / SPOOL
        try:
            if self._offset is None:
                self._offset = 0 if self.whole else max(path.stat().st_size - TAIL_BYTES, 0)
            start = self._offset
            while path.stat().st_size > self._offset:
                events, end = tail_events(path, self._offset)
                if end == self._offset:
                    break
                self._offset = end
                for event in events:
                    self._take(event)
        except OSError:
            # No spool (yet, or not on this machine): there is nothing to follow.
            return False
        return self._offset > start

    def curves(self) -> dict[str, Curve]:
        """Return the curve of every metric, thinned."""
        return {name: thinned(name, points) for name, points in sorted(self._points.items())}

    @property
    def pace_per_s(self) -> float | None:
        """Optimiser steps, or units of another work, a second by the clock of the newest events.

        Validations and pauses count, so it tells when the run will end; how fast it trains tells
        `optimiser_steps_per_s`.
        """
        if len(self._clock) < 2:
            return None
        (first_at, first), (last_at, last) = self._clock[0], self._clock[-1]
        if last <= first or last_at <= first_at:
            return None
        return (last - first) / (last_at - first_at)

    def timings_ms(self) -> dict[str, float]:
        """Return the mean of the newest sampled timings, part by part."""
        names = list(dict.fromkeys(name for sample in self._timings for name in sample))
        return {name: sum(sample.get(name) or 0.0 for sample in self._timings) / len(self._timings)
                for name in names}

    def notes(self) -> tuple[str, ...]:
        """Return the newest notes, oldest first."""
        return tuple(self._notes)

    def _take(self, event: Mapping[str, Any]) -> None:
        kind = event["type"]
        if kind in ("step", "epoch", "progress", "system"):
            self._take_figures(kind, event)
        elif kind == "rewind":
            judged = event.get("judged")
            self._rewind(event["step"], event["step"] if judged is None else judged)
        elif kind == "evaluation":
            self.evaluations.append({"label": event.get("label", ""), **event.get("payload", {})})
            self._note(event, f"judged: {event.get('label', '')}")
        elif kind == "note":
            self._note(event, f"{event.get('level', '')}: {event.get('message', '')}")
        elif kind == "artifact":
            self.artifacts.append((str(event.get("kind", "")), str(event.get("path", ""))))
            self._note(event, f"wrote {event.get('path', '')}")
        elif kind == "end":
            self._note(event, f"{event.get('status', '')}: {event.get('message', '')}".rstrip(": "))
        else:
            self._note(event, kind)

    def _take_figures(self, kind: str, event: Mapping[str, Any]) -> None:
        figures = {current_name(name): float(value)
                   for name, value in (event.get("m") or {}).items()
                   if value is not None}
        self.metrics |= figures
        if kind == "progress":
            self.step, self.total_steps = event.get("done"), event.get("all")
        elif kind != "system":
            self.step, self.epoch = event.get("step"), event.get("epoch")
            self.total_steps = event.get("total", self.total_steps)
        if kind in ("step", "progress") and self.step is not None:
            self._tick(float(event.get("t", 0)), self.step)
        if event.get("ms"):
            self._timings.append(event["ms"])
        if kind == "epoch":
            self._of_epochs |= figures.keys()
            shown = "  ".join(f"{name} {number_text(value)}" for name, value in figures.items())
            self._note(event, f"epoch {event.get('epoch', 0) + 1}: {shown}")
        if self.whole and self.step is not None:
            for name, value in figures.items():
                self._add(name, float(self.step), value)

    def _tick(self, at: float, step: int) -> None:
        if self._clock and step < self._clock[-1][1]:
            self._clock.clear()
        self._clock.append((at, step))

    def _add(self, name: str, step: float, value: float) -> None:
        points = self._points.setdefault(name, [])
        points.append((step, value))
        if len(points) > ROUGH_POINTS:
            rough = thinned(name, points, ROUGH_POINTS // 2)
            self._points[name] = list(zip(rough.step, rough.value, strict=True))

    def _rewind(self, step: int, judged: int) -> None:
        for name, points in self._points.items():
            last = judged if name in self._of_epochs else step
            self._points[name] = [point for point in points if point[0] <= last]
        self.step = step
        self._clock.clear()

    def _note(self, event: Mapping[str, Any], text: str) -> None:
        clock = datetime.fromtimestamp(float(event.get("t", 0))).strftime("%H:%M:%S")
        self._notes.append(f"{clock}  {text}")
