"""The map of a report: roads, zones, differences of use, and sampled trips to step through."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from hoserkd.engine.metrics.evaluation import Evaluation
from hoserkd.engine.metrics.packed import as_trajectories
from hoserkd.engine.metrics.pairwise import pair_distances
from hoserkd.engine.metrics.task import path_length_m
from hoserkd.engine.types import RoadNetwork, TrajectorySet
from hoserkd.report.recorded import few_visited

WIDTH = 1000
"""Width of the map in its own units; all coordinates are whole numbers of a tenth of them."""
TALLEST = 1.1
"""Height over width at most."""
FINE_ROADS = 15_000
"""Cities with more roads are drawn by the roads' end points alone."""
ZONE_TONES = 8
USE_CLASSES = (0.02, 0.08, 0.2, 0.45, 1.0)
"""Bounds of the classes of use difference, as shares of the largest one."""


@dataclass(frozen=True, slots=True)
class Projection:
    """From degrees to the map: equirectangular, true to shape in the middle of the city."""

    west: float
    north: float
    scale: float
    squeeze: float
    width: int
    height: int

    def points(self, lonlat: Float64[np.ndarray, "n 2"]) -> Int64[np.ndarray, "n 2"]:
        """Return map coordinates in tenths of a unit."""
        x = (lonlat[:, 0] - self.west) * self.squeeze * self.scale
        y = (self.north - lonlat[:, 1]) * self.scale
        return np.rint(np.stack([x, y], axis=1) * 10).astype(np.int64)


@dataclass(frozen=True, slots=True)
class MapView:
    """What the page draws."""

    width: int
    height: int
    zones: tuple[str, ...]
    """One path a tone; neighbouring zones mostly differ in tone."""
    more: tuple[tuple[str, ...], ...]
    """For each run: the roads it uses more than the real trips do, by class, weakest first."""
    less: tuple[tuple[str, ...], ...]
    trips: tuple[dict[str, Any], ...]
    """Sampled requests: each run's trip, as a point list, with its figures."""
    recorded: tuple[dict[str, Any], ...]
    """The real trip of each sampled request; empty where none may be shown."""
    scale_km: float
    scale_units: float
    """Width on the map of `scale_km`."""


def project(network: RoadNetwork) -> Projection:
    """Return the projection that fits all roads into the map."""
    west, south = network.shape_lonlat.min(axis=0)
    east, north = network.shape_lonlat.max(axis=0)
    squeeze = float(np.cos(np.radians((south + north) / 2)))
    span = max((east - west) * squeeze, 1e-9)
    tall = max((north - south) / span, 0.2)
    scale = WIDTH / span if tall <= TALLEST else WIDTH * TALLEST / max(north - south, 1e-9)
    return Projection(float(west), float(north), float(scale), squeeze,
                      round(span * scale), round((north - south) * scale))


def road_strokes(network: RoadNetwork, projection: Projection) -> list[str]:
    """Return each road as a piece of an SVG path: `Mx,yl…` in tenths, relative and whole."""
    fine = network.roads <= FINE_ROADS
    if fine:
        lonlat, offset = network.shape_lonlat, network.shape_offset
    else:
        lonlat = np.stack([network.start_lonlat, network.end_lonlat], axis=1).reshape(-1, 2)
        offset = np.arange(network.roads + 1) * 2
    point = projection.points(lonlat)
    strokes = []
    for first, last in zip(offset[:-1].tolist(), offset[1:].tolist(), strict=True):
        strokes.append(_stroke(point[first:last]))
    return strokes


def _stroke(point: Int64[np.ndarray, "n 2"]) -> str:
    moves = np.diff(point, axis=0)
    moves = moves[(moves != 0).any(axis=1)]
    start = f"M{point[0, 0]},{point[0, 1]}"
    return start + "".join(f"l{x},{y}" for x, y in moves.tolist())


def _drawn_once(network: RoadNetwork) -> np.ndarray:
    """Return which roads to draw as ground: of the two directions of a street only one."""
    ends = np.sort(np.concatenate(
        [network.start_lonlat, network.end_lonlat], axis=1).reshape(-1, 2, 2), axis=1)
    _, first = np.unique(ends.reshape(-1, 4), axis=0, return_index=True)
    mask = np.zeros(network.roads, dtype=bool)
    mask[first] = True
    return mask


def map_view(
    evaluations: tuple[Evaluation, ...], sampled: int, *, real_trips: bool = True
) -> MapView:
    """Return the map of some evaluations of one city.

    Args:
        sampled: How many requests to show.
        real_trips: Whether their recorded trips are shown too.
    """
    network = evaluations[0].truth.network
    projection = project(network)
    strokes = road_strokes(network, projection)
    once = _drawn_once(network)
    tone = network.zone % ZONE_TONES
    zones = tuple(
        "".join(strokes[r] for r in np.flatnonzero(once & (tone == k)).tolist())
        for k in range(ZONE_TONES))
    differences = [_use_difference(found) for found in evaluations]
    trips, recorded = _sampled_trips(evaluations, projection, sampled)
    km = _round_km(projection.width / projection.scale * 111.2 / 4)
    return MapView(
        width=projection.width, height=projection.height, zones=zones,
        more=tuple(_classes(strokes, d) for d in differences),
        less=tuple(_classes(strokes, -d) for d in differences),
        trips=tuple(trips), recorded=tuple(recorded) if real_trips else (),
        scale_km=km, scale_units=km / 111.2 * projection.scale,
    )


def _round_km(target: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that is not above `target`."""
    power = 10.0 ** np.floor(np.log10(target))
    return float(max(step * power for step in (1, 2, 5) if step * power <= target))


def _use_difference(found: Evaluation) -> Float64[np.ndarray, " R"]:
    """Return, road by road, the generated share of all visits minus the real one.

    It is 0 where only few recorded trips pass: the map would show where single ones went.
    """
    roads = found.truth.network.roads
    shares = [np.bincount(trips.road, minlength=roads) / max(len(trips.road), 1)
              for trips in (found.rating.trips, found.truth.trips)]
    difference = np.asarray(shares[0] - shares[1])
    difference[few_visited(found.truth.trips, roads)] = 0
    return difference


def _classes(strokes: list[str], difference: Float64[np.ndarray, " R"]) -> tuple[str, ...]:
    largest = float(np.quantile(np.abs(difference), 0.999)) or 1.0
    share = np.minimum(difference / largest, 1.0)
    paths = []
    for low, high in pairwise(USE_CLASSES):
        inside = (share > low) & (share <= high)
        paths.append("".join(strokes[r] for r in np.flatnonzero(inside).tolist()))
    return tuple(paths)


def _sampled_trips(
    evaluations: tuple[Evaluation, ...], projection: Projection, sampled: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return requests of the first run that have a real partner, and these partners.

    They are evenly drawn from all of them.
    """
    first = evaluations[0]
    pairs = first.rating.pairs
    if not len(pairs) or not sampled:
        return [], []
    chosen = pairs[np.unique(np.linspace(0, len(pairs) - 1, sampled).astype(int))]
    partner = chosen[:, 1]
    columns = [_answers(first, first.rating.query[chosen[:, 0]], partner, found, projection)
               for found in evaluations]
    recorded = [_line(first.truth.trips, trip, first, projection) for trip in partner.tolist()]
    return [{"runs": [column[row] for column in columns]} for row in range(len(chosen))], recorded


def _answers(
    first: Evaluation, queries: Int64[np.ndarray, " n"], partner: Int64[np.ndarray, " n"],
    found: Evaluation, projection: Projection,
) -> list[dict[str, Any] | None]:
    """Return one run's answers to the first run's queries, None where it was not asked."""
    trips = as_trajectories(found.generated)
    index = [_same_request(first, query, found) for query in queries.tolist()]
    length = np.diff(trips.offset)
    judged = [row for row, trip in enumerate(index) if trip is not None and length[trip]]
    pairs = np.array([(index[row], partner[row]) for row in judged], dtype=np.int64)
    distances = pair_distances(
        trips, first.truth.trips, pairs.reshape(-1, 2), first.truth.network.centroid_lonlat,
        first.settings.edr_epsilon_m)
    lines = [None if trip is None else _line(trips, trip, first, projection) for trip in index]
    for place, row in enumerate(judged):
        line = lines[row]
        assert line is not None
        del line["departure"]  # told with the recorded trip alone
        line |= {"dtw": round(float(distances.dtw_km[place]), 2),
                 "hausdorff": round(float(distances.hausdorff_km[place]), 2),
                 "edr": round(float(distances.edr[place]), 2)}
    return lines


def _same_request(first: Evaluation, query: int, other: Evaluation) -> int | None:
    """Return the number of the same request in another evaluation, None if it lacks it."""
    if other is first:
        return query
    a, b = first.generated, other.generated
    same = ((b.origin == a.origin[query]) & (b.destination == a.destination[query])
            & (b.departure_s == a.departure_s[query]))
    found = np.flatnonzero(same)
    return int(found[0]) if len(found) else None


def _line(
    trips: TrajectorySet, index: int, about: Evaluation, projection: Projection
) -> dict[str, Any]:
    """Return a trip as points on the map with its length, duration and departure."""
    network = about.truth.network
    first, last = int(trips.offset[index]), int(trips.offset[index + 1])
    roads = np.asarray(trips.road[first:last])
    if not len(roads):
        return {"points": "", "roads": 0, "km": 0.0, "minutes": 0.0, "departure": ""}
    times = np.asarray(trips.entered_at_s[first:last])
    shape = np.concatenate(
        [network.shape_lonlat[network.shape_offset[r]:network.shape_offset[r + 1]]
         for r in roads.tolist()])
    single = TrajectorySet(np.array([0, len(roads)]), roads.astype(np.int32), times)
    point = projection.points(shape)
    return {
        "points": " ".join(f"{x},{y}" for x, y in point.tolist()),
        "roads": len(roads),
        "km": round(float(path_length_m(single, network.length_m)[0]) / 1000, 2),
        "minutes": round(float(times[-1] - times[0]) / 60, 1),
        "departure": str(np.datetime64(int(times[0]), "s")).replace("T", " "),
    }
