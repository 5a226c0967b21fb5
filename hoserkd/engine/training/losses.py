"""The loss of ENGINE.md section 3, on packed candidates.

Candidates of step i are `values[offset[i]:offset[i + 1]]`; nothing is padded. Every term is
returned as a sum over steps beside the number of steps in it, so that the mean over several
micro-batches or processes is the mean over their steps.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hoserkd.engine.config import DistillConfig
from hoserkd.engine.types import NavigatorOutput, StepBatch, TeacherSignal, TimeStatistics

Values = TypeVar("Values", Tensor, np.ndarray)
IGNORED = -100
"""Label of a step whose next road is not among the kept candidates."""


@dataclass(frozen=True, slots=True)
class Term:
    """One part of the loss over a batch."""

    total: Float[Tensor, ""]
    """Sum over the steps that count, with its gradient."""
    steps: Float[Tensor, ""]
    """How many steps count."""

    def mean(self) -> Float[Tensor, ""]:
        """Return the mean over the steps that count; 0 where there are none."""
        return self.total / self.steps.clamp(min=1)


@dataclass(frozen=True, slots=True)
class TeacherTarget:
    """A teacher's signal as the loss wants it; nothing in it depends on the student."""

    step: Int[Tensor, " Q"]
    """Which steps of the batch."""
    offset: Int[Tensor, " Q+1"]
    segment: Int[Tensor, " K'"]
    position: Int[Tensor, " K'"]
    """Packed index in the batch of each candidate."""
    log_q: Float[Tensor, " K'"]
    """Log-probability at the temperature; -inf for a candidate that the teacher forbids."""
    informative: Bool[Tensor, " Q"]
    """More than one candidate, not all of them in one cell, not all of them forbidden."""
    collided: Bool[Tensor, " Q"]
    """At least two candidates fall in one cell."""


def segment_ids(offset: Int[Tensor, " S+1"], size: int) -> Int[Tensor, " K"]:
    """Return which segment each of the `size` packed values belongs to."""
    counts = offset.diff()
    steps = torch.arange(len(counts), device=offset.device)
    return torch.repeat_interleave(steps, counts, output_size=size)


def segment_sum(
    values: Float[Tensor, " K"], segment: Int[Tensor, " K"], steps: int
) -> Float[Tensor, " S"]:
    """Return the sum of each segment; 0 for an empty one."""
    return values.new_zeros(steps).index_add(0, segment, values)


def segment_max(
    values: Float[Tensor, " K"], segment: Int[Tensor, " K"], steps: int
) -> Float[Tensor, " S"]:
    """Return the largest value of each segment; -inf for an empty one."""
    lowest = torch.full((steps,), -torch.inf, dtype=values.dtype, device=values.device)
    return lowest.scatter_reduce(0, segment, values, "amax")


def segment_log_softmax(
    logits: Float[Tensor, " K"], segment: Int[Tensor, " K"], steps: int
) -> Float[Tensor, " K"]:
    """Return the log-probabilities within each segment.

    A logit of -inf has no mass and passes no gradient. In a segment of -inf alone every value
    is -inf.
    """
    top = segment_max(logits.detach(), segment, steps)
    top = torch.where(torch.isneginf(top), torch.zeros_like(top), top)
    shifted = logits - top[segment]
    mass = segment_sum(shifted.exp(), segment, steps)
    # An empty segment has mass 0: its logarithm must not reach a gradient.
    log_mass = torch.where(mass > 0, mass, torch.ones_like(mass)).log()
    return shifted - log_mass[segment]


def segment_argmax(
    values: Float[Tensor, " K"], segment: Int[Tensor, " K"], offset: Int[Tensor, " S+1"]
) -> Int[Tensor, " S"]:
    """Return the first position of each segment's largest value, counted from its start.

    An empty segment answers with the number of packed values.
    """
    steps = len(offset) - 1
    top = segment_max(values, segment, steps)
    position = torch.arange(len(values), device=values.device) - offset[segment]
    position = torch.where(values == top[segment], position, len(values))
    first = torch.full((steps,), len(values), dtype=position.dtype, device=values.device)
    return first.scatter_reduce(0, segment, position, "amin")


def kept_steps(batch: StepBatch) -> Bool[Tensor, " S"]:
    """Return which steps have their label among the kept candidates."""
    return batch.label != IGNORED


def taken_candidate(batch: StepBatch) -> Int[Tensor, " S"]:
    """Return the packed index of the candidate that was taken; the first where it was not kept."""
    return batch.candidate_offset[:-1] + batch.label.clamp(min=0)


def road_term(log_probability: Float[Tensor, " K"], batch: StepBatch) -> Term:
    """Return the cross-entropy -log p(taken candidate) over the steps whose label was kept."""
    kept = kept_steps(batch)
    loss = -log_probability[taken_candidate(batch)]
    return Term(torch.where(kept, loss, torch.zeros_like(loss)).sum(), kept.sum(dtype=loss.dtype))


def destandardised(
    travel_time: Float[Tensor, "..."], times: TimeStatistics
) -> Float[Tensor, "..."]:
    """Return log1p(seconds) from the time head's standardised output."""
    return travel_time * times.log1p_std + times.log1p_mean


def predicted_seconds(log1p_s: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Return the seconds that a prediction of log1p(seconds) means; never below 0."""
    return torch.expm1(log1p_s).clamp(min=0)


def relative_error(predicted: Values, actual: Values) -> Values:
    """Return |predicted - actual| / max(actual, 1), of tensors or arrays.

    Of log1p(seconds) it is the time loss, which the public code calls MAPE; of seconds it is a
    MAPE that short steps cannot blow up.
    """
    error: Values = abs(predicted - actual) / actual.clip(min=1)
    return error


def time_term(
    travel_time: Float[Tensor, " K"], batch: StepBatch, times: TimeStatistics
) -> Term:
    """Return the time loss: a relative error in log space, over the steps whose label was kept.

    |y' - y| / max(y, 1) with y = log1p(seconds) and y' the head of the taken candidate.
    """
    kept = kept_steps(batch)
    predicted = destandardised(travel_time.float()[taken_candidate(batch)], times)
    actual = torch.log1p(batch.travel_time_s.to(predicted.dtype))
    loss = relative_error(predicted, actual)
    return Term(torch.where(kept, loss, torch.zeros_like(loss)).sum(), kept.sum(dtype=loss.dtype))


def gathered_candidates(
    batch_offset: Int[Tensor, " S+1"], signal: TeacherSignal
) -> tuple[Int[Tensor, " K'"], Int[Tensor, " K'"]]:
    """Return the signal's segment ids and the packed index, in the batch, of its candidates."""
    size = len(signal.logits)
    segment = segment_ids(signal.offset, size)
    shift = batch_offset[signal.step] - signal.offset[:-1]
    return segment, torch.arange(size, device=segment.device) + shift[segment]


def cell_mates(
    cell: Int[Tensor, " K'"], segment: Int[Tensor, " K'"]
) -> Float[Tensor, " K'"]:
    """Return how many candidates of its step fall in each candidate's cell, itself included."""
    order = torch.argsort(cell, stable=True)
    order = order[torch.argsort(segment[order], stable=True)]
    sorted_cell, sorted_segment = cell[order], segment[order]
    new = torch.ones_like(sorted_cell)
    changed = (sorted_cell.diff() != 0) | (sorted_segment.diff() != 0)
    new[1:] = changed.to(new.dtype)
    group = new.cumsum(0) - 1
    size = torch.zeros(len(cell), device=cell.device).index_add(
        0, group, torch.ones(len(cell), device=cell.device))
    return torch.empty_like(size).index_copy(0, order, size[group])


def teacher_log_probability(
    signal: TeacherSignal,
    segment: Int[Tensor, " K'"],
    mates: Float[Tensor, " K'"] | None,
    temperature: float,
) -> Float[Tensor, " K'"]:
    """Return log q: the teacher's softmax over each step's candidates at the temperature.

    `mates` not None shares a cell's mass equally among its candidates; None gives each the
    whole of it. A candidate of logit -inf has no mass.
    """
    logits = signal.logits.float() / temperature
    if mates is not None:
        logits = logits - mates.log()
    return segment_log_softmax(logits, segment, len(signal.step))


def informative_steps(
    signal: TeacherSignal, segment: Int[Tensor, " K'"], mates: Float[Tensor, " K'"] | None
) -> Bool[Tensor, " Q"]:
    """Return at which steps the teacher can say anything.

    Those with more than one candidate, not all of them in one cell, and a teacher that gives
    at least one of them a finite logit.
    """
    counts = signal.offset.diff()
    spread = counts > 1
    if mates is not None:
        spread &= segment_max(mates, segment, len(counts)) < counts
    return spread & ~torch.isneginf(segment_max(signal.logits.float(), segment, len(counts)))


def relative_entropy(
    log_q: Float[Tensor, " K'"], log_p: Float[Tensor, " K'"]
) -> Float[Tensor, " K'"]:
    """Return the summands q (log q - log p), 0 where q is 0."""
    has_mass = ~torch.isneginf(log_q)
    gap = torch.where(has_mass, log_q - log_p, torch.zeros_like(log_p))
    return log_q.exp() * gap


def entropy(
    log_p: Float[Tensor, " K'"], segment: Int[Tensor, " K'"], steps: int
) -> Float[Tensor, " Q"]:
    """Return each segment's entropy in nats."""
    finite = torch.where(torch.isneginf(log_p), torch.zeros_like(log_p), log_p)
    return segment_sum(-log_p.exp() * finite, segment, steps)


@torch.no_grad()
def teacher_target(
    batch: StepBatch, signal: TeacherSignal, distill: DistillConfig, temperature: float
) -> TeacherTarget:
    """Return the teacher's distribution over the candidates of the steps it was asked about."""
    segment, position = gathered_candidates(batch.candidate_offset, signal)
    mates = None if signal.cell is None else cell_mates(signal.cell, segment)
    informative = informative_steps(signal, segment, mates)
    if mates is None:
        collided = torch.zeros_like(informative)
    else:
        collided = segment_max(mates, segment, len(signal.step)) > 1
    shared = mates if distill.collisions == "share" else None
    log_q = teacher_log_probability(signal, segment, shared, temperature)
    return TeacherTarget(
        signal.step, signal.offset, segment, position, log_q, informative, collided)


def student_log_probability(
    logits: Float[Tensor, " K"], target: TeacherTarget, temperature: float
) -> Float[Tensor, " K'"]:
    """Return log p: the student's softmax over the target's candidates at the temperature."""
    gathered = logits.float()[target.position] / temperature
    return segment_log_softmax(gathered, target.segment, len(target.step))


def kl_term(
    log_p: Float[Tensor, " K'"], target: TeacherTarget, temperature: float, tau_squared: bool
) -> Term:
    """Return the forward KL sum_c q_c (log q_c - log p_c) over the informative steps.

    Both distributions are at `temperature`; with `tau_squared` the term is multiplied by its
    square.
    """
    kl = segment_sum(relative_entropy(target.log_q, log_p), target.segment, len(target.step))
    kl = torch.where(target.informative, kl, torch.zeros_like(kl)).sum()
    if tau_squared:
        kl = kl * temperature**2
    return Term(kl, target.informative.sum(dtype=kl.dtype))


@torch.no_grad()
def distillation_meters(
    log_p: Float[Tensor, " K'"], target: TeacherTarget, batch: StepBatch
) -> dict[str, Float[Tensor, ""]]:
    """Return what teacher and student say, as sums over steps.

    `asked` and `collided` count the steps asked about; the others are over the informative
    ones: both entropies in nats at the temperature, `agreed` where both prefer the same
    candidate, `teacher_correct` where the teacher prefers the road that was taken.
    """
    steps, informative = len(target.step), target.informative
    teacher = segment_argmax(target.log_q, target.segment, target.offset)
    student = segment_argmax(log_p, target.segment, target.offset)
    right = teacher == batch.label[target.step]
    real = log_p.dtype
    return {
        "asked": log_p.new_full((), steps),
        "collided": target.collided.sum(dtype=real),
        "teacher_entropy": (entropy(target.log_q, target.segment, steps) * informative).sum(),
        "student_entropy": (entropy(log_p, target.segment, steps) * informative).sum(),
        "agreed": (informative & (teacher == student)).sum(dtype=real),
        "teacher_correct": (informative & right).sum(dtype=real),
    }


def correct_steps(
    log_probability: Float[Tensor, " K"], segment: Int[Tensor, " K"], batch: StepBatch
) -> Bool[Tensor, " S"]:
    """Return at which steps the likeliest candidate was taken; a lost label counts as wrong."""
    return segment_argmax(log_probability, segment, batch.candidate_offset) == batch.label


def supervised(
    output: NavigatorOutput, batch: StepBatch, times: TimeStatistics
) -> tuple[Term, Term, Float[Tensor, ""]]:
    """Return the road term, the time term and the number of correct steps of a batch."""
    segment = segment_ids(batch.candidate_offset, len(output.logits))
    log_p = segment_log_softmax(output.logits.float(), segment, batch.steps)
    correct = correct_steps(log_p.detach(), segment, batch).sum(dtype=torch.float32)
    return road_term(log_p, batch), time_term(output.travel_time, batch, times), correct
