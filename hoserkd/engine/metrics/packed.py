"""Choosing and describing trips in the packed form."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64

from hoserkd.engine.types import GeneratedTrips, TrajectorySet


def take_trips(trips: TrajectorySet, index: Int64[np.ndarray, " n"]) -> TrajectorySet:
    """Return the trips with these numbers, in this order, in memory."""
    length = np.diff(trips.offset)[index]
    offset = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    point = np.arange(offset[-1]) + np.repeat(trips.offset[index] - offset[:-1], length)
    road, entered = np.asarray(trips.road), np.asarray(trips.entered_at_s)
    return TrajectorySet(offset, road[point], entered[point])


def arrived(generated: GeneratedTrips) -> Bool[np.ndarray, " N"]:
    """Return whether each path's last road is its destination: the definition of `reached`.

    A query without a path, or for a road that the city lacks, has not arrived.
    """
    has = (np.diff(generated.offset) > 0) & (generated.destination >= 0)
    result: Bool[np.ndarray, " N"] = np.zeros(len(generated), bool)
    last = generated.road[generated.offset[1:][has] - 1]
    result[has] = last == generated.destination[has]
    return result


def join_sets(sets: Sequence[TrajectorySet]) -> TrajectorySet:
    """Return the trips of several sets one after another, in memory."""
    length = np.concatenate([np.empty(0, np.int64), *(np.diff(each.offset) for each in sets)])
    return TrajectorySet(
        np.concatenate([[0], np.cumsum(length)]).astype(np.int64),
        np.concatenate([np.empty(0, np.int32), *(each.road for each in sets)]),
        np.concatenate([np.empty(0, np.int64), *(each.entered_at_s for each in sets)]))


def answered(generated: GeneratedTrips) -> Int64[np.ndarray, " n"]:
    """Return the numbers of the queries whose answer has at least two roads."""
    return np.flatnonzero(np.diff(generated.offset) >= 2)


def as_trajectories(generated: GeneratedTrips) -> TrajectorySet:
    """Return the generated paths as trips, one a query, however short."""
    return TrajectorySet(generated.offset, generated.road, generated.entered_at_s)


def origins(trips: TrajectorySet) -> Int64[np.ndarray, " N"]:
    """Return the first road of each trip. Every trip must have a point."""
    return np.asarray(np.asarray(trips.road)[trips.offset[:-1]], dtype=np.int64)


def destinations(trips: TrajectorySet) -> Int64[np.ndarray, " N"]:
    """Return the last road of each trip. Every trip must have a point."""
    return np.asarray(np.asarray(trips.road)[trips.offset[1:] - 1], dtype=np.int64)


def departures_s(trips: TrajectorySet) -> Int64[np.ndarray, " N"]:
    """Return the entry time of each trip's first road."""
    return np.asarray(np.asarray(trips.entered_at_s)[trips.offset[:-1]], dtype=np.int64)


def step_mask(trips: TrajectorySet) -> np.ndarray:
    """Return, for each point, whether a step starts there (all but each trip's last)."""
    mask = np.ones(len(trips.road), dtype=bool)
    mask[trips.offset[1:] - 1] = False
    return mask


def sum_by_trip(
    values: Float64[np.ndarray, " S"], offset: Int64[np.ndarray, " N+1"]
) -> Float64[np.ndarray, " N"]:
    """Return the sum over each packed row; 0 for an empty one."""
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    # Differences of a running sum lose digits over millions of values; rows that are not empty
    # are summed by reduceat, which does not.
    result = total[offset[1:]] - total[offset[:-1]]
    filled = np.flatnonzero(np.diff(offset) > 0)
    if len(filled):
        result[filled] = np.add.reduceat(values, offset[filled])
    return np.asarray(result)


def ranks_within(keys: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Return how many earlier entries have the same key, for each entry."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    changed = ordered[1:] != ordered[:-1]
    first = np.flatnonzero(np.concatenate([[True], changed])[: len(keys)])
    start = np.repeat(first, np.diff(np.concatenate([first, [len(keys)]])))
    rank = np.empty(len(keys), dtype=np.int64)
    rank[order] = np.arange(len(keys)) - start
    return rank
