"""Columns held against each other, one contradiction at a time."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from source_folder import GEO_COLUMNS, Listener, prepared, table, trip, trips_table, write_source

from hoserkd.engine.city.storage import read_manifest
from hoserkd.engine.events import Note
from hoserkd.errors import DataError

SIDE = 6
LON, LAT, STEP = -8.6, 41.1, 0.001
METRES = 111_195.0


def ends(road: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return where a road starts and ends: a spiral of legs to the east, north, west and south."""
    x, y, points = 0, 0, [(0, 0)]
    for leg in range(SIDE * SIDE):
        dx, dy = [(1, 0), (0, 1), (-1, 0), (0, -1)][leg % 4]
        x, y = x + dx * (leg + 1), y + dy * (leg + 1)
        points.append((x, y))
    (a, b), (c, d) = points[road:road + 2]
    return (LON + STEP * a, LAT + STEP * b), (LON + STEP * c, LAT + STEP * d)


def metres(road: int) -> float:
    (a, b), (c, d) = ends(road)
    return METRES * math.hypot((c - a) * math.cos(math.radians((b + d) / 2)), d - b)


def geo(**changed: Any) -> str:
    """Return a roadmap.geo; `changed` makes a cell of a column from a road."""
    rows = []
    for road in range(SIDE * SIDE):
        row = {"geo_id": road, "type": "LineString", "coordinates": json.dumps(ends(road)),
               "highway": "residential", "length": metres(road), "maxspeed": ""}
        row |= {name: change(road) for name, change in changed.items()}
        rows.append(tuple(row[name] for name in GEO_COLUMNS))
    return table(GEO_COLUMNS, rows)


def rel(*more: tuple[int, int]) -> str:
    pairs = [(i, i + 1) for i in range(SIDE * SIDE - 1)] + list(more)
    return table(("rel_id", "type", "origin_id", "destination_id"),
                 [(i, "geo", a, b) for i, (a, b) in enumerate(pairs)])


def trips(first: str = "2024-01-01T00:00:00", step_s: int = 60) -> str:
    return trips_table([trip([0, 1, 2, 3, 4, 5], first, step_s), trip([2, 3, 4, 5], first, step_s)])


SOUND: dict[str, str | bytes] = {
    "geo": geo(), "rel": rel(), "train": trips(), "val": trips("2024-02-01T00:00:00"),
    "test": trips("2024-03-01T00:00:00")}


def checks(tmp_path: Path, **files: str | bytes) -> dict[str, Any]:
    """Return the warnings of a preparation by their checks."""
    source = write_source(tmp_path / "s", **{**SOUND, **files})
    listener = Listener()
    prepared(source, tmp_path / "c", observer=listener)
    warnings = read_manifest(tmp_path / "c")["warnings"]
    told = [event.message for event in listener.events if isinstance(event, Note)]
    assert all(warning["message"] in told for warning in warnings)
    return {warning["check"]: warning for warning in warnings}


def test_columns_that_agree_are_not_warned_of(tmp_path: Path) -> None:
    assert checks(tmp_path) == {}
    assert checks(tmp_path / "slow", geo=geo(maxspeed=lambda road: 20 if road % 2 else 50)) == {}


def swapped(road: int) -> str:
    return json.dumps([point[::-1] for point in ends(road)])


def backwards(road: int) -> str:
    return json.dumps(ends(road)[::-1 if road % 3 == 1 else 1])


@pytest.mark.parametrize(("changed", "check", "count", "said"), [
    ({"length": lambda r: metres(r) / 1000}, "length-against-polyline", 36, "in kilometres?"),
    ({"length": lambda r: metres(r) / 0.3048}, "length-against-polyline", 36, "in feet?"),
    ({"length": lambda r: metres(r) / METRES}, "length-against-polyline", 36, "in degrees?"),
    ({"length": lambda r: metres(r) * (3 if r == 7 else 1)}, "length-against-polyline", 1,
     "road 7 with length"),
    ({"length": lambda _: 0}, "length-against-polyline", 36, "All these lengths are 0."),
    ({"coordinates": swapped}, "coordinate-order", 36, "must be [lon, lat]"),
    ({"coordinates": backwards}, "end-against-start", 24, "against the direction of driving?"),
    ({"maxspeed": lambda _: "8.3"}, "speed-against-class", 36, "Is maxspeed in m/s?"),
    ({"maxspeed": lambda _: "110"}, "speed-against-class", 36, "residential with 110 km/h"),
    ({"coordinates": lambda r: swapped(r) if r == 5 else json.dumps(ends(r))},
     "end-against-start", 2, "m apart"),
])
def test_contradictions_of_the_roads_are_found(
    tmp_path: Path, changed: dict[str, Any], check: str, count: int, said: str
) -> None:
    found = checks(tmp_path, geo=geo(**changed))
    assert found[check]["count"] == count
    assert said in found[check]["message"]


def test_relations_to_itself_and_repeated_ones_are_counted(tmp_path: Path) -> None:
    found = checks(tmp_path, rel=rel((3, 3), (0, 1), (0, 1)))
    assert (found["relation-to-itself"]["count"], found["relation-repeated"]["count"]) == (1, 2)
    assert found["relation-repeated"]["example"] == "row 38"


@pytest.mark.parametrize(("step_s", "first", "check"), [
    (1, "2024-03-01T00:00:00", "length-against-time"),
    (0, "2024-03-01T00:00:00", "length-against-time"),
    (86400, "2024-03-01T00:00:00", "length-against-time"),
    (60, "1970-01-20T20:00:00", "times-against-calendar"),
    (60, "2300-01-01T00:00:00", "times-against-calendar"),
])
def test_contradictions_of_the_times_are_found(
    tmp_path: Path, step_s: int, first: str, check: str
) -> None:
    found = checks(tmp_path, test=trips(first, step_s))
    assert list(found) == [check]
    assert (found[check]["count"], found[check]["of"]) == (2, 2)
    assert found[check]["example"].startswith("row 2 of test.csv: ")


@pytest.mark.parametrize(("later", "earlier"), [("test", "train"), ("test", "val"),
                                                ("val", "train")])
def test_trips_that_are_in_an_earlier_split_are_counted_with_both_rows(
    tmp_path: Path, later: str, earlier: str
) -> None:
    copied = str(SOUND[earlier]).splitlines()[-1]
    found = checks(tmp_path, **{later: f"{SOUND[later]}{copied}\n"})
    assert list(found) == [f"{later}-against-{earlier}"]
    (warning,) = found.values()
    assert (warning["count"], warning["of"]) == (1, 3)
    assert warning["example"] == "row 4, which is row 3 there"


def zones(of: Any) -> str:
    return "".join(f"{of(road)}\n" for road in range(SIDE * SIDE))


def matrix(values: Any) -> bytes:
    import io

    made = io.BytesIO()
    np.save(made, np.array(values))
    return made.getvalue()


HALVES = zones(lambda road: int(road >= 4))
ONE_WAY = [[0, 6], [0, 0]]


@pytest.mark.parametrize(("partition", "transitions", "expected"), [
    (HALVES, ONE_WAY, []),
    (HALVES, [[0, 6, 0], [0, 0, 0], [0, 0, 0]], ["matrix-against-zones"]),
    (HALVES, [[9, 6], [0, 9]], ["matrix-diagonal"]),
    (HALVES, [[0, 0], [6, 0]], ["matrix-against-trips"]),
    (zones(lambda road: 1 + int(road >= 4)), [[0, 0, 0], [0, 0, 6], [0, 0, 0]],
     ["zone-ids", "matrix-against-zones"]),
    (zones(lambda road: road % 3), np.full((3, 3), 6) * (1 - np.eye(3)), ["zones-against-roads"]),
])
def test_contradictions_of_zones_and_matrix_are_found(
    tmp_path: Path, partition: str, transitions: Any, expected: list[str]
) -> None:
    files = {"partition": partition, "transitions": matrix(transitions)}
    assert list(checks(tmp_path, **files)) == expected


def test_latitudes_that_are_none_ask_for_the_order(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s", **{**SOUND, "geo": geo(
        coordinates=lambda road: json.dumps([[37.7, -122.4], [37.8, -122.4]]))})
    with pytest.raises(DataError, match=r"are they \[lat, lon\]\?"):
        prepared(source, tmp_path / "c")


def test_a_city_of_a_version_that_did_not_look_is_looked_at(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s", **SOUND)
    prepared(source, tmp_path / "c")
    path = tmp_path / "c" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["warnings"]
    path.write_text(json.dumps(manifest))
    assert prepared(source, tmp_path / "c").changed
    assert not prepared(source, tmp_path / "c").changed


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["san_francisco_mini", "san_francisco_20k"])
def test_real_trips_are_not_warned_of(real_data: Path, tmp_path: Path, name: str) -> None:
    assert prepared(real_data / name, tmp_path / "c", zones=100).warnings == ()
