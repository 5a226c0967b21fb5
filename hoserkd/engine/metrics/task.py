"""Task level: does a generator do what it was asked, as people do it (ENGINE.md section 8)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from hoserkd.engine.geo import bearing_rad, folded_share, great_circle_m
from hoserkd.engine.metrics.packed import arrived, step_mask, sum_by_trip
from hoserkd.engine.metrics.paths import turn_counts
from hoserkd.engine.metrics.statistics import PackedCounts
from hoserkd.engine.types import GeneratedTrips, RoadNetwork, TrajectorySet

MOST_COMPARED = 10
"""Answers to one query that enter its diversity; more would only cost time."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often a model is right when it is so sure, in equal bins of its confidence."""

    confidence: Float64[np.ndarray, " b"]
    """Mean probability of the likeliest candidate; NaN in an empty bin."""
    accuracy: Float64[np.ndarray, " b"]
    count: Int64[np.ndarray, " b"]

    @property
    def ece(self) -> float:
        """Expected calibration error: mean |accuracy - confidence| over the steps."""
        filled = self.count > 0
        gap = np.abs(self.accuracy - self.confidence)[filled]
        return float((gap * self.count[filled]).sum() / max(self.count.sum(), 1))


@dataclass(frozen=True, slots=True)
class TimeErrors:
    """Errors of predicted step times."""

    mae_s: float
    mape: float
    """Mean |predicted - true| / max(true, 1 s)."""
    log_mape: float
    """The public "time MAPE": relative error of log1p(seconds), divided by max(true, 1)."""


def completion(
    generated: GeneratedTrips, centroid_lonlat: Float64[np.ndarray, "R 2"]
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """Return whether each query's path ends on its destination, and within 200 m of it.

    A query without a path, or for a road that the city lacks, is not completed.
    """
    has = (np.diff(generated.offset) > 0) & (generated.destination >= 0)
    last = generated.road[np.maximum(generated.offset[1:] - 1, 0)] if len(generated.road) else (
        np.zeros(len(has), np.int32))
    exact = arrived(generated)
    wanted = centroid_lonlat[np.maximum(generated.destination, 0)]
    near = has & (great_circle_m(centroid_lonlat[last], wanted) <= 200.0)
    return exact, near


def reliability(
    confidence: Float64[np.ndarray, " S"], correct: Bool[np.ndarray, " S"], bins: int = 15
) -> Reliability:
    """Return the reliability curve over `bins` equal bins of (0, 1]."""
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            np.bincount(index, weights=confidence, minlength=bins) / count,
            np.bincount(index, weights=correct, minlength=bins) / count,
            count.astype(np.int64),
        )


def time_errors(
    predicted_s: Float64[np.ndarray, " S"], true_s: Float64[np.ndarray, " S"]
) -> TimeErrors:
    """Return the errors of predicted step times, in seconds and in the public log form."""
    if not len(true_s):
        return TimeErrors(float("nan"), float("nan"), float("nan"))
    error = np.abs(predicted_s - true_s)
    true_log, predicted_log = np.log1p(true_s), np.log1p(np.maximum(predicted_s, 0))
    return TimeErrors(
        mae_s=float(error.mean()),
        mape=float((error / np.maximum(true_s, 1)).mean()),
        log_mape=float((np.abs(predicted_log - true_log) / np.maximum(true_log, 1)).mean()),
    )


def road_visits(trips: TrajectorySet, roads: int) -> PackedCounts:
    """Return the roads that each trip visits."""
    return PackedCounts(np.asarray(trips.offset), np.asarray(trips.road).astype(np.int64), roads)


def zone_changes(trips: TrajectorySet, zone: Int32[np.ndarray, " R"]) -> PackedCounts:
    """Return each trip's moves from zone to zone; column a * Z + b is a move from a to b."""
    zones = int(zone.max(initial=0)) + 1
    here = np.flatnonzero(step_mask(trips))
    of = zone[np.asarray(trips.road)].astype(np.int64)
    a, b = of[here], of[here + 1]
    moved = a != b
    counts = sum_by_trip(moved.astype(np.float64), trips.step_offset()).astype(np.int64)
    offset = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return PackedCounts(offset, (a * zones + b)[moved], zones * zones)


def used_columns(*rows: PackedCounts) -> tuple[PackedCounts, ...]:
    """Return the same rows with the columns that none of them uses left out."""
    used = np.unique(np.concatenate([r.column for r in rows]))
    return tuple(
        PackedCounts(r.offset, np.searchsorted(used, r.column), len(used)) for r in rows
    )


def path_length_m(
    trips: TrajectorySet, length_m: Float64[np.ndarray, " R"]
) -> Float64[np.ndarray, " N"]:
    """Return the summed length of the roads of each trip, first and last included."""
    return sum_by_trip(length_m[np.asarray(trips.road)], np.asarray(trips.offset))


def revisits(trips: TrajectorySet) -> Bool[np.ndarray, " N"]:
    """Return whether each trip enters a road a second time."""
    trip = np.repeat(np.arange(len(trips)), np.diff(trips.offset))
    road = np.asarray(trips.road).astype(np.int64)
    key = trip * (int(road.max(initial=0)) + 1) + road
    distinct = np.bincount(np.unique(key) // (int(road.max(initial=0)) + 1), minlength=len(trips))
    return np.asarray(distinct < np.diff(trips.offset))


def _jaccard_distance(a: frozenset[int], b: frozenset[int]) -> float:
    return 1 - len(a & b) / len(a | b)


def diversity(
    trips: TrajectorySet, origin: Int64[np.ndarray, " N"], destination: Int64[np.ndarray, " N"]
) -> Float64[np.ndarray, " g"]:
    """Return, for each origin and destination with several trips, how different they are.

    The mean over its pairs of trips of one minus the shared share of the two sets of roads.
    """
    keys = np.stack([origin, destination], axis=1)
    _, group = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    bounds = np.flatnonzero(np.diff(group.reshape(-1)[order])) + 1
    result = []
    for members in np.split(order, bounds):
        if len(members) < 2:
            continue
        sets = [frozenset(np.asarray(trips.road)[trips.offset[i]:trips.offset[i + 1]].tolist())
                for i in members[:MOST_COMPARED]]
        pairs = [_jaccard_distance(sets[i], sets[j]) for i in range(len(sets)) for j in range(i)]
        result.append(sum(pairs) / len(pairs))
    return np.array(result, dtype=np.float64)


def _right_steps(
    network: RoadNetwork, trips: TrajectorySet, score: Float64[np.ndarray, " k"],
    slot: Int64[np.ndarray, " k"], step_of: Int64[np.ndarray, " k"],
) -> Float64[np.ndarray, " S"]:
    """Return 1 for each step whose best-scored candidate (the first of equals) was taken."""
    here = np.flatnonzero(step_mask(trips))
    taken = np.asarray(trips.road)[here + 1]
    start = np.flatnonzero(np.concatenate([[True], step_of[1:] != step_of[:-1]]))
    top = np.repeat(np.maximum.reduceat(score, start), np.diff([*start, len(score)]))
    best = np.flatnonzero(score == top)
    first = best[np.concatenate([[True], step_of[best][1:] != step_of[best][:-1]])]
    chosen = np.full(len(here), -1, dtype=np.int64)
    chosen[step_of[first]] = network.candidates.road[slot[first]]
    return np.asarray(chosen == taken, dtype=np.float64)


def _step_candidates(
    network: RoadNetwork, trips: TrajectorySet
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """Return, packed over all steps, the place of each candidate and the step it belongs to."""
    here = np.flatnonzero(step_mask(trips))
    road = np.asarray(trips.road)[here]
    offset = network.candidates.offset
    count = (offset[road + 1] - offset[road]).astype(np.int64)
    step_of = np.repeat(np.arange(len(here)), count)
    within = np.arange(len(step_of)) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(offset[road], count) + within, step_of


def most_frequent_next(
    network: RoadNetwork, train: TrajectorySet, trips: TrajectorySet
) -> Float64[np.ndarray, " S"]:
    """Return 1 for each step that takes its road's most frequent turn of `train`."""
    slot, step_of = _step_candidates(network, trips)
    return _right_steps(network, trips, turn_counts(network, train)[slot].astype(np.float64),
                        slot, step_of)


def straightest_next(
    network: RoadNetwork, trips: TrajectorySet
) -> Float64[np.ndarray, " S"]:
    """Return 1 for each step that takes the candidate most nearly towards the destination."""
    slot, step_of = _step_candidates(network, trips)
    here = np.flatnonzero(step_mask(trips))
    end = network.end_lonlat
    goal = np.repeat(np.asarray(trips.road)[trips.offset[1:] - 1], np.diff(trips.step_offset()))
    at = end[np.asarray(trips.road)[here]]
    towards = bearing_rad(at, end[goal])[step_of]
    along = bearing_rad(at[step_of], end[network.candidates.road[slot]])
    return _right_steps(network, trips, -folded_share(along, towards), slot, step_of)
