"""Recorded trips in reports and exports: told, left out on demand, taken out of what is packed."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from hoserkd.commands.exports import EXPORTS, export_trips
from hoserkd.engine.types import TrajectorySet
from hoserkd.report.html import render_html
from hoserkd.report.recorded import (
    FEWEST,
    few_visited,
    unmade_exports,
    without_recorded_trips,
)
from hoserkd.report.records import Report


@pytest.fixture(scope="module")
def discreet(report: Report) -> Report:
    return replace(report, real_trips=False)


@pytest.fixture(scope="module")
def pages(report: Report, discreet: Report) -> tuple[str, str]:
    """Return the page with recorded trips, and the one without."""
    return render_html(report), render_html(discreet)


def test_a_page_says_at_its_top_how_many_recorded_trips_it_holds(pages: tuple[str, str]) -> None:
    assert "holds 5 recorded trips" in pages[0].partition("<main>")[0]
    assert "holds no recorded trip" in pages[1].partition("<main>")[0]


def test_a_page_without_recorded_trips_has_none_of_their_lines(pages: tuple[str, str]) -> None:
    recorded = json.loads(re.findall(
        r'<script id="recorded" type="application/json">(.*?)</script>', pages[0])[0])
    assert len(recorded) == 5
    page = pages[1]
    generated = json.loads(re.findall(
        r'<script id="data" type="application/json">(.*?)</script>', page)[0])["trips"]
    ways = {made["points"] for trip in generated for made in trip["runs"] if made}
    for trip in recorded:
        assert trip["departure"] not in page
        assert trip["points"] not in page or trip["points"] in ways


def test_a_page_is_packed_as_it_is_written_without_recorded_trips(
    pages: tuple[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(pages[0])
    assert without_recorded_trips(path) == pages[1].encode()
    path.write_text(pages[1])
    assert without_recorded_trips(path) == path


@pytest.mark.parametrize("kind", EXPORTS)
def test_an_export_is_packed_without_recorded_trips(
    kind: str, report: Report, discreet: Report, tmp_path: Path
) -> None:
    whole = export_trips(report, tmp_path / "whole", kind)
    without = export_trips(discreet, tmp_path / "without", kind)
    assert [path.name for path in whole.values()] == [path.name for path in without.values()]
    for before, after in zip(whole.values(), without.values(), strict=True):
        packed = without_recorded_trips(before)
        if isinstance(packed, bytes):
            before.write_bytes(packed)
        assert packed is not None
        assert rows(before) == rows(after)
        assert not [row for row in rows(after) if str(row.get("traj_id")).startswith("real-")]


def test_trips_that_no_model_is_known_to_have_made_are_left_out(
    report: Report, tmp_path: Path
) -> None:
    unknown = replace(report, runs=(report.runs[0], replace(report.runs[1], made=False)))
    discreet = replace(unknown, real_trips=False)
    assert len(export_trips(unknown, tmp_path, "kepler")) == 2
    assert len(export_trips(discreet, tmp_path, "kepler")) == 1
    shown = json.loads(re.findall(r'<script id="data" type="application/json">(.*?)</script>',
                                  page := render_html(discreet))[0])["trips"]
    assert {trip["runs"][1] for trip in shown} == {None}
    path = tmp_path / "report.html"
    path.write_text(render_html(unknown))
    assert without_recorded_trips(path) == page.encode()
    evaluation = tmp_path / "evaluation.json"
    evaluation.write_text(json.dumps({"evaluations": [
        {"name": "mine", "run_id": "", "facts": {}}, {"name": "run", "run_id": "1", "facts": {}},
        {"name": "made", "run_id": "", "facts": {"trips made by": "student x"}}]}))
    assert unmade_exports(evaluation, ["-a.csv"]) == {"mine-a.csv"}
    evaluation.write_text("{}")
    with pytest.raises(ValueError, match="evaluation"):
        unmade_exports(evaluation, ["-a.csv"])


def rows(path: Path) -> list[dict[str, object]]:
    """Return what a file says of each trip, road or point, but for the use of few-visited roads."""
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".geojson":
        found = [{**feature["properties"], "geometry": feature["geometry"]}
                 for feature in json.loads(path.read_text())["features"]]
        return [row for row in found if row.get("visits_real", FEWEST) is not None]
    table: list[dict[str, object]] = pq.read_table(path).to_pylist()
    return table


def test_files_of_unknown_kinds_are_not_packed(tmp_path: Path) -> None:
    contents = {"a.csv": "mm_id,rid_list,time_list\n1,[1],2024-01-01T00:00:00Z\n", "b.txt": "x",
                "c.html": "<html>", "d.json": "{}", "e.md": "# mine", "f.parquet": "PAR1",
                "g.geojson": '{"features": [{"properties": {"name": 1}}]}', "h.geojson": "{",
                "i.csv": '"traj_id","source","datetime","lng","lat","road_id"\n"1"\n'}
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        assert without_recorded_trips(tmp_path / name) is None, name


def test_exports_of_earlier_versions_lose_their_recorded_trips(tmp_path: Path) -> None:
    path = tmp_path / "old.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [
        {"type": "Feature", "geometry": None, "properties": {"traj_id": 1, "source": name}}
        for name in ("real", "vanilla")]}))
    packed = without_recorded_trips(path)
    assert isinstance(packed, bytes)
    assert [f["properties"]["source"] for f in json.loads(packed)["features"]] == ["vanilla"]


def test_a_road_that_few_trips_visit_is_known_however_often_each_does() -> None:
    roads = [[0, 1, 0, 1, 0, 1], *([1, 2] for _ in range(FEWEST - 1)), [2, 3]]
    offset = np.cumsum([0, *map(len, roads)])
    trips = TrajectorySet(offset, np.concatenate(roads).astype(np.int32),
                          np.zeros(offset[-1], np.int64))
    assert few_visited(trips, 5).tolist() == [0, 3]
