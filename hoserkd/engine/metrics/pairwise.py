"""Pair level: how far a generated trip is from a real one between the same places.

All distances run between road centroids along great circles. One pass over the (n, m) table of a
pair's distances gives all of them, row by row, so no table is ever stored.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from hoserkd.engine.geo import great_circle_m
from hoserkd.engine.metrics.compiling import kernel, over_ranges
from hoserkd.engine.metrics.packed import destinations, origins, ranks_within
from hoserkd.engine.metrics.sphere import EARTH_RADIUS_KM, arc, chord2, chord_of_m, unit_vectors
from hoserkd.engine.types import TrajectorySet


@dataclass(frozen=True, slots=True)
class PairDistances:
    """Distances of M pairs of trips."""

    dtw_km: Float64[np.ndarray, " M"]
    """Dynamic time warping: the least sum of distances over all monotone alignments."""
    hausdorff_km: Float64[np.ndarray, " M"]
    """Symmetric Hausdorff distance of the two sets of centroids."""
    frechet_km: Float64[np.ndarray, " M"]
    """Discrete Fréchet distance: the least largest distance over all monotone alignments."""
    edr: Float64[np.ndarray, " M"]
    """Edits that make every aligned distance smaller than epsilon, over the longer length."""
    edr_public: Float64[np.ndarray, " M"]
    """The same with longitude and latitude exchanged, as the public evaluation has it."""
    mean_points: Float64[np.ndarray, " M"]
    """Mean number of roads of the two trips."""

    @property
    def dtw_per_point_km(self) -> Float64[np.ndarray, " M"]:
        """DTW divided by the mean length of the two trips, in roads."""
        return np.asarray(self.dtw_km / self.mean_points)

    @property
    def hausdorff_per_point_km(self) -> Float64[np.ndarray, " M"]:
        """Hausdorff distance divided by the mean length of the two trips, in roads."""
        return np.asarray(self.hausdorff_km / self.mean_points)


@kernel
def _pairs(  # type: ignore[no-untyped-def] # pragma: no cover - compiled
    xyz, swapped, offset_a, road_a, offset_b, road_b, pair_a, pair_b, eps2, start, stop, out
):
    """Fill rows start..stop of out (M, 5): dtw, hausdorff, frechet, edr, edr_public."""
    for p in range(start, stop):
        a0, b0 = offset_a[pair_a[p]], offset_b[pair_b[p]]
        n, m = offset_a[pair_a[p] + 1] - a0, offset_b[pair_b[p] + 1] - b0
        dtw = np.full(m + 1, np.inf)
        frechet = np.full(m + 1, np.inf)
        edr = np.arange(m + 1)
        public = np.arange(m + 1)
        nearest_b = np.full(m, np.inf)
        dtw[0], frechet[0] = 0.0, 0.0
        farthest = 0.0
        for i in range(n):
            here = road_a[a0 + i]
            dtw_diagonal, frechet_diagonal = dtw[0], frechet[0]
            edr_diagonal, public_diagonal = edr[0], public[0]
            dtw[0], frechet[0] = np.inf, np.inf
            edr[0] += 1
            public[0] += 1
            nearest_a = np.inf
            for j in range(m):
                there = road_b[b0 + j]
                square = chord2(xyz, here, there)
                nearest_a = min(nearest_a, square)
                nearest_b[j] = min(nearest_b[j], square)
                above, left = dtw[j + 1], dtw[j]
                dtw[j + 1] = arc(square) + min(dtw_diagonal, min(above, left))
                dtw_diagonal = above
                above, left = frechet[j + 1], frechet[j]
                frechet[j + 1] = max(square, min(frechet_diagonal, min(above, left)))
                frechet_diagonal = above
                edits = edr[j + 1]
                cost = 0 if square < eps2 else 1
                edr[j + 1] = min(edr_diagonal + cost, min(edits, edr[j]) + 1)
                edr_diagonal = edits
                edits = public[j + 1]
                cost = 0 if chord2(swapped, here, there) < eps2 else 1
                public[j + 1] = min(public_diagonal + cost, min(edits, public[j]) + 1)
                public_diagonal = edits
            farthest = max(farthest, nearest_a)
        for j in range(m):
            farthest = max(farthest, nearest_b[j])
        longer = max(n, m)
        out[p, 0] = dtw[m]
        out[p, 1] = arc(farthest)
        out[p, 2] = arc(frechet[m])
        out[p, 3] = edr[m] / longer
        out[p, 4] = public[m] / longer


def pair_distances(
    a: TrajectorySet,
    b: TrajectorySet,
    pairs: Int64[np.ndarray, "M 2"],
    centroid_lonlat: Float64[np.ndarray, "R 2"],
    epsilon_m: float = 100.0,
) -> PairDistances:
    """Return the distances of trip `pairs[:, 0]` of `a` from trip `pairs[:, 1]` of `b`.

    Args:
        epsilon_m: Two points match in EDR when they are nearer than this.
    """
    xyz = unit_vectors(centroid_lonlat)
    swapped = unit_vectors(np.ascontiguousarray(centroid_lonlat[:, ::-1]))
    out = np.empty((len(pairs), 5))
    pair_a, pair_b = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
    arrays = [np.asarray(x) for x in (a.offset, a.road, b.offset, b.road)]
    eps2 = chord_of_m(epsilon_m) ** 2

    def work(start: int, stop: int) -> None:
        _pairs(xyz, swapped, *arrays, pair_a, pair_b, eps2, start, stop, out)

    over_ranges(work, len(pairs))
    points = (np.diff(a.offset)[pair_a] + np.diff(b.offset)[pair_b]) / 2
    return PairDistances(
        dtw_km=out[:, 0] * EARTH_RADIUS_KM,
        hausdorff_km=out[:, 1] * EARTH_RADIUS_KM,
        frechet_km=out[:, 2] * EARTH_RADIUS_KM,
        edr=out[:, 3],
        edr_public=out[:, 4],
        mean_points=points,
    )


def square_cells(
    lonlat: Float64[np.ndarray, "n 2"], origin_lonlat: tuple[float, float], cell_m: float
) -> Int64[np.ndarray, " n"]:
    """Return the number of the square that holds each point.

    Squares are counted in metres from `origin_lonlat`: columns along its parallel, rows along its
    meridian. Points to the west or south of it get squares of their own.
    """
    west = np.broadcast_to(np.asarray(origin_lonlat), lonlat.shape)
    along = np.stack([lonlat[:, 0], np.full(len(lonlat), origin_lonlat[1])], axis=1)
    up = np.stack([np.full(len(lonlat), origin_lonlat[0]), lonlat[:, 1]], axis=1)
    column = np.copysign(great_circle_m(west, along), lonlat[:, 0] - origin_lonlat[0])
    row = np.copysign(great_circle_m(west, up), lonlat[:, 1] - origin_lonlat[1])
    column_index, row_index = (np.floor(x / cell_m).astype(np.int64) for x in (column, row))
    return np.asarray((column_index << 32) + row_index)


def road_cells(
    centroid_lonlat: Float64[np.ndarray, "R 2"],
    cell_m: float,
    origin_lonlat: tuple[float, float] | None = None,
) -> Int64[np.ndarray, " R"]:
    """Return small numbers 0.. for the squares of the roads' centroids.

    Without an origin they are counted from the south-west corner of the centroids.
    """
    if origin_lonlat is None:
        corner = centroid_lonlat.min(axis=0)
        origin_lonlat = (float(corner[0]), float(corner[1]))
    cells = square_cells(centroid_lonlat, origin_lonlat, cell_m)
    return np.asarray(np.unique(cells, return_inverse=True)[1], dtype=np.int64)


def match_keys(
    a: Int64[np.ndarray, " n"], b: Int64[np.ndarray, " m"]
) -> Int64[np.ndarray, "M 2"]:
    """Return the pairs (i, j) in which a's k-th entry of a key meets b's k-th entry of it."""
    rank_a, rank_b = ranks_within(a), ranks_within(b)
    width = int(max(rank_a.max(initial=0), rank_b.max(initial=0))) + 1
    keys = np.unique(np.concatenate([a, b]), return_inverse=True)[1]
    full_a, full_b = keys[: len(a)] * width + rank_a, keys[len(a):] * width + rank_b
    _, i, j = np.intersect1d(full_a, full_b, assume_unique=True, return_indices=True)
    order = np.argsort(i)
    return np.stack([i[order], j[order]], axis=1).astype(np.int64)


def od_keys(
    origin: Int64[np.ndarray, " n"],
    destination: Int64[np.ndarray, " n"],
    cell: Int64[np.ndarray, " R"],
) -> Int64[np.ndarray, " n"]:
    """Return one number for the cells of each origin and destination."""
    return np.asarray(cell[origin] * (int(cell.max(initial=0)) + 1) + cell[destination])


def match_trips(
    a: TrajectorySet, b: TrajectorySet, cell: Int64[np.ndarray, " R"]
) -> Int64[np.ndarray, "M 2"]:
    """Return pairs of trips that start in one cell and end in one cell, i-th with i-th."""
    return match_keys(
        od_keys(origins(a), destinations(a), cell), od_keys(origins(b), destinations(b), cell)
    )
