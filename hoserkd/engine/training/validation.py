"""How good a student is at the next step, over a whole split."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoserkd.engine.config import DistillConfig
from hoserkd.engine.device import autocast
from hoserkd.engine.events import Observer, Progress, Silent, StopRequested, never_stop
from hoserkd.engine.metrics.calibration import BINS, bin_sums, calibration_error
from hoserkd.engine.student.hoser import Hoser, NetworkEncoding
from hoserkd.engine.student.tables import NetworkTables
from hoserkd.engine.teacher.signal import TeacherSource
from hoserkd.engine.training.distributed import Ranks
from hoserkd.engine.training.losses import (
    correct_steps,
    destandardised,
    distillation_meters,
    kept_steps,
    kl_term,
    predicted_seconds,
    relative_error,
    road_term,
    segment_ids,
    segment_log_softmax,
    segment_max,
    student_log_probability,
    taken_candidate,
    teacher_target,
    time_term,
)
from hoserkd.engine.training.meters import DISTILLED, loss_metrics, self_metrics, supervised_names
from hoserkd.engine.training.quantiles import (
    covered_steps,
    crossing_steps,
    nominal_coverage,
    pinball_term,
)
from hoserkd.engine.training.self_distillation import AuxiliaryHeads, self_loss
from hoserkd.engine.trips.batches import TripSource
from hoserkd.engine.types import NavigatorOutput, StepBatch, TimeStatistics
from hoserkd.errors import InterruptedRunError

REPORT_EVERY = 20
"""Batches between two notices of progress."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a split says about a student."""

    metrics: dict[str, float]
    """accuracy (over all steps), accuracy_kept (over steps whose label survived the top k),
    loss (loss_road + loss_time or, with a quantile head, loss_pinball: no teacher's term),
    loss_road, loss_time (relative error in log space), time_mae_s, time_mape (relative to at
    least one second), ece, and with a teacher loss_kl and its companions. With a quantile head
    also loss_pinball, time_coverage (share of real times within the outermost quantiles),
    time_coverage_gap (that minus their nominal share) and crossing_share (of steps)."""
    calibration: dict[str, list[float]]
    """By bin of confidence: count (steps), confidence and accuracy (means; 0 where empty)."""


@dataclass(frozen=True, slots=True)
class Examination:
    """Who is judged, on what."""

    model: Hoser
    tables: NetworkTables
    source: TripSource
    times: TimeStatistics
    amp: torch.dtype | None = None
    signal: TeacherSource | None = None
    distill: DistillConfig = field(default_factory=DistillConfig)
    heads: AuxiliaryHeads | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Return what is summed over steps."""
        names = (*supervised_names(self.model.config), "seconds", "relative")
        if self.model.config.time_quantiles is not None:
            names = (*names, "covered", "crossing")
        if self.heads is not None:
            return (*names, "informative", *self.heads.names)
        return names if self.signal is None else (*names, *DISTILLED)


@torch.no_grad()
def judge_split(
    model: Hoser,
    tables: NetworkTables,
    source: TripSource,
    batches: Sequence[Int[np.ndarray, " _"]],
    times: TimeStatistics,
    *,
    amp: torch.dtype | None = None,
    signal: TeacherSource | None = None,
    distill: DistillConfig | None = None,
    heads: AuxiliaryHeads | None = None,
    ranks: Ranks = Ranks(),  # noqa: B008 - immutable
    observer: Observer = Silent(),  # noqa: B008 - without state
    stop: StopRequested = never_stop,
    job: str = "judging",
) -> Judgement:
    """Return how the model does on the trips of `batches`.

    Args:
        signal: The teacher's answers on this split, for the KL term.
        distill: Its `temperature` is that of the KL term and of the entropies, whatever the
            schedule says: epochs and splits compare only at one temperature.
        heads: Auxiliary heads of self-distillation, for their losses; they judge nothing else.
        job: What the notices of progress call it.

    Raises:
        InterruptedRunError: `stop` said so.
    """
    exam = Examination(model, tables, source, times, amp, signal, distill or DistillConfig(),
                       heads)
    training = model.training
    model.eval()
    with autocast(tables.device, amp):
        encoding = model.encode_network(tables)
    sums = torch.zeros(len(exam.names), dtype=torch.float64, device=tables.device)
    bins = torch.zeros(3, BINS, dtype=torch.float64, device=tables.device)
    for number, trips in enumerate(batches):
        if len(share := ranks.share(trips)):
            _judge_batch(exam, encoding, source.batch(share), sums, bins)
        if number % REPORT_EVERY == 0:
            observer.notify(Progress(job, number, len(batches), "batches"))
            if ranks.any(stop()):
                raise InterruptedRunError(f"stopped while {job}")
    model.train(training)
    observer.notify(Progress(job, len(batches), len(batches), "batches"))
    return _judgement(exam, ranks.add_up(sums), ranks.add_up(bins))


def _judge_batch(
    exam: Examination, encoding: NetworkEncoding, batch: StepBatch,
    sums: Float[Tensor, " M"], bins: Float[Tensor, "3 B"],
) -> None:
    with autocast(exam.tables.device, exam.amp):
        output = exam.model.forward_encoded(encoding, batch)
    segment = segment_ids(batch.candidate_offset, len(output.logits))
    log_p = segment_log_softmax(output.logits.float(), segment, batch.steps)
    correct = correct_steps(log_p, segment, batch)
    road = road_term(log_p, batch)
    found = {"road": road.total, "labelled": road.steps,
             "time": time_term(output.travel_time, batch, exam.times).total,
             "correct": correct.sum(), "steps": correct.new_full((), batch.steps, dtype=sums.dtype),
             **_second_errors(output, batch, exam.times), **_quantile_sums(exam, output, batch),
             **_teacher_sums(exam, output, batch), **_head_sums(exam, encoding, batch)}
    sums += torch.stack([found[name].to(sums.dtype) for name in exam.names])
    bins += bin_sums(segment_max(log_p, segment, batch.steps).exp(), correct)


def _second_errors(
    output: NavigatorOutput, batch: StepBatch, times: TimeStatistics
) -> dict[str, Float[Tensor, ""]]:
    head = output.travel_time.float()[taken_candidate(batch)]
    predicted, kept = predicted_seconds(destandardised(head, times)), kept_steps(batch)
    return {"seconds": ((predicted - batch.travel_time_s).abs() * kept).sum(),
            "relative": (relative_error(predicted, batch.travel_time_s) * kept).sum()}


def _quantile_sums(
    exam: Examination, output: NavigatorOutput, batch: StepBatch
) -> dict[str, Float[Tensor, ""]]:
    navigator, quantiles = exam.model.navigator, output.travel_time_quantiles
    if navigator.levels is None or quantiles is None:
        return {}
    kept = kept_steps(batch)
    covered = covered_steps(quantiles, navigator.point, batch, exam.times)
    return {"pinball": pinball_term(quantiles, navigator.levels, batch, exam.times).total,
            "covered": (covered & kept).sum(dtype=torch.float64),
            "crossing": (crossing_steps(quantiles, batch) & kept).sum(dtype=torch.float64)}


def _teacher_sums(
    exam: Examination, output: NavigatorOutput, batch: StepBatch
) -> dict[str, Float[Tensor, ""]]:
    if exam.signal is None:
        return {}
    distill, temperature = exam.distill, exam.distill.temperature
    asked = torch.arange(batch.steps, device=batch.road.device)
    target = teacher_target(batch, exam.signal.signal(batch, asked), distill, temperature)
    log_p = student_log_probability(output.logits, target, temperature)
    kl = kl_term(log_p, target, temperature, distill.tau_squared)
    return {"kl": kl.total, "informative": kl.steps, **distillation_meters(log_p, target, batch)}


def _head_sums(
    exam: Examination, encoding: NetworkEncoding, batch: StepBatch
) -> dict[str, Float[Tensor, ""]]:
    if exam.heads is None:
        return {}
    one = torch.ones((), device=batch.road.device)
    _, meters = self_loss(exam.model, exam.heads, encoding, batch, exam.times, exam.distill,
                          exam.distill.temperature, one, one, exam.amp)
    return {name: meters[name] for name in ("informative", *exam.heads.names)}


def _judgement(
    exam: Examination, sums: Float[Tensor, " M"], bins: Float[Tensor, "3 B"]
) -> Judgement:
    named = dict(zip(exam.names, sums.tolist(), strict=True))
    labelled = max(named["labelled"], 1.0)
    if exam.heads is not None:
        metrics = self_metrics(named, exam.heads.layers, exam.distill)
    else:
        metrics = loss_metrics(named)
    # What the data alone say, so that vanilla, distilled and self-distilled students compare.
    metrics["loss"] = metrics["loss_road"] + metrics.get("loss_pinball", metrics["loss_time"])
    metrics["accuracy_kept"] = named["correct"] / labelled
    metrics["time_mae_s"] = named["seconds"] / labelled
    metrics["time_mape"] = named["relative"] / labelled
    if (asked := exam.model.config.time_quantiles) is not None:
        metrics["time_coverage"] = named["covered"] / labelled
        metrics["time_coverage_gap"] = metrics["time_coverage"] - nominal_coverage(asked)
        metrics["crossing_share"] = named["crossing"] / labelled
    metrics["ece"] = float(calibration_error(bins.cpu().numpy()))
    count, confidence, correct = bins.cpu()
    filled = count.clamp(min=1)
    return Judgement(metrics, {
        "count": count.tolist(),
        "confidence": (confidence / filled).tolist(),
        "accuracy": (correct / filled).tolist(),
    })
