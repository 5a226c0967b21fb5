"""Runs, files and stages that bear one name are told apart by what they hold."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hoserkd.commands.bundle import _children
from hoserkd.commands.demo import _content
from hoserkd.commands.judged import Target, seed_groups
from hoserkd.commands.lineage import _makers
from hoserkd.commands.study_bench import StoredTrainings
from hoserkd.engine.config import EngineConfig
from hoserkd.engine.identity import Identity, MadeFrom, city_identity
from hoserkd.engine.metrics.statistics import Figure
from hoserkd.engine.places import TEACHERS
from hoserkd.engine.tasks import Task
from hoserkd.settings import config_json, stored_config
from hoserkd.store.runs import RunStore

CITY = Identity("city", "tiny", "c" * 64)
ONE, OTHER = (Identity("teacher", "demo", digit * 64) for digit in "12")
CONFIG = EngineConfig()


def trained(store: RunStore, name: str, teacher: Identity, city: Identity = CITY, **given: Any
            ) -> str:
    """Record a finished training and return its id."""
    run = store.create_run("train", "demo", name, config_json(CONFIG),
                           made_from=MadeFrom(city, teacher), **given)
    run.finish("finished")
    return run.run_id


def in_store(store: RunStore) -> Any:
    """Return what of a command's context these functions use."""
    return SimpleNamespace(store=store, config_of=lambda run: stored_config(run.config_json, ""))


def test_runs_of_two_teachers_of_one_name_differ_in_comparisons_and_are_no_group_of_seeds(
    store: RunStore, run_cli: Callable[..., Any]
) -> None:
    for name, teacher, seed in (("a", ONE, 1), ("b", OTHER, 2), ("c", ONE, 3)):
        trained(store, name, teacher, seed=seed)
    answer = run_cli("runs", "compare", "a", "b", "c", "--store", store.directory, "--json")
    assert json.loads(answer.stdout)["settings"] == {"made_from.teacher": [
        "demo 111111111111", "demo 222222222222", "demo 111111111111"]}
    targets = [Target(name, None, store.run(name)) for name in "abc"]
    judged = {name: SimpleNamespace(figures={"x": Figure(1.0, 1.0, 1.0)}) for name in "abc"}
    assert [group.members for group in seed_groups(targets, judged)] == [("a", "c")]


def test_a_file_that_was_written_over_has_another_maker(store: RunStore, tmp_path: Path) -> None:
    from hoserkd.engine.files import file_sha256

    file = tmp_path / "trips.csv"
    for text in ("first", "second"):
        file.write_text(text)
        with store.create_run("generate", "demo", text) as run:
            run.artifact(file, "generated", sha256=file_sha256(file))
    assert [run.name for run in _makers(in_store(store), {file})] == ["second"]
    file.write_text("first")
    assert [run.name for run in _makers(in_store(store), {file})] == ["first"]
    file.write_text("by hand")
    assert _makers(in_store(store), {file}) == []


def test_a_bundle_takes_no_trips_and_figures_of_students_that_the_run_taught(
    store: RunStore
) -> None:
    teacher = trained(store, "big", ONE)
    trained(store, "small", ONE, parents=[teacher])
    store.create_run("generate", "demo", "made", parents=[teacher]).finish("finished")
    found = _children(in_store(store), store.run(teacher))
    assert [run.name for run in found] == ["made"]


def test_the_runs_that_made_an_artefact_are_found_by_its_hash(store: RunStore) -> None:
    for name, sha256 in (("a", "1" * 64), ("b", "2" * 64), ("c", "1" * 64)):
        with store.create_run("train", "demo", name) as run:
            run.artifact("best.safetensors", "model", sha256=sha256)
    assert [run.name for run in store.makers("1" * 64)] == ["c", "a"]
    assert store.makers("3" * 64) == ()


def test_a_study_counts_neither_another_city_of_the_name_nor_another_teacher(
    store: RunStore, two_way_city: Any
) -> None:
    here = city_identity(two_way_city)
    trained(store, "same", ONE, here)
    trained(store, "city", ONE, Identity("city", here.name, "9" * 64))
    trained(store, "teacher", OTHER, here)
    task = Task("t", ("distilled",), CONFIG)

    def ledger(now: Identity) -> StoredTrainings:
        return StoredTrainings(in_store(store), two_way_city, lambda config: now,
                               store.runs(kind="train"))

    assert ledger(ONE).find(task).run == store.run("same").run_id
    assert ledger(Identity("teacher", "demo", "7" * 64)).find(task) is None
    told = ledger(ONE).of_others([task])
    assert len(told) == 2
    assert any(f"made on city {here.name} (hash 999999999999), and this is {here}" in words
               for words in told)
    assert any(f"taught by {OTHER}, and this is {ONE}" in words for words in told)


def test_a_stage_of_the_demo_is_done_only_where_what_it_made_lies_there_yet(
    tmp_path: Path, retrain_teacher: Callable[[Path], Any], saved_teacher: Path
) -> None:
    payload = {"directory": str(saved_teacher)}
    before = _content("train-teacher", payload)
    assert before == TEACHERS.identify(saved_teacher).sha256  # type: ignore[union-attr]
    retrain_teacher(saved_teacher)
    assert _content("train-teacher", payload) not in (before, None)
    model = tmp_path / "best.safetensors"
    model.write_bytes(b"weights")
    first = _content("train", {"model": str(model)})
    model.write_bytes(b"others")
    assert _content("train", {"model": str(model)}) != first
    model.unlink()
    assert _content("train", {"model": str(model)}) is None
    assert _content("prepare", {"directory": str(tmp_path / "gone")}) is None


@pytest.fixture
def saved_teacher(tmp_path: Path) -> Path:
    """Return the folder of a small exported teacher."""
    import torch

    from hoserkd.engine.city.grid import Grid
    from hoserkd.engine.teacher.lmtad import LMTAD, LMTADDimensions
    from hoserkd.engine.teacher.storage import TeacherCard, save_teacher

    torch.manual_seed(0)
    dimensions = LMTADDimensions(12, 8, 1, 2, 8)
    grid = Grid(min_lat=0.0, min_lng=0.0, cell_height_deg=0.1, cell_width_deg=0.1, rows=3, cols=3,
                downsample=1)
    save_teacher(tmp_path / "demo", LMTAD(dimensions),
                 TeacherCard("demo", dimensions, grid, 11, 10, 9, "", {}))
    return tmp_path / "demo"
