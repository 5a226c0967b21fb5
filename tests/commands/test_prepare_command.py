import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parents[1] / "data" / "hoser" / "city"


def test_prepare_reads_a_folder_and_the_second_time_says_nothing_changed(
    run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    line = ("prepare", "--source", RECORDED, "--city", tmp_path / "c")
    first, second = run_cli(*line), run_cli(*line)
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "240" in first.stdout
    assert "nothing to do" in second.stdout


def test_prepare_demo_makes_the_embedded_city_as_json(
    run_cli: Callable[..., Any], home: Path
) -> None:
    answer = run_cli("prepare", "--demo", "--json", "--set", "city.name=tiny",
                     "--set", "city.demo_roads=80", "--set", "city.demo_trips=60")
    assert answer.exit_code == 0
    found = json.loads(answer.stdout)
    assert found["changed"] is True
    assert sum(row["trips"] for row in found["statistics"]["splits"].values()) == 60
    assert (home / "cities" / "tiny" / "manifest.json").is_file()
    assert (home / "sources" / "tiny" / "roadmap.geo").is_file()


def test_prepare_without_a_source_says_what_to_give(run_cli: Callable[..., Any]) -> None:
    answer = run_cli("prepare")
    assert answer.exit_code == 2
    assert "--source" in answer.stderr
    assert answer.stdout == ""


def test_prepare_refuses_demo_and_source_together(run_cli: Callable[..., Any]) -> None:
    answer = run_cli("prepare", "--demo", "--source", RECORDED)
    assert answer.exit_code == 2


def test_prepare_of_a_missing_folder_is_one_clear_line(
    run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    answer = run_cli("prepare", "--source", tmp_path / "nowhere")
    assert answer.exit_code == 2
    assert "no such folder" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_prepare_shows_rejected_trips_by_cause(
    run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    import shutil

    source = tmp_path / "with space"
    shutil.copytree(RECORDED, source)
    with (source / "val.csv").open("a") as file:
        file.write('9,9,9,"[0,777]","2015-11-01T17:05:50Z,2015-11-01T17:06:24Z"\n')
    answer = run_cli("prepare", "--source", source, "--city", tmp_path / "c")
    assert answer.exit_code == 0
    assert "unknown road" in answer.stdout
    assert "rejected.csv" in answer.stdout.replace("\n", "")
