"""No report tells where its maker's files lay."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded_trips import members

from hoserkd.placeless import placeless, placeless_command, placeless_path, placeless_values


@pytest.mark.parametrize(("text", "told"), [
    ("in /home/jane/x/y.csv, and/or 3 km/h", "in y.csv, and/or 3 km/h"),
    ("~/data/Beijing", "Beijing"), ("~jane/x", "x"), ("/a/", "a"),
    ("sqlite:////home/jane/s.db", "sqlite:///s.db"), ("https://a.b/c/d", "https://a.b/c/d"),
    ("'/home/jane doe/x y'", "'x y'"), ("city.source=/data/B", "city.source=B"),
    ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"), ("a/b.csv", "a/b.csv"), ("", ""),
])
def test_absolute_paths_are_cut_to_their_names(text: str, told: str) -> None:
    assert placeless(text) == told
    assert placeless_values({"a": [text]}) == {"a": [told]}


@pytest.mark.parametrize(("path", "told"), [
    ("/home/jane/x.csv", "x.csv"), ("../jane/x.csv", "x.csv"), ("a/x.csv", "a/x.csv"),
    ("~/x.csv", "x.csv")])
def test_a_path_below_the_working_folder_is_told_whole(path: str, told: str) -> None:
    assert placeless_path(path) == told


def test_a_command_line_keeps_its_words() -> None:
    assert placeless_command(
        ["hoserkd", "evaluate", "/home/jane doe/x.csv", "--set", "city.source=/home/j d/B", "-o",
         "report", "--city=../jane/c", "--od", "zones:1,2"]) == (
        "hoserkd evaluate x.csv --set city.source=B -o report --city=c --od zones:1,2")


@pytest.fixture
def janes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the home of a user whose name and machine no report may tell."""
    home = tmp_path / "jane-q-doe"
    home.mkdir()
    for name in ("HOME", "HOSERKD_HOME"):
        monkeypatch.setenv(name, str(home))
    for name in ("USER", "LOGNAME"):
        monkeypatch.setenv(name, "jane-q-doe")
    monkeypatch.setattr(socket, "gethostname", lambda: "janes-laptop")
    monkeypatch.setattr("platform.node", lambda: "janes-laptop")
    return home


def test_no_report_holds_a_place_a_user_or_a_machine(
    janes: Path, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["--set", "city.demo_roads=60", "--set", "city.demo_trips=50"]
    short = ["--set", "evaluate.bootstrap=0", "--set", "evaluate.model_trips=0"]
    city = janes / "cities" / "smoke"
    lines: list[list[object]] = [
        ["prepare", "--profile", "smoke", *few],
        ["train", "--profile", "smoke", "--no-distill", "--max-steps", "1", "--name", "a",
         "--city", city],
        ["evaluate", "a", "-o", janes / "out", "--city", city, *short,
         "--set", "generate.num=4", "--export", "geojson", "--export", "points-csv"],
        ["bundle", "a", "-o", janes / "a.tar.zst", "--city", city],
    ]
    for line in lines:
        words = ["hoserkd", *map(str, line)]
        monkeypatch.setattr("sys.argv", words)
        answer = run_cli(*words[1:])
        assert answer.exit_code == 0, answer.stderr
    files = {str(path): path.read_bytes() for path in (janes / "out").iterdir()}
    assert len(files) == 6
    files |= members(janes / "a.tar.zst")
    for name, content in files.items():
        for word in (b"jane-q-doe", b"janes-laptop", os.fsencode(janes.parent)):
            assert word not in content, name
    made = json.loads((janes / "out" / "evaluation.json").read_text())
    assert any("evaluate a -o out --city smoke" in line for line in made["commands"])
