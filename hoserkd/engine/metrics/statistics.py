"""How sure a figure is.

Intervals are bootstrap intervals: independent units (`units.py`) are drawn with replacement, each
with all its trips. They show the spread of the figure around itself: the resampled values are
shifted so that their mean is the figure, since a divergence of resampled counts is on average too
large (the floor row, which has the same size and so the same excess, is what to compare it with).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from scipy.stats import norm, t

from hoserkd.engine.metrics.compiling import kernel, over_tasks
from hoserkd.engine.metrics.packed import sum_by_trip
from hoserkd.engine.metrics.units import Units, apart

BLOCK = 64
"""Resamples that are worked on together: each entry of a trip is then one short vector sum."""
STRIDE, STEP = np.uint64(0xD1342543DE82EF95), np.uint64(0x9E3779B97F4A7C15)
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
HALF = np.uint64(32)
MEANS = 1
"""Stream of the draws behind the means, so that equal sets of trips are drawn alike."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its interval; the value is None where it does not exist."""

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""
    """Why there is no value, or what to know about it."""
    count: int | None = None
    """Independent units behind it: requests, or trips of a model that is judged step by step."""


@dataclass(frozen=True, slots=True)
class Resampling:
    """How intervals are made."""

    resamples: int
    confidence: float
    seed: int


@dataclass(frozen=True, slots=True)
class PackedCounts:
    """Sparse rows of weights, one a trip, over `columns` columns."""

    offset: Int64[np.ndarray, " N+1"]
    column: Int64[np.ndarray, " n"]
    columns: int

    def total(self) -> Float64[np.ndarray, " c"]:
        """Return the sum of all rows."""
        return np.bincount(self.column, minlength=self.columns).astype(np.float64)

    def by(self, units: Units) -> "PackedCounts":
        """Return a row a unit, which holds the entries of all its trips."""
        if units.alone:
            return self
        length = np.diff(self.offset)
        order = np.argsort(units.of, kind="stable")
        start = np.cumsum(length[order]) - length[order]
        entry = np.repeat(self.offset[order] - start, length[order]) + np.arange(len(self.column))
        size = np.bincount(units.of, weights=length, minlength=units.count).astype(np.int64)
        return PackedCounts(np.concatenate([[0], np.cumsum(size)]), self.column[entry],
                            self.columns)


def centred_interval(
    value: float, samples: Float64[np.ndarray, " n"], how: Resampling, count: int,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Figure:
    """Return `value` with the spread of the resampled values round it, kept within `bounds`.

    Args:
        count: Independent units that were resampled; of a single one there is no interval.
    """
    if not np.isfinite(value):
        return Figure(None, note="not defined for these trips", count=count)
    samples = samples[np.isfinite(samples)]
    if not len(samples) or count < 2:
        return Figure(float(value), count=count)
    tail = (1 - how.confidence) / 2
    away = np.quantile(samples - samples.mean(), [tail, 1 - tail]) * widening(how, count)
    low, high = value + away
    return Figure(float(value), float(max(low, bounds[0])), float(min(high, bounds[1])),
                  count=count)


def widening(how: Resampling, count: int) -> float:
    """Return by what the spread of resamples of `count` units is to be multiplied.

    Resamples of n values scatter by sqrt((n - 1) / n) too little, and a spread that is estimated
    asks for Student's quantile in place of the normal one.
    """
    tail = (1 + how.confidence) / 2
    return float(np.sqrt(count / (count - 1)) * t.ppf(tail, count - 1) / norm.ppf(tail))


def mean_figure(
    values: Float64[np.ndarray, " n"], how: Resampling,
    bounds: tuple[float, float] = (-np.inf, np.inf), units: Units | None = None,
) -> Figure:
    """Return the mean of one value a trip, with its interval; no value of an empty sample."""
    return mean_figures({"": (values, bounds)}, how, units)[""]


def mean_figures(
    columns: Mapping[str, tuple[Float64[np.ndarray, " n"], tuple[float, float]]], how: Resampling,
    units: Units | None = None,
) -> dict[str, Figure]:
    """Return the means of several values of the same trips, each given with its bounds.

    Args:
        units: Whose values they are; None: each is a unit of its own.
    """
    values = np.stack([column for column, _ in columns.values()], axis=1)
    if not len(values):
        return dict.fromkeys(columns, Figure(None, note="no trips", count=0))
    units = units or apart(len(values))
    sums = resampled_sums(units.totals(np.column_stack([values, np.ones(len(values))])), how)
    means = sums[:, :-1] / sums[:, -1:]
    return {name: _mean_interval(column, means[:, k], how, units.count, bounds)
            for k, (name, (column, bounds)) in enumerate(columns.items())}


def _mean_interval(
    column: Float64[np.ndarray, " n"], means: Float64[np.ndarray, " b"], how: Resampling,
    count: int, bounds: tuple[float, float],
) -> Figure:
    found = centred_interval(float(column.mean()), means, how, count, bounds)
    if found.low is None or bounds != (0.0, 1.0) or not (column == column[0]).all():
        return found
    # A share of 0 or 1 does not scatter in any resample, which is no proof of the next trip: the
    # exact (Clopper-Pearson) bound of a share that was met in all of `count` cases.
    reach = 1 - ((1 - how.confidence) / 2) ** (1 / count)
    return {0.0: replace(found, high=reach), 1.0: replace(found, low=1 - reach)}.get(
        float(column[0]), found)


def ratio_figure(
    above: Float64[np.ndarray, " S"], below: Float64[np.ndarray, " S"],
    offset: Int64[np.ndarray, " N+1"], how: Resampling, bounds: tuple[float, float],
    units: Units | None = None,
) -> Figure:
    """Return sum(above) / sum(below) over packed steps; its interval resamples whole units.

    Args:
        units: Of the trips; None: each is a unit of its own.
    """
    units = units or apart(len(offset) - 1)
    if not below.sum():
        return Figure(None, note="no steps", count=units.count)
    sums = np.stack([sum_by_trip(above, offset), sum_by_trip(below, offset)], axis=1)
    top, bottom = sums.sum(axis=0)
    resampled = resampled_sums(units.totals(sums), how)
    with np.errstate(invalid="ignore"):
        samples = resampled[:, 0] / resampled[:, 1]
    return centred_interval(float(top / bottom), samples, how, units.count, bounds)


def resampled_histogram(
    counts: Int64[np.ndarray, " c"], how: Resampling, stream: int
) -> Float64[np.ndarray, "b c"]:
    """Return resampled counts where every trip counts once: a multinomial draw is exact."""
    rng = np.random.default_rng([how.seed, stream])
    total = int(counts.sum())
    return rng.multinomial(total, counts / max(total, 1), size=how.resamples).astype(np.float64)


def blocks(resamples: int) -> list[tuple[int, int]]:
    """Return the ranges of resamples that are worked on together."""
    return [(start, min(start + BLOCK, resamples)) for start in range(0, resamples, BLOCK)]


@kernel
def _draw(seed, weight):  # type: ignore[no-untyped-def] # pragma: no cover - compiled
    """Count in weight (N, b) how often each trip is drawn; resample k is seeded by seed + k.

    The numbers are those of splitmix64, whose upper halves are scaled to 0..N-1.
    """
    trips, width = weight.shape
    count = np.empty(trips, np.uint8)
    for k in range(width):
        state = np.uint64(seed + k) * STRIDE
        count[:] = 0
        for _ in range(trips):
            state += STEP
            z = (state ^ (state >> np.uint64(30))) * FIRST
            z = (z ^ (z >> np.uint64(27))) * SECOND
            z ^= z >> np.uint64(31)
            count[np.int64(((z >> HALF) * np.uint64(trips)) >> HALF)] += 1
        weight[:, k] = count


def drawn_weights(
    trips: int, how: Resampling, stream: int, start: int, stop: int
) -> UInt8[np.ndarray, "N b"]:
    """Return how often each trip is in resamples start..stop, each as many draws as trips."""
    base = int(np.random.default_rng([how.seed, stream]).integers(2**31))
    # A trip is drawn 256 times with a probability below 1e-500.
    weight = np.empty((trips, stop - start), dtype=np.uint8)
    _draw(base + start, weight)
    return weight


@lru_cache(maxsize=4)
def _weights_of_means(trips: int, how: Resampling) -> list[UInt8[np.ndarray, "N _"]]:
    """Return all draws behind the means of so many trips, block by block.

    Kept, since a set of trips has many means.
    """
    return over_tasks(lambda block: drawn_weights(trips, how, MEANS, *block),
                      blocks(how.resamples))


@kernel
def _weigh(values, weight, out):  # type: ignore[no-untyped-def] # pragma: no cover - compiled
    """Add to out (m, b) each trip's values times its weights."""
    width = weight.shape[1]
    times = np.empty(width)
    for trip in range(len(values)):
        for k in range(width):
            times[k] = weight[trip, k]
        for c in range(values.shape[1]):
            value, row = values[trip, c], out[c]
            for k in range(width):
                row[k] += value * times[k]


def resampled_sums(values: Float64[np.ndarray, "n m"], how: Resampling
                   ) -> Float64[np.ndarray, "b m"]:
    """Return the column sums of each resample. The same length and seed draw the same trips."""

    def sums(weight: np.ndarray) -> np.ndarray:
        out = np.zeros((values.shape[1], weight.shape[1]))
        _weigh(values, weight, out)
        return out

    parts = over_tasks(sums, _weights_of_means(len(values), how))
    return np.concatenate([np.empty((values.shape[1], 0)), *parts], axis=1).T


@kernel
def _add_up(offset, column, weight, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Add to out (c, b) each trip's entries times its weights."""
    width = weight.shape[1]
    times = np.empty(width, np.float32)
    for trip in range(len(offset) - 1):
        for k in range(width):
            times[k] = weight[trip, k]
        for e in range(offset[trip], offset[trip + 1]):
            row = out[column[e]]
            for k in range(width):
                row[k] += times[k]


def weighted_counts(
    rows: PackedCounts, weight: UInt8[np.ndarray, "N b"]
) -> Float64[np.ndarray, "b c"]:
    """Return the column sums of each resample of whole trips."""
    out = np.zeros((rows.columns, weight.shape[1]), dtype=np.float32)
    _add_up(rows.offset, rows.column, weight, out)
    return np.ascontiguousarray(out.T, dtype=np.float64)


def counts_figure(
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray],
    real: tuple[np.ndarray, np.ndarray],
    other: tuple[np.ndarray, np.ndarray],
    how: Resampling,
    count: int,
    bounds: tuple[float, float],
) -> Figure:
    """Return `statistic(real, other)` of two count vectors, each given with its resamples.

    Args:
        count: Independent units behind the other counts.
    """
    value = float(statistic(real[0].astype(np.float64), other[0].astype(np.float64)))
    samples = statistic(real[1], other[1]) if len(real[1]) else np.empty(0)
    return centred_interval(value, samples, how, count, bounds)
