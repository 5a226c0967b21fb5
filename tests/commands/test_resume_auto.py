"""`--resume=auto`: one command line begins a batch job, and continues it when it is requeued."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hoserkd.cli import hoist, main
from hoserkd.commands.context import open_context
from hoserkd.commands.train import stopped_alike
from hoserkd.store.runs import RunStore

CITY = Path(__file__).resolve().parents[1] / "data" / "faults" / "05-same-base-name" / "city"
LINES = ("train --no-distill --name job", "train-teacher", "study --name job --shares 1 --seeds 1",
         "tune --study job")


def test_resume_takes_no_value_or_auto(run_cli: Callable[..., Any]) -> None:
    assert hoist(["train", "--resume", "--name", "x"])[1] == [
        "train", "--resume=yes", "--name", "x"]
    assert hoist(["train", "--resume=auto"])[1] == ["train", "--resume=auto"]
    assert hoist(["train", "--", "--resume"])[1] == ["train", "--", "--resume"]
    for line in LINES:
        answer = run_cli(*line.split(), "--resume=perhaps")
        assert answer.exit_code == 2
        assert "--resume=perhaps: expected --resume or --resume=auto" in answer.stderr


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the options that name a data folder with a city of five roads."""
    folder = tmp_path_factory.mktemp("places")
    options = ["--data-dir", str(folder), "--quiet"]
    assert main(["prepare", "--source", str(CITY), "--city", "smoke", "--set", "city.name=smoke",
                 "--set", "city.zones=2", *options]) == 0
    return options


@pytest.fixture
def prepared(places: list[str], run_cli: Callable[..., Any]) -> Callable[..., Any]:
    """Return what runs a line with the profile `smoke` and gives its JSON."""
    def run(*words: object) -> Any:
        answer = run_cli(*words, "--profile", "smoke", *places, "--json")
        assert answer.exit_code == 0, answer.stderr
        return json.loads(answer.stdout)

    return run


def stop_run(store: RunStore, run_id: str) -> None:
    """Make a run one that was stopped, as a batch system stops it."""
    with store.resume_run(run_id) as recorder:
        recorder.finish("stopped", "requeued")


def test_a_named_training_begins_continues_and_is_left_when_finished(
    prepared: Callable[..., Any], home: Path
) -> None:
    store = RunStore(home / "store")
    line = ("train", "--no-distill", "--name", "job", "--resume=auto")
    first = prepared(*line, "--max-steps", "1")
    assert first["steps"] == 1
    stop_run(store, first["run_id"])
    again = prepared(*line, "--max-steps", "2")
    assert (again["run_id"], again["steps"]) == (first["run_id"], 2)
    finished = prepared(*line, "--max-steps", "2")
    assert (finished["run_id"], finished["steps"]) == (first["run_id"], 2)
    assert finished["metrics"] == again["metrics"]
    assert len(store.runs(kind="train")) == 1


def test_without_a_name_only_a_training_of_the_same_settings_is_continued(
    prepared: Callable[..., Any], home: Path, places: list[str]
) -> None:
    store = RunStore(home / "store")
    line = ("train", "--no-distill", "--max-steps", "1", "--resume=auto")
    first = prepared(*line, "--seed", "1")
    stop_run(store, first["run_id"])
    assert prepared(*line, "--seed", "2")["run_id"] != first["run_id"]
    assert prepared(*line, "--seed", "1")["run_id"] == first["run_id"]
    # It is finished now: the same line would begin anew.
    context = open_context("train", "smoke", {"train.max_steps": 1, "distill.enabled": False,
                                              "seed": 1})
    assert stopped_alike(context, f"{places[1]}/cities/smoke") is None


def test_a_teacher_begins_and_is_left_when_finished(prepared: Callable[..., Any]) -> None:
    assert prepared("train-teacher", "--resume=auto")["trained"]
    assert not prepared("train-teacher", "--resume=auto")["trained"]
