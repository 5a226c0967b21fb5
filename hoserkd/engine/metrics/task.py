"""Task level: does a generator do what it was asked, as people do it (ENGINE.md section 8)."""

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from hoserkd.engine.geo import bearing_rad, folded_share, great_circle_m
from hoserkd.engine.metrics.packed import (
    arrived,
    departures_s,
    destinations,
    origins,
    step_mask,
    sum_by_trip,
    take_trips,
)
from hoserkd.engine.metrics.paths import cheapest_paths, turn_counts
from hoserkd.engine.metrics.soundness import find_faults
from hoserkd.engine.metrics.statistics import PackedCounts
from hoserkd.engine.types import GeneratedTrips, RoadNetwork, TrajectorySet

MOST_COMPARED = 10
"""Answers to one query that enter its diversity; more would only cost time."""


def completion(
    generated: GeneratedTrips, centroid_lonlat: Float64[np.ndarray, "R 2"]
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """Return whether each query's path ends on its destination, and within 200 m of it.

    A query without a path is not completed; which queries can be judged says `asked_queries`.
    """
    has = (np.diff(generated.offset) > 0) & (generated.destination >= 0)
    last = generated.road[np.maximum(generated.offset[1:] - 1, 0)] if len(generated.road) else (
        np.zeros(len(has), np.int32))
    exact = arrived(generated)
    wanted = centroid_lonlat[np.maximum(generated.destination, 0)]
    near = has & (great_circle_m(centroid_lonlat[last], wanted) <= 200.0)
    return exact, near


def asked_queries(generated: GeneratedTrips) -> Bool[np.ndarray, " N"]:
    """Return which queries ask for a way between two different roads that the city has.

    Only these can be completed or not: one that starts on its destination has arrived, and where
    a file does not say what was requested, every trip ends where it ends.
    """
    if not generated.stated:
        return np.zeros(len(generated), dtype=bool)
    known = (generated.origin >= 0) & (generated.destination >= 0)
    return np.asarray(known & (generated.origin != generated.destination))


def same_road(generated: GeneratedTrips) -> Bool[np.ndarray, " N"]:
    """Return which queries start on their destination."""
    known = generated.stated & (generated.origin >= 0)
    return np.asarray(known & (generated.origin == generated.destination))


def copied_trips(trips: TrajectorySet, real: TrajectorySet) -> int:
    """Return how many trips of two roads or more equal a real one, roads and times alike."""
    keys = [_trip_keys(take_trips(each, np.flatnonzero(np.diff(each.offset) >= 2)))
            for each in (trips, real)]
    number = np.unique(np.concatenate(keys), axis=0, return_inverse=True)[1].reshape(-1)
    return int(np.isin(number[:len(keys[0])], number[len(keys[0]):]).sum())


def _trip_keys(trips: TrajectorySet) -> Float64[np.ndarray, "N 6"]:
    """Return numbers that two trips share only if roads and times are the same.

    Ends, departure, length, and sums of roads and of times weighted by their place in the trip.
    """
    length = np.diff(trips.offset)
    place = np.arange(len(trips.road)) - np.repeat(trips.offset[:-1], length) + 1.0
    spent = trips.entered_at_s - np.repeat(departures_s(trips), length)
    return np.stack([origins(trips), destinations(trips), departures_s(trips), length,
                     sum_by_trip(place * trips.road, trips.offset),
                     sum_by_trip(place * spent, trips.offset)], axis=1)


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


def shortest_length_m(
    network: RoadNetwork, origin: Int64[np.ndarray, " N"], destination: Int64[np.ndarray, " N"]
) -> Float64[np.ndarray, " N"]:
    """Return the length of the shortest way, first and last road included; NaN without a way."""
    cost = cheapest_paths(
        network, network.length_m[network.candidates.road], origin, destination).cost
    return np.where(np.isfinite(cost), cost + network.length_m[origin], np.nan)


def length_ratios(network: RoadNetwork, trips: TrajectorySet) -> Float64[np.ndarray, " N"]:
    """Return each trip's length over that of the shortest way between its own ends.

    NaN where the road graph has no way, and where the trip takes a move that the network lacks: a
    trip from elsewhere may jump, and be shorter than any way.
    """
    shortest = shortest_length_m(network, origins(trips), destinations(trips))
    ratio = path_length_m(trips, np.asarray(network.length_m)) / shortest
    return np.where(find_faults(network, trips).possible, ratio, np.nan)


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
