"""What can be wrong with a trip, judged against the road network."""

import csv
from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8

from hoserkd.engine.files import replacing
from hoserkd.engine.trips import kernels
from hoserkd.engine.types import Candidates


class Cause(IntEnum):
    """Why a trip was rejected. The values are the codes of `kernels`."""

    UNPARSABLE = kernels.UNPARSABLE
    LENGTHS_DIFFER = kernels.LENGTHS
    FEWER_THAN_2_ROADS = kernels.SHORT
    UNKNOWN_ROAD = kernels.UNKNOWN_ROAD
    NOT_CONNECTED = kernels.NOT_CONNECTED
    TIME_GOES_BACK = kernels.TIME_BACK
    TOO_MANY_ROADS = kernels.LONG

    @property
    def label(self) -> str:
        """The cause in words, as it is shown and written."""
        return LABELS[self]


LABELS = {
    Cause.UNPARSABLE: "unparsable",
    Cause.LENGTHS_DIFFER: "lengths differ",
    Cause.FEWER_THAN_2_ROADS: "fewer than 2 roads",
    Cause.UNKNOWN_ROAD: "unknown road",
    Cause.NOT_CONNECTED: "pair not in roadmap.rel",
    Cause.TIME_GOES_BACK: "time goes back",
    Cause.TOO_MANY_ROADS: f"more than {kernels.MOST_ROADS:,} roads",
}
UNPARSABLE_DETAIL = {
    kernels.BAD_CELLS: "the line has {b} cells, or a quote is not closed",
    kernels.BAD_ROADS: "rid_list is not a list of integers",
    kernels.BAD_TIMES: "time_list is not a list of YYYY-MM-DDTHH:MM:SSZ",
}
DETAIL = {
    Cause.LENGTHS_DIFFER: "{a} roads, {b} times",
    Cause.FEWER_THAN_2_ROADS: "{a} roads",
    Cause.UNKNOWN_ROAD: "road {a}",
    Cause.NOT_CONNECTED: "{a} to {b}",
    Cause.TIME_GOES_BACK: "at point {a}",
    Cause.TOO_MANY_ROADS: "{a} roads",
}


def detail_text(code: int, a: int, b: int) -> str:
    """Return in words what the details of a `Cause` say."""
    cause = Cause(code)
    detail = UNPARSABLE_DETAIL[a] if cause is Cause.UNPARSABLE else DETAIL[cause]
    return detail.format(a=a, b=b)


@dataclass(frozen=True, slots=True)
class ParsedTrips:
    """Lines of a trip file, packed by point; a line with a problem may have no points.

    `road` holds `geo_id` until `RoadJudge.judge` has replaced them by indices.
    """

    row: Int64[np.ndarray, " N"]
    """Row in the file; the header is row 1."""
    points: Int64[np.ndarray, " N"]
    road: Int64[np.ndarray, " P"]
    entered_at_s: Int64[np.ndarray, " P"]
    problem: UInt8[np.ndarray, " N"]
    """0, or the `Cause`."""
    detail_a: Int64[np.ndarray, " N"]
    detail_b: Int64[np.ndarray, " N"]


def sorted_candidates(candidates: Candidates) -> Int32[np.ndarray, " K"]:
    """Return each road's candidates in ascending order, packed as they were."""
    origin = np.repeat(np.arange(len(candidates.offset) - 1), np.diff(candidates.offset))
    return np.asarray(candidates.road[np.lexsort((candidates.road, origin))])


class RoadJudge:
    """Judges trips against one road network."""

    def __init__(self, road_id: Int64[np.ndarray, " R"], candidates: Candidates) -> None:
        self._road_id = road_id
        self._dense = bool(np.array_equal(road_id, np.arange(len(road_id))))
        self._offset = candidates.offset
        self._candidate = sorted_candidates(candidates)

    def judge(self, trips: ParsedTrips) -> None:
        """Mark bad trips in place and replace road ids by indices in the good ones."""
        kernels.judge_trips(
            self._road_id, self._dense, self._offset, self._candidate, trips.road,
            trips.entered_at_s, trips.points, trips.problem, trips.detail_a, trips.detail_b,
        )


def kept_trips(
    trips: ParsedTrips,
) -> tuple[Int64[np.ndarray, " M"], Int32[np.ndarray, " P"], Int64[np.ndarray, " P"]]:
    """Return the points of each good trip, their roads and their times."""
    good: Bool[np.ndarray, " N"] = trips.problem == kernels.OK
    if good.all():
        return trips.points, trips.road.astype(np.int32), trips.entered_at_s
    of_good = np.repeat(good, trips.points)
    return (
        trips.points[good],
        trips.road[of_good].astype(np.int32),
        trips.entered_at_s[of_good],
    )


@dataclass(slots=True)
class Rejections:
    """The rejected trips of all splits: counts by cause, and each one with its row."""

    counts: dict[str, Counter[Cause]] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    """Trips seen, good and bad."""
    _found: list[tuple[str, Int64[np.ndarray, "4 _"]]] = field(default_factory=list)

    def add(self, split: str, trips: ParsedTrips) -> None:
        """Count the judged trips of a part of `split`."""
        self.total[split] = self.total.get(split, 0) + len(trips.row)
        counts = self.counts.setdefault(split, Counter())
        bad = np.flatnonzero(trips.problem != kernels.OK)
        if len(bad) == 0:
            return
        causes, numbers = np.unique(trips.problem[bad], return_counts=True)
        for cause, number in zip(causes.tolist(), numbers.tolist(), strict=True):
            counts[Cause(cause)] += number
        columns = (trips.row, trips.problem, trips.detail_a, trips.detail_b)
        self._found.append((split, np.stack([column[bad].astype(np.int64) for column in columns])))

    @property
    def rejected(self) -> int:
        """How many trips were rejected."""
        return sum(counts.total() for counts in self.counts.values())

    @property
    def share(self) -> float:
        """Share of all trips that was rejected."""
        return self.rejected / max(sum(self.total.values()), 1)

    def by_split(self) -> dict[str, dict[str, int]]:
        """Return the counts by split and cause in words, most frequent first."""
        return {
            split: {cause.label: number for cause, number in counts.most_common()}
            for split, counts in self.counts.items()
        }

    def summary(self, split: str | None = None) -> str:
        """Return the counts by cause in words, of one split or of all, most frequent first."""
        totals: Counter[Cause] = Counter()
        for name, counts in self.counts.items():
            if split in (None, name):
                totals.update(counts)
        return ", ".join(f"{number} {cause.label}" for cause, number in totals.most_common())

    def save(self, path: Path) -> None:
        """Write `rejected.csv`: split, row, cause and detail of every rejected trip."""
        with replacing(path, "w") as file:
            writer = csv.writer(file)
            writer.writerow(("split", "row", "cause", "detail"))
            for split, found in self._found:
                for row, code, a, b in found.T.tolist():
                    writer.writerow((split, row, Cause(code).label, detail_text(code, a, b)))
