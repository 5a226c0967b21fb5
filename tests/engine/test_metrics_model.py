from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hoserkd.engine.city.storage import load_city
from hoserkd.engine.config import CityConfig, DataConfig
from hoserkd.engine.events import Silent, never_stop
from hoserkd.engine.metrics.model import (
    StepAnswers,
    judge_answers,
    judge_model,
    perplexity_figure,
    step_answers,
)
from hoserkd.engine.metrics.statistics import Resampling
from hoserkd.engine.prepare import prepare_city
from hoserkd.engine.student.storage import LoadedStudent, load_student
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.training.validation import judge_split
from hoserkd.engine.trips.batches import TripSource, epoch_batches
from hoserkd.errors import InterruptedRunError

HERE = Path(__file__).resolve().parents[1] / "data" / "hoser"
CPU = torch.device("cpu")
HOW = Resampling(50, 0.95, 0)


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    directory = tmp_path_factory.mktemp("city")
    prepare_city(CityConfig(name="public", zones=6), HERE / "city", directory, force=False,
                 observer=Silent(), stop=never_stop)
    return load_city(directory)


@pytest.fixture(scope="module")
def student(city):
    return load_student(HERE / "best.pth", city)


def test_figures_on_all_trips_equal_those_of_the_training_loop(city, student):
    found = judge_model(student, city, "test", DataConfig(), 10_000, HOW, device=CPU,
                        observer=Silent(), stop=never_stop)
    tables = build_network_tables(city.network, student.meta.config.features, CPU)
    trips = city.split("test")
    expected = judge_split(student.model, tables, TripSource(trips, tables, DataConfig(), CPU),
                           epoch_batches(trips, 16, 0, 0, False), student.meta.times).metrics
    for ours, theirs in (("next_step_accuracy", "accuracy"),
                         ("next_step_accuracy_kept", "accuracy_kept"),
                         ("time_mae_s", "time_mae_s"), ("time_mape", "time_mape"),
                         ("time_log_mape", "loss_time"), ("ece", "ece")):
        assert found.figures[ours].value == pytest.approx(expected[theirs], rel=1e-4), ours


def test_a_student_is_judged_among_the_candidates_that_it_was_trained_with(city, student):
    narrow = LoadedStudent(student.model, replace(student.meta, candidate_top_k=2))
    asked, own = (step_answers(each, city, "test", DataConfig(candidate_top_k=k), 40, 0, device=CPU,
                               observer=Silent(), stop=never_stop)
                  for each, k in ((student, 2), (narrow, 64)))
    np.testing.assert_array_equal(asked.confidence, own.confidence)


def test_a_sample_is_the_same_for_a_seed_and_in_the_order_of_its_trips(city, student):
    first, again = (step_answers(student, city, "test", DataConfig(), 20, 3, device=CPU,
                                 observer=Silent(), stop=never_stop) for _ in range(2))
    np.testing.assert_array_equal(first.confidence, again.confidence)
    chosen = np.sort(np.random.default_rng(3).choice(60, 20, replace=False))
    trips = city.split("test")
    seconds = np.concatenate([np.diff(trips.entered_at_s[trips.offset[i]:trips.offset[i + 1]])
                              for i in chosen])
    np.testing.assert_array_equal(first.true_s, seconds)


def test_a_stop_is_heard(city, student):
    with pytest.raises(InterruptedRunError):
        judge_model(student, city, "test", DataConfig(), 20, HOW, device=CPU, observer=Silent(),
                    stop=lambda: True)


def test_a_lost_label_is_wrong_over_all_steps_and_absent_from_the_rest():
    answers = StepAnswers(
        offset=np.array([0, 2, 4]), confidence=np.array([0.9, 0.9, 0.9, 0.9]),
        correct=np.array([True, False, True, True]), kept=np.array([True, False, True, True]),
        choice=np.array([True, True, False, False]),
        predicted_log=np.log1p([5.0, 1e6, 5.0, 9.0]),
        predicted_s=np.array([5.0, 1e6, 5.0, 9.0]), true_s=np.array([5.0, 5.0, 5.0, 5.0]))
    found = judge_answers(answers, HOW).figures
    assert found["next_step_accuracy"].value == 0.75
    assert found["next_step_accuracy_kept"].value == 1.0
    # A step with one candidate is right by construction: one of the two others is.
    assert found["next_step_accuracy_choice"].value == found["choice_share"].value == 0.5
    assert found["ece_choice"].value == pytest.approx(0.4)
    assert found["ece"].value == pytest.approx(0.15)
    assert found["time_mae_s"].value == pytest.approx(4 / 3)


def test_perplexity_is_the_exponential_of_the_mean_surprise_a_token():
    found = perplexity_figure(np.array([2.0, 4.0]), np.array([1, 2]), HOW)
    assert found.value == pytest.approx(np.exp(2.0))
    assert found.low <= found.value <= found.high
    assert perplexity_figure(np.zeros(1), np.zeros(1, int), HOW).value is None
