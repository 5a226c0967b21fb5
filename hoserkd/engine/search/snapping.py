"""From points to roads that a trip can start on and end on.

The nearest road alone will not do: a trip cannot start on a road that nothing follows, nor end on
one that nothing leads to, such as the way out of a cul-de-sac where cars cannot turn. Both lie as
near to a point as their opposite direction does.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components

from hoserkd.engine.config import GenerateConfig
from hoserkd.engine.geo import EARTH_RADIUS_M
from hoserkd.engine.search.frontier import reachable
from hoserkd.engine.types import RoadNetwork

MOST_AWAY_M = GenerateConfig().max_snap_m
"""How far a road may pass from a point that is taken to it, if nothing else is said."""


@dataclass(frozen=True, slots=True)
class Snapped:
    """The roads taken for the origins (column 0) and destinations (column 1) of N requests."""

    road: Int64[np.ndarray, "N 2"]
    """-1 where every usable road is too far away."""
    away_m: Float64[np.ndarray, "N 2"]
    """Metres to the road taken; where it is too far away, to that one."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Which roads lead where. A hub is the largest part of a network, or of a piece of it that
    has no link to the rest, in which every road leads to every other."""

    can_start: Bool[np.ndarray, " R"]
    """Some road follows."""
    can_end: Bool[np.ndarray, " R"]
    """Some road leads here."""
    piece: Int32[np.ndarray, " R"]
    """Piece of the network that the road belongs to."""
    to_hub: Bool[np.ndarray, " R"]
    """The hub of its piece can be reached from here."""
    from_hub: Bool[np.ndarray, " R"]
    """The road can be reached from the hub of its piece."""


def build_reach(network: RoadNetwork) -> Reach:
    """Return which roads lead where."""
    offset, follower = network.candidates.offset, network.candidates.road
    roads = network.roads
    graph = csr_matrix((np.ones(len(follower), np.int8), follower, offset), shape=(roads, roads))
    pieces, piece = connected_components(graph, directed=True, connection="weak")
    _, part = connected_components(graph, directed=True, connection="strong")
    size = np.bincount(part)[part]
    backwards = graph.T.tocsr()
    to_hub, from_hub = np.zeros(roads, bool), np.zeros(roads, bool)
    # Of each piece a road of its largest part: the last one when sorted by piece, then size.
    order = np.lexsort((size, piece))
    for hub in order[np.searchsorted(piece[order], np.arange(pieces), side="right") - 1]:
        from_hub[breadth_first_order(graph, hub, return_predecessors=False)] = True
        to_hub[breadth_first_order(backwards, hub, return_predecessors=False)] = True
    return Reach(np.diff(offset) > 0, np.bincount(follower, minlength=roads) > 0,
                 piece.astype(np.int32), to_hub, from_hub)


def snap_requests(
    network: RoadNetwork, lonlat: Float64[np.ndarray, "N 4"], most_away_m: float = MOST_AWAY_M
) -> Snapped:
    """Return the nearest roads that a trip from one to the other can be made of.

    The origin's road can be left, the destination's can be entered, and where the nearest such
    roads have no way between them, the nearest that have one are taken.

    Args:
        lonlat: Longitude and latitude of origin and destination, in degrees.
        most_away_m: Roads farther than this are not taken.
    """
    reach, segments = build_reach(network), _Segments(network)
    road, away_m = np.empty((len(lonlat), 2), np.int64), np.empty((len(lonlat), 2))
    for i, row in enumerate(lonlat):
        away = segments.away_m(row[:2]), segments.away_m(row[2:])
        road[i] = _ends(network, reach, *away, most_away_m)
        away_m[i] = away[0][road[i, 0]], away[1][road[i, 1]]
    return Snapped(np.where(away_m <= most_away_m, road, -1), away_m)


def _ends(
    network: RoadNetwork, reach: Reach, from_m: Float64[np.ndarray, " R"],
    to_m: Float64[np.ndarray, " R"], most_away_m: float,
) -> tuple[int, int]:
    """Return origin and destination, given each road's distance from either point."""
    first, last = _nearest(from_m, reach.can_start), _nearest(to_m, reach.can_end)
    candidates = network.candidates
    if (reach.piece[first] == reach.piece[last] and reach.to_hub[first] and reach.from_hub[last]
            ) or reachable(candidates.offset, candidates.road, first, last):
        return first, last
    pairs = []
    for piece in {int(reach.piece[first]), int(reach.piece[last])}:
        here = reach.piece == piece
        start = _nearest(from_m, reach.can_start & reach.to_hub & here)
        end = _nearest(to_m, reach.can_end & reach.from_hub & here)
        # Where nothing leads round, the hub is a single road, and no way from one point to another.
        if start != end:
            pairs.append((max(from_m[start], to_m[end]), start, end))
    farther, start, end = min(pairs, default=(np.inf, first, last))
    return (start, end) if farther <= most_away_m else (first, last)


def _nearest(away_m: Float64[np.ndarray, " R"], usable: Bool[np.ndarray, " R"]) -> int:
    """Return the nearest usable road, or the nearest at all where none is; of equals the first."""
    return int(np.where(usable, away_m, np.inf).argmin() if usable.any() else away_m.argmin())


class _Segments:
    """The straight pieces of all roads, for distances on a plane that touches the Earth at a point.

    That is exact to a percent within 100 km.
    """

    def __init__(self, network: RoadNetwork) -> None:
        points = np.diff(network.shape_offset)
        first = np.arange(len(network.shape_lonlat))
        last_of_road = np.zeros(len(first), bool)
        last_of_road[network.shape_offset[1:] - 1] = True
        # A road of a single point is a segment of no length.
        kept = ~last_of_road | np.repeat(points == 1, points)
        self._start = network.shape_lonlat[kept]
        self._end = network.shape_lonlat[np.where(last_of_road, first, first + 1)[kept]]
        pieces = np.maximum(points - 1, 1)
        self._first_of_road = np.concatenate([[0], np.cumsum(pieces)[:-1]])

    def away_m(self, point: Float64[np.ndarray, "2"]) -> Float64[np.ndarray, " R"]:
        """Return how many metres away each road passes."""
        scale = np.radians(EARTH_RADIUS_M) * np.array([np.cos(np.radians(point[1])), 1.0])
        away_deg = self._start - point
        # The point may be written on the other side of the antimeridian than the road is.
        away_deg[:, 0] -= 360.0 * np.round(away_deg[:, 0] / 360.0)
        a, way = away_deg * scale, (self._end - self._start) * scale
        length = np.maximum((way ** 2).sum(1), 1e-12)
        along = np.clip(-(a * way).sum(1) / length, 0.0, 1.0)
        away = ((a + along[:, None] * way) ** 2).sum(1)
        nearest: Float64[np.ndarray, " R"] = np.sqrt(
            np.minimum.reduceat(away, self._first_of_road))
        return nearest
