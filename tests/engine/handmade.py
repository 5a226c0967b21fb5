"""A handmade grid town, and trips through it, for the tests of the metrics."""

import numpy as np

from hoserkd.engine.types import Candidates, GeneratedTrips, RoadNetwork, TrajectorySet


def town(side: int = 5, seed: int = 0) -> RoadNetwork:
    """Return a town of side x side crossings, two directed roads between neighbours."""
    rng = np.random.default_rng(seed)
    node = {(x, y): (-122.4 + 0.002 * x, 37.7 + 0.0016 * y)
            for x in range(side) for y in range(side)}
    arcs = [(a, b) for a in node for b in node if abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1]
    start = np.array([node[a] for a, _ in arcs])
    end = np.array([node[b] for _, b in arcs])
    shape = np.stack([start, end], axis=1).reshape(-1, 2)
    follow = [[j for j, (c, d) in enumerate(arcs) if c == b and d != a] for a, b in arcs]
    roads = len(arcs)
    return RoadNetwork(
        road_id=np.arange(roads, dtype=np.int64),
        length_m=rng.uniform(160, 260, roads),
        highway=rng.integers(0, 2, roads).astype(np.int64),
        highway_names=("primary", "residential"),
        free_flow_kmh=rng.choice([30.0, 50.0], roads),
        centroid_lonlat=(start + end) / 2,
        start_lonlat=start,
        end_lonlat=end,
        shape_offset=np.arange(roads + 1, dtype=np.int64) * 2,
        shape_lonlat=shape,
        candidates=Candidates(
            np.concatenate([[0], np.cumsum([len(f) for f in follow])]).astype(np.int64),
            np.array([c for f in follow for c in f], dtype=np.int32),
        ),
        adjacency=np.empty((2, 0), np.int64),
        adjacency_attr=np.empty((0, 2), np.float32),
        zone=np.array([2 * (a[0] >= side / 2) + (a[1] >= side / 2) for a, _ in arcs], np.int32),
        zone_transitions=np.zeros((4, 4), np.int64),
    )


def pack(roads: list[list[int]], times: list[list[int]] | None = None) -> TrajectorySet:
    """Return lists of roads (and entry times; by default 10 s apart) as packed trips."""
    if times is None:
        times = [list(range(0, 10 * len(r), 10)) for r in roads]
    offset = np.concatenate([[0], np.cumsum([len(r) for r in roads])]).astype(np.int64)
    return TrajectorySet(
        offset,
        np.array([x for r in roads for x in r], dtype=np.int32),
        np.array([x for t in times for x in t], dtype=np.int64),
    )


def walks(network: RoadNetwork, count: int, seed: int, longest: int = 12) -> TrajectorySet:
    """Return random walks along the candidates, at random hours of two weeks."""
    rng = np.random.default_rng(seed)
    offset, candidate = network.candidates.offset, network.candidates.road
    roads, times = [], []
    for _ in range(count):
        here = int(rng.integers(network.roads))
        clock = int(rng.integers(1_211_000_000, 1_211_000_000 + 14 * 86400))
        path, entered = [here], [clock]
        for _ in range(int(rng.integers(1, longest))):
            here = int(rng.choice(candidate[offset[here]:offset[here + 1]]))
            clock += int(rng.integers(3, 60))
            path.append(here)
            entered.append(clock)
        roads.append(path)
        times.append(entered)
    return pack(roads, times)


def as_generated(trips: TrajectorySet) -> GeneratedTrips:
    """Return trips as if a generator had answered their own queries with them."""
    first, last = trips.offset[:-1], trips.offset[1:] - 1
    return GeneratedTrips(
        origin=trips.road[first].astype(np.int64),
        destination=trips.road[last].astype(np.int64),
        departure_s=trips.entered_at_s[first],
        offset=trips.offset,
        road=trips.road,
        entered_at_s=trips.entered_at_s,
        log_prob=np.full(len(trips), -1.0),
        reached=np.ones(len(trips), dtype=bool),
        reason=("reached",) * len(trips),
    )
