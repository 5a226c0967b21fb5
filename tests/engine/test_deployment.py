"""The next-step predictor as a program answers as the student does, without hoserkd."""

import json
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from random_city import random_network
from toy_quantiles import random_student

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import StudentConfig
from hoserkd.engine.deployment import program
from hoserkd.engine.deployment.next_roads import NextRoadsProgram
from hoserkd.engine.deployment.program import export_next_roads, random_walks, save_next_roads
from hoserkd.engine.predict import Predictor
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.types import TimeStatistics
from hoserkd.errors import CheckpointError

SMALL = StudentConfig(hidden_dim=16, road_id_dim=8, attribute_dim=2, heads=2, layers=2)
STUDENTS = {
    "geographic": SMALL,
    "aaai2025": SMALL.model_copy(update={"features": "aaai2025"}),
    "quantile": SMALL.model_copy(update={"time_head": "quantile", "quantiles": (0.1, 0.5, 0.9)}),
}


def toy_city(roads=40):
    """A city whose ids are neither small nor in the order of the roads."""
    network = random_network(roads)
    ids = np.random.default_rng(1).permutation(roads) * 7 + 1000
    return City(Path(), "toy", "", replace(network, road_id=ids), TimeStatistics(3.4, 0.5), {})


def module_of(student, city, top_k):
    tables = build_network_tables(city.network, student.meta.config.features, torch.device("cpu"))
    return NextRoadsProgram(student, tables, torch.from_numpy(city.network.road_id), top_k)


@pytest.mark.parametrize("top_k", [64, 2])
@pytest.mark.parametrize("config", STUDENTS.values(), ids=STUDENTS)
def test_next_roads_of_a_padded_batch_are_those_of_the_predictor(config, top_k):
    city = toy_city()
    student = random_student(city, config)
    predictor = Predictor(student, city, candidate_top_k=top_k)
    road, entered, length, destination = random_walks(
        city.network, 24, 7, np.random.default_rng(0))
    found = module_of(student, city, top_k)(road, entered, length, destination)
    assert found["road_id"].shape == (24, min(5, top_k))
    for i, points in enumerate(length.tolist()):
        times = [datetime.fromtimestamp(s, UTC) for s in entered[i, :points].tolist()]
        asked = predictor.next_roads(road[i, :points].tolist(), times, int(destination[i]))
        count = len(asked.road_id)
        assert found["road_id"][i].tolist() == [
            *asked.road_id.tolist(), *[-1] * (min(5, top_k) - count)]
        assert found["probability"][i, :count].tolist() == pytest.approx(asked.probability, 1e-5)
        assert not found["probability"][i, count:].any()
        assert found["seconds"][i, :count].tolist() == pytest.approx(asked.seconds, 1e-5)
        if asked.quantile_seconds is not None:
            np.testing.assert_allclose(
                found["quantile_seconds"][i, :count], asked.quantile_seconds, rtol=1e-5)


def test_next_roads_what_follows_a_trips_end_changes_nothing():
    city = toy_city()
    module = module_of(random_student(city, SMALL), city, 64)
    road, entered, length, destination = random_walks(city.network, 8, 6, np.random.default_rng(2))
    length.fill_(3)
    expected = module(road[:, :3], entered[:, :3], length, destination)
    road[:, 3:], entered[:, 3:] = -99, -1
    found = module(road, entered, length, destination)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5,
                                   equal_nan=True)


def test_next_roads_bad_questions_and_dead_ends_spoil_no_other_answer():
    city = toy_city()
    candidates = city.network.candidates
    kept = np.diff(candidates.offset)
    kept[0] = 0  # road 0 becomes a dead end
    stuck = replace(candidates, offset=np.concatenate([[0], kept.cumsum()]),
                    road=candidates.road[candidates.offset[1]:])
    city = replace(city, network=replace(city.network, candidates=stuck))
    module = module_of(random_student(city, SMALL), city, 64)
    ids = city.network.road_id
    road = torch.tensor([[ids[5], ids[6]]] * 6)
    road[1, 0] = 3
    road[5, 1] = int(ids[0])
    entered = torch.full((6, 2), 1000)
    length = torch.tensor([2, 2, 0, 3, 2, 2])
    destination = torch.full((6,), int(ids[9]))
    destination[4] = 4
    found = module(road, entered, length, destination)
    assert found["probability"][0].sum() == pytest.approx(1)
    for row in range(1, 5):
        assert (found["road_id"][row] == -1).all()
        assert found["probability"][row].isnan().all()
        assert found["seconds"][row].isnan().all()
    assert (found["road_id"][5] == -1).all()
    assert not found["probability"][5].any()


def test_saved_program_answers_trips_of_any_number_and_length(tmp_path: Path):
    city = toy_city()
    student = random_student(city, STUDENTS["quantile"].model_copy(update={"layers": 1}))
    export = export_next_roads(student, city)
    assert export.largest_difference < 1e-6
    save_next_roads(tmp_path / "it.pt2", export)
    extra = {"hoserkd.json": ""}
    loaded = torch.export.load(tmp_path / "it.pt2", extra_files=extra).module()
    with zipfile.ZipFile(tmp_path / "it.pt2") as archive:
        here = str(Path(program.__file__).parents[3]).encode()
        assert not [name for name in archive.namelist() if here in archive.read(name)]
    about = json.loads(extra["hoserkd.json"])
    assert (about["candidates"], about["quantiles"]) == (5, [0.1, 0.5, 0.9])
    module = module_of(student, city, 64)
    for trips, roads in ((1, 1), (1, 30), (40, 2)):
        asked = random_walks(city.network, trips, roads, np.random.default_rng(roads))
        found, expected = loaded(*asked), module(*asked)
        assert set(about["outputs"]) == set(found) == set(expected)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5,
                                   equal_nan=True)


def test_program_that_differs_is_not_exported(monkeypatch: pytest.MonkeyPatch):
    city = toy_city()
    module = module_of(random_student(city, SMALL), city, 64)
    other = module_of(random_student(city, SMALL, seed=1), city, 64)

    class Wrong:
        def module(self):
            return other

    monkeypatch.setattr(torch.export, "export", lambda *_, **__: Wrong())
    monkeypatch.setattr(program, "NextRoadsProgram", lambda *_: module)
    with pytest.raises(CheckpointError, match="differs by"):
        export_next_roads(random_student(city, SMALL), city)
