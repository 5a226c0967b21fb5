"""`import hoserkd.engine` is the public interface: cheap, whole, and the same for mypy."""

import ast
import inspect
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import hoserkd.engine as engine
from hoserkd.engine.types import GeneratedTrips

SOURCE = Path(str(engine.__file__)).read_text("utf-8")


def test_import_loads_nothing_and_dir_names_everything() -> None:
    probe = ("import sys, hoserkd.engine as e\n"
             "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)\n"
             "assert set(e.__all__) <= set(dir(e))\n"
             "assert not hasattr(e, 'nothing')")
    subprocess.run([sys.executable, "-c", probe], check=True)


def test_every_public_name_is_there_and_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "library.md").read_text("utf-8")
    for name in engine.__all__:
        assert getattr(engine, name).__doc__, name
        assert f"`{name}`" in page, name


def test_names_for_mypy_are_those_that_are_loaded() -> None:
    guarded = next(node for node in ast.parse(SOURCE).body if isinstance(node, ast.If))
    typed = {alias.name: str(node.module).removeprefix("hoserkd.engine.")
             for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == engine._HOME
    assert sorted(typed) == sorted(engine.__all__)


def part(roads: list[list[int]], first: int) -> GeneratedTrips:
    count = len(roads)
    flat = np.array([road for trip in roads for road in trip], np.int32)
    return GeneratedTrips(
        origin=np.arange(first, first + count), destination=np.arange(count),
        departure_s=np.zeros(count, np.int64),
        offset=np.cumsum([0, *map(len, roads)]), road=flat, entered_at_s=flat.astype(np.int64),
        log_prob=np.zeros(count), reached=np.ones(count, bool), reason=("reached",) * count,
        requested=np.full((count, 2), first))


def test_join_trips_keeps_every_trip_in_order() -> None:
    trips = [[4, 5], [], [6]], [[7]], [[8, 9, 10]]
    joined = engine.join_trips([part(list(roads), i) for i, roads in enumerate(trips)])
    pieces = np.split(joined.road, joined.offset[1:-1])
    assert [piece.tolist() for piece in pieces] == [[4, 5], [], [6], [7], [8, 9, 10]]
    assert joined.requested is not None
    assert joined.requested[:, 0].tolist() == [0, 0, 0, 1, 2]
    assert len(joined) == len(joined.reason) == 5


def test_build_queries_finds_roads_by_id_and_marks_those_unknown() -> None:
    from test_deployment import toy_city

    city = toy_city()
    ids = city.network.road_id
    queries = engine.build_queries(city, [
        engine.TripRequest(int(ids[7]), int(ids[3]), datetime(1970, 1, 2)),
        engine.TripRequest(3, int(ids[3]), datetime(1970, 1, 1, 0, 1))])
    assert queries.origin.tolist() == [7, -1]
    assert queries.destination.tolist() == [3, 3]
    assert queries.departure_s.tolist() == [86400, 60]
    assert len(engine.build_queries(city, [])) == 0
    with pytest.raises(Exception, match="no trip"):
        engine.search_trips(None, city, engine.build_queries(city, []))  # type: ignore[arg-type]


def test_every_public_function_takes_a_path_as_text_too() -> None:
    """So that a notebook need not import pathlib."""
    functions = [getattr(engine, name) for name in engine.__all__
                 if inspect.isfunction(getattr(engine, name))]
    assert len(functions) > 9
    for function in functions:
        for name, given in inspect.signature(function).parameters.items():
            wanted = get_args(given.annotation) or (given.annotation,)
            assert Path not in wanted or str in wanted, f"{function.__name__}: {name}"


def test_paths_as_text_are_read_and_written(tmp_path: Path) -> None:
    from test_deployment import random_student, toy_city

    from hoserkd.engine.city.storage import save_city
    from hoserkd.engine.config import StudentConfig
    from hoserkd.engine.student.storage import save_student

    toy = toy_city(12)
    trips = engine.TrajectorySet(np.zeros(1, np.int64), np.empty(0, np.int32),
                                 np.empty(0, np.int64))
    save_city(tmp_path / "city", "toy", toy.network, dict.fromkeys(("train", "val", "test"), trips),
              toy.times)
    city = engine.load_city(str(tmp_path / "city"))
    config = StudentConfig(hidden_dim=8, road_id_dim=4, attribute_dim=1)
    student = random_student(city, config)
    save_student(tmp_path / "model.safetensors", student.model, student.meta)
    assert engine.load_student(str(tmp_path / "model.safetensors"), city).meta.roads == 12
    ids = city.network.road_id
    (tmp_path / "od.csv").write_text(
        f"origin,destination,departure\n{ids[0]},{ids[1]},2024-05-06T08:00:00Z\n")
    for path in (tmp_path / "od.csv", str(tmp_path / "od.csv")):
        assert len(engine.draw_queries(city, path, None, 0)) == 1
    engine.save_generated(str(tmp_path / "t.csv"), part([[4, 5]], 1), city.network)
    assert len(engine.load_generated(str(tmp_path / "t.csv"), city.network)) == 1
