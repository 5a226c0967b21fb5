import numpy as np
import pytest
from scipy.stats import wilcoxon

from hoserkd.engine.metrics.distributions import jensen_shannon
from hoserkd.engine.metrics.paired import holm, paired_test, rank_biserial
from hoserkd.engine.metrics.statistics import (
    PackedCounts,
    Resampling,
    counts_figure,
    drawn_weights,
    mean_figure,
    mean_figures,
    resampled_histogram,
    weighted_counts,
)

HOW = Resampling(resamples=400, confidence=0.95, seed=1)


def test_mean_interval_is_as_wide_as_the_normal_theory_says():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    found = mean_figure(values, HOW)
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.value == pytest.approx(half, rel=0.2)
    assert found.value - found.low == pytest.approx(half, rel=0.2)


def test_mean_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    how = Resampling(200, 0.9, 5)
    covered = 0
    for _ in range(200):
        found = mean_figure(rng.exponential(1.0, 60), how)
        covered += found.low <= 1.0 <= found.high
    assert 0.80 <= covered / 200 <= 0.97


def test_mean_of_no_trips_has_no_value_and_says_why():
    found = mean_figure(np.empty(0), HOW)
    assert found.value is None
    assert found.note == "no trips"


def test_no_resamples_leave_a_value_without_interval():
    found = mean_figure(np.array([1.0, 2.0]), Resampling(0, 0.95, 0))
    assert (found.value, found.low, found.high) == (1.5, None, None)


def test_interval_stays_within_its_bounds():
    found = mean_figure(np.array([0.0] * 1 + [1.0] * 60), HOW, (0.0, 1.0))
    assert found.high <= 1.0


def test_resampled_rows_are_whole_trips_and_keep_the_mean():
    rows = PackedCounts(np.array([0, 2, 5]), np.array([0, 0, 1, 1, 1]), 2)
    found = weighted_counts(rows, drawn_weights(2, HOW, 0, 0, 400))
    assert set(map(tuple, found.tolist())) == {(4.0, 0.0), (2.0, 3.0), (0.0, 6.0)}
    np.testing.assert_allclose(found.mean(axis=0), rows.total(), rtol=0.15)


def test_draws_are_as_many_as_trips_and_the_same_in_any_blocks():
    whole = drawn_weights(30, HOW, 2, 0, 100)
    np.testing.assert_array_equal(whole.sum(axis=0), 30)
    parts = [drawn_weights(30, HOW, 2, start, start + 25) for start in range(0, 100, 25)]
    np.testing.assert_array_equal(whole, np.concatenate(parts, axis=1))


def test_weighted_counts_equal_the_plain_sum():
    rng = np.random.default_rng(0)
    rows = PackedCounts(np.arange(0, 101, 5), rng.integers(0, 7, 100), 7)
    weight = drawn_weights(20, HOW, 2, 0, 10)
    expected = np.zeros((10, 7))
    for k in range(10):
        for trip in range(20):
            for e in range(rows.offset[trip], rows.offset[trip + 1]):
                expected[k, rows.column[e]] += weight[trip, k]
    np.testing.assert_array_equal(weighted_counts(rows, weight), expected)


def test_several_means_are_those_of_one_at_a_time():
    values = np.random.default_rng(0).random((40, 2))
    free = (-np.inf, np.inf)
    found = mean_figures({"a": (values[:, 0], free), "b": (values[:, 1], free)}, HOW)
    for name, column in (("a", 0), ("b", 1)):
        alone = mean_figure(values[:, column], HOW)
        assert (found[name].low, found[name].high) == pytest.approx((alone.low, alone.high))


def test_divergence_interval_holds_the_figure_itself():
    rng = np.random.default_rng(0)
    real, other = rng.multinomial(3000, np.ones(50) / 50, size=2)
    found = counts_figure(
        jensen_shannon, (real, resampled_histogram(real, HOW, 1)),
        (other, resampled_histogram(other, HOW, 2)), HOW, 3000, (0.0, np.log(2)))
    assert 0 <= found.low < found.value < found.high


def test_holm_equals_the_worked_example():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_rank_biserial_is_the_share_of_ranks_gained_less_lost():
    assert rank_biserial(np.array([1.0, 2.0, 3.0])) == 1.0
    assert rank_biserial(np.array([-1.0, -2.0, -3.0, 0.0])) == -1.0
    assert rank_biserial(np.array([1.0, -2.0, 3.0])) == pytest.approx((1 - 2 + 3) / 6)
    assert rank_biserial(np.zeros(3)) == 0.0


def test_paired_test_of_equal_runs_finds_nothing():
    values = np.random.default_rng(0).random(30)
    found = paired_test(values, values, HOW)
    assert (found.p, found.effect, found.difference.value) == (1.0, 0.0, 0.0)


def test_paired_test_of_a_clear_shift_finds_it():
    rng = np.random.default_rng(0)
    a = rng.normal(0, 1, 60)
    b = a + 0.5 + rng.normal(0, 0.2, 60)
    found = paired_test(a, b, HOW)
    assert found.p == pytest.approx(wilcoxon(a - b).pvalue)
    assert found.p < 1e-6
    assert found.difference.high < 0
    assert found.effect < -0.9
