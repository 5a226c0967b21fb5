"""Parts of the test trips against sets, and their figures against the whole split's."""

from pathlib import Path

import numpy as np
import pytest
from toy_teacher import toy_teacher
from toy_training import Listener, StopAfter, toy_city, toy_config

from hoserkd.engine.config import DataConfig, DistillConfig
from hoserkd.engine.events import Silent, never_stop
from hoserkd.engine.precompute import precompute_signal
from hoserkd.engine.study import PART_FIGURES, PARTS
from hoserkd.engine.study_parts import judge_parts, trip_parts
from hoserkd.engine.teacher.stored_quality import stored_qualities
from hoserkd.engine.train import train_student
from hoserkd.engine.trips.shares import drawn_members
from hoserkd.errors import InterruptedRunError


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return toy_city(tmp_path_factory.mktemp("city"), trips=400)


def ends(trips, index):
    """Return first and last road of a trip."""
    road = trips.road[trips.offset[index]:trips.offset[index + 1]]
    return int(road[0]), int(road[-1])


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_parts_are_those_of_plain_sets(city, share):
    data = DataConfig(train_share=share)
    parts = trip_parts(city, data)
    test, train = city.split("test"), city.split("train")
    members = range(len(train)) if share == 1 else drawn_members(len(train), data)
    known = {ends(train, trip) for trip in members}
    steps = np.diff(test.offset) - 1
    seen = [trip for trip in range(len(test)) if ends(test, trip) in known]
    assert parts["seen"].tolist() == seen
    assert parts["short"].tolist() == np.flatnonzero(steps <= np.median(steps)).tolist()
    assert set(parts) == set(PARTS)
    for one, other in (("seen", "unseen"), ("short", "long")):
        both = np.concatenate([parts[one], parts[other]])
        assert sorted(both.tolist()) == list(range(len(test)))
    assert len(seen) < len(test)


def test_some_pairs_are_seen_so_that_the_test_above_means_something(city):
    assert len(trip_parts(city, DataConfig())["seen"])


def test_parts_together_are_the_whole_split(city, tmp_path):
    config = toy_config(epochs=1)
    result = train_student(config, city, directory=tmp_path)
    parts, test = trip_parts(city, config.data), city.split("test")
    found = judge_parts(config, city, result.best, parts, Silent(), never_stop)
    assert set(found) == {f"test_{part}_{figure}" for part in PARTS for figure in PART_FIGURES}
    steps = np.diff(test.offset) - 1
    # No label is cut off at 64 candidates, so that every figure is a mean over all steps.
    for one, other in (("seen", "unseen"), ("short", "long")):
        weight = {part: steps[parts[part]].sum() for part in (one, other)}
        for figure in ("accuracy", "loss_road"):
            mean = sum(weight[part] * found[f"test_{part}_{figure}"] for part in weight)
            assert mean / steps.sum() == pytest.approx(result.metrics[f"test_{figure}"], rel=1e-5)


def test_an_empty_part_has_no_figures_and_stopping_is_heard(city, tmp_path):
    config = toy_config(epochs=1)
    result = train_student(config, city, directory=tmp_path)
    parts = {"short": np.arange(4), "long": np.arange(0)}
    found = judge_parts(config, city, result.best, parts, Listener(), never_stop)
    assert set(found) == {f"test_short_{figure}" for figure in PART_FIGURES}
    with pytest.raises(InterruptedRunError):
        judge_parts(config, city, result.best, parts, Listener(), StopAfter(0))


def test_the_teachers_worth_is_that_of_the_trainings_window(city, tmp_path: Path):
    teacher = toy_teacher(city.network, tmp_path / "teacher", block_size=24)
    config = toy_config(DistillConfig(window=2))
    device = next(teacher.model.parameters()).device

    def stored(window):
        return precompute_signal(config, city, teacher, "test", observer=Silent(),
                                 stop=never_stop, device=device, window=window)

    assert list(stored_qualities(config, city, teacher.card)) == []
    stored("every")
    from_every = dict(stored_qualities(config, city, teacher.card))
    report = stored(2)
    assert dict(stored_qualities(config, city, teacher.card)) == {"test": report.quality}
    assert from_every["test"].accuracy == pytest.approx(report.quality.accuracy)
