import json
from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow.parquet as pq
import pytest
from handmade import town

from hoserkd.engine.trips.generated import load_generated, save_chunks, save_generated
from hoserkd.engine.trips.parts import TripParts
from hoserkd.engine.trips.public_form import save_public
from hoserkd.engine.types import GeneratedTrips
from hoserkd.errors import DataError, UsageError

NETWORK = town()
START_S = 1446913800


def trips():
    """A trip that arrived, one that did not, one that had not to move, and an unknown origin."""
    return GeneratedTrips(
        origin=np.array([3, 8, 5, -1]), destination=np.array([9, 2, 5, 7]),
        departure_s=START_S + np.arange(4), offset=np.array([0, 3, 5, 6, 6]),
        road=np.array([3, 7, 9, 8, 1, 5], np.int32),
        entered_at_s=START_S + np.array([0, 20, 31, 1, 60, 2]),
        log_prob=np.array([-1.25, -7.5, 0.0, 0.0]), reached=np.array([True, False, True, False]),
        reason=("reached", "unreachable", "same road", "unknown road"),
        requested=np.array([[3, 9], [8, 2], [5, 5], [777, 7]]))


def assert_equal(a, b):
    for name in ("origin", "destination", "departure_s", "offset", "road", "entered_at_s",
                 "reached", "reason", "requested"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    np.testing.assert_allclose(a.log_prob, b.log_prob, atol=1e-6)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_generated_trips_come_back_as_they_were_saved(tmp_path, suffix):
    path = tmp_path / f"trips{suffix}"
    save_generated(path, trips(), NETWORK)
    assert_equal(load_generated(path, NETWORK), trips())


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_trips_over_a_change_of_the_clocks_come_back_as_they_were(tmp_path, suffix):
    # 01:50 on the night when San Francisco goes from 02:00 to 03:00, and from 02:00 to 01:00.
    for night in (1205027400, 1225590600):
        made = trips()
        moved = replace(made, departure_s=made.departure_s - START_S + night,
                        entered_at_s=made.entered_at_s - START_S + night + np.array(
                            [0, 700, 5000, 0, 4000, 0]))
        there = replace(NETWORK, timezone="America/Los_Angeles")
        save_generated(tmp_path / f"trips{suffix}", moved, there)
        assert_equal(load_generated(tmp_path / f"trips{suffix}", there), moved)


def test_parquet_holds_wall_clocks_without_a_zone_or_instants_with_one(tmp_path):
    for zone in (None, "America/Los_Angeles"):
        save_generated(tmp_path / "trips.parquet", trips(), replace(NETWORK, timezone=zone))
        table = pq.read_table(tmp_path / "trips.parquet")
        assert table["departure"].type.tz == zone
        assert table["departure"][0].as_py().replace(tzinfo=None) == datetime(2015, 11, 7, 16, 30)


def test_public_form_leaves_out_what_stops_its_readers(tmp_path):
    assert save_public(tmp_path / "trips.csv", [trips(), trips()], NETWORK) == 2
    lines = (tmp_path / "trips.csv").read_text().splitlines()
    assert lines[0].endswith("gene_trace_road_id,gene_trace_datetime")
    assert len(lines) == 1 + 6
    read = load_generated(tmp_path / "trips.csv", NETWORK)
    assert read.requested.tolist() == 2 * [[3, 9], [8, 2], [5, 5]]
    assert read.reached.tolist() == 2 * [True, False, True]
    with pytest.raises(UsageError, match=r"\.csv"):
        save_public(tmp_path / "trips.parquet", [trips()], NETWORK)


def test_csv_is_in_the_public_style(tmp_path):
    path = tmp_path / "trips.csv"
    save_generated(path, trips(), NETWORK)
    assert path.read_text().splitlines()[:2] == [
        "origin,destination,departure,rid_list,time_list,log_prob,reached,reason",
        '3,9,2015-11-07T16:30:00Z,"[3, 7, 9]","2015-11-07T16:30:00Z,2015-11-07T16:30:20Z,'
        '2015-11-07T16:30:31Z",-1.250000,true,reached',
    ]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".geojson"])
def test_chunks_give_the_same_bytes_or_rows_as_one_piece(tmp_path, suffix):
    whole, parts = tmp_path / f"whole{suffix}", tmp_path / f"parts{suffix}"
    save_generated(whole, trips(), NETWORK)
    assert save_chunks(parts, [trips(), trips()], NETWORK) == 8
    if suffix == ".geojson":
        read = [json.loads(p.read_text())["features"] for p in (whole, parts)]
        assert [f["geometry"] for f in read[1]] == 2 * [f["geometry"] for f in read[0]]
        assert [f["properties"]["traj_id"] for f in read[1]] == list("01234567")
    else:
        assert load_generated(parts, NETWORK).reason == 2 * load_generated(whole, NETWORK).reason


def test_geojson_draws_each_path_along_its_roads(tmp_path):
    path = tmp_path / "trips.geojson"
    save_generated(path, trips(), NETWORK)
    features = json.loads(path.read_text())["features"]
    line = features[0]["geometry"]["coordinates"]
    assert features[0]["geometry"]["type"] == "LineString"
    assert line[0] == NETWORK.start_lonlat[3].round(6).tolist()
    assert line[-1] == NETWORK.end_lonlat[9].round(6).tolist()
    assert features[0]["properties"]["arrival"] == "2015-11-07T16:30:31"
    assert features[3]["geometry"] is None
    assert features[3]["properties"]["origin"] == 777


@pytest.mark.parametrize("text", [
    'rid_list,time_list\n"3,7","2015-11-07T16:30:00Z,2015-11-07T16:30:20Z"\n',
    'time_list,rid_list,mm_id\n"2015-11-07T16:30:00Z,2015-11-07T16:30:20Z","[3, 7]",1\n',
    'origin_road_id,destination_road_id,source_index,source_origin_time,gene_trace_road_id,'
    'gene_trace_datetime\n3,7,0,2015-11-07T16:30:00Z,"[3, 7]",'
    '"[""2015-11-07T16:30:00Z"", ""2015-11-07T16:30:20Z""]"\n',
    "gene_trace_road_id,gene_trace_datetime\n\"[3, 7]\","
    "\"['2015-11-07T16:30:00Z', '2015-11-07T16:30:20Z']\"\n",
])
def test_public_files_are_read(tmp_path, text):
    path = tmp_path / "public.csv"
    path.write_text(text)
    read = load_generated(path, NETWORK)
    assert read.road.tolist() == [3, 7]
    assert read.entered_at_s.tolist() == [START_S, START_S + 20]
    assert (read.origin.tolist(), read.destination.tolist()) == ([3], [7])
    assert read.departure_s.tolist() == [START_S]
    assert read.reached.tolist() == [True]


def test_public_file_with_a_missed_destination_says_so(tmp_path):
    path = tmp_path / "public.csv"
    path.write_text('origin,destination,rid_list,time_list\n3,9,"[3]","2015-11-07T16:30:00Z"\n')
    read = load_generated(path, NETWORK)
    assert (read.reached.tolist(), read.reason) == ([False], ("ends elsewhere",))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_file_that_contradicts_its_roads_is_corrected_by_them(tmp_path, suffix):
    path = tmp_path / f"trips{suffix}"
    made = trips()
    wrong = ("max steps", "reached", "max steps", "same road")
    save_generated(path, replace(made, reached=~made.reached, reason=wrong), NETWORK)
    read = load_generated(path, NETWORK)
    assert read.reached.tolist() == made.reached.tolist()
    assert read.reason == ("reached", "ends elsewhere", "reached", "ends elsewhere")


@pytest.mark.parametrize(("row", "message"), [
    ('"[3, 7]","2015-11-07T16:30:00Z"', "trips.csv:2: 2 roads, but 1 times"),
    ('"[3, x]","2015-11-07T16:30:00Z,2015-11-07T16:30:00Z"',
     "trips.csv:2: '.3, x.' is no list of road ids"),
    ('"[99999]","2015-11-07T16:30:00Z"', "trip 1: road 99999 is not in the city"),
    ('"[3]","yesterday"', "trips.csv:2: "),
    ('"[]",""', "trips.csv:2: the trip is empty"),
])
def test_bad_row_is_named(tmp_path, row, message):
    path = tmp_path / "trips.csv"
    path.write_text(f"rid_list,time_list\n{row}\n")
    with pytest.raises(DataError, match=message):
        load_generated(path, NETWORK)


def test_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"trips\.txt"):
        save_generated(tmp_path / "trips.txt", trips(), NETWORK)
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.csv").write_text("road,time\n1,2\n")
    with pytest.raises(DataError, match="no column rid_list or time_list; found road, time"):
        load_generated(tmp_path / "a.csv", NETWORK)
    (tmp_path / "a.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="not Parquet"):
        load_generated(tmp_path / "a.parquet", NETWORK)
    with pytest.raises(DataError, match="no such file"):
        load_generated(tmp_path / "none.csv", NETWORK)


def test_kepler_file_has_times_that_rise_along_each_path(tmp_path):
    path = tmp_path / "trips.kepler.geojson"
    save_generated(path, trips(), NETWORK)
    features = json.loads(path.read_text())["features"]
    line = np.array(features[0]["geometry"]["coordinates"])
    assert line.shape[1] == 4
    assert (line[:, 2] == 0).all()
    assert line[0, 3] == START_S
    assert START_S + 20 in line[:, 3]
    assert (np.diff(line[:, 3]) >= 0).all()
    assert line[-1, 3] > START_S + 31


def test_parts_of_a_job_are_found_again_in_order_and_those_of_another_are_not(tmp_path):
    output = tmp_path / "trips.csv"
    parts = [TripParts(output, "1" * 64, shard, 2) for shard in (0, 1)]
    parts[1].add(trips())
    parts[0].add(trips())
    parts[0].add(trips())
    parts[0].finish()
    assert not parts[0].complete
    again = TripParts(output, "1" * 64, 0, 2)
    assert again.trips == 8
    assert TripParts(output, "1" * 64, 1, 2).trips == 4
    parts[1].finish()
    assert again.complete
    for chunk in again.chunks():
        assert_equal(chunk, trips())
    assert len(list(again.chunks())) == 3
    assert TripParts(output, "2" * 64, 0, 2).trips == 0
    assert TripParts(output, "1" * 64, 0, 2).trips == 8
    again.remove()
    [left] = tmp_path.iterdir()
    assert left.name == ".trips.csv.22222222.parts"
