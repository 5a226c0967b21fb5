"""Characters in the path of the store: they work, or are refused before anything is done."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hoserkd.store.runs import RunStore

FITTING = "#%20 \n\t'\":[1]*;東~{}$&|<>"
UNFIT = {"?": "'?'", "\\": r"'\\'", os.fsdecode(b"\xff"): "the byte 0xff, which is not UTF-8"}
COMMANDS = ("prepare --profile smoke", "train --profile smoke --no-distill --name x", "runs list",
            "runs repair", "tui", "generate --od test", "tune --profile smoke", "bundle x",
            "study --profile smoke", "evaluate x", "train-teacher --profile smoke",
            "precompute --profile smoke", "teachers show t", "demo")


def test_a_store_lies_in_any_folder_that_duckdb_takes(tmp_path: Path) -> None:
    store = RunStore(tmp_path / FITTING / "store")
    with store.create_run("train", "demo", "first") as run:
        run.evaluation({"x": 1.0})
    store.repair()
    assert RunStore(store.directory).run("first").status == "finished"
    assert {path.name for path in tmp_path.iterdir()} == {FITTING}


def test_a_relative_store_is_no_address_of_another_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = RunStore(Path("md:mine"))
    with store.create_run("train", "demo", "first"):
        pass
    assert store.run("first").name == "first"


@pytest.mark.parametrize("character", UNFIT)
def test_every_command_refuses_a_path_that_it_cannot_use(
    character: str, tmp_path: Path, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / f"a{character}b"
    monkeypatch.setenv("HOSERKD_HOME", str(home))
    for line in COMMANDS:
        answer = run_cli(*line.split())
        assert answer.exit_code == 2, line
        assert f"the path of a run store cannot hold {UNFIT[character]}\n" in answer.stderr, line
        assert len(answer.stderr.splitlines()) == 2
    assert run_cli("doctor", "--quick").exit_code == 1
    assert run_cli("profiles", "list").exit_code == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["csv", "parquet", "tensorboard"])
def test_an_export_to_a_folder_that_is_not_utf_8_is_refused(
    form: str, tmp_path: Path, run_cli: Callable[..., Any], store: RunStore
) -> None:
    with store.create_run("train", "demo", "first"):
        pass
    folder = tmp_path / os.fsdecode(b"a\xff")
    answer = run_cli("runs", "export", "first", f"--{form}", folder, "--store", store.directory)
    assert answer.exit_code == 2
    assert "cannot hold the byte 0xff" in answer.stderr


def test_a_file_name_that_is_not_utf_8_does_not_spoil_the_store(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "store")
    name = os.fsdecode(b"trips-\xff.csv")
    with store.create_run("train", "demo", "first") as run:
        run.artifact(tmp_path / name, "generated")
        run.evaluation({name: 1.0, "source": name, "\U0001f600": 2.0})
    (made,) = store.artifacts(store.run("first").run_id)
    assert made.path.endswith(r"trips-\udcff.csv")
    (judged,) = store.evaluations(store.run("first").run_id)
    assert judged.payload["source"] == r"trips-\udcff.csv"
    assert judged.payload["\U0001f600"] == 2.0
