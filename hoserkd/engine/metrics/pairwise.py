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
from hoserkd.engine.metrics.sphere import (
    EARTH_RADIUS_KM,
    arc,
    arcs,
    chord_of_m,
    chords2,
    gather_points,
    unit_vectors,
)
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
def _widest(  # type: ignore[no-untyped-def] # pragma: no cover - compiled
    offset, trip, start, stop
):
    """Return the most points of the trips that pairs start..stop name."""
    widest = 0
    for p in range(start, stop):
        widest = max(widest, offset[trip[p] + 1] - offset[trip[p]])
    return widest


@kernel
def _move_on(  # type: ignore[no-untyped-def] # pragma: no cover - compiled
    square, square_swapped, away, eps2, count, dtw, frechet, edr, public
):
    """Replace the rows of the four tables by their next ones; return the least of square.

    One loop for all four: each waits for its own last entry only, so the processor overlaps them.
    Comparisons stand for min and max, which would look for NaN; none can be here.
    """
    one = np.int32(1)
    nearest = np.inf
    dtw_diagonal, frechet_diagonal = dtw[0], frechet[0]
    edr_diagonal, public_diagonal = edr[0], public[0]
    dtw_left, frechet_left = np.inf, np.inf
    edr_left, public_left = edr_diagonal + one, public_diagonal + one
    dtw[0], frechet[0], edr[0], public[0] = dtw_left, frechet_left, edr_left, public_left
    for j in range(count):
        here = square[j]
        nearest = here if here < nearest else nearest
        above = dtw[j + 1]
        best = above if above < dtw_diagonal else dtw_diagonal
        best = dtw_left if dtw_left < best else best
        dtw_left = away[j] + best
        dtw[j + 1], dtw_diagonal = dtw_left, above
        above = frechet[j + 1]
        best = above if above < frechet_diagonal else frechet_diagonal
        best = frechet_left if frechet_left < best else best
        frechet_left = here if here > best else best
        frechet[j + 1], frechet_diagonal = frechet_left, above
        edits = edr[j + 1]
        replaced = edr_diagonal + np.int32(here >= eps2)
        gap = (edits if edits < edr_left else edr_left) + one
        edr_left = replaced if replaced < gap else gap
        edr[j + 1], edr_diagonal = edr_left, edits
        edits = public[j + 1]
        replaced = public_diagonal + np.int32(square_swapped[j] >= eps2)
        gap = (edits if edits < public_left else public_left) + one
        public_left = replaced if replaced < gap else gap
        public[j + 1], public_diagonal = public_left, edits
    return nearest


@kernel
def _pairs(  # type: ignore[no-untyped-def] # pragma: no cover - compiled
    xyz, swapped, offset_a, road_a, offset_b, road_b, pair_a, pair_b, eps2, start, stop, out
):
    """Fill rows start..stop of out (M, 5): dtw, hausdorff, frechet, edr, edr_public.

    Each row of a pair's table of distances is made at once, then every measure moves on by it.
    """
    widest = _widest(offset_b, pair_b, start, stop)
    x, y, z, x_swapped, y_swapped, z_swapped = np.empty((6, widest))
    square, square_swapped, away, nearest_b = np.empty((4, widest))
    dtw, frechet = np.empty((2, widest + 1))
    edr, public = np.empty((2, widest + 1), np.int32)
    for p in range(start, stop):
        a0, b0 = offset_a[pair_a[p]], offset_b[pair_b[p]]
        n, m = offset_a[pair_a[p] + 1] - a0, offset_b[pair_b[p] + 1] - b0
        gather_points(xyz, road_b, b0, m, x, y, z)
        gather_points(swapped, road_b, b0, m, x_swapped, y_swapped, z_swapped)
        for j in range(m + 1):
            dtw[j], frechet[j], edr[j], public[j] = np.inf, np.inf, j, j
        dtw[0], frechet[0] = 0.0, 0.0
        nearest_b[:m] = np.inf
        farthest = 0.0
        for i in range(n):
            here = road_a[a0 + i]
            chords2(xyz[here, 0], xyz[here, 1], xyz[here, 2], x, y, z, m, square)
            chords2(swapped[here, 0], swapped[here, 1], swapped[here, 2],
                    x_swapped, y_swapped, z_swapped, m, square_swapped)
            arcs(square, m, away)
            for j in range(m):
                nearest_b[j] = square[j] if square[j] < nearest_b[j] else nearest_b[j]
            nearest_a = _move_on(
                square, square_swapped, away, eps2, m, dtw, frechet, edr, public)
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
