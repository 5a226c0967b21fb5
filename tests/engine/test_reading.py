import csv
import gzip
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import zstandard
from source_folder import trip, trips_table

from hoserkd.engine.city.network import build_candidates
from hoserkd.engine.trips.reading import read_trips
from hoserkd.engine.trips.validation import Cause, ParsedTrips, Rejections, RoadJudge, kept_trips
from hoserkd.errors import DataError

HEADER = "mm_id,entity_id,traj_id,rid_list,time_list\n"
T = [f"2024-02-28T23:59:{s:02d}Z" for s in range(50, 60)]


def read(path: Path, chunk_bytes: int = 1 << 20) -> ParsedTrips:
    """Return the trips of all pieces as one."""
    parts = [part for part, _ in read_trips(path, chunk_bytes)]
    names = ParsedTrips.__dataclass_fields__
    return ParsedTrips(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})


def read_text(tmp_path: Path, text: str | bytes, name: str = "train.csv") -> ParsedTrips:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path)


def read_lists(tmp_path: Path, rid_list: str, time_list: str) -> ParsedTrips:
    return read_text(tmp_path, f'{HEADER}1,2,3,"{rid_list}","{time_list}"\n')


def read_plainly(path: Path) -> list[tuple[list[int], list[int]]]:
    """The slow, obvious reading of a well-formed file."""
    out = []
    with path.open() as file:
        for row in csv.DictReader(file):
            times = [datetime.strptime(t, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
                     for t in row["time_list"].split(",")]
            roads = [int(r) for r in row["rid_list"].strip("[]").split(",")]
            out.append((roads, [int(t.timestamp()) for t in times]))
    return out


@pytest.mark.parametrize("chunk_bytes", [1, 37, 1000, 1 << 20])
def test_trips_equal_the_plain_reading_whatever_the_pieces(
    tmp_path: Path, chunk_bytes: int
) -> None:
    rng = np.random.default_rng(0)
    starts = ["1969-12-31T23:59:50", "2000-02-29T12:00:00", "2023-12-31T23:59:58",
              "2100-02-28T23:59:59", "0001-01-01T00:00:00", "9998-06-01T05:05:05"]
    trips = [trip(rng.integers(0, 9999, rng.integers(1, 40)).tolist(), str(rng.choice(starts)))
             for _ in range(60)]
    path = tmp_path / "train.csv"
    path.write_text(trips_table(trips))
    read_trip = read(path, chunk_bytes)
    plain = read_plainly(path)
    assert read_trip.road.tolist() == [r for roads, _ in plain for r in roads]
    assert read_trip.entered_at_s.tolist() == [t for _, times in plain for t in times]
    assert read_trip.points.tolist() == [len(roads) for roads, _ in plain]
    assert read_trip.row.tolist() == list(range(2, 62))


@pytest.mark.parametrize("name", ["train.csv", "train.csv.gz", "train.csv.zst"])
def test_compressed_trips_read_like_plain_ones(tmp_path: Path, name: str) -> None:
    text = trips_table([trip([1, 2, 3]), trip([4, 5])] * 500).encode()
    pack = {"csv": bytes, "gz": gzip.compress, "zst": zstandard.compress}[name.rsplit(".")[-1]]
    trips = read_text(tmp_path, pack(text), name)
    assert trips.road.tolist() == [1, 2, 3, 4, 5] * 500


@pytest.mark.parametrize("name", ["train.csv.gz", "train.csv.zst"])
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"no archive" + b,
                                    lambda b: b[:40] + bytes(30) + b[70:]])
def test_damaged_archive_is_an_error_that_names_the_file(
    tmp_path: Path, name: str, damage: object
) -> None:
    rng = np.random.default_rng(0)
    text = trips_table([trip(rng.integers(0, 9999, 30).tolist()) for _ in range(500)]).encode()
    packed = gzip.compress(text) if name.endswith("gz") else zstandard.compress(text)
    with pytest.raises(DataError, match=name):
        read_text(tmp_path, damage(packed), name)  # type: ignore[operator]


@pytest.mark.parametrize("rid_list", ["[1,2,3]", "1,2,3", "[1, 2, 3]", " [ 1 ,2 , 3 ] ", "1 ,2,03"])
def test_road_lists_are_read_with_or_without_brackets(tmp_path: Path, rid_list: str) -> None:
    trips = read_lists(tmp_path, rid_list, ",".join(T[:3]))
    assert trips.problem.tolist() == [0]
    assert trips.road.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "written", ["2024-02-29T00:00:00Z", "2024-02-29 00:00:00", "2024-02-29T00:00:00.999Z",
                "2024-02-29T00:00:00+08:00", "2024-02-28T23:59:60Z"],
)
def test_times_keep_the_wall_clock_that_is_written(tmp_path: Path, written: str) -> None:
    trips = read_lists(tmp_path, "[1,2]", f"2024-02-28T23:59:59Z, {written}")
    assert np.diff(trips.entered_at_s).tolist() == [1]


@pytest.mark.parametrize(
    ("rid_list", "time_list"),
    [
        ("[1,x]", ",".join(T[:2])), ("[1,,2]", ",".join(T[:2])), ("[1,2", ",".join(T[:2])),
        ("[1.5,2]", ",".join(T[:2])), ("[1,2]]", ",".join(T[:2])), ("None", ",".join(T[:2])),
        ("[1,9999999999999999999999]", ",".join(T[:2])), ("[1 2]", ",".join(T[:2])),
        ("[1,2]", "2024-02-30T00:00:00Z,2024-03-01T00:00:00Z"), ("[1,2]", "nan"),
        ("[1,2]", "2023-02-29T00:00:00Z,2024-03-01T00:00:00Z"),
        ("[1,2]", "2100-02-29T00:00:00Z,2100-03-01T00:00:00Z"),
        ("[1,2]", "2024-13-01T00:00:00Z,2024-03-01T00:00:00Z"),
        ("[1,2]", "2024-01-01T24:00:00Z,2024-03-01T00:00:00Z"),
        ("[1,2]", "2024-01-01T00:00:00Z;2024-03-01T00:00:00Z"),
        ("[1,2]", "2024-01-01T00:00:00ZZ,2024-03-01T00:00:00Z"),
        ("[1,2]", "2024-01-01T00:00,2024-03-01T00:00"), ("[1,2]", "1,2"),
        ("__import__('os')", "x"),
    ],
)
def test_lists_that_cannot_be_read_are_unparsable(
    tmp_path: Path, rid_list: str, time_list: str
) -> None:
    assert read_lists(tmp_path, rid_list, time_list).problem.tolist() == [Cause.UNPARSABLE]


def test_rows_are_those_of_the_file_whatever_lies_between(tmp_path: Path) -> None:
    good = '1,1,1,"[1,2]","2024-01-01T00:00:00Z,2024-01-01T00:00:01Z"'
    lines = [good, "", good, '1,1,1,"[1,2],unclosed', good, "a,b", good + ",extra", "", good]
    trips = read_text(tmp_path, HEADER + "\r\n".join(lines))
    assert trips.row.tolist() == [2, 4, 5, 6, 7, 8, 10]
    assert np.flatnonzero(trips.problem).tolist() == [2, 4, 5]


def test_an_unclosed_quote_spoils_its_own_line_only(tmp_path: Path) -> None:
    good = '1,1,1,"[1,2]","2024-01-01T00:00:00Z,2024-01-01T00:00:01Z"\n'
    trips = read_text(tmp_path, HEADER + good + good.replace('Z"\n', "Z\n") + good)
    assert trips.problem.tolist() == [0, Cause.UNPARSABLE, 0]


def test_columns_in_another_order_with_bom_and_foreign_text_are_read(tmp_path: Path) -> None:
    text = '\ufeff time_list ,"note, a",rid_list\r\n"2024-01-01T00:00:00Z,2024-01-01T00:00:05Z",' \
           '"say ""北京"", é",7\r\n"2024-01-01T00:00:00Z,2024-01-01T00:00:05Z",x,"7,8"\r\n'
    trips = read_text(tmp_path, text)
    assert trips.problem.tolist() == [Cause.LENGTHS_DIFFER, 0]
    assert trips.road.tolist() == [7, 8]


@pytest.mark.parametrize(
    ("text", "said"),
    [(b"", "the file is empty"), (b"\n", "the first line is empty"),
     (b"a,b\n1,2\n", "no column rid_list or time_list; found a, b"),
     (b"rid_list,time_list,rid_list\n", "column rid_list is there twice"),
     ("rid_list,time_list\n".encode("utf-16"), "no column rid_list or time_list"),
     (b"x" * (2 << 20), "longer than 1 MiB")],
)
def test_a_file_that_is_no_trip_table_is_an_error(tmp_path: Path, text: bytes, said: str) -> None:
    with pytest.raises(DataError) as raised:
        read_text(tmp_path, text)
    assert said in raised.value.message


def test_a_trip_of_5000_roads_is_read(tmp_path: Path) -> None:
    trips = read_text(tmp_path, trips_table([trip(list(range(5000)), step_s=0)]))
    assert trips.points.tolist() == [5000]


def judged(tmp_path: Path, text: str, road_id: list[int]) -> ParsedTrips:
    """Read and judge on a ring of three roads (by index), with a self loop on the first."""
    relations = np.array([[0, 0], [0, 1], [1, 2], [2, 0]], np.int32)
    candidates = build_candidates(3, relations[:, 0], relations[:, 1])
    trips = read_text(tmp_path, text)
    RoadJudge(np.array(road_id), candidates).judge(trips)
    return trips


CASES = [
    (trip([0, 1, 2, 0, 0]), 0, ""),
    (trip([0]), Cause.FEWER_THAN_2_ROADS, "1 roads"),
    (("[]", ""), Cause.FEWER_THAN_2_ROADS, "0 roads"),
    (trip([0, 3]), Cause.UNKNOWN_ROAD, "road 3"),
    (trip([-1, 0]), Cause.UNKNOWN_ROAD, "road -1"),
    (trip([0, 1, 0]), Cause.NOT_CONNECTED, "1 to 0"),
    (trip([0, 1], step_s=0), 0, ""),
    (trip([0, 1, 2], step_s=-1), Cause.TIME_GOES_BACK, "at point 1"),
    (trip([0] * 5001, step_s=0), Cause.TOO_MANY_ROADS, "5001 roads"),
    ((trip([0, 1])[0], trip([0])[1]), Cause.LENGTHS_DIFFER, "2 roads, 1 times"),
    (("x", "y"), Cause.UNPARSABLE, "rid_list is not a list of integers"),
]


def test_each_cause_is_found_counted_and_written_with_its_row(tmp_path: Path) -> None:
    trips = judged(tmp_path, trips_table([lists for lists, _, _ in CASES]), [0, 1, 2])
    assert trips.problem.tolist() == [cause for _, cause, _ in CASES]
    rejections = Rejections()
    rejections.add("val", trips)
    rejections.save(tmp_path / "rejected.csv")
    with (tmp_path / "rejected.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["split", "row", "cause", "detail"]
    assert rows[1:] == [["val", str(i + 2), Cause(cause).label, detail]
                        for i, (_, cause, detail) in enumerate(CASES) if cause]
    assert rejections.share == pytest.approx(9 / 11)
    assert rejections.by_split()["val"] == Counter(row[2] for row in rows[1:])


def test_good_trips_are_kept_by_index_where_ids_are_mapped(tmp_path: Path) -> None:
    text = trips_table([trip([10**12, 7]), trip([7, 10**12]), trip([-5, -5, 7, 10**12])])
    trips = judged(tmp_path, text, [-5, 7, 10**12])
    points, road, entered = kept_trips(trips)
    assert trips.problem.tolist() == [Cause.NOT_CONNECTED, 0, 0]
    assert points.tolist() == [2, 4]
    assert road.tolist() == [1, 2, 0, 0, 1, 2]
    assert entered.tolist() == [1704067200 + s for s in (0, 10, 0, 10, 20, 30)]


def test_a_road_with_1500_candidates_is_searched_whole(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(1500).astype(np.int32)
    candidates = build_candidates(1500, np.zeros(1500, np.int32), order)
    trips = read_text(tmp_path, trips_table([trip([0, int(r)]) for r in range(1500)]))
    RoadJudge(np.arange(1500), candidates).judge(trips)
    assert not trips.problem.any()
