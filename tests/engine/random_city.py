"""A random road network and random walks on it, for the tests of the student."""

import numpy as np

from hoserkd.engine.types import Candidates, RoadNetwork, TrajectorySet

SATURDAY_S = 1446854400
"""2015-11-07T00:00:00."""


def random_network(
    roads: int = 40, zones: int = 4, longest: int = 5, seed: int = 0
) -> RoadNetwork:
    """Return a network whose roads have 1 to `longest` candidates and random neighbours."""
    rng = np.random.default_rng(seed)
    start = np.array([116.3, 39.9]) + rng.uniform(0, 0.04, (roads, 2))
    end = start + rng.normal(0, 0.003, (roads, 2))
    count = rng.integers(1, longest + 1, roads)
    follow = [rng.choice(roads, c, replace=False) for c in count]
    pair = rng.integers(0, roads, (2, 3 * roads))
    pair = np.unique(_both_ways(pair), axis=1)
    return RoadNetwork(
        road_id=np.arange(roads),
        length_m=rng.uniform(20, 900, roads),
        highway=rng.integers(0, 3, roads),
        highway_names=("primary", "residential", "service"),
        free_flow_kmh=np.full(roads, 40.0),
        centroid_lonlat=(start + end) / 2,
        start_lonlat=start,
        end_lonlat=end,
        shape_offset=np.arange(roads + 1) * 2,
        shape_lonlat=np.stack([start, end], axis=1).reshape(-1, 2),
        candidates=Candidates(
            np.concatenate([[0], np.cumsum(count)]), np.concatenate(follow).astype(np.int32)
        ),
        adjacency=pair,
        adjacency_attr=np.stack(
            [rng.uniform(0, 1, pair.shape[1]), rng.integers(0, 2, pair.shape[1])], axis=1
        ).astype(np.float32),
        zone=rng.integers(0, zones, roads).astype(np.int32),
        zone_transitions=rng.integers(0, 5, (zones, zones)) * (1 - np.eye(zones, dtype=np.int64)),
    )


def random_walks(
    network: RoadNetwork, trips: int = 12, longest: int = 9, seed: int = 0
) -> TrajectorySet:
    """Return trips of 2 to `longest` points along candidates, on weekdays and weekends."""
    rng = np.random.default_rng(seed)
    length = rng.integers(2, longest + 1, trips)
    road, time = [], []
    for points in length:
        here = int(rng.integers(network.roads))
        clock = SATURDAY_S + int(rng.integers(-4, 3)) * 43200 - int(rng.integers(0, 200))
        for _ in range(points):
            road.append(here)
            time.append(clock)
            first, last = network.candidates.offset[here : here + 2]
            here = int(rng.choice(network.candidates.road[first:last]))
            clock += int(rng.integers(0, 90))
    return TrajectorySet(
        np.concatenate([[0], np.cumsum(length)]),
        np.array(road, dtype=np.int32),
        np.array(time, dtype=np.int64),
    )


def _both_ways(pair: np.ndarray) -> np.ndarray:
    proper = pair[:, pair[0] != pair[1]]
    return np.concatenate([proper, proper[::-1]], axis=1)
