"""Names that become paths: one check, wherever a name is given or read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hoserkd.engine.names import check_name, checked_reference, is_hash
from hoserkd.errors import UsageError
from hoserkd.store.runs import RunStore
from hoserkd.text import file_stem

BAD = ("../../tt", "..", "/tmp/tt", "a/b", "a b", "-x", ".hidden", "", "a\nb", "a\0b", "a\\b",
       "n" * 101, "tt\n")
SETTINGS = ("city.name", "tune.study", "study.name", "study.arms")
FLAGS = ("train --name", "train --resume --name", "study --name", "tune --study",
         "train-teacher --profile smoke --set teacher.name", "prepare --demo --city",
         "runs tag first", "runs tag first --name", "train --city", "train --teacher",
         "generate --city", "precompute --teacher", "teachers show", "tune show",
         "profiles show", "train --profile")
"""Command lines that take a name as their last word."""
FOLDERS = ("prepare --demo --city", "runs tag first")
"""Of these, some words are not refused as a name: a folder may be named, or nothing."""


@pytest.mark.parametrize("name", BAD)
def test_what_could_leave_its_folder_is_no_name(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a name"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "San_Francisco-2", "lr=0.1+wd", "v1.2"])
def test_plain_words_are_names(name: str) -> None:
    assert check_name(name) == name
    assert checked_reference(name) == name
    assert file_stem(name).replace("-", "") == name.replace("=", "").replace("+", "").replace(
        "-", "")


@pytest.mark.parametrize("name", [name for name in BAD if name])
@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_takes_no_path_for_a_name(
    key: str, name: str, run_cli: Callable[..., Any]
) -> None:
    value = json.dumps({name: {}} if key == "study.arms" else name)
    answer = run_cli("study", "--set", f"{key}={value}", "--show-config")
    assert answer.exit_code == 2
    assert key in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("line", FLAGS)
def test_no_flag_writes_outside_the_folders(
    line: str, home: Path, tmp_path: Path, run_cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    with RunStore(home / "store").create_run("train", "demo", "first"):
        pass
    for name in ("../../tt", "a b", "n" * 300):
        if line in FOLDERS and ("/" in name or name.startswith(".")):
            continue
        words = line.split()
        last = [f"{words.pop()}={name}"] if "--set" in words else [name]
        answer = run_cli(*words, *last)
        assert answer.exit_code in (1, 2), (line, name)
        assert "Traceback" not in answer.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_teacher_of_a_profile_stays_in_the_data_folder(
    home: Path, tmp_path: Path, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    profile = tmp_path / "theirs.yaml"
    profile.write_text("extends: smoke\nteacher: {name: ../../tt}\n")
    small = ("--set", "city.demo_roads=60", "--set", "city.demo_trips=50")
    assert run_cli("prepare", "--profile", "smoke", *small).exit_code == 0
    answer = run_cli("train-teacher", "--profile", profile, *small)
    assert answer.exit_code == 2
    assert "theirs.yaml:2): teacher.name: a teacher is trained under a name" in answer.stderr
    assert not (tmp_path / "tt").exists()


@pytest.mark.parametrize("name", ["../../x", "..", "/etc", ".x", "a/b"])
def test_a_run_whose_name_comes_from_a_file_is_exported_under_a_safe_one(
    name: str, home: Path, tmp_path: Path, run_cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "/" not in file_stem(name)
    assert not file_stem(name).startswith(".")
    with RunStore(home / "store").create_run("train", "demo", "first") as run:
        pass
    (run.directory / "labels.json").write_text(json.dumps({"name": name}))
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    answer = run_cli("runs", "export", run.run_id, "--format", "csv")
    if answer.exit_code == 0:
        assert [path.parent.parent for path in tmp_path.rglob("runs.csv")] == [Path.cwd()]


def test_a_hash_that_a_city_claims_is_no_path() -> None:
    assert is_hash("0af3")
    assert not any(map(is_hash, ("", "../../../x", "a/b", "0" * 65, "ab\n")))
