"""A run's city is the city that it was trained on, for every command and wherever it lies."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from five_roads import CITY

pytestmark = pytest.mark.usefixtures("at_home")
ONE = ("--od", "test", "--num", "1")


@pytest.fixture
def at_home(tiny: Path, run_cli: Callable[..., Any]) -> Path:
    """Have the run's record say that its city is the copied home's, and return that city."""
    home = tiny.parent / "home"
    (header,) = home.glob("store/runs/*/run.json")
    record = json.loads(header.read_text())
    record["made_from"]["city"]["place"] = str(home / "cities" / "tiny")
    record["made_from"]["data_dir"] = str(home)
    header.write_text(json.dumps(record))
    assert run_cli("runs", "repair").exit_code == 0
    return home / "cities" / "tiny"


@pytest.fixture
def moved_city(at_home: Path) -> Path:
    """Move the city of the run `x` and return where it lies now."""
    return at_home.rename(at_home.with_name("elsewhere"))


@pytest.mark.parametrize("words", [
    (), ("--without-city",), ("--city", "tiny"), ("--city", "{home}/cities/tiny")])
def test_bundle_finds_the_city_of_a_run_and_takes_it_by_name_and_by_folder(
    tiny: Path, run_cli: Callable[..., Any], words: tuple[str, ...]
) -> None:
    home = tiny.parent / "home"
    line = [word.format(home=home) for word in words]
    answer = run_cli("bundle", "x", *line, "--output", "x.zip")
    assert answer.exit_code == 0, answer.stderr
    run_cli("bundle", "unpack", "x.zip", "open")
    about = json.loads((tiny / "open" / "manifest.json").read_text())["about"]
    manifest = json.loads((home / "cities" / "tiny" / "manifest.json").read_text())
    assert about["city"] == {"name": "tiny", "sha256": manifest["sha256"],
                             "included": words != ("--without-city",)}


@pytest.mark.parametrize("line", [
    ("generate", "--run", "x", *ONE), ("evaluate", "x", "--set", "evaluate.bootstrap=0"),
    ("bundle", "x", "--output", "x.zip"), ("runs", "export", "x", "--hoser", "x.pth")],
    ids=lambda line: line[0])
def test_every_command_on_a_run_finds_its_city_where_it_lies_now(
    moved_city: Path, run_cli: Callable[..., Any], line: tuple[str, ...]
) -> None:
    answer = run_cli(*line)
    assert answer.exit_code == 0, answer.stderr


def test_a_city_is_taken_by_name_and_by_folder(
    tiny: Path, moved_city: Path, run_cli: Callable[..., Any]
) -> None:
    shutil.copytree(moved_city, tiny / "copy")
    for city in ("elsewhere", "copy"):
        answer = run_cli("generate", "--run", "x", *ONE, "--city", city)
        assert answer.exit_code == 0, answer.stderr
        assert "is used here" not in answer.stderr


@pytest.mark.parametrize("line", [
    ("generate", "--run", "x"), ("evaluate", "x"), ("bundle", "x"),
    ("runs", "export", "x", "--hoser", "x.pth"), ("train",), ("train-teacher",), ("precompute",),
    ("tune",), ("study",), ("teachers", "judge", "nobody"),
    ("train", "--resume", "--name", "x")], ids=" ".join)
def test_an_unknown_city_is_told_alike_by_every_command(
    tiny: Path, run_cli: Callable[..., Any], line: tuple[str, ...]
) -> None:
    answer = run_cli(*line, "--city", "tini")
    assert answer.exit_code == 2
    assert answer.stderr.splitlines()[0] == (
        f"error: no prepared city 'tini': tried {tiny.parent}/home/cities/tini, {tiny}/tini; did "
        "you mean tiny?")


def test_a_city_prepared_anew_under_the_old_name_is_not_taken_for_the_run_s(
    tiny: Path, run_cli: Callable[..., Any]
) -> None:
    trips = tiny / "source"
    shutil.copytree(CITY, trips)
    with (trips / "test.csv").open("a") as file:
        file.write((trips / "train.csv").read_text().splitlines()[1] + "\n")
    again = run_cli("prepare", "--source", trips, "--city", "tiny", "--set", "city.name=tiny",
                    "--set", "city.zones=2", "--json")
    now = json.loads(again.stdout)["sha256"]
    place = tiny.parent / "home" / "cities" / "tiny"
    for line in (("generate", "--run", "x", *ONE), ("evaluate", "x"), ("bundle", "x")):
        answer = run_cli(*line)
        assert answer.exit_code == 2
        assert "run x was made with city tiny (hash " in answer.stderr
        assert f"tried its recorded place {place} (hash {now[:12]})" in answer.stderr
    asked = run_cli("generate", "--run", "x", *ONE, "--city", "tiny")
    assert asked.exit_code == 0, asked.stderr
    assert f"not on city tiny (hash {now[:12]}), which is used here" in asked.stderr
    refused = run_cli("bundle", "x", "--city", "tiny")
    assert refused.exit_code == 2
    assert f"not with city tiny (hash {now[:12]})" in refused.stderr
    resumed = run_cli("train", "--resume", "--name", "x", "--city", "tiny")
    assert resumed.exit_code == 2
    assert now[:12] in resumed.stderr
