"""Holding the columns of the road tables against each other.

Thresholds are wide: real maps with rounded coordinates, split roads and lengths along the ground
stay below them (of San Francisco's 7,000 roads none is reported), and the usual mistakes (another
unit, another order, another direction) lie far above.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from hoserkd.engine.city.roadmap import FREE_FLOW_KMH, Roadmap
from hoserkd.engine.city.warnings import ColumnWarning
from hoserkd.engine.geo import great_circle_m, unwrap_lonlat

LENGTH_FACTOR, LENGTH_APART_M = 2.0, 20.0
"""A length contradicts its polyline if it is off by both."""
JOIN_M = 30.0
"""Two roads join if one starts so near to the end of the other."""
UNITS = {"kilometres": 1e-3, "miles": 1 / 1609.344, "feet": 1 / 0.3048, "centimetres": 100.0,
         "millimetres": 1000.0, "degrees": 1 / 111_195.0}
"""What a metre is in units that lengths come in."""
UNIT_SPREAD = 1.2
FIT_BAD, FIT_BETTER = 0.04, 3.0
"""Lengths that fit the polylines so badly, and so much better with their axes exchanged."""
LEAST_SPEEDS, SLOW_SPEED = 10, 0.45
"""So many speeds are needed to tell their unit, and so slow is half of what is usual."""
LEAST_ROADS_A_ZONE = 10
LEAST_TOGETHER = 0.1


def road_warnings(roadmap: Roadmap) -> Iterator[ColumnWarning]:
    """Yield what contradicts itself in `roadmap.geo` and `roadmap.rel`."""
    lonlat = unwrap_lonlat(roadmap.shape_lonlat)
    polyline_m = _polyline_m(roadmap.shape_offset, lonlat)
    yield from _lengths(roadmap, polyline_m)
    yield from _axes(roadmap, lonlat, polyline_m)
    yield from _joints(roadmap, lonlat)
    yield from _relations(roadmap)
    yield from _speeds(roadmap)


def zone_warnings(
    zone: Int32[np.ndarray, " R"], origin: Int32[np.ndarray, " K"],
    destination: Int32[np.ndarray, " K"],
) -> Iterator[ColumnWarning]:
    """Yield what contradicts the roads in a given `road_network_partition`."""
    size = np.bincount(zone)
    empty = np.flatnonzero(size == 0)
    if len(empty):
        yield ColumnWarning(
            "zone-ids", len(empty), len(size), "zones have no road in road_network_partition",
            f"zone {empty[0]}", "Zones are numbered from 0, without gaps.")
    apart = zone[origin] != zone[destination]
    chance = float(((size / len(zone)) ** 2).sum())
    # The share of relations within a zone, between what chance gives (0) and all of them (1).
    together = (1 - float(apart.mean() if len(apart) else 0) - chance) / max(1 - chance, 1e-9)
    if len(zone) >= LEAST_ROADS_A_ZONE * len(size) > LEAST_ROADS_A_ZONE and (
            together < LEAST_TOGETHER):
        first = int(np.flatnonzero(apart)[0])
        yield ColumnWarning(
            "zones-against-roads", int(apart.sum()), len(apart), "relations lead from one zone "
            "into another, as many as by chance",
            f"from zone {zone[origin[first]]} to {zone[destination[first]]}",
            "Is road_network_partition of other roads, or in another order than that of geo_id?")


def matrix_warnings(
    given: Int64[np.ndarray, "Z Z"], counted: Int64[np.ndarray, "Z Z"],
    zone: Int32[np.ndarray, " R"],
) -> Iterator[ColumnWarning]:
    """Yield what contradicts the zones and the training trips in a given `zone_trans_mat.npy`.

    Args:
        counted: The transitions of the training trips.
    """
    spare = np.flatnonzero(np.bincount(zone, minlength=len(given)) == 0)
    if len(spare):
        yield ColumnWarning(
            "matrix-against-zones", len(spare), len(given), "zones of zone_trans_mat.npy have no "
            "road in road_network_partition", f"zone {spare[0]}")
    staying = np.flatnonzero(given.diagonal())
    if len(staying):
        yield ColumnWarning(
            "matrix-diagonal", len(staying), len(given), "zones of zone_trans_mat.npy have "
            "transitions to themselves, which are none", f"zone {staying[0]}")
    changed = counted > 0
    missing = np.argwhere(changed & (given == 0))
    if len(missing):
        a, b = missing[0].tolist()
        yield ColumnWarning(
            "matrix-against-trips", len(missing), int(changed.sum()), "pairs of zones that "
            "training trips join have no transition in zone_trans_mat.npy",
            f"{a} to {b}, which {counted[a, b]:,} do", "Is the matrix of other zones?")


def _polyline_m(
    offset: Int64[np.ndarray, " R+1"], lonlat: Float64[np.ndarray, "P 2"]
) -> Float64[np.ndarray, " R"]:
    """Return the length of each road's polyline along the ground."""
    step = great_circle_m(lonlat[:-1], lonlat[1:])
    # From the last point of a road to the first of the next is no step.
    step[offset[1:-1] - 1] = 0.0
    along = np.concatenate([[0.0], np.cumsum(step)])
    return np.asarray(along[offset[1:] - 1] - along[offset[:-1]])


def _lengths(roadmap: Roadmap, polyline_m: Float64[np.ndarray, " R"]) -> Iterator[ColumnWarning]:
    length = roadmap.length_m
    larger, smaller = np.maximum(length, polyline_m), np.minimum(length, polyline_m)
    wrong: Bool[np.ndarray, " R"] = (larger > LENGTH_FACTOR * smaller) & (
        larger - smaller > LENGTH_APART_M)
    if not wrong.any():
        return
    road = int(np.flatnonzero(wrong)[0])
    yield ColumnWarning(
        "length-against-polyline", int(wrong.sum()), roadmap.roads,
        "roads of roadmap.geo have a length that is less than half or more than twice that of "
        "their coordinates",
        f"road {roadmap.road_id[road]} with length {length[road]:g} and coordinates of "
        f"{polyline_m[road]:,.0f} m", _unit(length[wrong], polyline_m[wrong]))


def _unit(length: Float64[np.ndarray, " n"], polyline_m: Float64[np.ndarray, " n"]) -> str:
    """Return a guess of what unit the lengths are in."""
    if not length.any():
        return "All these lengths are 0."
    usual = float(np.median(length / np.maximum(polyline_m, 1e-3)))
    for unit, a_metre in UNITS.items():
        if a_metre / UNIT_SPREAD < usual < a_metre * UNIT_SPREAD:
            return f"Are lengths in {unit}?"
    return ""


def _axes(
    roadmap: Roadmap, lonlat: Float64[np.ndarray, "P 2"], polyline_m: Float64[np.ndarray, " R"]
) -> Iterator[ColumnWarning]:
    """Tell longitude and latitude apart by the lengths, which fit in one order only."""
    if np.abs(lonlat[:, 0]).max() > 90:
        return
    swapped_m = _polyline_m(roadmap.shape_offset, lonlat[:, ::-1])
    known = (roadmap.length_m > 0) & (polyline_m > 0) & (swapped_m > 0)
    if not known.any():
        return
    off, swapped_off = (np.abs(np.log(roadmap.length_m[known] / metres[known]))
                        for metres in (polyline_m, swapped_m))
    fit, swapped_fit = float(np.median(off)), float(np.median(swapped_off))
    if fit > FIT_BAD and FIT_BETTER * swapped_fit < fit:
        better = swapped_off < off
        road = int(np.flatnonzero(known)[np.argmax(off - swapped_off)])
        yield ColumnWarning(
            "coordinate-order", int(better.sum()), roadmap.roads,
            "roads of roadmap.geo have the length of their coordinates only if these are read as "
            "[lat, lon]",
            f"road {roadmap.road_id[road]} with length {roadmap.length_m[road]:,.0f}, "
            f"{polyline_m[road]:,.0f} m as it is written and {swapped_m[road]:,.0f} m exchanged",
            "Coordinates must be [lon, lat].")


def _joints(roadmap: Roadmap, lonlat: Float64[np.ndarray, "P 2"]) -> Iterator[ColumnWarning]:
    offset, origin, destination = roadmap.shape_offset, roadmap.origin, roadmap.destination
    if not len(origin):
        return
    start, end = lonlat[offset[:-1]], lonlat[offset[1:] - 1]
    gap = great_circle_m(end[origin], start[destination])
    wrong = gap > JOIN_M
    if not wrong.any():
        return
    # Would they join if one of the two polylines, or both, ran the other way?
    turned = np.min([great_circle_m(a[origin], b[destination])
                     for a, b in ((start, start), (end, end), (start, end))], axis=0)
    against = int((turned[wrong] <= JOIN_M).sum())
    guess = ("Do coordinates run against the direction of driving?"
             if 2 * against > wrong.sum() else "")
    first = int(np.argmax(gap))
    yield ColumnWarning(
        "end-against-start", int(wrong.sum()), len(origin),
        f"relations of roadmap.rel join a road to one that starts more than {JOIN_M:.0f} m from "
        "its end",
        f"{roadmap.road_id[origin[first]]} to {roadmap.road_id[destination[first]]}, "
        f"{gap[first]:,.0f} m apart", guess)


def _relations(roadmap: Roadmap) -> Iterator[ColumnWarning]:
    itself = np.flatnonzero(roadmap.origin == roadmap.destination)
    rows = len(roadmap.origin) + roadmap.repeated_relations
    if len(itself):
        yield ColumnWarning(
            "relation-to-itself", len(itself), rows, "relations of roadmap.rel lead from a road "
            "to itself", f"road {roadmap.road_id[roadmap.origin[itself[0]]]}")
    if roadmap.repeated_relations:
        yield ColumnWarning(
            "relation-repeated", roadmap.repeated_relations, rows, "relations of roadmap.rel "
            "repeat earlier ones and were left out", roadmap.repeated_example)


def _speeds(roadmap: Roadmap) -> Iterator[ColumnWarning]:
    """Hold the speeds that `maxspeed` gives against what is usual on roads of their class."""
    usual = np.array([FREE_FLOW_KMH.get(name, np.nan) for name in roadmap.highway_names])[
        roadmap.highway]
    given = np.flatnonzero(np.isfinite(usual) & (usual != roadmap.free_flow_kmh))
    share = roadmap.free_flow_kmh[given] / usual[given]
    if len(given) < LEAST_SPEEDS or SLOW_SPEED < np.median(share) < 1 / SLOW_SPEED:
        return
    slow = bool(np.median(share) < 1)
    wrong = given[share <= SLOW_SPEED] if slow else given[share >= 1 / SLOW_SPEED]
    road = int(wrong[0])
    yield ColumnWarning(
        "speed-against-class", len(wrong), len(given),
        "roads of roadmap.geo with a maxspeed have less than half or more than twice the speed "
        "that is usual on their class of road",
        f"road {roadmap.road_id[road]}, {roadmap.highway_names[roadmap.highway[road]]} with "
        f"{roadmap.free_flow_kmh[road]:g} km/h", "Is maxspeed in m/s?" if slow else "")
