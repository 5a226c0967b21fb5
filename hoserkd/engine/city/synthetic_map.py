"""The demo city's road map: a hierarchy of classes, rivers with few bridges, one-way streets."""

import itertools
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from hoserkd.engine.geo import great_circle_m

ORIGIN_LONLAT = (10.0, 50.0)
BLOCK_M = 240.0
DEG_PER_M = 1 / 111_195.0
ROADS_PER_NODE = 3.1
"""Directed roads that a crossing brings on average, measured."""


@dataclass(frozen=True, slots=True)
class DemoMap:
    """The made-up city's roads; places are in blocks, before they are put on the Earth."""

    tail: Int64[np.ndarray, " R"]
    """Crossing where each road begins."""
    head: Int64[np.ndarray, " R"]
    highway: tuple[str, ...]
    bridge: tuple[bool, ...]
    oneway: tuple[bool, ...]
    shape: tuple[Float64[np.ndarray, "_ 2"], ...]
    """Points of each road as lon, lat, rounded to 1e-7 degrees."""
    length_m: Float64[np.ndarray, " R"]
    middle: Float64[np.ndarray, "R 2"]
    """Middle of each road, in shares of the city's width and height."""
    river_nearness: Float64[np.ndarray, " R"]
    """1 at the first river, towards 0 away from it."""
    origin: Int64[np.ndarray, " K"]
    destination: Int64[np.ndarray, " K"]

    @property
    def roads(self) -> int:
        """Number of roads."""
        return len(self.tail)


@dataclass(slots=True)
class _Streets:
    """Streets while the map grows: crossings, and segments between two of them."""

    place: Float64[np.ndarray, "C 2"]
    segments: list[tuple[int, int, str, bool, int]] = field(default_factory=list)
    """From, to, class, bridge, and 0 for both directions or 1 for the first only."""
    turning_places: set[int] = field(default_factory=set)
    """Ends of dead-end streets where a car may turn round."""
    spurs: set[int] = field(default_factory=set)
    """Ends of dead-end streets."""


def build_demo_map(roads: int, seed: int) -> DemoMap:
    """Return a map of about `roads` roads."""
    crossings = roads / ROADS_PER_NODE
    best = made = _map_of_size(crossings, seed)
    for _ in range(8):
        if abs(best.roads - roads) <= 0.03 * roads:
            break
        crossings *= roads / made.roads
        made = _map_of_size(crossings, seed)
        best = min(best, made, key=lambda tried: abs(tried.roads - roads))
    return best


def _map_of_size(crossings: float, seed: int) -> DemoMap:
    rng = np.random.default_rng([seed, 1])
    columns = max(round(float(np.sqrt(crossings * 1.15))), 5)
    rows = max(round(crossings / columns), 4)
    streets = _lay_streets(columns, rows, rng)
    return _as_map(streets, columns, rows, rng)


def _line_class(line: int, lines: int) -> str:
    if line in (0, lines - 1):
        return "motorway"
    return {2: "primary", 4: "secondary", 6: "tertiary"}.get(line % 7, "residential")


def _river_row(column: Float64[np.ndarray, "*n"], columns: int, rows: int) -> Float64[
    np.ndarray, "*n"
]:
    """Return the row at which the first river crosses each column."""
    bend: Float64[np.ndarray, "*n"] = 0.47 * rows - 0.25 + 0.11 * rows * np.sin(
        2 * np.pi * column / columns + 0.6
    )
    return bend


def _crosses_water(
    a: tuple[int, int], b: tuple[int, int], columns: int, rows: int
) -> bool:
    ends = np.array([a, b], np.float64)
    side = ends[:, 1] - _river_row(ends[:, 0], columns, rows)
    if side[0] * side[1] < 0:
        return True
    tributary = 0.63 * columns - 0.25 + 0.3 * np.sin(ends[:, 1])
    east = ends[:, 0] - tributary
    return bool(columns >= 12 and side.min() > 0 and east[0] * east[1] < 0)


def _lay_streets(columns: int, rows: int, rng: np.random.Generator) -> _Streets:
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows), indexing="ij"), axis=-1)
    place = grid.reshape(-1, 2) + rng.uniform(-0.16, 0.16, (columns * rows, 2))
    streets = _Streets(place)
    for line in range(columns):
        _lay_line(streets, [(line, j) for j in range(rows)], line, columns, (columns, rows), rng)
    for line in range(rows):
        _lay_line(streets, [(i, line) for i in range(columns)], line, rows, (columns, rows), rng)
    _add_spurs(streets, max(3, columns * rows // 45), columns, rows, rng)
    return streets


def _lay_line(
    streets: _Streets,
    nodes: list[tuple[int, int]],
    line: int,
    lines: int,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> None:
    """Lay one straight street of the grid, with its gaps, bridges and direction."""
    columns, rows = size
    kind = _line_class(line, lines)
    minor = kind in ("residential", "tertiary")
    one_way = kind == "residential" and rng.random() < 0.6
    backwards = bool(line % 2)
    for k, (a, b) in enumerate(itertools.pairwise(nodes)):
        at_ring = k in (0, len(nodes) - 2) and kind != "motorway"
        wet = _crosses_water(a, b, columns, rows)
        missing = rng.random() < 0.06
        single = rng.random() < 0.04
        if (at_ring or wet or missing) and minor:
            continue
        if wet and kind == "secondary" and missing:
            continue
        segment_kind = "motorway_link" if at_ring else kind
        ends = (a, b) if not backwards else (b, a)
        first, second = (i * rows + j for i, j in ends)
        streets.segments.append(
            (first, second, segment_kind, wet, int(one_way or (minor and single)))
        )


def _add_spurs(
    streets: _Streets, spurs: int, columns: int, rows: int, rng: np.random.Generator
) -> None:
    """Add dead-end streets; at every second one's end a car may turn round."""
    inner = [i * rows + j for i in range(1, columns - 1) for j in range(1, rows - 1)]
    used = {node for segment in streets.segments for node in segment[:2]}
    chosen = rng.permutation([node for node in inner if node in used])[:spurs]
    ends = streets.place[chosen] + rng.uniform(0.3, 0.45, (len(chosen), 2))
    first = len(streets.place)
    streets.place = np.concatenate([streets.place, ends])
    for k, node in enumerate(chosen.tolist()):
        streets.segments.append((node, first + k, "residential", False, 0))
        streets.spurs.add(first + k)
        if k % 2:
            streets.turning_places.add(first + k)


def _as_map(
    streets: _Streets, columns: int, rows: int, rng: np.random.Generator
) -> DemoMap:
    lonlat = np.array(ORIGIN_LONLAT) + streets.place * BLOCK_M * DEG_PER_M / np.array(
        [np.cos(np.radians(ORIGIN_LONLAT[1])), 1.0]
    )
    tail, head, kinds, bridges, one_ways, shapes = [], [], [], [], [], []
    for a, b, kind, bridge, one_way in streets.segments:
        shape = _bent(lonlat[a], lonlat[b], 0.02 if bridge else 0.05, rng)
        directions = ((a, b, shape),) if one_way else ((a, b, shape), (b, a, shape[::-1]))
        for begin, end, points in directions:
            tail.append(begin)
            head.append(end)
            kinds.append(kind)
            bridges.append(bridge)
            one_ways.append(bool(one_way))
            shapes.append(points)
    tails, heads = np.array(tail), np.array(head)
    kept = _connected_roads(tails, heads, streets)
    index = np.flatnonzero(kept)
    origin, destination = _turns(tails[kept], heads[kept], streets)
    shapes = [shapes[i] for i in index]
    middle = (streets.place[tails[kept]] + streets.place[heads[kept]]) / 2
    off_river = middle[:, 1] - _river_row(middle[:, 0], columns, rows)
    return DemoMap(
        tail=tails[kept],
        head=heads[kept],
        highway=tuple(kinds[i] for i in index),
        bridge=tuple(bridges[i] for i in index),
        oneway=tuple(one_ways[i] for i in index),
        shape=tuple(shapes),
        length_m=np.array([great_circle_m(s[:-1], s[1:]).sum() for s in shapes]).round(3),
        middle=middle / np.array([columns - 1, rows - 1]),
        river_nearness=np.exp(-np.abs(off_river)),
        origin=origin,
        destination=destination,
    )


def _bent(
    a: Float64[np.ndarray, "2"],
    b: Float64[np.ndarray, "2"],
    bend: float,
    rng: np.random.Generator,
) -> Float64[np.ndarray, "_ 2"]:
    """Return a polyline from a to b that leaves the straight line a little."""
    inner = int(rng.integers(0, 3))
    share = np.linspace(0, 1, inner + 2)[:, None]
    side = np.array([a[1] - b[1], b[0] - a[0]])
    swing = rng.normal(0, bend) * np.sin(np.pi * share)
    points: Float64[np.ndarray, "_ 2"] = np.round(a + (b - a) * share + side * swing, 7)
    return points


def _turns(
    tail: Int64[np.ndarray, " R"], head: Int64[np.ndarray, " R"], streets: _Streets
) -> tuple[Int64[np.ndarray, " K"], Int64[np.ndarray, " K"]]:
    """Return the pairs of roads that follow each other; turning round needs a turning place."""
    leaving: dict[int, list[int]] = {}
    for road, node in enumerate(tail.tolist()):
        leaving.setdefault(node, []).append(road)
    pairs = [
        (road, after)
        for road, node in enumerate(head.tolist())
        for after in leaving.get(node, [])
        if head[after] != tail[road] or node in streets.turning_places
    ]
    origin, destination = np.array(pairs, np.int64).reshape(-1, 2).T
    return origin, destination


def _connected_roads(
    tail: Int64[np.ndarray, " R"], head: Int64[np.ndarray, " R"], streets: _Streets
) -> Bool[np.ndarray, " R"]:
    """Return which roads belong to the part where all reach all, or to a dead end off it."""
    origin, destination = _turns(tail, head, streets)
    roads = len(tail)
    graph = csr_matrix((np.ones(len(origin)), (origin, destination)), shape=(roads, roads))
    _, component = connected_components(graph, directed=True, connection="strong")
    main: Bool[np.ndarray, " R"] = component == np.bincount(component).argmax()
    nodes = np.unique(np.concatenate([tail[main], head[main]]))
    spur = np.isin(tail, list(streets.spurs)) | np.isin(head, list(streets.spurs))
    of_spur: Bool[np.ndarray, " R"] = spur & (np.isin(tail, nodes) | np.isin(head, nodes))
    kept: Bool[np.ndarray, " R"] = main | of_spur
    return kept
