"""The exports of an evaluation tell the same trips, ids and times in every form."""

import csv
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest

from hoserkd.commands.exports import EXPORTS, export_trips
from hoserkd.engine.clock import iso_times, utc_offsets_s

ZONE = "America/Los_Angeles"
SUMMER = timedelta(hours=-7)


def in_zone(report, timezone):
    """Return the report with the first run's city in a time zone."""
    first = report.runs[0]
    found = first.evaluation
    network = replace(found.truth.network, timezone=timezone)
    moved = replace(found, truth=replace(found.truth, network=network))
    return replace(report, runs=(replace(first, evaluation=moved),))


@pytest.fixture(scope="module", params=[None, ZONE])
def exported(request, report, tmp_path_factory):
    """Return (evaluation, folder with every export)."""
    folder = tmp_path_factory.mktemp("exports")
    moved = in_zone(report, request.param)
    for kind in EXPORTS:
        export_trips(moved, folder, kind)
    return moved.runs[0].evaluation, folder


def geojson(folder, name):
    return [f["properties"] for f in json.loads((folder / name).read_text())["features"]]


def test_ids_are_unique_and_those_of_every_export(exported):
    _, folder = exported
    lines = [p["traj_id"] for p in geojson(folder, "fast-trips.geojson")]
    assert max(Counter(lines).values()) == 1
    table = pq.read_table(folder / "fast-trips.geoparquet")
    assert table["traj_id"].to_pylist() == lines
    points = pq.read_table(folder / "fast-points.parquet")
    assert set(points["traj_id"].to_pylist()) == set(lines)
    with (folder / "fast-points.csv").open() as file:
        assert [row["traj_id"] for row in csv.DictReader(file)] == points["traj_id"].to_pylist()
    generated = {p["traj_id"] for p in geojson(folder, "fast-trips.kepler.geojson")}
    assert {name for name in lines if not name.startswith("real-")} <= generated


def test_geoparquet_has_every_column_of_the_geojson(exported):
    _, folder = exported
    table = pq.read_table(folder / "fast-trips.geoparquet")
    properties = geojson(folder, "fast-trips.geojson")
    assert set(properties[0]) == set(table.column_names) - {"geometry"}
    assert all(set(p) == set(properties[0]) for p in properties)
    for name in ("pair", "reached", "reason", "origin", "destination", "roads", "length_m"):
        assert table[name].to_pylist() == [p[name] for p in properties], name


def test_times_are_instants_where_the_zone_is_known_and_bear_none_else(exported):
    found, folder = exported
    zone = found.truth.network.timezone
    start_s = int(found.rating.trips.entered_at_s[0])
    wall = datetime.fromtimestamp(start_s, UTC).replace(tzinfo=None)
    away = utc_offsets_s(zone, np.array([start_s]))
    text = geojson(folder, "fast-trips.geojson")[0]["start"]
    assert datetime.fromisoformat(text).replace(tzinfo=None) == wall
    assert not text.endswith("Z")
    assert (datetime.fromisoformat(text).utcoffset() is None) == (zone is None)
    with (folder / "fast-points.csv").open() as file:
        assert next(csv.DictReader(file))["datetime"] == text
    kept = pq.read_table(folder / "fast-trips.geoparquet")["start"]
    assert kept.type.tz == zone
    first = kept[0].as_py()
    points = pq.read_table(folder / "fast-points.parquet")["datetime"]
    assert (points.type.tz, points[0].as_py()) == (zone, first)
    assert first == datetime.fromisoformat(text)
    query = int(found.rating.query[0])
    feature = json.loads((folder / "fast-trips.kepler.geojson").read_text())["features"][query]
    played = feature["geometry"]["coordinates"][0][3]
    assert played == start_s - (0 if away is None else int(away[0]))


def test_public_form_gives_lists_to_every_reader(exported):
    import ast

    found, folder = exported
    with (folder / "fast-public.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == int((np.diff(found.generated.offset) > 0).sum())
    for row in rows[:20]:
        roads = json.loads(row["gene_trace_road_id"])
        assert roads == ast.literal_eval(row["gene_trace_road_id"])
        times = ast.literal_eval(row["gene_trace_datetime"])
        assert times == json.loads(row["gene_trace_datetime"])
        assert len(times) == len(roads)
        # The form of the public code, whatever the zone.
        datetime.strptime(times[0], "%Y-%m-%dT%H:%M:%SZ")


def test_offset_follows_the_change_of_the_clocks_and_is_one_for_a_trip():
    wall = np.array([datetime(2008, 3, 9, 1, 59, tzinfo=UTC).timestamp(),
                     datetime(2008, 3, 9, 3, 1, tzinfo=UTC).timestamp(),
                     datetime(1880, 1, 1, tzinfo=UTC).timestamp()]).astype(np.int64)
    away = utc_offsets_s(ZONE, wall)
    assert away.tolist() == [-8 * 3600, -7 * 3600, -(7 * 60 + 53) * 60]
    assert iso_times(wall, away)[:2] == ["2008-03-09T01:59:00-08:00", "2008-03-09T03:01:00-07:00"]
    assert iso_times(wall[:1], None) == ["2008-03-09T01:59:00"]
    assert iso_times(wall[:1], np.array([19800])) == ["2008-03-09T01:59:00+05:30"]
