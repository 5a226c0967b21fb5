"""What the tables of a prepared city must hold to before compiled loops follow their indices.

A city may come out of a stranger's bundle: its manifest and its arrays agree with one another,
and may still point outside themselves.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

from hoserkd.engine.types import RoadNetwork, TimeStatistics, TrajectorySet

KINDS = {
    "road_id": "int64", "length_m": "float64", "highway": "int64", "free_flow_kmh": "float64",
    "centroid_lonlat": "float64", "start_lonlat": "float64", "end_lonlat": "float64",
    "shape_offset": "int64", "shape_lonlat": "float64", "adjacency": "int64",
    "adjacency_attr": "float32", "zone": "int32", "zone_transitions": "int64",
    "candidate_offset": "int64", "candidate_road": "int32", "highway_verbatim": "int64",
    "offset": "int64", "road": "int32", "entered_at_s": "int64",
}
"""Type of each array's numbers."""


def check_network(network: RoadNetwork) -> None:
    """Check that every table has a row a road and every index points at something.

    Raises:
        ValueError: The first thing that is wrong.
    """
    roads = _length("road_id", network.road_id)
    if not roads:
        raise ValueError("it has no roads")
    zones = _length("zone_transitions", network.zone_transitions, axes=2)
    for name in ("length_m", "highway", "free_flow_kmh", "zone"):
        _expect(name, getattr(network, name), (roads,))
    for name in ("centroid_lonlat", "start_lonlat", "end_lonlat"):
        _expect(name, getattr(network, name), (roads, 2))
    points = _length("shape_lonlat", network.shape_lonlat, axes=2)
    edges = network.adjacency.shape[-1] if network.adjacency.ndim == 2 else -1
    _expect("shape_lonlat", network.shape_lonlat, (points, 2))
    _expect("zone_transitions", network.zone_transitions, (zones, zones))
    _expect("adjacency", network.adjacency, (2, edges))
    _expect("adjacency_attr", network.adjacency_attr, (edges, 2))
    candidates = network.candidates
    _offsets("shape_offset", network.shape_offset, roads, points, least=1)
    _offsets("candidate_offset", candidates.offset, roads,
             _length("candidate_road", candidates.road))
    _indices("candidate_road", candidates.road, roads)
    _indices("adjacency", network.adjacency, roads)
    _indices("zone", network.zone, zones)
    _indices("highway", network.highway, len(network.highway_names))
    if network.highway_verbatim is not None:
        _expect("highway_verbatim", network.highway_verbatim, (roads,))
        _indices("highway_verbatim", network.highway_verbatim, roads)
    for name in ("length_m", "free_flow_kmh", "centroid_lonlat", "start_lonlat", "end_lonlat",
                 "shape_lonlat", "adjacency_attr"):
        if not np.isfinite(getattr(network, name)).all():
            raise ValueError(f"{name} holds what is no finite number")


def check_trips(trips: TrajectorySet, roads: int) -> None:
    """Check that the trips' offsets cut up their points.

    Raises:
        ValueError: They do not.
    """
    points = _length("road", trips.road)
    _expect("entered_at_s", trips.entered_at_s, (points,))
    _offsets("offset", trips.offset, len(trips.offset) - 1, points)
    _indices("road", trips.road, roads)


def checked_times(values: Mapping[str, Any]) -> TimeStatistics:
    """Return the statistics of travel times that a file holds.

    Raises:
        KeyError, TypeError, ValueError: They are missing, or no finite numbers.
    """
    times = TimeStatistics(**{name: float(value) for name, value in values.items()})
    if not (math.isfinite(times.log1p_mean) and 0 < times.log1p_std < math.inf):
        raise ValueError(f"times of mean {times.log1p_mean} and deviation {times.log1p_std}")
    return times


def _length(name: str, values: Shaped[np.ndarray, "..."], axes: int = 1) -> int:
    if values.ndim != axes or values.dtype != KINDS[name]:
        raise ValueError(f"{name} has {values.ndim} axes of {values.dtype}, not {axes} of "
                         f"{KINDS[name]}")
    return len(values)


def _expect(name: str, values: Shaped[np.ndarray, "..."], shape: tuple[int, ...]) -> None:
    if values.shape != shape or values.dtype != KINDS[name]:
        raise ValueError(f"{name} is {values.dtype} {list(values.shape)}, not {KINDS[name]} "
                         f"{list(shape)}")


def _indices(name: str, values: Shaped[np.ndarray, "..."], bound: int) -> None:
    if values.size and (int(values.min()) < 0 or int(values.max()) >= bound):
        raise ValueError(f"{name} points outside of 0..{bound - 1}")


def _offsets(
    name: str, offset: Shaped[np.ndarray, "..."], rows: int, total: int, least: int = 0
) -> None:
    """Check that `offset` cuts `total` values into `rows` rows of at least `least` values."""
    _expect(name, offset, (rows + 1,))
    _indices(name, offset, total + 1)
    if rows < 0 or int(offset[0]) != 0 or int(offset[-1]) != total or (
            rows and int(np.diff(offset).min()) < least):
        raise ValueError(f"{name} does not cut up {total} values")
