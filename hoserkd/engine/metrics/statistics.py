"""How sure a figure is, and whether two figures differ.

Intervals are bootstrap intervals: trips (or pairs) are drawn with replacement. They show the
spread of the figure around itself: the resampled values are shifted so that their mean is the
figure, since a divergence of resampled counts is on average too large (the floor row, which has
the same size and so the same excess, is what to compare it with).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy.stats import rankdata, wilcoxon

from hoserkd.engine.metrics.compiling import kernel, over_ranges
from hoserkd.engine.metrics.packed import sum_by_trip

CHUNK = 32


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

    offset: Int64[np.ndarray, "N+1"]
    column: Int64[np.ndarray, "n"]
    columns: int

    def total(self) -> Float64[np.ndarray, "c"]:
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
    value: float, samples: Float64[np.ndarray, "n"], confidence: float,
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
    values: Float64[np.ndarray, "n"], how: Resampling,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Figure:
    """Return the mean of one value a trip, with its interval; no value of an empty sample."""
    if not len(values):
        return Figure(None, note="no trips")
    return centred_interval(
        float(values.mean()), resampled_means(values, how), how.confidence, bounds
    )


def resampled_means(
    values: Float64[np.ndarray, "n"], how: Resampling
) -> Float64[np.ndarray, "b"]:
    """Return the mean of each resample. The same length and seed draw the same trips."""
    rng = np.random.default_rng(how.seed)
    means = np.empty(how.resamples)
    for start in range(0, how.resamples, CHUNK):
        stop = min(start + CHUNK, how.resamples)
        drawn = rng.integers(0, len(values), size=(stop - start, len(values)))
        means[start:stop] = values[drawn].mean(axis=1)
    return means


def ratio_figure(
    above: Float64[np.ndarray, "S"], below: Float64[np.ndarray, "S"],
    offset: Int64[np.ndarray, "N+1"], how: Resampling, bounds: tuple[float, float],
) -> Figure:
    """Return sum(above) / sum(below) over packed steps; its interval resamples whole trips."""
    if not below.sum():
        return Figure(None, note="no steps")
    top, bottom = sum_by_trip(above, offset), sum_by_trip(below, offset)
    rng = np.random.default_rng(how.seed)
    samples = np.empty(how.resamples)
    for k in range(how.resamples):
        drawn = rng.integers(0, len(top), len(top))
        samples[k] = top[drawn].sum() / bottom[drawn].sum()
    return centred_interval(float(top.sum() / bottom.sum()), samples, how.confidence, bounds)


def resampled_histogram(
    counts: Int64[np.ndarray, "c"], how: Resampling, stream: int
) -> Float64[np.ndarray, "b c"]:
    """Return resampled counts where every trip counts once: a multinomial draw is exact."""
    rng = np.random.default_rng([how.seed, stream])
    total = int(counts.sum())
    return rng.multinomial(total, counts / max(total, 1), size=how.resamples).astype(np.float64)


@kernel
def _resample(  # type: ignore[no-untyped-def] # pragma: no cover - compiled
    offset, column, seed, start, stop, out
):
    """Add up the rows of trips drawn with replacement; resample b is seeded by seed + b."""
    trips = len(offset) - 1
    for b in range(start, stop):
        np.random.seed(seed + b)  # noqa: NPY002 - compiled: the thread's own generator
        for _ in range(trips):
            trip = np.random.randint(0, trips)  # noqa: NPY002
            for e in range(offset[trip], offset[trip + 1]):
                out[b, column[e]] += 1


def resampled_counts(
    rows: PackedCounts, how: Resampling, stream: int, first: int = 0
) -> Float64[np.ndarray, "b c"]:
    """Return the column sums of resamples `first` and on, of whole trips."""
    out = np.zeros((how.resamples, rows.columns))
    if len(rows.offset) > 1 and how.resamples:
        base = int(np.random.default_rng([how.seed, stream]).integers(2**31)) + first
        offset, column = rows.offset, rows.column

        def work(start: int, stop: int) -> None:
            _resample(offset, column, base, start, stop, out)

        over_ranges(work, how.resamples)
    return out


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


def rank_biserial(difference: Float64[np.ndarray, "n"]) -> float:
    """Return the matched-pairs rank-biserial correlation: (rank sum of gains - of losses) / all.

    Zero differences are dropped; 0 where nothing is left.
    """
    difference = difference[difference != 0]
    if not len(difference):
        return 0.0
    rank = rankdata(np.abs(difference))
    return float((rank * np.sign(difference)).sum() / rank.sum())


def signed_rank_p(difference: Float64[np.ndarray, "n"]) -> float:
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
    a: Float64[np.ndarray, "n"], b: Float64[np.ndarray, "n"], how: Resampling
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
