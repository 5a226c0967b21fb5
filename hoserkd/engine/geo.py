"""Geometry on the sphere: distances, bearings and centroids of road polylines."""

import numpy as np
from jaxtyping import Float64, Int64

EARTH_RADIUS_M = 6371008.8
"""Mean radius of the Earth (IUGG)."""


def great_circle_m(
    a: Float64[np.ndarray, "*#axes 2"], b: Float64[np.ndarray, "*#axes 2"]
) -> Float64[np.ndarray, "*axes"]:
    """Return the great-circle distance in metres between points (lon, lat) in degrees.

    The haversine form: exact to rounding for near points too.
    """
    lon_a, lat_a = np.radians(a[..., 0]), np.radians(a[..., 1])
    lon_b, lat_b = np.radians(b[..., 0]), np.radians(b[..., 1])
    half_chord = (
        np.sin((lat_b - lat_a) / 2) ** 2
        + np.cos(lat_a) * np.cos(lat_b) * np.sin((lon_b - lon_a) / 2) ** 2
    )
    return np.asarray(2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.clip(half_chord, 0.0, 1.0))))


def bearing_rad(
    a: Float64[np.ndarray, "*#axes 2"], b: Float64[np.ndarray, "*#axes 2"]
) -> Float64[np.ndarray, "*axes"]:
    """Return the initial bearing from a to b in radians, clockwise from north, in (-pi, pi]."""
    lon_a, lat_a = np.radians(a[..., 0]), np.radians(a[..., 1])
    lon_b, lat_b = np.radians(b[..., 0]), np.radians(b[..., 1])
    east = np.sin(lon_b - lon_a) * np.cos(lat_b)
    north = np.cos(lat_a) * np.sin(lat_b) - np.sin(lat_a) * np.cos(lat_b) * np.cos(lon_b - lon_a)
    return np.asarray(np.arctan2(east, north))


def heading_rad(
    start: Float64[np.ndarray, "*#axes 2"], end: Float64[np.ndarray, "*#axes 2"]
) -> Float64[np.ndarray, "*axes"]:
    """Return the heading of a chord on the plane that touches the Earth at its start, in radians.

    The public student's adjacency attributes are made of it; at the length of a road it differs
    from the bearing by less than 1e-4.
    """
    step = np.radians(end - start)
    east = step[..., 0] * np.cos(np.radians(start[..., 1]))
    return np.asarray(np.arctan2(east, step[..., 1]))


def folded_share(
    a: Float64[np.ndarray, "*#axes"], b: Float64[np.ndarray, "*#axes"]
) -> Float64[np.ndarray, "*axes"]:
    """Return the difference of two angles folded to [0, pi], divided by pi."""
    difference = np.abs(a - b) % (2 * np.pi)
    return np.asarray(np.minimum(difference, 2 * np.pi - difference) / np.pi)


def unwrap_lonlat(lonlat: Float64[np.ndarray, "P 2"]) -> Float64[np.ndarray, "P 2"]:
    """Return the points with longitudes that do not jump at the antimeridian.

    A city that lies across it keeps one side as written; the other side's longitudes are moved by
    360 degrees, so they may leave [-180, 180]. Other cities are returned unchanged.
    """
    if len(lonlat) == 0 or np.ptp(lonlat[:, 0]) <= 180.0:
        return lonlat
    turns = np.round((lonlat[:, 0] - lonlat[0, 0]) / 360.0)
    moved = lonlat.copy()
    moved[:, 0] -= 360.0 * turns
    return moved


def wrapped_lonlat(lonlat: Float64[np.ndarray, "*axes 2"]) -> Float64[np.ndarray, "*axes 2"]:
    """Return the points with longitudes in [-180, 180], as other programs want them."""
    if not (np.abs(lonlat[..., 0]) > 180.0).any():
        return lonlat
    moved = lonlat.copy()
    moved[..., 0] -= 360.0 * np.ceil((moved[..., 0] - 180.0) / 360.0)
    return moved


def cut_at_antimeridian(
    lonlat: Float64[np.ndarray, "P 2"]
) -> list[Float64[np.ndarray, "_ 2"]]:
    """Return a line as RFC 7946 (3.1.9) wants it: cut where it crosses the antimeridian.

    Args:
        lonlat: Points as `unwrap_lonlat` leaves them: without jumps, perhaps beyond 180 degrees.
    """
    if len(lonlat) < 2 or not (np.abs(lonlat[:, 0]) > 180.0).any():
        return [lonlat]
    sheet = np.ceil((lonlat[:, 0] - 180.0) / 360.0)
    pieces: list[list[tuple[float, float]]] = [[]]
    for i in range(len(lonlat)):
        if i and sheet[i] != sheet[i - 1]:
            (lon_a, lat_a), (lon_b, lat_b) = lonlat[i - 1], lonlat[i]
            border = 180.0 + 360.0 * min(sheet[i], sheet[i - 1])
            lat = lat_a + (lat_b - lat_a) * (border - lon_a) / (lon_b - lon_a)
            side = 180.0 if sheet[i] > sheet[i - 1] else -180.0
            pieces[-1].append((side, lat))
            pieces.append([(-side, lat)])
        pieces[-1].append((lonlat[i, 0] - 360.0 * sheet[i], lonlat[i, 1]))
    lines = [np.array(piece, np.float64) for piece in pieces]
    kept = [line for line in lines if (line != line[0]).any()]
    return kept or [wrapped_lonlat(lonlat)]


def polyline_centroids(
    offset: Int64[np.ndarray, " R+1"], lonlat: Float64[np.ndarray, "P 2"]
) -> Float64[np.ndarray, "R 2"]:
    """Return each polyline's centroid by length, in the plane of degrees as shapely has it.

    A polyline without length has its first point as centroid. Every polyline has a point.
    """
    first = lonlat[offset[:-1]]
    polyline = np.repeat(np.arange(len(offset) - 1), np.diff(offset))
    # Relative to the first point, so that short roads keep their digits.
    local = lonlat - first[polyline]
    inside = polyline[1:] == polyline[:-1]
    step = np.diff(local, axis=0)[inside]
    weight = np.hypot(step[:, 0], step[:, 1])
    middle = ((local[1:] + local[:-1]) / 2)[inside]
    of = polyline[1:][inside]
    roads = len(first)
    total = np.bincount(of, weight, roads)
    moment = np.stack([np.bincount(of, weight * middle[:, i], roads) for i in (0, 1)], axis=1)
    centroid: Float64[np.ndarray, "R 2"] = first + moment / np.where(total > 0, total, 1.0)[:, None]
    return centroid
