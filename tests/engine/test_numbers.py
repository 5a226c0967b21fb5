"""Numbers at their limits: each has a defined outcome, a value or one clear error."""

import math

import pytest
import torch
from pydantic import ValidationError
from test_losses import TIMES, packed_batch
from torch import Tensor

from hoserkd.engine.config import DistillConfig, GenerateConfig, TrainConfig
from hoserkd.engine.training.losses import (
    kl_term,
    student_log_probability,
    supervised,
    teacher_target,
)
from hoserkd.engine.types import NavigatorOutput, StepBatch, TeacherSignal

INF = math.inf


def distilled(batch: StepBatch, teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Return the mean KL of the whole batch."""
    signal = TeacherSignal(torch.arange(batch.steps), batch.candidate_offset, teacher, None)
    target = teacher_target(batch, signal, DistillConfig(), temperature)
    log_p = student_log_probability(student, target, temperature)
    return kl_term(log_p, target, temperature, tau_squared=True).mean()


@pytest.mark.parametrize("teacher", [
    [0.0] * 5, [-INF] * 5, [5.0, -INF, -INF, -INF, -INF], [1e36] * 5, [-1e36] * 5,
    [1e36, -1e36, 0.0, 1e36, -1e36], [65504.0, -65504.0, 0.0, 1.0, 2.0],
], ids=["constant", "none", "one", "huge", "tiny", "both", "fp16"])
@pytest.mark.parametrize("temperature", [0.01, 1.0, 1000.0])
def test_any_teacher_at_any_temperature_gives_finite_numbers(
    teacher: list[float], temperature: float
) -> None:
    batch = packed_batch([3, 2], [0, 1], [1.0, 2.0])
    student = torch.zeros(5, requires_grad=True)
    loss = distilled(batch, torch.tensor(teacher), student, temperature)
    loss.backward()
    assert torch.isfinite(loss)
    assert loss >= -1e-3
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    if teacher in ([0.0] * 5, [-INF] * 5):
        # The student is indifferent too, or the teacher says nothing.
        assert loss.item() == pytest.approx(0.0, abs=1e-6)
        assert torch.allclose(student.grad, torch.zeros(5), atol=1e-7)


def test_a_teacher_of_nan_gives_nan_which_ends_the_run() -> None:
    batch = packed_batch([2], [0], [1.0])
    assert torch.isnan(distilled(batch, torch.tensor([math.nan, 0.0]), torch.zeros(2), 1.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_largest_logits_of_half_precision_have_a_finite_loss(dtype: torch.dtype) -> None:
    top = torch.finfo(dtype).max / 2
    batch = packed_batch([3], [1], [10.0])
    logits = torch.tensor([top, -top, 0.0], dtype=dtype, requires_grad=True)
    travel = torch.zeros(3, dtype=dtype, requires_grad=True)
    road, time, correct = supervised(NavigatorOutput(logits, travel), batch, TIMES)
    (road.mean() / top + time.mean()).backward()
    assert torch.isfinite(road.mean())
    assert torch.isfinite(time.mean())
    assert correct == 0
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_an_overflow_of_half_precision_shows_as_no_number() -> None:
    batch = packed_batch([2], [0], [1.0])
    logits = torch.tensor([INF, 0.0], dtype=torch.float16)
    road, _, _ = supervised(NavigatorOutput(logits, torch.zeros(2)), batch, TIMES)
    assert not torch.isfinite(road.mean())


def test_a_batch_without_steps_has_a_loss_of_zero() -> None:
    whole, none = torch.zeros(0, dtype=torch.long), torch.zeros(0)
    batch = StepBatch(
        offset=torch.zeros(1, dtype=torch.long), step_id=whole, road=whole, time_of_day=none,
        elapsed_min=none, destination=whole, label=whole, travel_time_s=none,
        candidate_offset=torch.zeros(1, dtype=torch.long), candidate_road=whole,
        candidate_slot=whole, candidate_distance=none, candidate_angle=none)
    empty = torch.zeros(0, requires_grad=True)
    road, time, correct = supervised(NavigatorOutput(empty, empty), batch, TIMES)
    assert road.mean() == time.mean() == correct == 0
    assert distilled(batch, torch.zeros(0), empty, 2.0) == 0


def test_steps_without_candidates_or_kept_labels_count_for_nothing() -> None:
    batch = packed_batch([0, 2], [-100, -100], [1.0, 1.0])
    logits = torch.zeros(2, requires_grad=True)
    road, time, correct = supervised(NavigatorOutput(logits, torch.zeros(2)), batch, TIMES)
    road.mean().backward()
    assert road.mean() == time.mean() == correct == 0
    assert (logits.grad == 0).all()  # type: ignore[union-attr]
    assert distilled(batch, torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]), 1.0) == 0


@pytest.mark.parametrize("seconds", [0.0, 3 * 3600.0, 1e9])
def test_any_travel_time_has_a_finite_loss(seconds: float) -> None:
    batch = packed_batch([2], [0], [seconds])
    _, time, _ = supervised(NavigatorOutput(torch.zeros(2), torch.zeros(2)), batch, TIMES)
    assert torch.isfinite(time.mean())


@pytest.mark.parametrize(("section", "key", "values"), [
    (DistillConfig, "temperature", (0.0, 1e-9, -1.0, 1e9, INF, math.nan)),
    (DistillConfig, "temperature_end", (0.0, INF, math.nan)),
    (DistillConfig, "lambda_kl", (-1e-9, 1e9, INF, math.nan)),
    (GenerateConfig, "temperature", (0.0, 1e-9, INF, math.nan)),
    (TrainConfig, "learning_rate", (0.0, -1.0, INF, math.nan)),
])
def test_settings_beyond_their_limits_are_refused(
    section: type, key: str, values: tuple[float, ...]
) -> None:
    for value in values:
        with pytest.raises(ValidationError):
            section(**{key: value})


def test_settings_at_their_limits_are_taken() -> None:
    for temperature in (0.01, 1000.0):
        assert DistillConfig(temperature=temperature).temperature == temperature
    for weight in (0.0, 1e6):
        assert DistillConfig(lambda_kl=weight).lambda_kl == weight
