"""Model level: what the student itself says, step by step, about real trips."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import DataConfig
from hoserkd.engine.events import Observer, Progress, StopRequested
from hoserkd.engine.metrics.calibration import (
    BINS,
    Reliability,
    calibration_error,
    confidence_bins,
    reliability,
    step_rows,
)
from hoserkd.engine.metrics.packed import take_trips
from hoserkd.engine.metrics.statistics import (
    Figure,
    Resampling,
    centred_interval,
    ratio_figure,
    resampled_sums,
)
from hoserkd.engine.metrics.units import Units
from hoserkd.engine.student.navigator import Navigator
from hoserkd.engine.student.storage import LoadedStudent
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.training.losses import (
    correct_steps,
    destandardised,
    kept_steps,
    predicted_seconds,
    relative_error,
    segment_ids,
    segment_log_softmax,
    segment_max,
    taken_candidate,
)
from hoserkd.engine.training.quantiles import covered_steps, nominal_coverage, pinball_losses
from hoserkd.engine.trips.batches import TripSource, epoch_batches
from hoserkd.engine.types import NavigatorOutput, StepBatch, TimeStatistics
from hoserkd.errors import InterruptedRunError

BATCH_TRIPS = 256
SHARE = (0.0, 1.0)
REPORT_EVERY = 4
"""Batches between two notices of progress."""


@dataclass(frozen=True, slots=True)
class QuantileAnswers:
    """What a quantile time head says at every step, about the road that was taken."""

    quantiles: tuple[float, ...]
    covered: Bool[np.ndarray, " S"]
    """The true time lies within the outermost quantiles."""
    pinball: Float64[np.ndarray, " S"]
    """Mean over the quantiles, in standard deviations of log1p(seconds)."""


@dataclass(frozen=True, slots=True)
class StepAnswers:
    """The student's answer at every step of some trips, packed trip by trip."""

    offset: Int64[np.ndarray, " N+1"]
    confidence: Float64[np.ndarray, " S"]
    """Probability of the likeliest candidate."""
    correct: Bool[np.ndarray, " S"]
    kept: Bool[np.ndarray, " S"]
    """The next road was among the kept candidates."""
    choice: Bool[np.ndarray, " S"]
    """There were two candidates or more; a single one is right by construction."""
    predicted_log: Float64[np.ndarray, " S"]
    """Predicted log1p(seconds) on the road that was left for the one that was taken."""
    predicted_s: Float64[np.ndarray, " S"]
    """The seconds that this means."""
    true_s: Float64[np.ndarray, " S"]
    spread: QuantileAnswers | None = None
    """None: the time head gives a point."""


@dataclass(frozen=True, slots=True)
class ModelJudgement:
    """What a model says step by step about real trips."""

    figures: dict[str, Figure]
    reliability: Reliability | None


def judge_model(
    student: LoadedStudent, city: City, split: str, data: DataConfig, trips: int,
    how: Resampling, *, device: torch.device, observer: Observer, stop: StopRequested,
) -> ModelJudgement:
    """Return next-step accuracy, calibration and time errors on `trips` trips of a split.

    Which trips depends on the seed alone, so that runs are judged on the same ones.

    Raises:
        InterruptedRunError: `stop` said so.
    """
    answers = step_answers(student, city, split, data, trips, how.seed,
                           device=device, observer=observer, stop=stop)
    return judge_answers(answers, how)


@torch.inference_mode()
def step_answers(
    student: LoadedStudent, city: City, split: str, data: DataConfig, trips: int, seed: int,
    *, device: torch.device, observer: Observer, stop: StopRequested,
) -> StepAnswers:
    """Return the student's answers on up to `trips` trips of a split, drawn with the seed."""
    whole = city.split(split)
    count = min(trips, len(whole))
    chosen = np.sort(np.random.default_rng(seed).choice(len(whole), count, replace=False))
    sample = take_trips(whole, chosen)
    model = student.model.to(device).eval()
    tables = build_network_tables(city.network, student.meta.config.features, device)
    source = TripSource(sample, tables, student.meta.data(data), device)
    encoding = model.encode_network(tables)
    parts: list[tuple[np.ndarray, list[np.ndarray]]] = []
    batches = epoch_batches(sample, BATCH_TRIPS, 0, 0, False)
    for number, index in enumerate(batches):
        if number % REPORT_EVERY == 0:
            observer.notify(Progress("judging the model", number, len(batches), "batches"))
            if stop():
                raise InterruptedRunError("stopped while judging the model")
        batch = source.batch(index)
        output = model.forward_encoded(encoding, batch)
        answers = _answers(output.logits, output.travel_time, batch, student.meta.times)
        answers += _quantile_answers(model.navigator, output, batch, student.meta.times)
        parts.append((index, answers))
    observer.notify(Progress("judging the model", len(batches), len(batches), "batches"))
    return _in_order(sample.step_offset(), parts, model.config.time_quantiles)


def _answers(
    logits: torch.Tensor, travel_time: torch.Tensor, batch: StepBatch, times: TimeStatistics
) -> list[np.ndarray]:
    segment = segment_ids(batch.candidate_offset, len(logits))
    log_p = segment_log_softmax(logits.float(), segment, batch.steps)
    predicted_log = destandardised(travel_time.float()[taken_candidate(batch)], times)
    values = (
        segment_max(log_p, segment, batch.steps).exp().double(),
        correct_steps(log_p, segment, batch),
        kept_steps(batch),
        batch.candidate_offset.diff() > 1,
        predicted_log.double(),
        predicted_seconds(predicted_log).double(),
        batch.travel_time_s.double(),
    )
    return [value.cpu().numpy() for value in values]


def _quantile_answers(
    navigator: Navigator, output: NavigatorOutput, batch: StepBatch, times: TimeStatistics
) -> list[np.ndarray]:
    quantiles = output.travel_time_quantiles
    if navigator.levels is None or quantiles is None:
        return []
    covered = covered_steps(quantiles, navigator.point, batch, times)
    pinball = pinball_losses(quantiles, navigator.levels, batch, times).double()
    return [covered.cpu().numpy(), pinball.cpu().numpy()]


def _in_order(
    offset: Int64[np.ndarray, " N+1"], parts: list[tuple[np.ndarray, list[np.ndarray]]],
    quantiles: tuple[float, ...] | None,
) -> StepAnswers:
    """Return the batches' steps in the order of the trips."""
    place = np.concatenate([np.empty(0, np.int64), *(
        np.concatenate([np.arange(offset[trip], offset[trip + 1]) for trip in index])
        for index, _ in parts)])
    values = []
    for which in range(len(parts[0][1])):
        packed = np.concatenate([columns[which] for _, columns in parts])
        ordered = np.empty_like(packed)
        ordered[place] = packed
        values.append(ordered)
    confidence, correct, kept, choice, predicted_log, predicted_s, true_s, *rest = values
    spread = None if quantiles is None else QuantileAnswers(quantiles, *rest)
    return StepAnswers(offset, confidence, correct, kept, choice, predicted_log, predicted_s,
                       true_s, spread)


def judge_answers(answers: StepAnswers, how: Resampling) -> ModelJudgement:
    """Return the figures of a student's answers; intervals resample whole trips."""
    offset, kept = answers.offset, answers.kept.astype(np.float64)
    ones = np.ones(len(kept))
    correct = answers.correct.astype(np.float64)
    error = np.abs(answers.predicted_s - answers.true_s)
    relative = relative_error(answers.predicted_s, answers.true_s)
    log_error = relative_error(answers.predicted_log, np.log1p(answers.true_s))

    def ratio(above: np.ndarray, below: np.ndarray, highest: float) -> Figure:
        return ratio_figure(above, below, offset, how, (0.0, highest))

    table = _calibration_table(answers, np.ones(len(kept), dtype=bool))
    choice = answers.choice.astype(np.float64)
    figures = {
        "next_step_accuracy": ratio(correct, ones, 1.0),
        "next_step_accuracy_kept": ratio(correct, kept, 1.0),
        "next_step_accuracy_choice": ratio(correct * choice, choice, 1.0),
        "choice_share": ratio(choice, ones, 1.0),
        "ece": _ece_figure(table, how),
        "ece_choice": _ece_figure(_calibration_table(answers, answers.choice), how),
        "time_mae_s": ratio(error * kept, kept, np.inf),
        "time_mape": ratio(relative * kept, kept, np.inf),
        "time_log_mape": ratio(log_error * kept, kept, np.inf),
    }
    if (spread := answers.spread) is not None:
        coverage = ratio(spread.covered * kept, kept, 1.0)
        figures |= {"time_pinball": ratio(spread.pinball * kept, kept, np.inf),
                    "time_coverage": coverage,
                    "time_coverage_gap": _less(coverage, nominal_coverage(spread.quantiles))}
    return ModelJudgement(figures, reliability(table.sum(axis=0)))


def _less(figure: Figure, nominal: float) -> Figure:
    value, low, high = (None if x is None else x - nominal
                        for x in (figure.value, figure.low, figure.high))
    return replace(figure, value=value, low=low, high=high)


def _calibration_table(
    answers: StepAnswers, counted: Bool[np.ndarray, " S"]
) -> Float64[np.ndarray, "N 3 b"]:
    """Return the sums behind the calibration error, trip by trip, over the steps that count."""
    trips = len(answers.offset) - 1
    trip = np.repeat(np.arange(trips), np.diff(answers.offset))[counted]
    confidence = torch.from_numpy(answers.confidence[counted])
    rows = step_rows(confidence, torch.from_numpy(answers.correct[counted])).numpy()
    table = np.zeros((trips, BINS, 3))
    np.add.at(table, (trip, confidence_bins(confidence).numpy()), rows.T)
    return table.transpose(0, 2, 1)


def _ece_figure(table: Float64[np.ndarray, "N 3 b"], how: Resampling) -> Figure:
    """Return the calibration error; each resample of whole trips has its own bins."""
    if not table[:, 0].any():
        return Figure(None, note="no step has a choice", count=0)
    drawn = resampled_sums(table.reshape(len(table), -1), how).reshape(-1, *table.shape[1:])
    return centred_interval(float(calibration_error(table.sum(axis=0))), calibration_error(drawn),
                            how, len(table), SHARE)


def perplexity_figure(
    surprise: Float64[np.ndarray, " N"], tokens: Int64[np.ndarray, " N"], how: Resampling,
    units: Units | None = None,
) -> Figure:
    """Return exp(sum of surprises / sum of tokens) over trips, in the teacher's tokens."""
    if not tokens.sum():
        return Figure(None, note="the teacher judged no trip", count=0)
    offset = np.arange(len(tokens) + 1)
    mean = ratio_figure(surprise, tokens.astype(np.float64), offset, how, (0.0, np.inf),
                        units)
    value, low, high = (None if x is None else float(np.exp(x))
                        for x in (mean.value, mean.low, mean.high))
    return replace(mean, value=value, low=low, high=high)
