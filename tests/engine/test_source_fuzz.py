"""Strangers' files: whatever the bytes are, the readers answer with records or one clear error."""

import csv
import gzip
import importlib.util
import io
import json
import os
import re
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from source_folder import (
    GEO_COLUMNS,
    RING,
    prepared,
    ring_road,
    table,
    trip,
    trips_table,
    write_source,
)

from hoserkd.engine.city.network import build_network
from hoserkd.engine.city.roadmap import read_roadmap
from hoserkd.engine.city.zones import read_partition, read_zone_transitions
from hoserkd.engine.trips import kernels
from hoserkd.engine.trips.reading import read_trips
from hoserkd.errors import DataError, HoserkdError

TRIPS = trips_table([trip([0, 1, 2]), trip([5, 0]), trip([3, 4, 5, 0])]).encode()
SPECIAL = [b'"', b'""', b",", b"\n", b"\r\n", b"\r", b"\0", b"[", b"]", b"-", b" ", b"\xff",
           b"\xef\xbb\xbf", b"9" * 25, b"nan", b"1e9", b"T", b"Z", b".", b"{", b"'", b"\t"]
QUICK = 60
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", QUICK))
"""More of them, and other ones each time, make a longer hunt."""
fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == QUICK,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes of a good file after a few cuts, insertions and replacements."""
    data = whole
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        until = min(len(data), at + draw(st.sampled_from([0, 0, 1, 2, 9, 200])))
        new = draw(st.one_of(st.sampled_from(SPECIAL), st.binary(max_size=6),
                             st.text(max_size=4).map(str.encode)))
        data = data[:at] + new + data[until:]
    return data


def files(tmp_path: Path) -> dict[str, bytes]:
    folder = write_source(tmp_path / "good")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return files(tmp_path_factory.mktemp("good"))


@fuzzed
@given(data=st.data())
@pytest.mark.parametrize("name", ["roadmap.geo", "roadmap.rel"])
def test_a_damaged_road_table_is_read_or_refused(
    tmp_path: Path, good: dict[str, bytes], name: str, data: st.DataObject
) -> None:
    source = write_source(tmp_path / "s")
    (source / name).write_bytes(data.draw(damaged(good[name])))
    try:
        roadmap = read_roadmap(source / "roadmap.geo", source / "roadmap.rel")
    except DataError:
        return
    assert np.isfinite(roadmap.shape_lonlat).all()
    assert (np.diff(roadmap.shape_offset) >= 2).all()
    assert (np.diff(roadmap.road_id) > 0).all()
    assert roadmap.origin.max(initial=0) < roadmap.roads


ROADS = re.compile(r" *\[?( *-?[0-9]{1,18} *)(, *-?[0-9]{1,18} *)*\]? *")
TIME = re.compile(r" *[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z *")


def plain_answer(line: bytes, width: int) -> tuple[list[int], list[int]] | None:
    """What a slow, strict reader makes of one line; None where it will not have it."""
    try:
        (cells,) = csv.reader([line.decode()], strict=True)
    except (ValueError, csv.Error):
        return None
    if len(cells) != width or not ROADS.fullmatch(cells[3]) or ("[" in cells[3]) != (
        "]" in cells[3]
    ):
        return None
    stamps = cells[4].split(",")
    if not all(TIME.fullmatch(stamp) for stamp in stamps):
        return None
    try:
        times = [datetime.strptime(stamp.strip(), "%Y-%m-%dT%H:%M:%SZ") for stamp in stamps]
    except ValueError:
        return None
    roads = [int(road) for road in cells[3].strip("[] ").split(",")]
    return roads, [int(time.replace(tzinfo=UTC).timestamp()) for time in times]


@fuzzed
@given(text=damaged(TRIPS), chunk=st.sampled_from([1, 13, 1 << 20]))
def test_a_damaged_trip_file_gives_what_a_slow_reader_gives(
    tmp_path: Path, text: bytes, chunk: int
) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(text)
    try:
        pieces = [piece for piece, _ in read_trips(path, chunk)]
    except DataError:
        return
    lines = text.split(b"\n")
    rows = [row for piece in pieces for row in piece.row.tolist()]
    assert rows == sorted(set(rows))
    header = next(csv.reader([lines[0].decode("utf-8-sig", "replace").strip()]))
    if [name.strip() for name in header[3:5]] != ["rid_list", "time_list"]:
        return
    for piece in pieces:
        begin = 0
        for row, points, problem in zip(
            piece.row.tolist(), piece.points.tolist(), piece.problem.tolist(), strict=True
        ):
            mine = piece.road[begin : begin + points].tolist(), piece.entered_at_s[
                begin : begin + points].tolist()
            begin += points
            plain = plain_answer(lines[row - 1].removesuffix(b"\r"), len(header))
            if plain is not None:
                same_length = len(plain[0]) == len(plain[1])
                assert problem == (kernels.OK if same_length else kernels.LENGTHS)
                assert not same_length or mine == plain


def plain_kernels() -> ModuleType:
    """The kernels uncompiled, so that numpy checks every index."""
    spec = importlib.util.spec_from_file_location("plain_kernels", kernels.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hoserkd.engine.compiled.compiled", lambda function: function)
        spec.loader.exec_module(module)
    return module


class Guarded(np.ndarray):
    """An array that refuses negative indices, which numpy takes from the end."""

    def __getitem__(self, key: object) -> object:
        assert all(index >= 0 for index in (key if isinstance(key, tuple) else (key,)))
        return int(super().__getitem__(key))  # type: ignore[call-overload]

    def __setitem__(self, key: object, value: object) -> None:
        assert all(index >= 0 for index in (key if isinstance(key, tuple) else (key,)))
        super().__setitem__(key, value)  # type: ignore[call-overload]


PLAIN = plain_kernels()


@fuzzed
@given(text=damaged(TRIPS))
def test_the_compiled_loops_stay_inside_their_arrays(text: bytes) -> None:
    text = text if text.endswith(b"\n") else text + b"\n"
    raw = np.frombuffer(text, np.uint8)
    lines, room = text.count(b"\n"), len(text) // 2 + 1

    def parsed(loops: ModuleType, kind: type) -> list[np.ndarray]:
        def made(*shape: int, dtype: type = np.int64) -> np.ndarray:
            return np.zeros(shape, dtype).view(kind)

        seen, problem = raw.view(kind), made(lines, dtype=np.uint8)
        bounds, details = made(lines, 2, 2, dtype=np.int32), (made(lines), made(lines))
        place = np.array([-1, -1, -1, 0, 1]).view(kind)
        loops.cut_lines(seen, len(text), place, bounds, problem, made(lines, dtype=np.int32))
        cells = [bounds.view(np.ndarray)[:, k].astype(np.int64).view(kind) for k in (0, 1)]
        found = [made(lines) for _ in range(4)]
        for times in (False, True):
            loops.parse_singles(seen, cells[times], times, *found[2 * times:2 * times + 2])
        road, time, points = made(room), made(room), made(lines)
        used = loops.parse_lists(seen, *cells, road, time, points, problem, *details)
        assert used == points.view(np.ndarray).sum()
        results = [bounds, problem, points, *found, road, time]
        return [array.view(np.ndarray) if array.ndim != 1 or len(array) != room
                else array.view(np.ndarray)[:used] for array in results]

    for mine, plain in zip(parsed(kernels, np.ndarray), parsed(PLAIN, Guarded), strict=True):
        assert np.array_equal(mine, plain)


@fuzzed
@given(data=st.data())
@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_damaged_archive_is_read_or_refused(
    tmp_path: Path, pack: object, data: st.DataObject
) -> None:
    name = "train.csv.gz" if pack is gzip.compress else "train.csv.zst"
    path = tmp_path / name
    path.write_bytes(data.draw(damaged(pack(TRIPS * 20))))  # type: ignore[operator]
    try:
        for piece, _ in read_trips(path):
            assert len(piece.row) == len(piece.points)
    except DataError:
        return


@fuzzed
@given(text=st.one_of(damaged(b"0\n1\n2\n0\n1\n2\n"), st.binary(max_size=40)))
def test_a_damaged_partition_is_read_or_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "road_network_partition"
    path.write_bytes(text)
    try:
        zone = read_partition(path, RING)
    except DataError:
        return
    assert zone.shape == (RING,)
    assert zone.min() >= 0


def npy_bytes() -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(9).reshape(3, 3))
    return file.getvalue()


@fuzzed
@given(text=st.one_of(damaged(npy_bytes()), st.binary(max_size=300)))
def test_a_damaged_transition_file_is_read_or_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "zone_trans_mat.npy"
    path.write_bytes(text)
    try:
        counts = read_zone_transitions(path, 3)
    except DataError:
        return
    assert counts.min() >= 0


@settings(fuzzed, max_examples=EXAMPLES // 2)
@given(data=st.data())
def test_prepare_of_a_folder_with_a_damaged_file_ends_well_or_with_an_error(
    tmp_path: Path, good: dict[str, bytes], data: st.DataObject
) -> None:
    source = write_source(tmp_path / "s")
    name = data.draw(st.sampled_from(sorted(good)))
    (source / name).write_bytes(data.draw(damaged(good[name])))
    try:
        report = prepared(source, tmp_path / "c", zones=2, force=True)
    except HoserkdError:
        return
    assert report.statistics["splits"]["train"]["trips"] >= 1


def test_an_archive_that_unpacks_to_one_endless_line_is_refused_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hoserkd.engine.trips.reading.MAX_LINE_BYTES", 2 << 20)
    path = tmp_path / "train.csv.gz"

    def bomb() -> Iterator[bytes]:
        yield b"rid_list,time_list\n"
        for _ in range(64):
            yield b"1" * (1 << 20)

    with gzip.open(path, "wb") as file:
        for piece in bomb():
            file.write(piece)
    with pytest.raises(DataError, match="a line is longer than 2 MiB"):
        list(read_trips(path))


def test_a_road_table_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hoserkd.engine.city.source.MAX_TABLE_BYTES", 1 << 20)
    source = write_source(tmp_path)
    (source / "roadmap.rel").unlink()
    with gzip.open(source / "roadmap.rel.gz", "wb") as file:
        file.write(b"origin_id,destination_id\n" + b"0,1\n" * (1 << 20))
    with pytest.raises(DataError, match="when unpacked"):
        read_roadmap(source / "roadmap.geo", source / "roadmap.rel.gz")


def test_a_road_table_of_too_many_rows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hoserkd.engine.city.source.MAX_TABLE_ROWS", 1000)
    source = write_source(tmp_path)
    with gzip.open(source / "roadmap.rel.gz", "wb") as file:
        file.write(b"origin_id,destination_id\n" + b"\n" * 2000)
    with pytest.raises(DataError, match="more than 1,000 rows"):
        read_roadmap(source / "roadmap.geo", source / "roadmap.rel.gz")


@pytest.mark.parametrize("rest", ["", '"', ",".join("x" * 90 for _ in range(40))])
def test_a_row_of_a_road_table_that_never_ends_is_refused_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: str
) -> None:
    monkeypatch.setattr("hoserkd.engine.city.source.MAX_RECORD_BYTES", 1 << 20)
    source = write_source(tmp_path)
    (source / "roadmap.rel").write_text(
        "origin_id,destination_id\n0,1\n" + rest + ("1" * 100_000 + ("\n" if rest else "")) * 50)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"roadmap\.rel:(2|3): ") as caught:
            read_roadmap(source / "roadmap.geo", source / "roadmap.rel")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert "longer than" in str(caught.value) or "cells" in str(caught.value)


def test_a_table_of_80_000_columns_is_refused_at_once(tmp_path: Path) -> None:
    columns = ",".join(f"c{i}" for i in range(80_000))
    source = write_source(tmp_path, rel=f"origin_id,destination_id,{columns}\n")
    began = time.process_time()
    with pytest.raises(DataError, match="80,002 columns"):
        read_roadmap(source / "roadmap.geo", source / "roadmap.rel")
    assert time.process_time() - began < 5


def test_a_named_pipe_or_a_device_in_place_of_a_table_is_refused(tmp_path: Path) -> None:
    source = write_source(tmp_path)
    for make in (lambda p: os.mkfifo(p), lambda p: p.symlink_to("/dev/zero")):
        (source / "roadmap.rel").unlink()
        make(source / "roadmap.rel")
        with pytest.raises(DataError, match=r"roadmap\.rel.*not a regular file"):
            read_roadmap(source / "roadmap.geo", source / "roadmap.rel")


def test_junctions_of_too_many_roads_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    rows = [ring_road(i, coordinates=json.dumps([[10, 50], [11 + i * 1e-5, 51]]))
            for i in range(6000)]
    source = write_source(tmp_path, geo=table(GEO_COLUMNS, rows), rel="origin_id,destination_id\n")
    roadmap = read_roadmap(source / "roadmap.geo", source / "roadmap.rel")
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"6,000 road ends meet in the point \(10, 50\)"):
            build_network(roadmap, np.zeros(6000, np.int32), np.zeros((1, 1), np.int64))
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
