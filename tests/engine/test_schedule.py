"""Exact numbers of the schedules at chosen steps."""

import math

import pytest

from hoserkd.engine.config import DistillConfig, TrainConfig
from hoserkd.engine.training.schedule import (
    Plan,
    held_learning_rate,
    kl_weight,
    learning_rate,
    temperature,
)


@pytest.mark.parametrize(("step", "expected"), [
    (0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (55, 0.5),
    (99, 0.5 * (1 + math.cos(math.pi * 89 / 90))),
])
def test_learning_rate_rises_linearly_then_follows_a_cosine(step, expected):
    assert learning_rate(step, 100, 1.0, 0.1) == pytest.approx(expected, abs=1e-12)


def test_learning_rate_without_warmup_starts_at_its_base():
    assert learning_rate(0, 10, 3e-4, 0.0) == 3e-4
    assert learning_rate(5, 10, 3e-4, 0.0) == pytest.approx(1.5e-4)


def test_learning_rate_of_a_single_step_is_its_base():
    assert learning_rate(0, 1, 1e-3, 0.1) == 1e-3


@pytest.mark.parametrize("total", [1, 7, 100])
def test_learning_rate_is_never_zero_and_never_above_its_base(total):
    rates = [learning_rate(step, total, 1e-3, 0.3) for step in range(total)]
    assert min(rates) > 0
    assert max(rates) <= 1e-3


@pytest.mark.parametrize(("step", "expected"), [
    (0, 0.1), (9, 1.0), (10, 1.0), (80, 1.0), (81, 0.95), (90, 0.5), (99, 0.05)])
def test_held_learning_rate_rises_holds_and_falls(step, expected):
    assert held_learning_rate(step, 100, 1.0, 0.1, 0.2) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("total", [1, 7, 100])
def test_held_learning_rate_is_never_zero_and_never_above_its_base(total):
    rates = [held_learning_rate(step, total, 1e-3, 0.6, 0.7) for step in range(total)]
    assert min(rates) > 0
    assert max(rates) <= 1e-3


@pytest.mark.parametrize(("schedule", "expected"), [("cosine", 5e-4), ("hold", 1e-3)])
def test_plan_follows_the_schedule_that_was_asked_for(schedule, expected):
    train = TrainConfig(epochs=1, warmup_share=0.0, learning_rate=1e-3, schedule=schedule)
    assert Plan(train, DistillConfig(), 100).at(50).learning_rate == pytest.approx(expected)


@pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (25, 1.4393398282201787), (50, 2.5),
                                                 (100, 4.0), (130, 4.0)])
def test_temperature_follows_a_cosine_from_start_to_end(step, expected):
    assert temperature(step, 101, 1.0, 4.0) == pytest.approx(expected, abs=1e-12)


def test_temperature_without_end_is_constant():
    assert temperature(7, 10, 2.5, None) == 2.5


@pytest.mark.parametrize(("step", "expected"), [(0, 0.0), (5, 0.005), (10, 0.01), (25, 0.01)])
def test_kl_weight_rises_from_zero_over_the_first_epoch(step, expected):
    assert kl_weight(step, 10, 0.01, 1.0) == pytest.approx(expected, abs=1e-15)


def test_kl_weight_without_ramp_is_full_at_once():
    assert kl_weight(0, 10, 0.01, 0.0) == 0.01
