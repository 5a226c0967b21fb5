"""The exports read back by the programs that they are for.

These libraries do not all live in one environment (scikit-mobility needs numpy 1), so each is
looked for in this Python and in those that HOSERKD_CONSUMERS names (paths of interpreters, joined
by `:`), and its check is skipped where none has it.
"""

import itertools
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from hoserkd.commands.exports import export_trips

pytestmark = pytest.mark.consumers
NODE = os.environ.get("HOSERKD_CONSUMERS_NODE")
"""A folder whose node_modules holds @kepler.gl/processors and @kepler.gl/layers."""

GEOPANDAS = """
import geopandas
lines = geopandas.read_parquet(path)
crs84 = lines.crs.to_authority() == ("OGC", "CRS84")
found = {"rows": len(lines), "epsg": 4326 if crs84 else lines.crs.to_epsg(),
         "valid": bool(lines.geometry.is_valid.all()), "kinds": sorted(set(lines.geom_type)),
         "sources": sorted(set(lines["source"]))}
"""
GEOJSON = """
import geopandas
lines = geopandas.read_file(path)
found = {"rows": len(lines), "epsg": lines.crs.to_epsg(),
         "valid": bool(lines.geometry.is_valid.all()), "kinds": sorted(set(lines.geom_type)),
         "sources": sorted(set(lines["source"]))}
"""
ZONED = """
import geopandas, pandas
lines, points = geopandas.read_parquet(path + "/fast-trips.geoparquet"), pandas.read_parquet(
    path + "/fast-points.parquet")
texts = pandas.read_csv(path + "/fast-points.csv")["datetime"]
found = {"start": str(lines["start"].dtype), "points": str(points["datetime"].dtype),
         "same": bool((pandas.to_datetime(texts, utc=True) == points["datetime"]).all()),
         "first": [lines["start"].iloc[0].isoformat(),
                   geopandas.read_file(path + "/fast-trips.geojson")["start"].iloc[0].isoformat()]}
"""
MOVINGPANDAS = """
import pandas, movingpandas
points = pandas.read_parquet(path) if path.endswith("parquet") else pandas.read_csv(
    path, parse_dates=["datetime"], dtype={"traj_id": str})
trips = movingpandas.TrajectoryCollection(
    points, traj_id_col="traj_id", t="datetime", x="lng", y="lat", crs="EPSG:4326")
found = {"ids": sorted(str(t.id) for t in trips.trajectories),
         "km": {str(t.id): t.get_length(units="km") for t in trips.trajectories}}
"""
SKMOB = """
import pandas, skmob
from skmob.measures.individual import distance_straight_line
points = pandas.read_parquet(path) if path.endswith("parquet") else pandas.read_csv(
    path, dtype={"traj_id": str})
frame = skmob.TrajDataFrame(points, latitude="lat", longitude="lng", datetime="datetime",
                            user_id="traj_id")
way = distance_straight_line(frame, show_progress=False)
found = {"ids": sorted(map(str, frame["uid"].unique())),
         "km": dict(zip(map(str, way["uid"]), way["distance_straight_line"]))}
"""
KEPLERGL = """
from keplergl import KeplerGl
shown = KeplerGl(data={"trips": json.load(open(path))})
kept = shown.data["trips"]
kept = json.loads(kept) if isinstance(kept, str) else kept
found = {"rows": len(kept["features"]),
         "points": [f["geometry"]["coordinates"] for f in kept["features"]]}
"""
PROCESSORS = """
const fs = require("fs");
const { processGeojson } = require("@kepler.gl/processors");
const { parseTripGeoJsonTimestamp } = require("@kepler.gl/layers/dist/trip-layer/trip-utils");
const file = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const played = parseTripGeoJsonTimestamp(file.features).animationDomain;
const read = processGeojson(file);
const at = read.fields.findIndex((field) => field.type === "geojson");
const lines = read.rows.map((row) => row[at].geometry);
console.log(JSON.stringify({ played, rows: lines.length, fields: read.fields.map((f) => f.name),
  types: [...new Set(lines.map((line) => line.type))],
  points: lines.map((line) => line.coordinates) }));
"""


@pytest.fixture
def read_back(python_with):
    """Return a function that tells what a script finds in a file with a library."""

    def read(module: str, script: str, path: Path) -> dict:
        code = f"import json, sys\npath = sys.argv[1]\n{script}\nprint(json.dumps(found))"
        done = subprocess.run([python_with(module), "-W", "ignore", "-c", code, str(path)],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return read


@pytest.fixture(scope="module")
def found(report):
    return report.runs[0].evaluation


@pytest.fixture(scope="module")
def files(report, tmp_path_factory):
    """Return a folder with every export of the first run."""
    folder = tmp_path_factory.mktemp("exports")
    for kind in ("geojson", "kepler", "points-csv", "points-parquet", "geoparquet"):
        export_trips(report, folder, kind)
    return folder


def lengths_km(found):
    """Return each generated trip's length by the id of its query."""
    return {str(query): float(km) for query, km in zip(
        found.rating.query.tolist(), found.rating.features.distance_km, strict=True)}


@pytest.mark.parametrize(("script", "name"), [
    (GEOPANDAS, "fast-trips.geoparquet"), (GEOJSON, "fast-trips.geojson")])
def test_geopandas_reads_the_lines(read_back, found, files, script, name):
    read = read_back("geopandas", script, files / name)
    assert read["rows"] == len(found.rating.trips) + len(found.rating.pairs)
    assert read["epsg"] == 4326
    assert read["valid"]
    assert read["kinds"] == ["LineString"]
    assert read["sources"] == ["fast", "real"]


def test_pandas_and_geopandas_read_instants_where_the_zone_is_known(
    read_back, report, tmp_path
):
    zone = "America/Los_Angeles"
    first = report.runs[0]
    network = replace(first.evaluation.truth.network, timezone=zone)
    truth = replace(first.evaluation.truth, network=network)
    moved = replace(first, evaluation=replace(first.evaluation, truth=truth))
    for kind in ("geojson", "points-csv", "points-parquet", "geoparquet"):
        export_trips(replace(report, runs=(moved,)), tmp_path, kind)
    read = read_back("geopandas", ZONED, tmp_path)
    assert read["start"].endswith(f"{zone}]")
    assert read["points"].endswith(f"{zone}]")
    assert read["same"]
    assert read["first"][0] == read["first"][1]
    assert read["first"][0].endswith("-07:00")


@pytest.mark.parametrize(("module", "script"), [("movingpandas", MOVINGPANDAS), ("skmob", SKMOB)])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_points_give_the_trips_with_their_lengths(
    read_back, found, files, module, script, suffix
):
    read = read_back(module, script, files / f"fast-points.{suffix}")
    expected = lengths_km(found)
    assert set(expected) <= set(read["ids"])
    # These libraries have radii of the Earth of their own, up to 6378 km.
    for trip, km in expected.items():
        assert read["km"][trip] == pytest.approx(km, rel=5e-3, abs=1e-3)


def rising_times(lines):
    """Return whether every line has positions of four numbers whose times never fall."""
    return all(len(p) == 4 for line in lines for p in line) and all(
        a[3] <= b[3] for line in lines for a, b in itertools.pairwise(line))


def test_the_widget_of_kepler_takes_the_timed_lines(read_back, found, files):
    read = read_back("keplergl", KEPLERGL, files / "fast-trips.kepler.geojson")
    assert read["rows"] == found.counts["queries"]
    assert rising_times(read["points"])


def test_kepler_itself_reads_the_timed_lines(found, files, tmp_path):
    node = shutil.which("node")
    if node is None or NODE is None:
        pytest.skip("needs node and kepler.gl's packages in HOSERKD_CONSUMERS_NODE")
    script = tmp_path / "read.js"
    script.write_text(PROCESSORS)
    done = subprocess.run([node, script, files / "fast-trips.kepler.geojson"], text=True,
                          env={**os.environ, "NODE_PATH": str(Path(NODE) / "node_modules")},
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    read = json.loads(done.stdout.splitlines()[-1])
    assert read["rows"] == found.counts["queries"]
    assert read["types"] == ["LineString"]
    assert {"reason", "origin", "destination"} <= set(read["fields"])
    assert rising_times(read["points"])
    # The trip layer takes our seconds for seconds and plays them in milliseconds.
    seconds = [p[3] for line in read["points"] for p in line]
    assert read["played"] == [1000 * min(seconds), 1000 * max(seconds)]
