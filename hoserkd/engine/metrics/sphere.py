"""Great-circle distances through unit vectors, in kilometres on one sphere."""

import math

import numpy as np
from jaxtyping import Float64

from hoserkd.engine.geo import EARTH_RADIUS_M
from hoserkd.engine.metrics.compiling import kernel

EARTH_RADIUS_KM = EARTH_RADIUS_M / 1000
SERIES_BELOW = 0.004


def unit_vectors(lonlat: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 3"]:
    """Return the points on the unit sphere. Angles beyond a right angle of latitude are allowed."""
    lon, lat = np.radians(lonlat[:, 0]), np.radians(lonlat[:, 1])
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


@kernel
def chord2(xyz: np.ndarray, a: int, b: int) -> float:  # pragma: no cover - compiled
    """Return the squared chord between rows `a` and `b` of unit vectors."""
    x, y, z = xyz[a, 0] - xyz[b, 0], xyz[a, 1] - xyz[b, 1], xyz[a, 2] - xyz[b, 2]
    return x * x + y * y + z * z  # type: ignore[no-any-return]


@kernel
def arc(squared_chord: float) -> float:  # pragma: no cover - compiled
    """Return the angle, in radians, that belongs to a squared chord."""
    half = math.sqrt(squared_chord) / 2
    if half < SERIES_BELOW:
        # asin's series; the next term is below half an ulp here (distances up to 50 km).
        square = half * half
        return 2 * half * (1 + square * (1 / 6 + square * (3 / 40 + square * (15 / 336))))
    return 2 * math.asin(min(half, 1.0))


def chord_of_m(distance_m: float) -> float:
    """Return the chord on the unit sphere that belongs to a great-circle distance in metres."""
    return float(2 * np.sin(distance_m / (2 * EARTH_RADIUS_M)))
