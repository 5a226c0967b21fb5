"""Evaluation as it is usually written: one trip, one point, one cell of a table at a time."""

import math

import numpy as np

Point = tuple[float, float]
Trip = list[tuple[int, int]]
"""(road, entry time) by point."""
RADIUS_KM = 6371.0088


def haversine_km(a: Point, b: Point) -> float:
    """Return the great-circle distance of two (lon, lat) in degrees."""
    lon_a, lat_a, lon_b, lat_b = map(math.radians, (*a, *b))
    h = (math.sin((lat_b - lat_a) / 2) ** 2
         + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2)
    return 2 * RADIUS_KM * math.asin(math.sqrt(h))


def dtw(a: list[Point], b: list[Point]) -> float:
    """Return the exact DTW distance."""
    table = [[math.inf] * (len(b) + 1) for _ in range(len(a) + 1)]
    table[0][0] = 0.0
    for i, p in enumerate(a, 1):
        for j, q in enumerate(b, 1):
            table[i][j] = haversine_km(p, q) + min(
                table[i - 1][j - 1], table[i - 1][j], table[i][j - 1])
    return table[-1][-1]


def frechet(a: list[Point], b: list[Point]) -> float:
    """Return the discrete Fréchet distance."""
    table = [[math.inf] * (len(b) + 1) for _ in range(len(a) + 1)]
    table[0][0] = 0.0
    for i, p in enumerate(a, 1):
        for j, q in enumerate(b, 1):
            table[i][j] = max(haversine_km(p, q),
                              min(table[i - 1][j - 1], table[i - 1][j], table[i][j - 1]))
    return table[-1][-1]


def hausdorff(a: list[Point], b: list[Point]) -> float:
    """Return the symmetric Hausdorff distance of the points."""
    forth = max(min(haversine_km(p, q) for q in b) for p in a)
    return max(forth, max(min(haversine_km(p, q) for p in a) for q in b))


def edr(a: list[Point], b: list[Point], epsilon_km: float = 0.1) -> float:
    """Return the edit distance on real sequences over the longer length."""
    table = np.zeros((len(a) + 1, len(b) + 1))
    table[:, 0], table[0] = np.arange(len(a) + 1), np.arange(len(b) + 1)
    for i, p in enumerate(a, 1):
        for j, q in enumerate(b, 1):
            cost = 0 if haversine_km(p, q) < epsilon_km else 1
            table[i][j] = min(table[i - 1][j - 1] + cost, table[i - 1][j] + 1,
                              table[i][j - 1] + 1)
    return float(table[-1][-1]) / max(len(a), len(b))


def features(trips: list[Trip], lonlat: list[Point]) -> list[list[float]]:
    """Return distances, radii, step durations and trip durations."""
    distances, radii, steps, wholes = [], [], [], []
    for trip in trips:
        points = [lonlat[road] for road, _ in trip]
        distances.append(sum(haversine_km(points[k - 1], points[k])
                             for k in range(1, len(points))))
        lon = sum(p[0] for p in points) / len(points)
        lat = sum(p[1] for p in points) / len(points)
        radii.append(sum(haversine_km((lon, lat), p) for p in points) / len(points))
        for k in range(1, len(trip)):
            steps.append((trip[k][1] - trip[k - 1][1]) / 60)
        wholes.append((trip[-1][1] - trip[0][1]) / 60)
    return [distances, radii, steps, wholes]


def divergence(real: list[float], other: list[float]) -> float:
    """Return the Jensen-Shannon divergence over the public bins."""
    edges = [*np.linspace(0, max(real), 100), math.inf]
    p, q = (np.histogram(x, edges)[0] / len(x) for x in (real, other))
    total = 0.0
    for x, y in zip(p, q, strict=True):
        for value in (x, y):
            if value > 0:
                total += 0.5 * value * math.log(value / ((x + y) / 2))
    return total
