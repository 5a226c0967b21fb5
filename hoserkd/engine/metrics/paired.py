"""Whether two runs differ: tests of one value a request, and corrections for many of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.stats import rankdata, wilcoxon

from hoserkd.engine.metrics.statistics import Figure, Resampling, mean_figure, widening

MOST_EXACT = 50
"""Differences up to which the distribution of the rank sum is counted out."""


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Two runs' values on the same requests: a minus b."""

    count: int
    """Requests."""
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
    """Return the two-sided p of Wilcoxon's signed-rank test; 1 where all differences are zero.

    Exact up to `MOST_EXACT` differences, equal ranks included; the normal approximation beyond.
    """
    difference = difference[difference != 0]
    if not len(difference):
        return 1.0
    if len(difference) > MOST_EXACT:
        return float(wilcoxon(difference, method="asymptotic").pvalue)
    # Equal values share the mean of their ranks, which is a multiple of one half.
    rank = (2 * rankdata(np.abs(difference))).astype(np.int64)
    share = np.ones(1)
    for each in rank.tolist():
        # Where nothing differs, each difference is positive with a probability of one half.
        gap = np.zeros(each)
        share = (np.concatenate([share, gap]) + np.concatenate([gap, share])) / 2
    gained = int(rank[difference > 0].sum())
    return float(min(1.0, 2 * min(share[:gained + 1].sum(), share[gained:].sum())))


def resampled_p(
    difference: float, samples: Float64[np.ndarray, " b"], how: Resampling, count: int
) -> float | None:
    """Return the two-sided p of a difference of which resamples show the spread; None without.

    The share of resamples that lie at least as far from their mean as the difference from 0; the
    difference itself counts as one, so that no p is 0.
    """
    samples = samples[np.isfinite(samples)]
    if not len(samples) or count < 2:
        return None
    away = np.abs(samples - samples.mean()) * widening(how, count)
    # Differences that are 0 but for rounding are 0.
    least = abs(difference) - 1e-12
    return float((1 + (away >= least).sum()) / (1 + len(samples)))


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
    """Return the comparison of two values a request; `p_holm` is still the plain p."""
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
