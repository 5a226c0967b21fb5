"""Two inputs with one base name: their exports bear names that differ."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from five_roads import DATA, SMOKE

HERE = DATA / "05-same-base-name"
FEW = ("--set", "evaluate.bootstrap=0", "--set", "evaluate.model_trips=0")


def test_files_of_one_name_are_exported_apart(tiny: Path, run_cli: Callable[..., Any]) -> None:
    answer = run_cli("evaluate", HERE / "a" / "trips.csv", HERE / "b" / "trips.csv", *SMOKE, *FEW,
                     "--export", "points-csv", "--export", "geojson", "-o", "out", "--json")
    assert answer.exit_code == 0, answer.stderr
    names = [judged["name"] for judged in json.loads(answer.stdout)["evaluations"]]
    assert names == ["a/trips.csv", "b/trips.csv"]
    for stem, trips in (("a-trips", 3), ("b-trips", 1)):
        features = json.loads((tiny / "out" / f"{stem}-trips.geojson").read_text())["features"]
        assert len([f for f in features if f["properties"]["source"] != "real"]) == trips
        with (tiny / "out" / f"{stem}-points.csv").open() as file:
            ids = {row["traj_id"] for row in csv.DictReader(file)}
        assert len([each for each in ids if not each.startswith("real")]) == trips


def test_models_of_one_name_are_exported_apart(tiny: Path, run_cli: Callable[..., Any]) -> None:
    (best,) = (tiny.parent / "home").glob("store/runs/*/best.safetensors")
    for folder in "ab":
        (tiny / folder).mkdir()
        (tiny / folder / "best.pth").write_bytes(best.read_bytes())
    answer = run_cli("evaluate", "--model", "a/best.pth", "--model", "b/best.pth", *SMOKE, *FEW,
                     "--set", "generate.num=2", "--export", "points-csv", "-o", "out")
    assert answer.exit_code == 0, answer.stderr
    assert sorted(path.name for path in (tiny / "out").glob("*points.csv")) == [
        "a-best-points.csv", "b-best-points.csv"]
