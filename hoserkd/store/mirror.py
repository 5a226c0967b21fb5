"""A run shown live in another tracker; it never blocks the run and never ends it."""

import queue
import threading
import time
from collections.abc import Callable

from hoserkd.engine.events import EpochDone, Event, SplitJudged, StepDone
from hoserkd.store.trackers import Tracker

WAITING = 1000
"""Events that may wait for a slow tracker; later ones are dropped, and counted."""
CLOSE_S = 10.0
"""How long the end of a run waits for a tracker; what it has not taken by then is lost there."""


class Mirror:
    """Passes events to a tracker from a thread of its own.

    Whatever the tracker does wrong ends the mirror, with one word to `on_failure`, and nothing
    else: the run's own record does not come from here. The tracker is opened with the first event
    that it can show, so that runs without any leave nothing in it.
    """

    def __init__(self, open_tracker: Callable[[], Tracker], on_failure: Callable[[str], None],
                 waiting: int = WAITING, close_s: float = CLOSE_S) -> None:
        self.dropped = 0
        self._close_s = close_s
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
        """Give the tracker a while to finish, and say what it did not take."""
        deadline = time.monotonic() + self._close_s
        while self._thread.is_alive() and not self._failed.is_set():
            try:
                self._queue.put(None, timeout=0.05)
            except queue.Full:
                if time.monotonic() < deadline:
                    continue
            break
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._failed.is_set():
            return
        if self._thread.is_alive():
            self._failed.set()
            self._on_failure(f"a tracker does not answer: about {self._queue.qsize()} events "
                             f"and {self.dropped} dropped ones were not mirrored")
        elif self.dropped:
            self._on_failure(f"a tracker was too slow: {self.dropped} events were not mirrored")

    def _work(self) -> None:
        try:
            tracker: Tracker | None = None
            step = 0
            while (item := self._queue.get()) is not None and not self._failed.is_set():
                tracker = tracker or self._open_tracker()
                step = _write(tracker, *item, step)
            if tracker is not None:
                tracker.close()
        except Exception as error:  # noqa: BLE001 - foreign code, which must not end a run
            if not self._failed.is_set():
                self._failed.set()
                self._on_failure(f"mirroring to a tracker has ended: {error}")


def _write(tracker: Tracker, event: Event, at_s: float, step: int) -> int:
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
