"""Great-circle distances through unit vectors, in kilometres on one sphere."""

import math

import numpy as np
from jaxtyping import Float64

from hoserkd.engine.geo import EARTH_RADIUS_M
from hoserkd.engine.metrics.compiling import kernel

EARTH_RADIUS_KM = EARTH_RADIUS_M / 1000
SERIES_BELOW = 0.004
NEAR2 = (2 * SERIES_BELOW) ** 2
"""Squared chord, of about 51 km, below which the series alone gives the arc."""


def unit_vectors(lonlat: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 3"]:
    """Return the points on the unit sphere. Angles beyond a right angle of latitude are allowed."""
    lon, lat = np.radians(lonlat[:, 0]), np.radians(lonlat[:, 1])
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


@kernel
def arc(squared_chord: float) -> float:  # pragma: no cover - compiled
    """Return the angle, in radians, that belongs to a squared chord."""
    half = math.sqrt(squared_chord) / 2
    if half < SERIES_BELOW:
        # asin's series; the next term is below half an ulp here (distances up to 50 km).
        square = half * half
        return 2 * half * (1 + square * (1 / 6 + square * (3 / 40 + square * (15 / 336))))
    return 2 * math.asin(min(half, 1.0))


@kernel
def gather_points(  # type: ignore[no-untyped-def] # pragma: no cover - compiled
    xyz, road, start, count, x, y, z
):
    """Fill x, y and z with the unit vectors of roads start..start + count."""
    for k in range(count):
        row = road[start + k]
        x[k], y[k], z[k] = xyz[row, 0], xyz[row, 1], xyz[row, 2]


@kernel
def chords2(  # type: ignore[no-untyped-def] # pragma: no cover - compiled
    x0, y0, z0, x, y, z, count, out
):
    """Fill out with the squared chords from one unit vector to the first `count` points."""
    for k in range(count):
        a, b, c = x0 - x[k], y0 - y[k], z0 - z[k]
        out[k] = a * a + b * b + c * c


@kernel
def arcs(squared_chord, count, out):  # type: ignore[no-untyped-def] # pragma: no cover - compiled
    """Fill out with `arc` of each squared chord.

    Where all are short, as within a city, the loop has no branch and the compiler makes it wide.
    """
    far = 0
    for k in range(count):
        far += squared_chord[k] >= NEAR2
    if far:
        for k in range(count):
            out[k] = arc(squared_chord[k])
        return
    for k in range(count):
        half = math.sqrt(squared_chord[k]) / 2
        square = half * half
        out[k] = 2 * half * (1 + square * (1 / 6 + square * (3 / 40 + square * (15 / 336))))


def chord_of_m(distance_m: float) -> float:
    """Return the chord on the unit sphere that belongs to a great-circle distance in metres."""
    return float(2 * np.sin(distance_m / (2 * EARTH_RADIUS_M)))
