"""Cheapest paths over the road graph: the baselines that a generator must beat.

The search is A* whose lower bound is the straight chord to the destination times the least cost
per chord of any turn in the city. That bound is consistent whatever the data are (also where a
length is shorter than its chord), so every path is exactly the cheapest.
"""

import heapq
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int32, Int64

from hoserkd.engine.metrics.compiling import kernel, over_ranges
from hoserkd.engine.metrics.sphere import unit_vectors
from hoserkd.engine.types import Candidates, RoadNetwork, TrajectorySet

TURN_PRIOR = 0.5
"""Added to the count of every turn, so that one never taken stays possible (Jeffreys)."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Cheapest paths of Q queries, packed by road; an unreachable one has no road."""

    cost: Float64[np.ndarray, " Q"]
    """Sum over the turns; infinite where the destination cannot be reached."""
    offset: Int64[np.ndarray, " Q+1"]
    road: Int32[np.ndarray, " P"]


@kernel
def _cheapest(  # type: ignore[no-untyped-def] # pragma: no cover - compiled
    offset, road, turn_cost, end_xyz, per_chord, origin, destination, start, stop, cost, parents
):
    """Fill cost[start:stop] and, for each query, the parents on its path, last road first."""
    roads = len(offset) - 1
    best = np.full(roads, np.inf)
    parent = np.full(roads, -1, np.int32)
    touched = np.empty(roads, np.int32)
    for q in range(start, stop):
        goal, first = destination[q], origin[q]
        count = 1
        touched[0] = first
        best[first] = 0.0
        heap = [(0.0, 0.0, np.int64(first))]
        found = np.inf
        while len(heap) > 0:
            _, done, here = heapq.heappop(heap)
            if done > best[here]:
                continue
            if here == goal:
                found = done
                break
            for k in range(offset[here], offset[here + 1]):
                there = road[k]
                total = done + turn_cost[k]
                if total < best[there]:
                    if best[there] == np.inf:
                        touched[count] = there
                        count += 1
                    best[there] = total
                    parent[there] = here
                    dx = end_xyz[there, 0] - end_xyz[goal, 0]
                    dy = end_xyz[there, 1] - end_xyz[goal, 1]
                    dz = end_xyz[there, 2] - end_xyz[goal, 2]
                    bound = per_chord * np.sqrt(dx * dx + dy * dy + dz * dz)
                    heapq.heappush(heap, (total + bound, total, np.int64(there)))
        cost[q] = found
        path = [np.int32(goal)]
        if found < np.inf:
            here = goal
            while here != first:
                here = parent[here]
                path.append(np.int32(here))
        else:
            path.pop()
        parents[q - start] = np.array(path, dtype=np.int32)
        for t in range(count):
            best[touched[t]] = np.inf
            parent[touched[t]] = -1


@kernel
def _search(  # type: ignore[no-untyped-def] # pragma: no cover - compiled
    offset, road, turn_cost, end_xyz, per_chord, origin, destination, start, stop, cost
):
    """Return the reversed paths of queries start..stop and fill their costs."""
    paths = [np.empty(0, np.int32) for _ in range(stop - start)]
    _cheapest(offset, road, turn_cost, end_xyz, per_chord, origin, destination, start, stop, cost,
              paths)
    return paths


def _cost_per_chord(
    candidates: Candidates, turn_cost: Float64[np.ndarray, " K"], end: Float64[np.ndarray, "R 3"]
) -> float:
    """Return the least cost per chord between the ends of two consecutive roads."""
    source = np.repeat(np.arange(len(candidates.offset) - 1), np.diff(candidates.offset))
    chord = np.sqrt(((end[source] - end[candidates.road]) ** 2).sum(axis=1))
    far = chord > 0
    # A hair less, so that rounding cannot make the bound exceed the cost.
    return float((turn_cost[far] / chord[far]).min() * (1 - 1e-9)) if far.any() else 0.0


def cheapest_paths(
    network: RoadNetwork,
    turn_cost: Float64[np.ndarray, " K"],
    origin: Int64[np.ndarray, " Q"],
    destination: Int64[np.ndarray, " Q"],
) -> Paths:
    """Return the cheapest path from each origin to its destination.

    Args:
        turn_cost: Cost, at least 0, of going on to each candidate of each road.
    """
    end = unit_vectors(network.end_lonlat)
    candidates = network.candidates
    per_chord = _cost_per_chord(candidates, turn_cost, end)
    asked, back = np.unique(np.stack([origin, destination], axis=1), axis=0, return_inverse=True)
    cost = np.empty(len(asked))
    found: dict[int, list[Int32[np.ndarray, " _"]]] = {}
    first, last = np.ascontiguousarray(asked[:, 0]), np.ascontiguousarray(asked[:, 1])

    def work(start: int, stop: int) -> None:
        if stop > start:
            found[start] = _search(
                np.asarray(candidates.offset), np.asarray(candidates.road), turn_cost, end,
                per_chord, first, last, start, stop, cost,
            )

    over_ranges(work, len(asked))
    unique = [path[::-1] for start in sorted(found) for path in found[start]]
    paths = [unique[index] for index in back.reshape(-1)]
    length = np.array([len(path) for path in paths], dtype=np.int64)
    return Paths(
        cost=cost[back.reshape(-1)],
        offset=np.concatenate([[0], np.cumsum(length)]).astype(np.int64),
        road=np.concatenate([np.empty(0, np.int32), *paths]),
    )


def free_flow_s(network: RoadNetwork) -> Float64[np.ndarray, " R"]:
    """Return the seconds that each road takes at its free-flow speed."""
    return network.length_m / (network.free_flow_kmh / 3.6)


@kernel
def _count_turns(  # type: ignore[no-untyped-def] # pragma: no cover - compiled
    offset, candidate, trip_offset, road, counts
):
    for trip in range(len(trip_offset) - 1):
        for p in range(trip_offset[trip], trip_offset[trip + 1] - 1):
            here, there = road[p], road[p + 1]
            for k in range(offset[here], offset[here + 1]):
                if candidate[k] == there:
                    counts[k] += 1
                    break


def turn_counts(network: RoadNetwork, trips: TrajectorySet) -> Int64[np.ndarray, " K"]:
    """Return how often each candidate of each road was taken."""
    counts = np.zeros(len(network.candidates.road), dtype=np.int64)
    _count_turns(np.asarray(network.candidates.offset), np.asarray(network.candidates.road),
                 np.asarray(trips.offset), np.asarray(trips.road), counts)
    return counts


def turn_surprise(
    network: RoadNetwork, counts: Int64[np.ndarray, " K"]
) -> Float64[np.ndarray, " K"]:
    """Return -log of each turn's share of its road's turns, with `TURN_PRIOR` added to each."""
    offset = network.candidates.offset
    weight = counts + TURN_PRIOR
    source = np.repeat(np.arange(network.roads), np.diff(offset))
    total = np.bincount(source, weights=weight, minlength=network.roads)
    return np.maximum(-np.log(weight / total[source]), 0.0)


@kernel
def _add_steps(  # type: ignore[no-untyped-def] # pragma: no cover - compiled
    trip_offset, road, entered, total, count
):
    for trip in range(len(trip_offset) - 1):
        for p in range(trip_offset[trip], trip_offset[trip + 1] - 1):
            total[road[p]] += entered[p + 1] - entered[p]
            count[road[p]] += 1


def mean_step_s(
    network: RoadNetwork, trips: TrajectorySet
) -> Float64[np.ndarray, " R"]:
    """Return each road's mean time in `trips`; its free-flow time where no trip used it."""
    total, count = np.zeros(network.roads), np.zeros(network.roads)
    _add_steps(np.asarray(trips.offset), np.asarray(trips.road), np.asarray(trips.entered_at_s),
               total, count)
    return np.where(count > 0, total / np.maximum(count, 1), free_flow_s(network))


def timed_paths(
    paths: Paths, departure_s: Int64[np.ndarray, " Q"], road_s: Float64[np.ndarray, " R"]
) -> TrajectorySet:
    """Return the paths as trips that leave at `departure_s` and take `road_s` on each road."""
    spent = np.concatenate([[0.0], np.cumsum(road_s[paths.road])])
    start = np.repeat(spent[paths.offset[:-1]], np.diff(paths.offset))
    entered = np.repeat(departure_s, np.diff(paths.offset)) + np.rint(spent[:-1] - start)
    return TrajectorySet(paths.offset, paths.road, entered.astype(np.int64))
