"""The time head that gives quantiles: its loss, its distillation, its honesty.

Everything is in standard deviations of log1p(seconds), the unit in which the head answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from hoserkd.engine.student.navigator import Navigator, uncrossed
from hoserkd.engine.training.losses import Term, kept_steps, supervised, taken_candidate
from hoserkd.engine.types import NavigatorOutput, StepBatch, TimeStatistics

HUBER_DELTA = 2.0


@dataclass(frozen=True, slots=True)
class Supervision:
    """What the data say of a navigator's answers to a batch."""

    road: Term
    time: Term
    """What trains the time head: the relative error of a point, the pinball loss of quantiles."""
    sums: dict[str, Float[Tensor, ""]]
    """Sums over steps, by the names of `meters.supervised_names`."""


def supervise(
    navigator: Navigator, output: NavigatorOutput, batch: StepBatch, times: TimeStatistics
) -> Supervision:
    """Return the terms of the loss that need no teacher, and their sums.

    The sum `time` is that of the public definition whatever the head, of the median with a quantile
    head, so that students with either can be compared.
    """
    road, time, correct = supervised(output, batch, times)
    sums = {"road": road.total, "time": time.total, "labelled": road.steps,
            "correct": correct, "steps": correct.new_full((), batch.steps)}
    if navigator.levels is not None and output.travel_time_quantiles is not None:
        time = pinball_term(output.travel_time_quantiles, navigator.levels, batch, times)
        sums["pinball"] = time.total
    return Supervision(road, time, sums)


def standardised_time(
    batch: StepBatch, times: TimeStatistics, dtype: torch.dtype
) -> Float[Tensor, " S"]:
    """Return the recorded times as the head would give them."""
    return (torch.log1p(batch.travel_time_s.to(dtype)) - times.log1p_mean) / times.log1p_std


def pinball_losses(
    quantiles: Float[Tensor, "K Q"], levels: Float[Tensor, " Q"], batch: StepBatch,
    times: TimeStatistics,
) -> Float[Tensor, " S"]:
    """Return the pinball loss of each step's taken candidate, the mean over the quantiles.

    max(q (y - y'_q), (q - 1) (y - y'_q)) with y the standardised log1p(seconds) and y'_q the head's
    quantile q. Quantiles that cross are each judged as they are.
    """
    actual = standardised_time(batch, times, quantiles.dtype)
    error = actual[:, None] - quantiles[taken_candidate(batch)]
    level = levels.to(quantiles.dtype)
    return torch.maximum(level * error, (level - 1) * error).mean(1)


def pinball_term(
    quantiles: Float[Tensor, "K Q"], levels: Float[Tensor, " Q"], batch: StepBatch,
    times: TimeStatistics,
) -> Term:
    """Return the sum of `pinball_losses` over the steps whose label was kept."""
    return _over_kept(pinball_losses(quantiles, levels, batch, times), batch)


def soft_time_term(
    student: NavigatorOutput, teacher: NavigatorOutput, batch: StepBatch
) -> Term:
    """Return how far a head's times of the taken candidates are from the teaching head's.

    Huber's distance (delta 2) of the points, or with quantile heads the mean over i of Huber's
    distance of the i-th quantiles. No gradient reaches the teacher.
    """
    mine, theirs = student.travel_time_quantiles, teacher.travel_time_quantiles
    if mine is None or theirs is None:
        mine, theirs = student.travel_time[:, None], teacher.travel_time[:, None]
    taken = taken_candidate(batch)
    distance = functional.huber_loss(
        mine[taken], theirs[taken].detach(), reduction="none", delta=HUBER_DELTA)
    return _over_kept(distance.mean(1), batch)


@torch.no_grad()
def covered_steps(
    quantiles: Float[Tensor, "K Q"], point: int, batch: StepBatch, times: TimeStatistics
) -> Bool[Tensor, " S"]:
    """Return at which steps the real time lies within the outermost quantiles, bounds included.

    Args:
        point: Index of the median, round which crossing quantiles are put in order.
    """
    ordered = uncrossed(quantiles[taken_candidate(batch)], point)
    actual = standardised_time(batch, times, ordered.dtype)
    return (ordered[:, 0] <= actual) & (actual <= ordered[:, -1])


@torch.no_grad()
def crossing_steps(quantiles: Float[Tensor, "K Q"], batch: StepBatch) -> Bool[Tensor, " S"]:
    """Return at which steps some quantile of the taken candidate is above a higher one."""
    return (quantiles[taken_candidate(batch)].diff(dim=1) < 0).any(1)


def nominal_coverage(quantiles: Sequence[float]) -> float:
    """Return the share of times that should lie within the outermost quantiles."""
    return quantiles[-1] - quantiles[0]


def _over_kept(losses: Float[Tensor, " S"], batch: StepBatch) -> Term:
    kept = kept_steps(batch)
    return Term(torch.where(kept, losses, torch.zeros_like(losses)).sum(),
                kept.sum(dtype=losses.dtype))
