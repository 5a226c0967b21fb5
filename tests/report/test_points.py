import json
import struct

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from hoserkd.report.points import point_table, write_geoparquet, write_points


@pytest.fixture(scope="module")
def found(report):
    return report.runs[0].evaluation


def test_point_table_has_a_row_a_road_and_an_id_a_trip(found):
    table = point_table(found)
    source = np.array(table["source"].to_pylist())
    assert (source == "fast").sum() == len(found.rating.trips.road)
    ids = set(table["traj_id"].to_pylist())
    assert len(ids) == len(found.rating.trips) + len(np.unique(found.rating.pairs[:, 1]))
    assert table.column_names == ["traj_id", "source", "datetime", "lng", "lat", "road_id"]


def test_points_of_a_trip_stand_in_the_order_of_its_roads(found):
    table = point_table(found)
    first = np.array(table["traj_id"].to_pylist()) == str(found.rating.query[0])
    network, trips = found.truth.network, found.rating.trips
    roads = trips.road[: trips.offset[1]]
    np.testing.assert_array_equal(np.array(table["road_id"])[first], network.road_id[roads])
    np.testing.assert_allclose(np.array(table["lng"])[first], network.centroid_lonlat[roads, 0],
                               atol=1e-6)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_points_are_read_back_as_they_were(found, tmp_path, suffix):
    path = tmp_path / f"points{suffix}"
    write_points(found, path)
    read = pyarrow.csv.read_csv(path) if suffix == ".csv" else pq.read_table(path)
    expected = point_table(found)
    assert read.num_rows == expected.num_rows
    for name in ("lng", "lat", "road_id", "traj_id"):
        assert list(map(str, read[name].to_pylist())) == list(map(str, expected[name].to_pylist()))
    assert read["datetime"].to_pylist() == expected["datetime"].to_pylist()


def test_geoparquet_says_what_it_holds_and_its_lines_are_valid(found, tmp_path):
    path = tmp_path / "trips.geoparquet"
    write_geoparquet(found, path)
    table = pq.read_table(path)
    geo = json.loads(table.schema.metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    assert (geo["version"], column["encoding"]) == ("1.1.0", "WKB")
    west, south, east, north = column["bbox"]
    for line in table["geometry"].to_pylist():
        order, kind, count = struct.unpack_from("<BII", line)
        assert (order, kind) == (1, 2)
        points = np.frombuffer(line, "<f8", offset=9).reshape(-1, 2)
        assert len(points) == count >= 2
        assert (points >= [west, south]).all()
        assert (points <= [east, north]).all()
