"""A run shown live in another tracker; it never blocks the run and never ends it."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from hoserkd.engine.events import EpochDone, Event, SplitJudged, StepDone
from hoserkd.store.trackers import Tracker

WAITING = 1000
"""Events that may wait for a slow tracker; later ones are dropped, and counted."""
CLOSE_S = 10.0
"""How long the end of a run waits for a tracker."""


class Mirror:
    """Passes events to a tracker from a thread of its own.

    Whatever the tracker does wrong ends the mirror, with one word to `on_failure`, and nothing
    else: the run's own record does not come from here.
    """

    def __init__(self, open_tracker: Callable[[], Tracker], on_failure: Callable[[str], None],
                 waiting: int = WAITING) -> None:
        self.dropped = 0
        self._open_tracker = open_tracker
        self._on_failure = on_failure
        self._queue: queue.Queue[tuple[Event, float] | None] = queue.Queue(waiting)
        self._failed = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="mirror")
        self._thread.start()

    def notify(self, event: Event) -> None:
        """Hand `event` over, or drop it where the tracker lags too far behind."""
        if self._failed.is_set() or not isinstance(event, StepDone | EpochDone | SplitJudged):
            return
        try:
            self._queue.put_nowait((event, time.time()))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Give the tracker a while to finish."""
        try:
            self._queue.put(None, timeout=CLOSE_S)
        except queue.Full:
            self._failed.set()
        self._thread.join(CLOSE_S)
        if self.dropped:
            self._on_failure(f"a tracker was too slow: {self.dropped} events were not mirrored")

    def _work(self) -> None:
        try:
            tracker = self._open_tracker()
            step = 0
            while (item := self._queue.get()) is not None and not self._failed.is_set():
                step = _write(tracker, *item, step)
            tracker.close()
        except Exception as error:  # noqa: BLE001 - foreign code, which must not end a run
            self._failed.set()
            self._on_failure(f"mirroring to a tracker has ended: {error}")


def _write(tracker: Any, event: Event, at_s: float, step: int) -> int:
    if isinstance(event, StepDone):
        tracker.scalars({f"train/{k}": v for k, v in event.metrics.items()}, event.step, at_s)
        if event.timings_ms:
            tracker.scalars({f"timings_ms/{k}": v for k, v in event.timings_ms.items()},
                            event.step, at_s)
        return event.step
    if isinstance(event, EpochDone):
        tracker.scalars({f"epoch/{k}": v for k, v in event.metrics.items()}, event.step, at_s)
    elif isinstance(event, SplitJudged):
        tracker.scalars({f"{event.split}/{k}": v for k, v in event.metrics.items()}, step, at_s)
    return step
