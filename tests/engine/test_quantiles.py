"""The quantile time head's losses, against loops over steps and quantiles."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from test_losses import TIMES, random_case
from test_student_model import plain_navigator

from hoserkd.engine.config import StudentConfig
from hoserkd.engine.student.navigator import CandidateRows, Navigator, uncrossed
from hoserkd.engine.training.losses import time_term
from hoserkd.engine.training.quantiles import (
    covered_steps,
    crossing_steps,
    nominal_coverage,
    pinball_term,
    soft_time_term,
    supervise,
)
from hoserkd.engine.types import NavigatorOutput

LEVELS = (0.1, 0.4, 0.5, 0.9)
MEDIAN = LEVELS.index(0.5)


def case(seed, steps=9):
    """Return a batch, its logits, and quantiles of every candidate that cross here and there."""
    batch, logits, _ = random_case(seed, steps)
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(len(logits), 1, generator=generator, dtype=torch.float64)
    spread = torch.tensor([-1.3, -0.2, 0.1, 1.2], dtype=torch.float64)
    noise = torch.randn(len(logits), 4, generator=generator, dtype=torch.float64)
    return batch, logits, base + spread + 0.3 * noise


def taken_rows(batch, quantiles):
    """Yield (quantiles of the taken candidate, standardised log1p(seconds)) of each kept step."""
    for step in range(batch.steps):
        if batch.label[step] < 0:
            continue
        row = quantiles[int(batch.candidate_offset[step]) + int(batch.label[step])].tolist()
        y = math.log1p(float(batch.travel_time_s[step]))
        yield row, (y - TIMES.log1p_mean) / TIMES.log1p_std


@pytest.mark.parametrize("seed", range(5))
def test_pinball_term_equals_the_loop(seed):
    batch, _, quantiles = case(seed)
    term = pinball_term(quantiles, torch.tensor(LEVELS, dtype=torch.float64), batch, TIMES)
    total, steps = 0.0, 0
    for row, y in taken_rows(batch, quantiles):
        for level, guess in zip(LEVELS, row, strict=True):
            miss = y - guess
            total += (level * miss if miss > 0 else (level - 1) * miss) / len(LEVELS)
        steps += 1
    assert float(term.total) == pytest.approx(total, rel=1e-12)
    assert float(term.steps) == steps


def test_pinball_of_the_median_alone_is_half_the_absolute_error():
    batch, _, quantiles = case(3)
    term = pinball_term(quantiles[:, :1], torch.tensor([0.5]), batch, TIMES)
    errors = [abs(y - row[0]) for row, y in taken_rows(batch, quantiles)]
    assert float(term.mean()) == pytest.approx(np.mean(errors) / 2, rel=1e-9)


def test_pinball_is_least_at_the_quantiles_of_the_data():
    batch, _, _ = case(1, steps=400)
    kept = [y for _, y in taken_rows(batch, torch.zeros(len(batch.candidate_road), 1))]
    level = torch.tensor([0.8], dtype=torch.float64)

    def loss(guess):
        everywhere = torch.full((len(batch.candidate_road), 1), guess, dtype=torch.float64)
        return float(pinball_term(everywhere, level, batch, TIMES).mean())

    best = float(np.quantile(kept, 0.8, method="inverted_cdf"))
    assert all(loss(best) < loss(best + shift) for shift in (-0.3, -0.05, 0.05, 0.3))


@pytest.mark.parametrize("seed", range(5))
def test_soft_time_of_quantiles_is_the_mean_huber_distance_of_the_vectors(seed):
    batch, logits, mine = case(seed)
    theirs = case(seed + 50)[2][:1].expand_as(mine) * 2
    student = NavigatorOutput(logits, mine[:, MEDIAN], mine)
    teacher = NavigatorOutput(logits, theirs[:, MEDIAN], theirs)
    total = 0.0
    for (own, _), (other, _) in zip(taken_rows(batch, mine), taken_rows(batch, theirs),
                                    strict=True):
        for a, b in zip(own, other, strict=True):
            gap = abs(a - b)
            total += (gap**2 / 2 if gap <= 2 else 2 * (gap - 1)) / len(own)
    term = soft_time_term(student, teacher, batch)
    assert float(term.total) == pytest.approx(total, rel=1e-12)
    assert float(term.steps) == int((batch.label >= 0).sum())


def test_soft_time_of_points_is_the_huber_distance_of_the_points():
    batch, logits, quantiles = case(2)
    mine, theirs = quantiles[:, 0], quantiles[:, 3] - 0.5
    found = soft_time_term(NavigatorOutput(logits, mine), NavigatorOutput(logits, theirs), batch)
    gaps = [abs(row[3] - 0.5 - row[0]) for row, _ in taken_rows(batch, quantiles)]
    expected = sum(gap**2 / 2 if gap <= 2 else 2 * (gap - 1) for gap in gaps)
    assert float(found.total) == pytest.approx(expected, rel=1e-12)
    assert min(gaps) < 2 < max(gaps)


def test_gradients_in_float64_equal_finite_differences():
    batch, logits, quantiles = case(4, steps=5)
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    theirs = NavigatorOutput(logits, quantiles[:, 0] + 1, quantiles.flip(0) + 0.7)

    def pinball(x):
        return pinball_term(x, levels, batch, TIMES).mean()

    def soft(x):
        return soft_time_term(NavigatorOutput(logits, x[:, 0], x), theirs, batch).mean()

    for loss in (pinball, soft):
        assert torch.autograd.gradcheck(loss, quantiles.clone().requires_grad_())


def test_the_teaching_quantiles_get_no_gradient():
    batch, logits, quantiles = case(4)
    theirs = quantiles.clone().requires_grad_()
    mine = (quantiles + 1).requires_grad_()
    soft_time_term(NavigatorOutput(logits, mine[:, 0], mine),
                   NavigatorOutput(logits, theirs[:, 0], theirs), batch).total.backward()
    assert theirs.grad is None
    assert mine.grad.any()


def test_a_lost_label_counts_nowhere_and_gets_no_gradient():
    batch, _, quantiles = case(0)
    x = quantiles.requires_grad_()
    pinball_term(x, torch.tensor(LEVELS), batch, TIMES).total.backward()
    moved = {int(batch.candidate_offset[s]) + int(batch.label[s])
             for s in range(batch.steps) if batch.label[s] >= 0}
    assert (batch.label < 0).any()
    assert set(x.grad.any(1).nonzero().ravel().tolist()) == moved


def test_supervision_trains_the_quantiles_and_reports_the_public_error_of_the_median():
    batch, logits, quantiles = case(2)
    navigator = Navigator(6, LEVELS)
    said = supervise(
        navigator, NavigatorOutput(logits, quantiles[:, MEDIAN], quantiles), batch, TIMES)
    public = time_term(quantiles[:, MEDIAN], batch, TIMES)
    pinball = pinball_term(quantiles, navigator.levels, batch, TIMES)
    assert float(said.sums["time"]) == float(public.total)
    assert float(said.sums["pinball"]) == float(said.time.total) == float(pinball.total)
    point = supervise(Navigator(6), NavigatorOutput(logits, quantiles[:, MEDIAN]), batch, TIMES)
    assert "pinball" not in point.sums
    assert float(point.time.total) == float(public.total)


@pytest.mark.parametrize("point", range(4))
def test_uncrossed_quantiles_rise_and_leave_the_median_where_it_is(point):
    crossing = torch.randn(300, 4, generator=torch.Generator().manual_seed(1))
    ordered = uncrossed(crossing, point)
    assert (ordered.diff(dim=1) >= 0).all()
    assert torch.equal(ordered[:, point], crossing[:, point])
    for row, found in zip(crossing.tolist(), ordered.tolist(), strict=True):
        expected = [min(row[i:point + 1]) if i <= point else max(row[point:i + 1])
                    for i in range(4)]
        assert found == expected


def test_uncrossed_quantiles_that_do_not_cross_stay_as_they_are():
    rising = torch.randn(50, 5, generator=torch.Generator().manual_seed(1)).sort(dim=1).values
    assert torch.equal(uncrossed(rising, 2), rising)


@pytest.mark.parametrize("seed", range(5))
def test_coverage_and_crossing_equal_the_loop(seed):
    batch, _, quantiles = case(seed, steps=30)
    kept = batch.label >= 0
    covered = covered_steps(quantiles, MEDIAN, batch, TIMES)[kept].tolist()
    crossing = crossing_steps(quantiles, batch)[kept].tolist()
    rows = list(taken_rows(batch, quantiles))
    assert covered == [min(row[:MEDIAN + 1]) <= y <= max(row[MEDIAN:]) for row, y in rows]
    assert crossing == [row != sorted(row) for row, _ in rows]
    assert 0 < sum(covered) < len(rows)
    assert 0 < sum(crossing) < len(rows)


def test_nominal_coverage_is_what_lies_between_the_outermost():
    assert nominal_coverage(LEVELS) == pytest.approx(0.8)
    assert nominal_coverage((0.5,)) == 0


@pytest.mark.parametrize(("quantiles", "message"), [
    ([0.0, 0.5], "greater than 0"),
    ([0.5, 1.0], "less than 1"),
    ([0.5, float("nan")], "finite number"),
    ([0.5, 0.1], "larger than the one before it"),
    ([0.1, 0.5, 0.5], "larger than the one before it"),
    ([0.1, 0.9], "the median, 0.5, must be among them"),
    ([], "the median, 0.5, must be among them"),
])
def test_quantiles_that_are_no_quantiles_are_refused(quantiles, message):
    with pytest.raises(ValidationError, match=message):
        StudentConfig(time_head="quantile", quantiles=quantiles)


def test_a_point_head_ignores_the_quantiles():
    assert StudentConfig(quantiles=(0.2, 0.5)).time_quantiles is None
    assert StudentConfig(time_head="quantile").time_quantiles == (0.1, 0.3, 0.5, 0.7, 0.9)


def test_quantiles_split_into_step_and_road_equal_the_plain_form():
    torch.manual_seed(0)
    navigator = Navigator(6, LEVELS).double()
    road, zone = torch.randn(9, 6).double(), torch.randn(3, 6).double()
    state, of_zone = torch.randn(2, 12).double(), torch.tensor([2, 0])
    step, row = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([8, 1, 4, 4, 0])
    metrics = torch.rand(2, 5).double()
    fast = navigator(state, of_zone, navigator.project(road, zone),
                     CandidateRows(step, row, metrics[0], metrics[1]))
    assert fast.travel_time_quantiles.shape == (5, 4)
    assert torch.equal(fast.travel_time, fast.travel_time_quantiles[:, MEDIAN])
    for index in range(2):
        mine = step == index
        logits, time = plain_navigator(
            navigator, state[index], zone[of_zone[index]], road[row[mine]],
            metrics[0][mine], metrics[1][mine])
        torch.testing.assert_close(fast.logits[mine], logits, rtol=0, atol=1e-12)
        torch.testing.assert_close(fast.travel_time_quantiles[mine], time, rtol=0, atol=1e-12)


def test_a_quantile_head_has_the_names_and_the_first_draws_of_a_point_head():
    models = []
    for quantiles in (None, LEVELS):
        torch.manual_seed(3)
        models.append(Navigator(6, quantiles).state_dict())
    point, several = models
    assert point.keys() == several.keys()
    for name, value in point.items():
        if "linear_3" not in name:
            assert torch.equal(value, several[name]), name
    assert several["time_estimator_linear_3.weight"].shape == (4, 128)
