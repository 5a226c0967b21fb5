"""A student with a quantile time head: searches, storage, exports, answers, figures."""

from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from search_reference import plain_student
from test_search_incremental import DEPARTURE_S, Held, incremental_student, queries, run
from toy_quantiles import CPU, LEVELS, MEDIAN, QUANTILE, a_batch, point_twin, random_student
from toy_training import toy_city, weights

from hoserkd.engine.config import DataConfig, GenerateConfig
from hoserkd.engine.events import Silent, never_stop
from hoserkd.engine.generate import draw_queries, generate_trips
from hoserkd.engine.metrics.model import QuantileAnswers, StepAnswers, judge_answers, judge_model
from hoserkd.engine.metrics.statistics import Resampling
from hoserkd.engine.predict import Predictor
from hoserkd.engine.search.compiled_forward import CompiledForward
from hoserkd.engine.search.padded_forward import PaddedForward
from hoserkd.engine.student.public_export import save_public_checkpoint
from hoserkd.engine.student.storage import load_student, save_student
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.training.validation import judge_split
from hoserkd.engine.trips.batches import TripSource, epoch_batches
from hoserkd.engine.types import TimeStatistics

HOW = Resampling(20, 0.95, 0)


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return toy_city(tmp_path_factory.mktemp("city"))


def test_evaluation_says_what_the_training_loop_says(city):
    student = random_student(city)
    figures = judge_model(student, city, "test", DataConfig(), 10_000, HOW, device=CPU,
                          observer=Silent(), stop=never_stop).figures
    tables, trips = build_network_tables(city.network, "geographic", CPU), city.split("test")
    expected = judge_split(student.model, tables, TripSource(trips, tables, DataConfig(), CPU),
                           epoch_batches(trips, 16, 0, 0, False), city.times).metrics
    for ours, theirs in (("time_pinball", "loss_pinball"), ("time_coverage", "time_coverage"),
                         ("time_coverage_gap", "time_coverage_gap"), ("time_mae_s", "time_mae_s")):
        assert figures[ours].value == pytest.approx(expected[theirs], rel=1e-4), ours
        assert figures[ours].low <= figures[ours].value <= figures[ours].high
    point = judge_model(point_twin(student), city, "test", DataConfig(), 10_000, HOW, device=CPU,
                        observer=Silent(), stop=never_stop).figures
    assert not {"time_pinball", "time_coverage", "time_coverage_gap"} & point.keys()
    assert point["time_mae_s"].value == pytest.approx(figures["time_mae_s"].value, rel=1e-5)


def test_a_lost_label_counts_in_no_figure_of_the_quantiles():
    four = np.ones(4)
    answers = StepAnswers(
        np.array([0, 2, 4]), 0.9 * four, four > 0, np.array([True, False, True, True]), four > 0,
        four, four, four,
        QuantileAnswers((0.25, 0.5, 0.75), np.array([True, True, False, False]),
                        np.array([1.0, 9.0, 2.0, 3.0])))
    found = judge_answers(answers, HOW).figures
    assert found["time_coverage"].value == pytest.approx(1 / 3)
    assert found["time_coverage_gap"].value == pytest.approx(1 / 3 - 0.5)
    assert found["time_pinball"].value == pytest.approx(2.0)


@pytest.mark.parametrize("forward", [CompiledForward, PaddedForward])
@pytest.mark.parametrize("features", ["geographic", "aaai2025"])
def test_both_searching_forwards_equal_the_full_forward_at_every_expansion(
    city, features, forward
):
    student = random_student(city, QUANTILE.model_copy(update={"features": features}))
    model, times = student.model, TimeStatistics(3.4, 0.5)
    tables = build_network_tables(city.network, features, CPU)
    expander = incremental_student(model, tables, times, forward=forward)
    held = Held(expander, plain_student(model, tables, times, DEPARTURE_S))
    run(city.network, queries(12), held, slots=5)
    assert held.deepest > 6


@pytest.mark.parametrize("search", ["astar", "beam", "sample", "greedy"])
def test_every_search_finds_what_the_student_of_the_median_finds(city, search):
    student = random_student(city)
    asked = draw_queries(city, "test", 60, seed=1)

    def trips(of):
        [found] = generate_trips(of, city, asked, GenerateConfig(search=search, max_steps=300),
                                 device=CPU, seed=0, observer=Silent(), stop=never_stop)
        return found

    found, expected, other = map(trips, (student, point_twin(student), point_twin(student, 3)))
    assert np.array_equal(found.offset, expected.offset)
    assert np.array_equal(found.road, expected.road)
    assert np.array_equal(found.entered_at_s, expected.entered_at_s)
    np.testing.assert_allclose(found.log_prob, expected.log_prob, atol=1e-5)
    assert not np.array_equal(found.entered_at_s, other.entered_at_s)


@pytest.mark.parametrize("search", ["astar", "beam", "sample", "greedy"])
def test_every_search_times_its_trips_by_the_plain_median(city, search):
    student = random_student(city)
    asked = draw_queries(city, "test", 15, seed=2)
    [found] = generate_trips(student, city, asked, GenerateConfig(search=search, max_steps=300),
                             device=CPU, seed=0, observer=Silent(), stop=never_stop)
    candidates, tables = city.network.candidates, build_network_tables(
        city.network, "geographic", CPU)
    for i in range(len(found)):
        part = slice(found.offset[i], found.offset[i + 1])
        roads = found.road[part].tolist()
        clocks = (found.entered_at_s[part] - found.departure_s[i]).tolist()
        plain = plain_student(student.model, tables, city.times, int(found.departure_s[i]))
        for n in range(1, len(roads)):
            _, seconds = plain(roads[:n], clocks[:n], int(found.destination[i]))
            follow = candidates.road[candidates.offset[roads[n - 1]]:
                                     candidates.offset[roads[n - 1] + 1]].tolist()
            assert clocks[n] == clocks[n - 1] + seconds[follow.index(roads[n])]


def test_a_quantile_student_that_was_saved_comes_back(city, tmp_path):
    student = random_student(city)
    save_student(tmp_path / "best.safetensors", student.model, student.meta)
    loaded = load_student(tmp_path / "best.safetensors", city)
    assert loaded.meta.config == QUANTILE
    assert "navigator.levels" not in weights(tmp_path / "best.safetensors")
    tables, batch = a_batch(city)
    with torch.no_grad():
        before, after = student.model(tables, batch), loaded.model(tables, batch)
    assert torch.equal(before.travel_time_quantiles, after.travel_time_quantiles)


def test_the_public_export_answers_like_the_median(city, tmp_path):
    student = random_student(city, QUANTILE.model_copy(update={"features": "aaai2025"}))
    path = tmp_path / "best.pth"
    save_public_checkpoint(path, student, city, max_len=16)
    rows = torch.load(path, weights_only=True)["navigator.time_estimator_linear_3.weight"]
    head = student.model.navigator.time_estimator_linear_3
    assert torch.equal(rows, head.weight[MEDIAN:MEDIAN + 1])
    public = load_student(path, city)
    assert public.meta.config.time_head == "point"
    tables, batch = a_batch(city, "aaai2025")
    with torch.no_grad():
        ours, theirs = student.model(tables, batch), public.model(tables, batch)
    assert torch.equal(theirs.logits, ours.logits)
    assert theirs.travel_time_quantiles is None
    torch.testing.assert_close(theirs.travel_time, ours.travel_time, rtol=1e-6, atol=1e-6)


def test_the_predictor_gives_rising_quantiles_of_the_seconds_round_the_median(city):
    student, trips = random_student(city), city.split("test")
    tables = build_network_tables(city.network, "geographic", CPU)
    source, crossed = TripSource(trips, tables, DataConfig(), CPU), 0
    predictor, twin = Predictor(student, city), Predictor(point_twin(student), city)
    for trip in range(len(trips)):
        points = slice(trips.offset[trip], trips.offset[trip + 1])
        roads = city.network.road_id[trips.road[points]].tolist()
        times = [datetime.fromtimestamp(int(s), UTC) for s in trips.entered_at_s[points]]
        answer = predictor.next_roads(roads[:-1], times[:-1], roads[-1])
        assert answer.quantiles == LEVELS
        batch = source.batch(np.array([trip]))
        with torch.no_grad():
            head = student.model(tables, batch).travel_time_quantiles.double()
        last = slice(int(batch.candidate_offset[-2]), int(batch.candidate_offset[-1]))
        of_road = dict(zip(batch.candidate_road[last].tolist(), head[last].tolist(), strict=True))
        for road, seconds in zip(answer.road_id.tolist(), answer.quantile_seconds, strict=True):
            row = of_road[road]
            crossed += row != sorted(row)
            ordered = [min(row[i:MEDIAN + 1]) if i <= MEDIAN else max(row[MEDIAN:i + 1])
                       for i in range(4)]
            expected = [max(np.expm1(v * city.times.log1p_std + city.times.log1p_mean), 0)
                        for v in ordered]
            assert seconds.tolist() == pytest.approx(expected, rel=1e-4)
        assert np.array_equal(answer.seconds, answer.quantile_seconds[:, MEDIAN])
        point = twin.next_roads(roads[:-1], times[:-1], roads[-1])
        assert (point.quantiles, point.quantile_seconds) == ((), None)
        assert answer.seconds == pytest.approx(point.seconds, rel=1e-4)
    assert crossed
