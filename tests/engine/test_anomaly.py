from itertools import pairwise

import numpy as np
import pytest
from toy_teacher import toy_city, toy_teacher

from hoserkd.engine.city.grid import Grid
from hoserkd.engine.teacher.anomaly import (
    SETTINGS,
    detour,
    judge_anomalies,
    route_switch,
    separation,
)
from hoserkd.engine.teacher.storage import load_teacher

GRID = Grid(40.0, 116.0, 0.01, 0.01, rows=30, cols=40)


def walk(seed: int, points: int = 40) -> np.ndarray:
    """Return a trip that goes north-east from near the middle."""
    rng = np.random.default_rng(seed)
    row = 8 + np.cumsum(rng.integers(0, 2, points)) // 2
    col = 8 + np.cumsum(rng.integers(0, 2, points)) // 2
    return row * GRID.cols + col


def moves(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.stack(np.divmod(after, GRID.cols), 1) - np.stack(np.divmod(before, GRID.cols), 1)


@pytest.mark.parametrize(("level", "probability"), [(3, 0.1), (3, 0.3), (5, 0.1)])
def test_route_switch_moves_the_share_of_inner_points_by_the_level(level, probability):
    rng = np.random.default_rng(0)
    shares, directions = [], set()
    for seed in range(300):
        tokens = walk(seed)
        moved = moves(tokens, route_switch(tokens, GRID, level, probability, rng))
        changed = moved.any(axis=1)
        assert not changed[[0, -1]].any()
        assert set(np.abs(moved[changed]).max(axis=1)) <= {level}
        assert set(np.unique(np.abs(moved[changed]))) <= {0, level}
        shares.append(changed[1:-1].mean())
        directions |= {tuple(m) for m in np.sign(moved[changed])}
    assert np.mean(shares) == pytest.approx(probability, abs=0.02)
    assert len(directions) == 8


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_detour_moves_one_stretch_as_a_whole_across_its_direction(share):
    rng = np.random.default_rng(0)
    seen = set()
    for seed in range(200):
        tokens = walk(seed)
        moved = moves(tokens, detour(tokens, GRID, 3, share, rng))
        changed = np.flatnonzero(moved.any(axis=1))
        if not len(changed):
            continue  # a stretch that ends where it began has no direction
        assert len(changed) == int((len(tokens) - 2) * share)
        np.testing.assert_array_equal(changed, np.arange(changed[0], changed[-1] + 1))
        assert changed[0] >= 1
        assert changed[-1] < len(tokens) - 1
        assert len({tuple(m) for m in moved[changed]}) == 1
        first, last = np.stack(np.divmod(tokens[[changed[0], changed[-1] + 1]], GRID.cols), 1)
        along = np.sign(first - last)
        side = tuple(moved[changed[0]] // 3)
        assert side in {(-along[0], along[1]), (along[0], -along[1])}
        seen.add(side)
    assert len(seen) > 1


@pytest.mark.parametrize("bend", [route_switch, detour])
def test_points_that_would_leave_the_grid_stay(bend):
    narrow = Grid(40.0, 116.0, 0.01, 0.01, rows=3, cols=3)
    tokens = np.random.default_rng(0).integers(0, 9, 30)
    bent = bend(tokens, narrow, 3, 0.5, np.random.default_rng(1))
    np.testing.assert_array_equal(bent, tokens)


@pytest.mark.parametrize("points", [3, 4, 5])
@pytest.mark.parametrize("bend", [route_switch, detour])
def test_short_trips_keep_their_ends(bend, points):
    rng = np.random.default_rng(0)
    for seed in range(20):
        tokens = walk(seed, points)
        bent = bend(tokens, GRID, 3, 0.9, rng)
        assert len(bent) == points
        assert (bent[[0, -1]] == tokens[[0, -1]]).all()


def plain_separation(normal, outliers):
    """Return F1, area under PR and under ROC by counting at every threshold and pair."""
    limit = normal.mean() + 3 * normal.std(ddof=1)
    hits, alarms = sum(outliers > limit), sum(normal > limit)
    precision = hits / (hits + alarms) if hits + alarms else 0
    recall = hits / len(outliers)
    f1 = 2 * precision * recall / (precision + recall) if hits else 0
    points = [(0.0, 1.0)]
    for t in sorted(set(normal) | set(outliers), reverse=True):
        tp, fp = sum(outliers >= t), sum(normal >= t)
        points.append((tp / len(outliers), tp / (tp + fp)))
    pr = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    roc = np.mean([(o > n) + (o == n) / 2 for o in outliers for n in normal])
    return f1, pr, roc


@pytest.mark.parametrize("seed", range(4))
def test_separation_equals_counting(seed):
    rng = np.random.default_rng(seed)
    normal = np.round(rng.normal(0, 1, 60), 1)
    outliers = np.round(rng.normal(seed, 1.5, 15), 1)
    assert separation(normal, outliers) == pytest.approx(plain_separation(normal, outliers))


def test_perfect_and_hopeless_separation():
    normal = np.linspace(1, 2, 50)
    assert separation(normal, np.full(5, 9.0)) == (1.0, 1.0, 1.0)
    f1, pr, roc = separation(normal, np.full(5, 0.0))
    assert (f1, roc) == (0.0, 0.0)
    assert pr < 0.1


def test_every_setting_is_judged_and_repeats_with_the_seed(tmp_path):
    city = toy_city(tmp_path / "city", trips=60)
    teacher = toy_teacher(city.network, tmp_path / "teacher", cells=12)
    found = judge_anomalies(teacher, city.network, city.split("train"), most=40)
    assert [(a.ratio, a.level, a.probability, a.kind) for a in found] == [
        (*setting, kind) for setting in SETTINGS for kind in ("route_switch", "detour")]
    assert {a.real for a in found} == {40}
    assert {a.outliers for a in found} == {2}
    again = judge_anomalies(load_teacher(tmp_path / "teacher"), city.network, city.split("train"),
                            most=40)
    assert again == found
    assert judge_anomalies(teacher, city.network, city.split("train"), most=40, seed=1) != found
