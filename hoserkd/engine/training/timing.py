"""Where the time of a sampled step goes, without making the device wait."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

Mark = float | torch.cuda.Event


class PartTimer:
    """Times the named parts of the steps it is told to sample.

    On CUDA it leaves events in the stream, which include the time that the device waits for
    the host, and reads them only when `collect` is called.
    """

    def __init__(self, device: torch.device, interval: int) -> None:
        self._cuda = device.type == "cuda"
        self._interval = interval
        self._sampling: int | None = None
        self._marks: dict[int, list[tuple[str, Mark, Mark]]] = defaultdict(list)
        self._started: Mark = 0.0

    def begin(self, step: int) -> None:
        """Say which optimiser step (1 after the first) comes now."""
        sampled = self._interval > 0 and step % self._interval == 0
        self._sampling = step if sampled else None
        if sampled:
            self._started = self._mark()

    def end(self) -> None:
        """Say that the step is over; the whole of it is the part `step`."""
        if self._sampling is not None:
            self._marks[self._sampling].append(("step", self._started, self._mark()))
            self._sampling = None

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time the block as `name`; a name may come several times in a step."""
        if self._sampling is None:
            yield
            return
        start = self._mark()
        yield
        self._marks[self._sampling].append((name, start, self._mark()))

    def collect(self) -> dict[int, dict[str, float]]:
        """Return milliseconds by part for every sampled step since the last call."""
        if self._cuda and self._marks:
            torch.cuda.synchronize()
        marks, self._marks = self._marks, defaultdict(list)
        return {step: self._summed(parts) for step, parts in marks.items()}

    def _mark(self) -> Mark:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    @staticmethod
    def _summed(parts: list[tuple[str, Mark, Mark]]) -> dict[str, float]:
        total: dict[str, float] = defaultdict(float)
        for name, start, end in parts:
            total[name] += milliseconds(start, end)
        return dict(total)


def milliseconds(start: Mark, end: Mark) -> float:
    """Return the time between two marks of the same kind."""
    if isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
        return float(start.elapsed_time(end))
    assert isinstance(start, float)
    assert isinstance(end, float)
    return (end - start) * 1000
