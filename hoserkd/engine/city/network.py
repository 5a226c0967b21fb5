"""Building the road network from the road tables."""

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from hoserkd.engine.city.roadmap import Roadmap
from hoserkd.engine.geo import folded_share, heading_rad, polyline_centroids, unwrap_lonlat
from hoserkd.engine.types import Candidates, RoadNetwork
from hoserkd.errors import DataError

MAX_ADJACENT_PAIRS = 10_000_000
"""Ordered pairs of adjacent roads, about 60 bytes each while they are built. Beijing's 40,060 roads
have 0.3 million; a junction of 1,500 roads alone has 2 million."""


def build_network(
    roadmap: Roadmap, zone: Int32[np.ndarray, " R"], zone_transitions: Int64[np.ndarray, "Z Z"]
) -> RoadNetwork:
    """Return the road network with its derived tables (ENGINE.md section 2)."""
    lonlat = unwrap_lonlat(roadmap.shape_lonlat)
    offset = roadmap.shape_offset
    start, end = lonlat[offset[:-1]], lonlat[offset[1:] - 1]
    candidates = build_candidates(roadmap.roads, roadmap.origin, roadmap.destination)
    adjacency = build_adjacency(start, end)
    return RoadNetwork(
        road_id=roadmap.road_id,
        length_m=roadmap.length_m,
        highway=roadmap.highway,
        highway_names=roadmap.highway_names,
        free_flow_kmh=roadmap.free_flow_kmh,
        centroid_lonlat=polyline_centroids(offset, lonlat),
        start_lonlat=start,
        end_lonlat=end,
        shape_offset=offset,
        shape_lonlat=lonlat,
        candidates=candidates,
        adjacency=adjacency,
        adjacency_attr=build_adjacency_attr(adjacency, heading_rad(start, end), candidates),
        zone=zone,
        zone_transitions=zone_transitions,
        highway_verbatim=roadmap.highway_verbatim,
    )


def build_candidates(
    roads: int, origin: Int32[np.ndarray, " K"], destination: Int32[np.ndarray, " K"]
) -> Candidates:
    """Return the relations packed by origin, each road's in the order given."""
    order = np.argsort(origin, kind="stable")
    counts = np.bincount(origin, minlength=roads)
    offset = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Candidates(offset=offset, road=destination[order].astype(np.int32))


def build_adjacency(
    start: Float64[np.ndarray, "R 2"], end: Float64[np.ndarray, "R 2"]
) -> Int64[np.ndarray, "2 E"]:
    """Return all ordered pairs of distinct roads that share an end point, sorted.

    Raises:
        DataError: So many roads meet in one point that there would be over `MAX_ADJACENT_PAIRS`.
    """
    roads = len(start)
    # 0.0 and -0.0 are one place.
    ends = np.concatenate([start, end]) + 0.0
    places, place = np.unique(ends, axis=0, return_inverse=True)
    _check_degrees(places, place.reshape(-1))
    road = np.tile(np.arange(roads), 2)
    ones = np.ones(2 * roads, np.int32)
    incidence = csr_matrix((ones, (road, place.reshape(-1))), shape=(roads, len(places)))
    pairs = (incidence @ incidence.T).tocoo()
    first, second = pairs.row.astype(np.int64), pairs.col.astype(np.int64)
    key = np.sort((first * roads + second)[first != second])
    return np.stack([key // roads, key % roads])


def _check_degrees(places: Float64[np.ndarray, "J 2"], place: Int64[np.ndarray, " E"]) -> None:
    # The pairs grow with the square of the ends that meet in a point, so they are counted before
    # any memory is taken for them.
    degree = np.bincount(place, minlength=len(places))
    pairs = int((degree.astype(np.int64) ** 2).sum())
    if pairs <= MAX_ADJACENT_PAIRS:
        return
    worst = int(degree.argmax())
    lon, lat = places[worst]
    raise DataError(
        f"roadmap.geo: {int(degree[worst]):,} road ends meet in the point ({lon:.7g}, {lat:.7g});"
        f" with {int((degree > 64).sum()):,} points of over 64 ends there would be {pairs:,} pairs"
        f" of adjacent roads, at most {MAX_ADJACENT_PAIRS:,} fit",
        hint="do roads without a geometry share a made-up point? give each road its own ends")


def build_adjacency_attr(
    adjacency: Int64[np.ndarray, "2 E"],
    heading: Float64[np.ndarray, " R"],
    candidates: Candidates,
) -> Float32[np.ndarray, "E 2"]:
    """Return each pair's folded heading difference, and 1.0 where the second is a candidate."""
    roads = len(heading)
    origin = np.repeat(np.arange(roads), np.diff(candidates.offset))
    reachable = np.isin(adjacency[0] * roads + adjacency[1], origin * roads + candidates.road)
    turn = folded_share(heading[adjacency[0]], heading[adjacency[1]])
    return np.stack([turn, reachable], axis=1).astype(np.float32)


def strongly_connected_share(candidates: Candidates) -> float:
    """Return the share of roads in the largest set whose roads all reach each other."""
    roads = len(candidates.offset) - 1
    graph = csr_matrix(
        (np.ones(len(candidates.road), np.int8), candidates.road, candidates.offset),
        shape=(roads, roads),
    )
    _, component = connected_components(graph, directed=True, connection="strong")
    return float(np.bincount(component).max() / roads)
