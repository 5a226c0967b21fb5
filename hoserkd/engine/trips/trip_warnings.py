"""Holding the trips of all splits against the roads, the calendar and each other."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt64

from hoserkd.engine.city.warnings import ColumnWarning
from hoserkd.engine.trips import kernels
from hoserkd.engine.trips.validation import ParsedTrips

FASTEST_KMH = 200.0
LEAST_M = 100.0
"""Over shorter ways one second more or less is already a speed of its own."""
SLOWEST_KMH = 1.0
FIRST_DAY, LAST_DAY = "1990-01-01", "2100-01-01"
"""Earlier nobody recorded trips; numbers taken for another unit or epoch end up there, or later."""
UNITS = "Are lengths in metres, and are the times right?"
LEAKS = (("test", "train"), ("test", "val"), ("val", "train"))


@dataclass(slots=True)
class _Split:
    """What has been seen of one split."""

    trips: int = 0
    fast: int = 0
    fast_example: str = ""
    slow: int = 0
    slow_example: str = ""
    odd: int = 0
    odd_example: str = ""
    row: list[Int64[np.ndarray, " _"]] = field(default_factory=list)
    content: list[UInt64[np.ndarray, " _"]] = field(default_factory=list)
    """Hash of the roads and times of each trip."""


class TripWatch:
    """Looks at the good trips of each split as they are read."""

    def __init__(self, length_m: Float64[np.ndarray, " R"]) -> None:
        self._length_m = length_m
        self._seen: dict[str, _Split] = {}
        self._name: dict[str, str] = {}

    def add(self, split: str, file: str, trips: ParsedTrips) -> None:
        """Look at some judged trips of `split`, which come from `file`."""
        seen = self._seen.setdefault(split, _Split())
        self._name[split] = file
        lines = len(trips.row)
        way_m, spent_s = np.zeros(lines), np.zeros(lines, np.int64)
        start_s, content = np.zeros(lines, np.int64), np.zeros(lines, np.uint64)
        kernels.describe_trips(self._length_m, trips.road, trips.entered_at_s, trips.points,
                               trips.problem, way_m, spent_s, start_s, content)
        good: Bool[np.ndarray, " N"] = trips.problem == kernels.OK
        seen.trips += int(good.sum())
        seen.row.append(trips.row[good])
        seen.content.append(content[good])
        kmh = 3.6 * way_m / np.maximum(spent_s, 1e-3)
        far = good & (way_m >= LEAST_M)

        def row_of(wrong: Bool[np.ndarray, " N"]) -> tuple[int, str]:
            i = int(np.argmax(wrong))
            return int(wrong.sum()), (f"row {trips.row[i]} of {file}: {way_m[i] / 1000:,.1f} km in "
                                      f"{spent_s[i]:,} s")

        fast, fast_example = row_of(far & (kmh > FASTEST_KMH))
        slow, slow_example = row_of(far & (kmh < SLOWEST_KMH))
        window = (np.datetime64(day, "s").astype(np.int64) for day in (FIRST_DAY, LAST_DAY))
        first, last = window
        odd = good & ((start_s < first) | (start_s >= last))
        if fast:
            seen.fast, seen.fast_example = seen.fast + fast, seen.fast_example or fast_example
        if slow:
            seen.slow, seen.slow_example = seen.slow + slow, seen.slow_example or slow_example
        if odd.any():
            i = int(np.argmax(odd))
            seen.odd += int(odd.sum())
            when = np.datetime64(int(start_s[i]), "s")
            seen.odd_example = seen.odd_example or f"row {trips.row[i]} of {file}: {when}"

    def warnings(self) -> Iterator[ColumnWarning]:
        """Yield what the trips contradict."""
        for split, seen in self._seen.items():
            file = self._name[split]
            if seen.fast:
                yield ColumnWarning(
                    "length-against-time", seen.fast, seen.trips,
                    f"trips of {file} are faster than {FASTEST_KMH:.0f} km/h on the whole",
                    seen.fast_example, UNITS)
            if 2 * seen.slow > seen.trips:
                yield ColumnWarning(
                    "length-against-time", seen.slow, seen.trips,
                    f"trips of {file} are slower than {SLOWEST_KMH:.0f} km/h on the whole",
                    seen.slow_example, UNITS)
            if seen.odd:
                yield ColumnWarning(
                    "times-against-calendar", seen.odd, seen.trips,
                    f"trips of {file} start before {FIRST_DAY[:4]} or after {LAST_DAY[:4]}",
                    seen.odd_example, "Are times in the right unit, and counted from 1970?")
        yield from self._leaks()

    def _leaks(self) -> Iterator[ColumnWarning]:
        for later, earlier in LEAKS:
            if later not in self._seen or earlier not in self._seen:
                continue
            here, there = (np.concatenate(self._seen[split].content) for split in (later, earlier))
            known = np.isin(here, there)
            if not known.any():
                continue
            i = int(np.argmax(known))
            j = int(np.argmax(there == here[i]))
            rows = [int(np.concatenate(self._seen[split].row)[k])
                    for split, k in ((later, i), (earlier, j))]
            yield ColumnWarning(
                f"{later}-against-{earlier}", int(known.sum()), len(here),
                f"trips of {self._name[later]} are in {self._name[earlier]} too, with the same "
                "roads and times",
                f"row {rows[0]}, which is row {rows[1]} there",
                "Figures on them say nothing about new trips.")
