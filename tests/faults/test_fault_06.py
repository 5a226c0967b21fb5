"""An output that is an input, or a file of the user's: it is refused, in every command."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from five_roads import CITY, DATA, SMOKE

POINTS = DATA / "06-output-over-input" / "pts.csv"
TRIPS = DATA / "07-stdout-not-utf8" / "trips.csv"
COMMANDS = {
    "generate -o mine.csv": "mine.csv",
    "generate -o mine.geojson": "mine.geojson",
    "generate --od pts.csv -o trips.parquet": "trips.snapped.csv",
    "bundle x --output mine.zip": "mine.zip",
    "bundle x --output mine.tar.zst": "mine.tar.zst",
    "bundle x": "x.tar.zst",
    "evaluate trips.csv -o .": "report.html",
    "evaluate trips.csv -o out --od both --export points-csv": "out/train/trips-points.csv",
    "study --name s --shares 1 --seeds 1 -o .": "study.md",
    "tune --study s --set distill.source=self --storage notes.txt": "notes.txt",
    "tune show --profile smoke -o .": "tune.html",
    "runs export x --csv .": "metrics.csv",
    "runs export x --parquet .": "runs.parquet",
    "runs export x --hoser best.pth": "best.pth",
    "runs export x --torch-export next.pt2": "next.pt2",
    "runs export x --format torch-export": "x.pt2",
    "tui --screenshot picture.svg": "picture.svg",
    "tui --screenshot picture.png": "picture.png",
    "prepare --source city --city out": "out/manifest.json",
    "demo --output .": "demo.json",
}
"""Every command that writes a file of the user's choice: the file that is in its way."""
NEEDS_CITY = ("generate", "evaluate", "study", "tune")


@pytest.mark.parametrize("line", COMMANDS)
def test_no_command_replaces_a_file_of_the_users(
    line: str, tiny: Path, run_cli: Callable[..., Any]
) -> None:
    mine = tiny / COMMANDS[line]
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_bytes(b"precious")
    shutil.copy(POINTS, "pts.csv")
    shutil.copy(TRIPS, "trips.csv")
    shutil.copytree(CITY, "city")
    before = {path: path.read_bytes() for path in tiny.rglob("*") if path.is_file()}
    words = line.split()
    city = SMOKE if words[0] in NEEDS_CITY and "show" not in words else ()
    answer = run_cli(*words, *city)
    assert answer.exit_code == 2, answer.stdout + answer.stderr
    assert f"{COMMANDS[line]}: there already, and no" in answer.stderr
    assert "hint: name another" in answer.stderr
    assert {path: path.read_bytes() for path in tiny.rglob("*") if path.is_file()} == before


def test_force_replaces_it_and_our_own_needs_none(tiny: Path, run_cli: Callable[..., Any]) -> None:
    (tiny / "t.csv").write_text("precious")
    line = ("generate", "--run", "x", *SMOKE, "--od", POINTS, "-o", "t.csv")
    assert run_cli(*line).exit_code == 2
    assert run_cli(*line, "--force").exit_code == 0
    assert (tiny / "t.csv").read_text().startswith("origin,")
    assert run_cli(*line).exit_code == 0
    judge = ("evaluate", "t.csv", *SMOKE, "--set", "evaluate.bootstrap=0", "-o", "d",
             "--set", "evaluate.model_trips=0",
             "--export", "geojson", "--export", "points-parquet", "--export", "geoparquet")
    city = ("--city", tiny.parent / "home" / "cities" / "tiny")
    for line in (judge, ("bundle", "x", *city, "-o", "b.tar.zst"),
                 ("runs", "export", "x", "--csv", "."), ("runs", "export", "x", "--parquet", ".")):
        for _ in range(2):
            answer = run_cli(*line)
            assert answer.exit_code == 0, answer.stderr


@pytest.mark.parametrize("line", [
    "generate --run x --od mine.csv -o mine.csv", "generate --run x --od mine.csv -o ./mine.csv",
    "generate --model mine.zip -o mine.zip", "prepare --source city --city HERE/city",
    "runs export x --hoser best.safetensors",
])
def test_an_input_is_refused_as_an_output_even_with_force(
    line: str, tiny: Path, run_cli: Callable[..., Any]
) -> None:
    shutil.copy(POINTS, "mine.csv")
    shutil.copytree(CITY, "city")
    (model,) = (tiny.parent / "home").glob("store/runs/*/best.safetensors")
    before = model.read_bytes()
    line = line.replace("best.safetensors", str(model)).replace("HERE", str(tiny))
    answer = run_cli(*line.split(), "--force")
    assert answer.exit_code == 2, answer.stdout
    assert (tiny / "mine.csv").read_text() == POINTS.read_text()
    assert not (tiny / "city" / "manifest.json").exists()
    assert model.read_bytes() == before
