"""A made-up city of any size: a street grid with one-ways, and trips through it."""

import numpy as np

from hoserkd.engine.geo import folded_share, heading_rad
from hoserkd.engine.types import Candidates, RoadNetwork, TrajectorySet

BLOCK_DEG = 0.002
ONE_WAY_SHARE = 0.055
"""Share of the directed roads of the grid that are left out."""


def made_up_network(side: int = 103, zones: int = 300, seed: int = 0) -> RoadNetwork:
    """Return a city of about 3.8 * side^2 roads; 103 gives Beijing's 40,000 and 480,000 edges."""
    rng = np.random.default_rng(seed)
    x, y = np.divmod(np.arange(side * side), side)
    lonlat = np.stack([116.2 + BLOCK_DEG * x, 39.8 + BLOCK_DEG * y], axis=1)
    lonlat += rng.normal(0, BLOCK_DEG / 8, lonlat.shape)
    east = np.flatnonzero(x < side - 1)
    north = np.flatnonzero(y < side - 1)
    pair = np.concatenate(
        [np.stack([east, east + side]), np.stack([north, north + 1])], axis=1
    )
    tail, head = np.concatenate([pair, pair[::-1]], axis=1)
    kept = np.sort(rng.permutation(len(tail))[round(ONE_WAY_SHARE * len(tail)) :])
    tail, head = tail[kept], head[kept]
    start, end = lonlat[tail], lonlat[head]
    roads = len(tail)
    candidates = _candidates(tail, head, side * side)
    adjacency = _adjacency(tail, head, side * side)
    heading = heading_rad(start, end)
    source, target = adjacency
    turn = folded_share(heading[source], heading[target])
    attr = np.stack([turn, head[source] == tail[target]], axis=1).astype(np.float32)
    blocks = max(round(zones**0.5), 1)
    zone = (x[tail] * blocks // side) * blocks + y[tail] * blocks // side
    zone = zone.astype(np.int32)
    transitions = np.zeros((blocks * blocks, blocks * blocks), dtype=np.int64)
    np.add.at(transitions, (zone[source], zone[target]), 1)
    np.fill_diagonal(transitions, 0)
    return RoadNetwork(
        road_id=np.arange(roads),
        length_m=rng.uniform(80, 320, roads),
        highway=rng.integers(0, 12, roads),
        highway_names=tuple(f"class_{i:02d}" for i in range(12)),
        free_flow_kmh=np.full(roads, 40.0),
        centroid_lonlat=(start + end) / 2,
        start_lonlat=start,
        end_lonlat=end,
        shape_offset=np.arange(roads + 1) * 2,
        shape_lonlat=np.stack([start, end], axis=1).reshape(-1, 2),
        candidates=candidates,
        adjacency=adjacency,
        adjacency_attr=attr,
        zone=zone,
        zone_transitions=transitions,
    )


def made_up_trips(network: RoadNetwork, trips: int, seed: int = 0) -> TrajectorySet:
    """Return trips that head for a random point, log-normal in length, 29 roads in the mean."""
    rng = np.random.default_rng(seed)
    length = np.clip(rng.lognormal(3.25, 0.5, trips), 4, 150).astype(np.int64)
    longest = int(length.max())
    road = np.empty((longest, trips), dtype=np.int32)
    here = rng.integers(0, network.roads, trips)
    aim = rng.normal(0, 1, (trips, 2))
    offset, follow = network.candidates.offset, network.candidates.road
    for point in range(longest):
        road[point] = here
        count = offset[here + 1] - offset[here]
        options = follow[offset[here][:, None] + np.arange(4)[None] % count[:, None]]
        gain = ((network.end_lonlat[options] - network.end_lonlat[here][:, None])
                * aim[:, None]).sum(-1)
        here = options[np.arange(trips), (gain / BLOCK_DEG + rng.gumbel(size=gain.shape)).argmax(1)]
    member = np.arange(longest)[None] < length[:, None]
    step_s = rng.integers(3, 60, (trips, longest)).cumsum(1)
    entered = 1446336000 + rng.integers(0, 7 * 86400, (trips, 1)) + step_s
    return TrajectorySet(
        np.concatenate([[0], np.cumsum(length)]), road.T[member], entered[member]
    )


def _candidates(tail: np.ndarray, head: np.ndarray, nodes: int) -> Candidates:
    """Return every road that leaves a road's head, without its own reverse where others do."""
    order = np.argsort(tail, kind="stable")
    first = np.searchsorted(tail[order], np.arange(nodes + 1))
    follow = [order[first[node] : first[node + 1]] for node in head]
    chosen = []
    for road, options in enumerate(follow):
        onward = options[head[options] != tail[road]]
        chosen.append(onward if len(onward) else options)
    if min(map(len, chosen)) == 0:
        # A one-way may lead into a node that nothing leaves: go on from the road itself.
        chosen = [c if len(c) else np.array([road]) for road, c in enumerate(chosen)]
    offset = np.concatenate([[0], np.cumsum([len(c) for c in chosen])])
    return Candidates(offset.astype(np.int64), np.concatenate(chosen).astype(np.int32))


def _adjacency(tail: np.ndarray, head: np.ndarray, nodes: int) -> np.ndarray:
    """Return every ordered pair of different roads that share an end."""
    road = np.tile(np.arange(len(tail)), 2)
    node = np.concatenate([tail, head])
    order = np.argsort(node, kind="stable")
    at = np.split(road[order], np.searchsorted(node[order], np.arange(1, nodes)))
    pairs = [np.stack(np.meshgrid(r, r, indexing="ij")).reshape(2, -1) for r in at if len(r)]
    pair = np.unique(np.concatenate(pairs, axis=1), axis=1)
    return np.ascontiguousarray(pair[:, pair[0] != pair[1]])
