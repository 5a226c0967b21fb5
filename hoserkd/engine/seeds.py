"""Trainings that differ in one thing alone, paired by seed."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scipy import stats

from hoserkd.engine.metrics.catalogue import SIGNIFICANT, metric_of
from hoserkd.engine.metrics.paired import holm

CONFIDENCE = 0.95
Verdict = Literal["better", "worse", "no difference", "one seed: no verdict"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of distilled and vanilla trainings, seed by seed."""

    metric: str
    arm: list[float]
    """Of the distilled trainings."""
    vanilla: list[float]
    difference: float
    """Mean of arm minus vanilla."""
    interval: tuple[float, float] | None
    """Of the mean difference, by Student's t; None for a single seed."""
    p: float | None = None
    """Two-sided, of the paired t test; None for a single seed."""
    p_holm: float | None = None
    """After Holm's correction over all that was compared together; None before `corrected`."""

    @property
    def verdict(self) -> Verdict:
        """Say in words whether distillation helps here, with the correction where it was made."""
        if self.p_holm is None or self.p_holm < SIGNIFICANT:
            return self.alone
        return "no difference"

    @property
    def alone(self) -> Verdict:
        """Say in words whether distillation helps here, by this interval alone."""
        if self.interval is None:
            return "one seed: no verdict"
        if self.interval[0] <= 0 <= self.interval[1]:
            return "no difference"
        return "better" if (self.difference < 0) == smaller_is_better(self.metric) else "worse"


def corrected(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Return the comparisons of one table with Holm's correction over all of them."""
    adjusted = iter(holm([c.p for c in comparisons if c.p is not None]))
    return tuple(c if c.p is None else replace(c, p_holm=next(adjusted)) for c in comparisons)


def smaller_is_better(metric: str) -> bool:
    """Return whether a metric is an error or a loss."""
    found = metric_of(metric)
    return found is not None and found.better == "lower"


def mean_interval(values: Sequence[float], resolution: float = 0.0) -> tuple[float, float] | None:
    """Return the interval of the mean by Student's t; None for a single value.

    Args:
        resolution: Smallest step between two values; their spread is taken to be at least that
            of rounding to it, resolution / sqrt(12).
    """
    if len(values) < 2:
        return None
    mean, error = statistics.fmean(values), _standard_error(values, resolution)
    reach = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return mean - reach, mean + reach


def _standard_error(values: Sequence[float], resolution: float) -> float:
    spread = max(statistics.stdev(values), resolution / math.sqrt(12))
    return spread / math.sqrt(len(values))


def paired(
    metric: str, arm: list[float], vanilla: list[float], resolution: float = 0.0
) -> Comparison:
    """Return the mean difference of paired trainings with its interval and p by Student's t.

    Args:
        resolution: Smallest step between two values of the metric, such as 1 / steps of an
            accuracy: a few seeds that gain one step each prove nothing, though their differences
            do not scatter. With 0, differences that are all the same have a point for an interval.
    """
    differences = [a - b for a, b in zip(arm, vanilla, strict=True)]
    mean, interval = statistics.fmean(differences), mean_interval(differences, resolution)
    if interval is None:
        return Comparison(metric, arm, vanilla, mean, None)
    error = _standard_error(differences, resolution)
    if error == 0:
        return Comparison(metric, arm, vanilla, mean, interval, float(mean == 0))
    p = 2 * float(stats.t.sf(abs(mean) / error, len(differences) - 1))
    return Comparison(metric, arm, vanilla, mean, interval, p)
