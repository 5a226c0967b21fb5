"""One question at a time gives what a batch gives."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from hoserkd.engine.city.storage import City, load_city
from hoserkd.engine.city.synthetic import make_demo_source
from hoserkd.engine.config import CityConfig, DataConfig, StudentConfig
from hoserkd.engine.events import Silent, never_stop
from hoserkd.engine.predict import Predictor
from hoserkd.engine.prepare import prepare_city
from hoserkd.engine.student.storage import LoadedStudent, StudentMeta, new_student
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.trips.batches import TripSource
from hoserkd.errors import DataError


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    """A small made-up city."""
    place: Path = tmp_path_factory.mktemp("city")
    make_demo_source(place / "source", 100, 60, 0)
    prepare_city(CityConfig(name="toy", zones=4), place / "source", place / "city", force=False,
                 observer=Silent(), stop=never_stop)
    return load_city(place / "city")


@pytest.fixture(scope="module")
def student(city: City) -> LoadedStudent:
    """A student with random weights."""
    torch.manual_seed(0)
    config = StudentConfig(hidden_dim=16, road_id_dim=8, attribute_dim=2, heads=2, layers=1)
    model = new_student(config, city.network)
    meta = StudentMeta(config, city.network.roads, len(city.network.highway_names),
                       city.network.zones, city.times)
    return LoadedStudent(model.eval(), meta)


@pytest.mark.parametrize("trip", range(3))
def test_predictor_last_step_of_a_trip_is_that_of_the_batch(
    city: City, student: LoadedStudent, trip: int
) -> None:
    trips = city.split("test")
    tables = build_network_tables(city.network, "geographic", torch.device("cpu"))
    batch = TripSource(trips, tables, DataConfig(), torch.device("cpu")).batch(np.array([trip]))
    with torch.inference_mode():
        output = student.model(tables, batch)
    last = slice(int(batch.candidate_offset[-2]), int(batch.candidate_offset[-1]))
    points = slice(trips.offset[trip], trips.offset[trip + 1])
    roads = city.network.road_id[trips.road[points]].tolist()
    times = [datetime.fromtimestamp(int(s), UTC) for s in trips.entered_at_s[points]]
    answer = Predictor(student, city).next_roads(roads[:-1], times[:-1], roads[-1])
    expected = dict(zip(city.network.road_id[batch.candidate_road[last].numpy()].tolist(),
                        output.logits[last].double().softmax(0).tolist(), strict=True))
    found = dict(zip(answer.road_id.tolist(), answer.probability.tolist(), strict=True))
    assert found == pytest.approx(expected, abs=1e-6)
    assert list(answer.probability) == sorted(answer.probability, reverse=True)
    assert (answer.seconds >= 0).all()


def test_predictor_offers_as_many_candidates_as_the_student_was_trained_with(
    city: City, student: LoadedStudent
) -> None:
    follow = np.diff(city.network.candidates.offset)
    road = int(city.network.road_id[int(follow.argmax())])
    narrow = LoadedStudent(student.model, replace(student.meta, candidate_top_k=1))
    when, end = [datetime(2024, 5, 6, 8)], int(city.network.road_id[-1])
    assert len(Predictor(student, city).next_roads([road], when, end).road_id) == follow.max() > 1
    assert len(Predictor(narrow, city).next_roads([road], when, end).road_id) == 1
    chosen = Predictor(narrow, city, candidate_top_k=2)
    assert len(chosen.next_roads([road], when, end).road_id) == 2


def test_predictor_wrong_questions_are_answered_in_words(
    city: City, student: LoadedStudent
) -> None:
    predictor = Predictor(student, city)
    now = datetime(2024, 5, 6, 8)
    with pytest.raises(DataError, match="not one of toy"):
        predictor.next_roads([10**9], [now], 0)
    with pytest.raises(DataError, match="as many times"):
        predictor.next_roads([0, 1], [now], 0)
