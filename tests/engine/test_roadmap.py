import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from source_folder import GEO_COLUMNS, RING, ring_road, table, write_source

from hoserkd.engine.city.roadmap import (
    Roadmap,
    highway_class,
    parse_coordinates,
    parse_speed_kmh,
    rank_values,
    read_roadmap,
)
from hoserkd.errors import DataError


def read(folder: Path) -> Roadmap:
    return read_roadmap(folder / "roadmap.geo", folder / "roadmap.rel")


def geo(*changed: tuple[object, ...]) -> str:
    return table(GEO_COLUMNS, [*changed, *(ring_road(i) for i in range(len(changed), RING))])


def test_roadmap_of_the_ring_is_read_as_written(tmp_path: Path) -> None:
    roadmap = read(write_source(tmp_path))
    assert roadmap.road_id.tolist() == list(range(RING))
    assert roadmap.length_m.tolist() == [100.0 + i for i in range(RING)]
    assert np.diff(roadmap.shape_offset).tolist() == [2] * RING
    assert roadmap.destination.tolist() == [1, 2, 3, 4, 5, 0]


def test_roadmap_with_columns_in_another_order_bom_crlf_and_accents_reads_the_same(
    tmp_path: Path,
) -> None:
    plain = read(write_source(tmp_path / "plain"))
    rows = [dict(zip(GEO_COLUMNS, ring_road(i), strict=True)) for i in range(RING)]
    columns = ("maxspeed", "name", "length", "highway", "coordinates", "geo_id")
    text = table(columns, [tuple({**row, "name": "Straße, 北京"}[c] for c in columns)
                           for row in rows])
    strange = b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()
    other = read(write_source(tmp_path / "ä ö", geo=strange))
    assert np.array_equal(other.shape_lonlat, plain.shape_lonlat)
    assert np.array_equal(other.length_m, plain.length_m)


def test_geo_ids_that_are_not_0_to_r_are_mapped_and_kept(tmp_path: Path) -> None:
    ids = [900, -4, 77, 12, 10**15, 3]
    relations = [(i, "geo", a, b) for i, (a, b) in enumerate(pairwise(ids))]
    roadmap = read(write_source(
        tmp_path, geo=table(GEO_COLUMNS, [ring_road(i, ids[i]) for i in range(RING)]),
        rel=table(("rel_id", "type", "origin_id", "destination_id"), relations),
    ))
    assert roadmap.road_id.tolist() == sorted(ids)
    index = {road: i for i, road in enumerate(sorted(ids))}
    assert roadmap.origin.tolist() == [index[a] for a in ids[:-1]]
    assert roadmap.length_m[index[77]] == 102.0


def test_repeated_relations_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [(0, "geo", 0, 2), (1, "geo", 0, 1), (2, "geo", 0, 2)]
    roadmap = read(write_source(
        tmp_path, rel=table(("rel_id", "type", "origin_id", "destination_id"), rows)))
    assert roadmap.repeated_relations == 1
    assert roadmap.destination.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("primary", "primary"), (" 7 ", "7"), ("['unclassified', 'residential']", "residential"),
        ("['unclassified']", "unclassified"), ("[3, 4]", "3"), ("[]", "unclassified"),
        ("", "unclassified"), ("[broken", "[broken"), ("__import__('os')", "__import__('os')"),
        ("[__import__('os').system('x')]", "[__import__('os').system('x')]"),
    ],
)
def test_highway_class_takes_the_first_word_of_a_list_and_runs_nothing(
    text: str, expected: str
) -> None:
    assert highway_class(text) == expected


def test_highway_codes_are_ranked_as_numbers_and_words_as_text() -> None:
    assert rank_values(["10", "9", "10", "2"])[0].tolist() == [2, 1, 2, 0]
    assert rank_values(["b", "a", "10"])[1] == ("10", "a", "b")


def test_list_valued_highway_keeps_the_public_codes_rank_beside_ours(tmp_path: Path) -> None:
    roadmap = read(write_source(tmp_path, geo=geo(
        ring_road(0, highway="['unclassified', 'residential']"), ring_road(1, highway="primary"))))
    assert roadmap.highway_names == ("primary", "residential")
    assert roadmap.highway.tolist() == [1, 0, 1, 1, 1, 1]
    assert roadmap.highway_verbatim is not None
    assert roadmap.highway_verbatim.tolist() == [0, 1, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("text", "kmh"),
    [("50", 50.0), ("40.2", 40.2), ("30 mph", 48.28032), ("25mph", 40.2336), ("['30', '50']", 30.0),
     ("60;80", 60.0), ("signals", None), ("", None), ("0", None), ("-5", None), ("1e9", None)],
)
def test_maxspeed_is_read_in_km_h_or_says_nothing(text: str, kmh: float | None) -> None:
    speed = parse_speed_kmh(text)
    assert speed == (pytest.approx(kmh) if kmh is not None else None)


def test_free_flow_speed_without_maxspeed_is_that_of_the_class(tmp_path: Path) -> None:
    roadmap = read(write_source(tmp_path, geo=geo(
        ring_road(0, highway="motorway"), ring_road(1, maxspeed="20 mph"),
        ring_road(2, highway="tram"))))
    assert roadmap.free_flow_kmh[:4].tolist() == pytest.approx([100, 32.18688, 40, 30])


def test_coordinates_with_heights_keep_lon_and_lat() -> None:
    assert parse_coordinates("[[1, 2, 30], [3, 4, 31]]") == [(1, 2), (3, 4)]


@pytest.mark.parametrize(
    "text", ["", "[[1,2]]", "[[1,2],[3]]", "[[1,2],[3,NaN]]", "[[1,2],[3,91]]", "{}", "[1,2]",
             "[[1,2],[3,4]", "[" * 5000, "[[1,2],[\"x\",4]]", "LINESTRING(1 2)", "[[1,2],[400,4]]"],
)
def test_bad_coordinates_name_the_row(tmp_path: Path, text: str) -> None:
    folder = write_source(tmp_path, geo=geo(ring_road(0), ring_road(1, coordinates=text)))
    with pytest.raises(DataError, match=r"roadmap\.geo:3: coordinates"):
        read(folder)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (ring_road(0, "x"), r"roadmap\.geo:2: geo_id 'x' is not an integer"),
        (ring_road(0, 4), r"roadmap\.geo:6: geo_id 4 was already used in row 2"),
        (ring_road(0, length="long"), r"roadmap\.geo:2: length 'long'"),
        (ring_road(0, length="-1"), r"roadmap\.geo:2: length"),
        (ring_road(0, length="nan"), r"roadmap\.geo:2: length"),
    ],
)
def test_a_bad_cell_of_a_road_names_file_row_and_value(
    tmp_path: Path, row: tuple[object, ...], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        read(write_source(tmp_path, geo=geo(row)))


def test_many_bad_roads_are_told_at_once_and_counted(tmp_path: Path) -> None:
    bad = [ring_road(i, length="?") for i in range(40)]
    with pytest.raises(DataError, match="and 35 more") as raised:
        read(write_source(tmp_path, geo=table(GEO_COLUMNS, bad)))
    assert raised.value.message.count("roadmap.geo:") == 5


def test_a_relation_to_an_unknown_road_names_the_row(tmp_path: Path) -> None:
    rel = table(("origin_id", "destination_id"), [(0, 1), (1, 99), ("x", 0)])
    with pytest.raises(DataError, match=r"(?s)roadmap\.rel:3: destination_id '99'.*:4: origin_id"):
        read(write_source(tmp_path, rel=rel))


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("geo", "", "roadmap.geo: the file is empty"),
        ("geo", ",".join(GEO_COLUMNS) + "\n", "roadmap.geo: holds no roads"),
        ("geo", "geo_id,coordinates,length\n", "column highway is missing"),
        ("geo", "geo_id,coordinates,length,highway,length\n", "column length is there twice"),
        ("geo", "geo_id,coordinates,length,highway\n1,2\n", "roadmap.geo:2: 2 cells"),
        ("rel", "", "roadmap.rel: the file is empty"),
        ("rel", "origin_id;destination_id\n", "column origin_id, destination_id is missing"),
        ("rel", b"\xff\xfea\0b\0", "zero bytes"),
    ],
)
def test_a_broken_road_table_is_an_error_that_says_what_is_wrong(
    tmp_path: Path, key: str, text: str | bytes, said: str
) -> None:
    with pytest.raises(DataError) as raised:
        read(write_source(tmp_path, **{key: text}))
    assert said in raised.value.message


def test_rows_are_counted_in_lines_where_a_cell_holds_a_line_break(tmp_path: Path) -> None:
    coordinates = json.dumps([[1, 2], [3, 4]], indent=1)
    folder = write_source(tmp_path, geo=geo(
        ring_road(0, coordinates=coordinates), ring_road(1, length="?")))
    row = 2 + coordinates.count("\n") + 1
    with pytest.raises(DataError, match=rf"roadmap\.geo:{row}: length"):
        read(folder)


def test_a_polyline_of_20000_points_is_read(tmp_path: Path) -> None:
    points = [[round(10 + i * 1e-6, 7), 50.0] for i in range(20_000)]
    roadmap = read(write_source(tmp_path, geo=geo(ring_road(0, coordinates=json.dumps(points)))))
    assert int(np.diff(roadmap.shape_offset)[0]) == 20_000
