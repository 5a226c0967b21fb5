"""Great-circle distances through unit vectors, in kilometres on one sphere."""

import numpy as np
from jaxtyping import Float64

from hoserkd.engine.geo import EARTH_RADIUS_M

EARTH_RADIUS_KM = EARTH_RADIUS_M / 1000


def unit_vectors(lonlat: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 3"]:
    """Return the points on the unit sphere. Angles beyond a right angle of latitude are allowed."""
    lon, lat = np.radians(lonlat[:, 0]), np.radians(lonlat[:, 1])
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def arc_km(
    a: Float64[np.ndarray, "n 3"], b: Float64[np.ndarray, "n 3"]
) -> Float64[np.ndarray, "n"]:
    """Return the great-circle distance of each pair of unit vectors, 2 R asin(chord / 2)."""
    chord = np.sqrt(((a - b) ** 2).sum(axis=1))
    return np.asarray(2 * EARTH_RADIUS_KM * np.arcsin(np.minimum(chord / 2, 1.0)))


def chord_of_m(distance_m: float) -> float:
    """Return the chord on the unit sphere that belongs to a great-circle distance in metres."""
    return float(2 * np.sin(distance_m / (2 * EARTH_RADIUS_M)))
