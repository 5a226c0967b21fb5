"""How sure a figure is, and whether two figures differ.

Intervals are bootstrap intervals: trips (or pairs) are drawn with replacement. They show the
spread of the figure around itself: the resampled values are shifted so that their mean is the
figure, since a divergence of resampled counts is on average too large (the floor row, which has
the same size and so the same excess, is what to compare it with).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from scipy.stats import rankdata, wilcoxon

from hoserkd.engine.metrics.compiling import kernel, over_tasks
from hoserkd.engine.metrics.packed import sum_by_trip

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


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Two runs' values on the same queries: a minus b."""

    count: int
    mean_a: float
    mean_b: float
    difference: Figure
    """Mean difference with its bootstrap interval."""
    p: float
    """Wilcoxon signed-rank test, two-sided, zero differences dropped."""
    p_holm: float
    """The same after Holm's correction over the tests of its family."""
    effect: float
    """Matched-pairs rank-biserial correlation, from -1 (a always smaller) to 1."""


def centred_interval(
    value: float, samples: Float64[np.ndarray, " n"], confidence: float,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Figure:
    """Return `value` with the spread of the resampled values round it, kept within `bounds`."""
    samples = samples[np.isfinite(samples)]
    if not np.isfinite(value):
        return Figure(None, note="not defined for these trips")
    if not len(samples):
        return Figure(float(value))
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples - samples.mean(), [tail, 1 - tail]) + value
    return Figure(float(value), float(max(low, bounds[0])), float(min(high, bounds[1])))


def mean_figure(
    values: Float64[np.ndarray, " n"], how: Resampling,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Figure:
    """Return the mean of one value a trip, with its interval; no value of an empty sample."""
    return mean_figures({"": (values, bounds)}, how)[""]


def mean_figures(
    columns: Mapping[str, tuple[Float64[np.ndarray, " n"], tuple[float, float]]], how: Resampling
) -> dict[str, Figure]:
    """Return the means of several values of the same trips, each given with its bounds."""
    values = np.stack([column for column, _ in columns.values()], axis=1)
    if not len(values):
        return dict.fromkeys(columns, Figure(None, note="no trips"))
    means = resampled_sums(values, how) / len(values)
    return {
        name: centred_interval(float(column.mean()), means[:, k], how.confidence, bounds)
        for k, (name, (column, bounds)) in enumerate(columns.items())}


def ratio_figure(
    above: Float64[np.ndarray, " S"], below: Float64[np.ndarray, " S"],
    offset: Int64[np.ndarray, " N+1"], how: Resampling, bounds: tuple[float, float],
) -> Figure:
    """Return sum(above) / sum(below) over packed steps; its interval resamples whole trips."""
    if not below.sum():
        return Figure(None, note="no steps")
    top, bottom = sum_by_trip(above, offset), sum_by_trip(below, offset)
    sums = resampled_sums(np.stack([top, bottom], axis=1), how)
    with np.errstate(invalid="ignore"):
        samples = sums[:, 0] / sums[:, 1]
    return centred_interval(float(top.sum() / bottom.sum()), samples, how.confidence, bounds)


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
    confidence: float,
    bounds: tuple[float, float],
) -> Figure:
    """Return `statistic(real, other)` of two count vectors, each given with its resamples."""
    value = float(statistic(real[0].astype(np.float64), other[0].astype(np.float64)))
    samples = statistic(real[1], other[1]) if len(real[1]) else np.empty(0)
    return centred_interval(value, samples, confidence, bounds)


def rank_biserial(difference: Float64[np.ndarray, " n"]) -> float:
    """Return the matched-pairs rank-biserial correlation: (rank sum of gains - of losses) / all.

    Zero differences are dropped; 0 where nothing is left.
    """
    difference = difference[difference != 0]
    if not len(difference):
        return 0.0
    rank = rankdata(np.abs(difference))
    return float((rank * np.sign(difference)).sum() / rank.sum())


def signed_rank_p(difference: Float64[np.ndarray, " n"]) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test; 1 where all differences are zero."""
    difference = difference[difference != 0]
    if not len(difference):
        return 1.0
    return float(wilcoxon(difference, method="auto").pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p values, in the order given."""
    order = np.argsort(p, kind="stable")
    adjusted, running = [0.0] * len(p), 0.0
    for place, index in enumerate(order):
        running = max(running, min(1.0, p[index] * (len(p) - place)))
        adjusted[index] = running
    return adjusted


def paired_test(
    a: Float64[np.ndarray, " n"], b: Float64[np.ndarray, " n"], how: Resampling
) -> PairedTest:
    """Return the comparison of two values a query; `p_holm` is still the plain p."""
    difference = a - b
    p = signed_rank_p(difference)
    return PairedTest(
        count=len(difference),
        mean_a=float(a.mean()),
        mean_b=float(b.mean()),
        difference=mean_figure(difference, how),
        p=p,
        p_holm=p,
        effect=rank_biserial(difference),
    )
