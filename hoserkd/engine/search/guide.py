"""A guess of what the rest of a way costs, which lets a best-first search look ahead."""

import heapq
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from hoserkd.engine.city.storage import City
from hoserkd.engine.metrics.paths import turn_counts, turn_surprise
from hoserkd.engine.search.compiled import compiled


class Guide(NamedTuple):
    """The road graph turned round: which roads lead to each road, and at what cost."""

    offset: Int64[np.ndarray, " R+1"]
    road: Int32[np.ndarray, " K"]
    cost: Float64[np.ndarray, " K"]


def build_guide(city: City, weight: float) -> Guide:
    """Return a guide whose cost of a turn is `weight` times its surprise in the training trips.

    A turn's surprise is -log of its share among its road's turns, whatever the destination. A
    student that knows the destination is surprised less; so the weight should be below 1.
    """
    network = city.network
    cost = weight * turn_surprise(network, turn_counts(network, city.split("train")))
    candidates = network.candidates
    source = np.repeat(np.arange(network.roads, dtype=np.int32), np.diff(candidates.offset))
    order = np.argsort(candidates.road, kind="stable")
    count = np.bincount(candidates.road, minlength=network.roads)
    offset = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    return Guide(offset, source[order], np.ascontiguousarray(cost[order]))


def no_guide() -> Guide:
    """Return a guide of no road, for searches without one."""
    return Guide(np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0))


@compiled
def remaining_cost(guide: Guide, destination: int, cost: Float32[np.ndarray, " R"]) -> None:
    """Fill in the least cost from each road to the destination; infinite where there is no way."""
    cost[:] = np.inf
    cost[destination] = 0
    waiting = [(np.float32(0), np.int64(destination))]
    while len(waiting) > 0:
        done, road = heapq.heappop(waiting)
        if done > cost[road]:
            continue
        for k in range(guide.offset[road], guide.offset[road + 1]):
            before = guide.road[k]
            total = np.float32(done + guide.cost[k])
            if total < cost[before]:
                cost[before] = total
                heapq.heappush(waiting, (total, np.int64(before)))
