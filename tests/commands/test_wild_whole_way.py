"""Odd and valid cities through every command: prepared, learnt, searched, judged, exported."""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))

from source_folder import write_source
from wild_cities import CITIES

QUICK = ("tangle",)


def positions(found: Any) -> Iterator[list[float]]:
    """Yield every position of some GeoJSON coordinates."""
    if isinstance(found[0], int | float):
        yield found
    else:
        for part in found:
            yield from positions(part)


@pytest.mark.parametrize("name", [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.torture) for name in CITIES])
def test_a_wild_city_goes_the_whole_way(
    name: str, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    home = tmp_path / "é путь with space"
    files = CITIES[name]().files()
    write_source(home / "source", **files)
    common = ("--profile", "smoke", "--data-dir", home, "--store", home / "store", "--set",
              f"city.name={name}")

    def done(*arguments: object) -> Any:
        answer = run_cli(*arguments, *common, "--json")
        assert answer.exit_code == 0, answer.stderr
        assert "Traceback" not in answer.stderr
        return json.loads(answer.stdout)

    done("prepare", "--source", home / "source", "--set", "city.max_rejected_share=0")
    done("train", "--no-distill", "--name", "wild", "--max-steps", 2)
    made = home / "trips.csv"
    done("generate", "--run", "wild", "--od", "test-trips", "--output", made)
    known = {row["geo_id"] for row in csv.DictReader(
        files["geo"].decode("utf-8-sig").splitlines())}
    with made.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert {str(road) for row in rows for road in json.loads(row["rid_list"])} <= known
    if name == "one_road":
        # Every answer is the road itself, and says so; there is nothing to judge.
        assert {row["reason"] for row in rows} == {"same road"}
        answer = run_cli("evaluate", "wild", *common)
        assert answer.exit_code == 2
        assert "none of its 10 trips has two roads or more" in answer.stderr
        return
    found = done("evaluate", "wild", "--export", "geojson", "--output", home / "report")
    assert found
    for path in (home / "report").rglob("*.geojson"):
        features = json.loads(path.read_text())["features"]
        points = [p for f in features for p in positions(f["geometry"]["coordinates"])]
        assert points
        assert all(abs(lon) <= 180 and abs(lat) <= 90 for lon, lat in points)
        # No line runs around the Earth.
        for feature in features:
            shape = feature["geometry"]
            lines = shape["coordinates"] if shape["type"] == "MultiLineString" else [
                shape["coordinates"]]
            if name != "pole":
                assert all(abs(a[0] - b[0]) < 180
                           for line in lines for a, b in pairwise(line))
