"""One corpus of rows, three readers, four kinds of files: the same verdict everywhere."""

import gzip
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from handmade import town
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hoserkd.engine.city.storage import City
from hoserkd.engine.library import TripRequest, build_queries
from hoserkd.engine.search.od import draw_queries
from hoserkd.engine.trips.columns import PUBLIC_NAMES
from hoserkd.engine.trips.loading import load_generated
from hoserkd.engine.trips.reading import parse_road, parse_time, read_trips
from hoserkd.engine.types import TimeStatistics
from hoserkd.errors import DataError

NETWORK = town()
CITY = City(Path("nowhere"), "town", "", NETWORK, TimeStatistics(0.0, 1.0), {})
PUBLIC = {ours: theirs for theirs, ours in PUBLIC_NAMES.items()}
START_S = 1446913800
TIME = "2015-11-07T16:30:00Z"

ROADS = ["3", "07", "-0", " 9 ", "np.int64(3)", "np.uint8(7)", "+3", "3.0", "0.5", "'3'", '"3"',
         "", "x", "1e1", "1_0", "٣", "np.int64(3", "np.float64(3)", "(3)", "99999999999999999999",
         "[3]", "None", "nan"]
TIMES = [TIME, "2015-11-07 16:30:00", "2015-11-07T16:30:00+08:00", "2015-11-07T16:30:00-0800",
         "2015-11-07T16:30:00+08", "2015-11-07T16:30:00.5Z", f"'{TIME}'", f'"{TIME}"', "2015-11-07",
         "2015-11-07T16:30", "2015-02-30T16:30:00Z", "2015-11-07T24:00:00Z", "1446913800", "now",
         "NaT", "", f"'{TIME}", f"'{TIME}\"", f"{TIME}Z", "2015-11-07T16:30:00+8:00",
         "2015-11-07T16:30:60Z", "٢٠١٥-11-07T16:30:00Z", "0000-01-01T00:00:00Z", f"[{TIME}]"]


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def write(path: Path, table: dict[str, Sequence[str]]) -> Path:
    """Write columns of text in the form that the file's ending names."""
    lines = [",".join(table), *(",".join(map(quoted, row)) for row in zip(*table.values(),
                                                                         strict=True))]
    text = ("\n".join(lines) + "\n").encode()
    ending = path.name.lower()
    if ending.endswith(".parquet"):
        pq.write_table(pa.table({name: list(column) for name, column in table.items()}), path)
    elif ending.endswith(".gz"):
        path.write_bytes(gzip.compress(text))
    else:
        path.write_bytes(zstandard.compress(text) if ending.endswith(".zst") else text)
    return path


def source(path: Path) -> Any:
    """Return how a source's reader takes a file of one trip; None: it refuses it."""
    ((trips, _),) = read_trips(path)
    return None if trips.problem[0] else (trips.road.tolist(), trips.entered_at_s.tolist())


def refused(path: Path, read: Callable[[], Any]) -> Any:
    """Return None where a reader refuses the first row and says so, else what it returns."""
    try:
        return read()
    except DataError as error:
        row = 1 if path.name.lower().endswith(".parquet") else 2
        if f"{path}:{row}: " not in error.message:
            raise
        return None


def generated(path: Path) -> Any:
    trips = refused(path, lambda: load_generated(path, NETWORK))
    return None if trips is None else (trips.road.tolist(), trips.entered_at_s.tolist())


def requests(path: Path) -> Any:
    found = refused(path, lambda: draw_queries(CITY, str(path), None, 0))
    return None if found is None else (found.requested.tolist(), found.departure_s.tolist())


def verdicts(folder: Path, name: str, table: dict[str, Sequence[str]], read: Callable[[Path], Any]
             ) -> list[Any]:
    """Return the answers for every kind of file, with our names and the public ones."""
    renamed = {PUBLIC[column]: cells for column, cells in table.items()}
    return [read(write(folder / f"{name}{ending}", columns))
            for columns in (table, renamed)
            for ending in (".csv", ".CSV", ".csv.gz", ".Csv.ZST", ".parquet", ".PARQUET")]


@pytest.mark.parametrize("road", ROADS)
def test_a_road_is_one_thing_in_every_file(tmp_path: Path, road: str) -> None:
    lists = {"rid_list": [f"[{road}, 9]"], "time_list": [f"{TIME},{TIME}"]}
    found = [*verdicts(tmp_path, "t", lists, source), *verdicts(tmp_path, "t", lists, generated)]
    assert found == [found[0]] * len(found)
    request = {"origin": [road], "destination": ["9"], "departure": [TIME]}
    asked = verdicts(tmp_path, "od", request, requests)
    assert asked == [asked[0]] * len(asked)
    assert (asked[0] is None) == (found[0] is None)
    if found[0] is not None:
        assert asked[0][0][0][0] == found[0][0][0] == parse_road(road)


@pytest.mark.parametrize("time", TIMES)
def test_a_time_is_one_thing_in_every_file(tmp_path: Path, time: str) -> None:
    lists = {"rid_list": ["3,9"], "time_list": [f"[{time}, {TIME}]"]}
    found = [*verdicts(tmp_path, "t", lists, source), *verdicts(tmp_path, "t", lists, generated)]
    assert found == [found[0]] * len(found)
    # A request may leave its departure out.
    if time.strip():
        asked = verdicts(tmp_path, "od", {"origin": ["3"], "destination": ["9"],
                                          "departure": [time]}, requests)
        assert asked == [asked[0]] * len(asked)
        assert (asked[0] is None) == (found[0] is None)
    if found[0] is not None:
        assert found[0][1][0] == parse_time(time)
    else:
        with pytest.raises(ValueError):
            parse_time(time)


@settings(max_examples=40, deadline=None, derandomize=True, database=None,
          suppress_health_check=list(HealthCheck))
@given(roads=st.lists(st.sampled_from(ROADS), max_size=4),
       times=st.lists(st.sampled_from(TIMES), max_size=4),
       brackets=st.sampled_from(["", "[]", "()", "[", "]"]),
       joint=st.sampled_from([",", ", ", ";"]))
def test_lists_have_one_verdict(
    tmp_path: Path, roads: list[str], times: list[str], brackets: str, joint: str
) -> None:
    cells = [brackets[:1] + joint.join(items) + brackets[1:] for items in (roads, times)]
    table = {"rid_list": cells[:1], "time_list": cells[1:]}
    found = [read(write(tmp_path / f"t{ending}", table))
             for read in (source, generated) for ending in (".csv", ".parquet")]
    # A generated trip may not be empty where nothing else says what was asked for.
    if found[0] != ([], []):
        assert found == [found[0]] * len(found)


@pytest.mark.parametrize("lists", [
    '"[np.int64(3), 7, 9]","[\'2015-11-07T16:30:00Z\', \'2015-11-07T16:30:20Z\', '
    '\'2015-11-07T16:30:31Z\']"',
    '"[np.int64(3), np.int64(7), np.int64(9)]","2015-11-07T16:30:00Z,2015-11-07T16:30:20Z,'
    '2015-11-07T16:30:31Z"',
])
def test_what_public_gene_py_writes_under_numpy_2_is_taken(tmp_path: Path, lists: str) -> None:
    path = tmp_path / "2025-01-01_00-00-00.csv"
    path.write_text(f"gene_trace_road_id,gene_trace_datetime\n{lists}\n")
    expected = ([3, 7, 9], [START_S, START_S + 20, START_S + 31])
    assert (source(path), generated(path)) == (expected, expected)


def typed(path: Path, **columns: pa.Array) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


IDS = pa.array([[3, 7]])
STAMPS = [datetime(2015, 11, 7, 16, 30), datetime(2015, 11, 7, 16, 30, 20)]
SECONDS = [START_S, START_S + 20]


@pytest.mark.parametrize("times", [
    pa.array([SECONDS]), pa.array([SECONDS], pa.list_(pa.float64())),
    pa.array([SECONDS], pa.large_list(pa.int32())), pa.array([SECONDS], pa.list_(pa.int64(), 2)),
    *(pa.array([STAMPS], pa.list_(pa.timestamp(unit))) for unit in ("s", "ms", "us", "ns")),
    pa.array([[stamp.replace(tzinfo=UTC) for stamp in STAMPS]],
             pa.list_(pa.timestamp("us", tz="UTC"))),
    # The wall clock of the zone that the column names is what counts.
    *(pa.array([[stamp.replace(tzinfo=timezone(timedelta(hours=8))) for stamp in STAMPS]],
               pa.list_(pa.timestamp("us", tz=zone))) for zone in ("Asia/Shanghai", "+08:00")),
    pa.array([["2015-11-07T16:30:00+08:00", "'2015-11-07 16:30:20'"]]),
    pa.array([f"{TIME},2015-11-07T16:30:20Z"]).dictionary_encode(),
])
def test_typed_times_of_parquet_say_what_text_says(tmp_path: Path, times: pa.Array) -> None:
    path = typed(tmp_path / "t.parquet", rid_list=IDS, time_list=times)
    assert source(path) == generated(path) == ([3, 7], SECONDS)


@pytest.mark.parametrize("roads", [
    pa.array([[3, 7]], pa.list_(pa.uint64())), pa.array([[3.0, 7.0]]),
    pa.array([[3, 7]], pa.list_(pa.int8())), pa.array(["[3, 7]"], pa.large_string()),
    pa.array([["3", "7"]]),
])
def test_typed_roads_of_parquet_say_what_text_says(tmp_path: Path, roads: pa.Array) -> None:
    path = typed(tmp_path / "t.parquet", rid_list=roads, time_list=pa.array([SECONDS]))
    assert source(path) == generated(path) == ([3, 7], SECONDS)


@pytest.mark.parametrize(("column", "cells"), [
    ("rid_list", pa.array([[3.5, 7.0]])), ("rid_list", pa.array([[3, None]])),
    ("rid_list", pa.array([None], pa.list_(pa.int64()))), ("rid_list", pa.array([["3", "'7'"]])),
    ("rid_list", pa.array([[2**63, 7]], pa.list_(pa.uint64()))),
    ("rid_list", pa.array([[True, False]])), ("rid_list", pa.array([[float("nan"), 7.0]])),
    ("time_list", pa.array([[1000 * second for second in SECONDS]])),
    ("time_list", pa.array([[stamp.date() for stamp in STAMPS]])),
    ("time_list", pa.array([[float("inf"), 1.0]])), ("time_list", pa.array([[STAMPS[0], None]])),
    ("time_list", pa.array([["now", "NaT"]])),
])
def test_typed_values_of_parquet_are_neither_cut_nor_guessed(
    tmp_path: Path, column: str, cells: pa.Array
) -> None:
    columns = {"rid_list": IDS, "time_list": pa.array([SECONDS]), column: cells}
    path = typed(tmp_path / "t.parquet", **columns)
    for read in (generated, source):
        try:
            assert read(path) is None
        except DataError as error:
            # Types that name no road or time at all are told once for the whole column.
            assert f"column {column} holds" in error.message  # noqa: PT017


def test_rows_of_a_list_that_is_bad_do_not_move_the_others(tmp_path: Path) -> None:
    path = typed(tmp_path / "t.parquet", rid_list=pa.array([[3.0, 7.0], [0.5, 1.0], [9.0, 1.0]]),
                 time_list=pa.array([SECONDS, SECONDS, SECONDS[:1]]))
    ((trips, _),) = read_trips(path)
    assert trips.row.tolist() == [1, 2, 3]
    assert trips.points.tolist() == [2, 0, 0]
    assert trips.road.tolist() == [3, 7]
    assert trips.entered_at_s.tolist() == SECONDS


def test_a_few_bytes_of_parquet_that_stand_for_millions_of_roads_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hoserkd.engine.trips.parquet.FREE_VALUES", 1000)
    values = pa.ListArray.from_arrays(pa.array([0, 20_000], pa.int32()), np.zeros(20_000, np.int64))
    path = typed(tmp_path / "t.parquet", rid_list=values, time_list=values)
    with pytest.raises(DataError, match=r"has 20,000 values in 1 rows of a row group"):
        source(path)


@pytest.mark.parametrize("twice", [["rid_list", "gene_trace_road_id"], ["rid_list", "rid_list"]])
def test_two_columns_of_one_meaning_are_refused(tmp_path: Path, twice: list[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{','.join(twice)},time_list\n3,7,{TIME}\n")
    for read in (source, lambda path: load_generated(path, NETWORK)):
        with pytest.raises(DataError, match=r"is there twice|are both there"):
            read(path)
    path.write_text("origin,origin_road_id,destination\n3,7,9\n")
    with pytest.raises(DataError, match="columns origin and origin_road_id are both there"):
        draw_queries(CITY, str(path), None, 0)


def test_a_request_of_the_library_is_not_cut_to_a_whole_road() -> None:
    with pytest.raises(TypeError):
        build_queries(CITY, [TripRequest(0.5, 1, STAMPS[0])])  # type: ignore[arg-type]
    found = build_queries(CITY, [TripRequest(int(np.int64(3)), 1, STAMPS[0])])
    assert found.origin.tolist() == [3]
