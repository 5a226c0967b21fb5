"""Reading the files of trips and of requests, in pieces of bounded memory.

There is one reader for all: the splits of a source folder, generated trips, and requests. What it
refuses in one of them it refuses in each (docs/data-format.md holds the grammar).
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8

from hoserkd.engine.city.source import SourceStream, open_source
from hoserkd.engine.trips import kernels
from hoserkd.engine.trips.columns import LISTS, PARQUET, Column, ending_of, find_columns
from hoserkd.engine.trips.validation import ParsedTrips, detail_text
from hoserkd.errors import DataError

CHUNK_BYTES = 8 << 20
MAX_LINE_BYTES = 16 << 20
"""A line longer than this is no trip: 5,000 roads take 150 kB."""
BOM = b"\xef\xbb\xbf"
SHORTEST_POINT = 2
"""Bytes of a point in `rid_list`: a digit and a comma."""
MOST_SHOWN = 40
"""Characters of a cell that a message repeats."""

Cell = str | int | float | bool | date | None


@dataclass(frozen=True, slots=True)
class Singles:
    """A column with one value a row."""

    value: Int64[np.ndarray, " N"]
    missing: Bool[np.ndarray, " N"]
    bad: Bool[np.ndarray, " N"]


class Rows(Protocol):
    """Some consecutive rows of a file, with the columns that were asked for."""

    @property
    def row(self) -> Int64[np.ndarray, " N"]:
        """Row in the file; a CSV's header is row 1, the first record of a Parquet file too."""

    def has(self, name: str) -> bool:
        """Return whether the file has a column."""

    def called(self, name: str) -> str:
        """Return how the file calls a column."""

    def unreadable(self) -> dict[int, str]:
        """Return what is wrong with rows that cannot be cut into cells, by index."""

    def trips(self) -> ParsedTrips:
        """Return `rid_list` and `time_list`, parsed."""

    def roads(self, name: str) -> Singles:
        """Return the road ids of a column."""

    def times(self, name: str) -> Singles:
        """Return the times of a column, in seconds of the wall clock since 1970-01-01."""

    def cells(self, name: str) -> list[Cell]:
        """Return the plain values of a column."""

    def shown(self, name: str, index: int) -> str:
        """Return how a message shows the cell of a row."""


def read_trips(path: Path, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[ParsedTrips, int]]:
    """Yield the rows of a trip file in order, some at a time, and the bytes of the file read.

    A row is a trip; empty lines are skipped but counted as rows. Nothing is checked against a
    road network.

    Args:
        path: A file with one of the `ENDINGS` and the columns `rid_list` and `time_list`, or the
            public names for them.
        chunk_bytes: size of a piece before parsing; the last line of a piece waits for the next.

    Raises:
        DataError: the file is empty, damaged or lacks a needed column.
    """
    for rows, position in read_rows(path, LISTS, chunk_bytes=chunk_bytes):
        yield rows.trips(), position


def read_rows(
    path: Path, needed: Sequence[str], optional: Sequence[str] = (),
    chunk_bytes: int = CHUNK_BYTES,
) -> Iterator[tuple[Rows, int]]:
    """Yield the rows of a file in order, some at a time, and the bytes of the file read.

    Args:
        path: A file with one of the `ENDINGS`; one with another ending is read as CSV.
        needed: The columns that must be there, by our names.
        optional: Those that are read if they are there.

    Raises:
        DataError: the file is empty, damaged or lacks a needed column.
    """
    if ending_of(path) == PARQUET:
        from hoserkd.engine.trips.parquet import read_parquet

        yield from read_parquet(path, needed, optional)
        return
    with open_source(path) as stream:
        header, rest = _read_header(stream, needed)
        cutter = _Cutter(header, find_columns(path, header, needed, optional))
        row = 2
        for text in _whole_lines(stream, rest, chunk_bytes):
            rows, lines = cutter.cut(text, row)
            row += lines
            yield rows, stream.position()


def header_of(path: Path) -> list[str]:
    """Return the names of a file's columns.

    Raises:
        DataError: the file is empty or damaged.
    """
    if ending_of(path) == PARQUET:
        from hoserkd.engine.trips.parquet import parquet_header

        return parquet_header(path)
    with open_source(path) as stream:
        return [name.strip() for name in _read_header(stream, ())[0]]


def _read_header(stream: SourceStream, needed: Sequence[str]) -> tuple[list[str], bytes]:
    head = b""
    while b"\n" not in head:
        piece = stream.read(1 << 16)
        head += piece
        if not piece:
            break
        if len(head) > 1 << 20:
            raise DataError(f"{stream.path}:1: the first line is longer than 1 MiB")
    first, _, rest = head.partition(b"\n")
    line = first.removeprefix(BOM).decode("utf-8", errors="replace").strip()
    if not line:
        wanted = f"; needed are {', '.join(needed)}" if needed else ""
        raise DataError(
            f"{stream.path}: {'the first line is' if head else 'the file is'} empty",
            hint=f"the first line must name the columns{wanted}",
        )
    try:
        return next(csv.reader([line])), rest
    except csv.Error as error:
        raise DataError(f"{stream.path}:1: not a CSV record: {error}") from error


def _whole_lines(stream: SourceStream, rest: bytes, chunk_bytes: int) -> Iterator[bytes]:
    """Yield the bytes of the stream in pieces that end with a newline."""
    waiting = [rest]
    waiting_bytes = len(rest)
    while piece := stream.read(chunk_bytes):
        cut = piece.rfind(b"\n") + 1
        if cut:
            waiting.append(piece[:cut])
            yield b"".join(waiting)
            waiting, waiting_bytes = [piece[cut:]], len(piece) - cut
            continue
        waiting.append(piece)
        waiting_bytes += len(piece)
        if waiting_bytes > MAX_LINE_BYTES:
            raise DataError(
                f"{stream.path}: a line is longer than {MAX_LINE_BYTES >> 20} MiB",
                hint="is this a CSV file with one trip a line?",
            )
    last = b"".join(waiting)
    if last:
        yield last if last.endswith(b"\n") else last + b"\n"


class _Cutter:
    """Cuts the lines of one CSV file into the wanted cells."""

    def __init__(self, header: Sequence[str], columns: dict[str, Column]) -> None:
        self._place: Int64[np.ndarray, " width"] = np.full(len(header), -1, np.int64)
        for wanted, column in enumerate(columns.values()):
            self._place[column.place] = wanted
        self._columns = columns

    def cut(self, text: bytes, row: int) -> tuple["CsvRows", int]:
        """Return the rows of whole lines, the first of which is `row`, and how many lines."""
        lines = text.count(b"\n")
        raw: UInt8[np.ndarray, " bytes"] = np.frombuffer(text, np.uint8)
        # Small types: a file of nothing but line ends has as many lines as bytes.
        bounds = np.zeros((lines, len(self._columns), 2), np.int32)
        problem, cells = np.zeros(lines, np.uint8), np.zeros(lines, np.int32)
        kernels.cut_lines(raw, len(raw), self._place, bounds, problem, cells)
        kept = np.flatnonzero(problem != kernels.BLANK)
        uneven = problem[kept] != kernels.OK
        detail = np.where(uneven, cells[kept], 0).astype(np.int64)
        return CsvRows(raw, kept + row, self._columns, bounds[kept], problem[kept],
                       np.full(len(kept), kernels.BAD_CELLS), detail), lines


@dataclass(frozen=True, slots=True)
class CsvRows:
    """Lines of a CSV file, cut into cells. See `Rows`."""

    text: UInt8[np.ndarray, " bytes"]
    row: Int64[np.ndarray, " N"]
    columns: dict[str, Column]
    """In the order of the second axis of `bounds`."""
    bounds: Int32[np.ndarray, "N W 2"]
    problem: UInt8[np.ndarray, " N"]
    detail_a: Int64[np.ndarray, " N"]
    detail_b: Int64[np.ndarray, " N"]

    def has(self, name: str) -> bool:
        """Return whether the file has a column."""
        return name in self.columns

    def called(self, name: str) -> str:
        """Return how the file calls a column."""
        return self.columns[name].name

    def unreadable(self) -> dict[int, str]:
        """Return what is wrong with rows that cannot be cut into cells, by index."""
        return {i: detail_text(kernels.UNPARSABLE, kernels.BAD_CELLS, int(self.detail_b[i]))
                for i in np.flatnonzero(self.problem).tolist()}

    def trips(self) -> ParsedTrips:
        """Return `rid_list` and `time_list`, parsed."""
        room = len(self.text) // SHORTEST_POINT + 1
        road, entered = np.empty(room, np.int64), np.empty(room, np.int64)
        points = np.zeros(len(self.row), np.int64)
        used = kernels.parse_lists(
            self.text, self._bounds("rid_list"), self._bounds("time_list"), road, entered, points,
            self.problem, self.detail_a, self.detail_b)
        return ParsedTrips(
            row=self.row, points=points, road=road[:used].copy(),
            entered_at_s=entered[:used].copy(), problem=self.problem, detail_a=self.detail_a,
            detail_b=self.detail_b)

    def roads(self, name: str) -> Singles:
        """Return the road ids of a column."""
        return singles(self.text, self._bounds(name), times=False)

    def times(self, name: str) -> Singles:
        """Return the times of a column, in seconds of the wall clock since 1970-01-01."""
        return singles(self.text, self._bounds(name), times=True)

    def cells(self, name: str) -> list[Cell]:
        """Return the texts of a column."""
        return [self._cell(begin, end) for begin, end in self._bounds(name).tolist()]

    def shown(self, name: str, index: int) -> str:
        """Return how a message shows the cell of a row."""
        return repr(self._cell(*self._bounds(name)[index].tolist())[:MOST_SHOWN])

    def _bounds(self, name: str) -> Int64[np.ndarray, "N 2"]:
        return self.bounds[:, list(self.columns).index(name)].astype(np.int64)

    def _cell(self, begin: int, end: int) -> str:
        text = self.text[begin:end].tobytes().decode("utf-8", errors="replace")
        quoted = begin > 0 and self.text[begin - 1] == kernels.QUOTE
        return text.replace('""', '"') if quoted else text


def singles(
    text: UInt8[np.ndarray, " bytes"], bounds: Int64[np.ndarray, "N 2"], *, times: bool
) -> Singles:
    """Return what the texts between the bounds say, each one road id or one time."""
    value, count = np.zeros(len(bounds), np.int64), np.zeros(len(bounds), np.int64)
    kernels.parse_singles(text, bounds, times, value, count)
    return Singles(value, count == 0, count < 0)


def parse_time(text: str) -> int:
    """Return seconds since 1970-01-01 of a time such as 2015-11-05T08:30:00Z, zone disregarded.

    Raises:
        ValueError: The text is no such time.
    """
    return _parse_single(text, times=True)


def parse_road(text: str) -> int:
    """Return the road id that a text says.

    Raises:
        ValueError: The text is no road id.
    """
    return _parse_single(text, times=False)


def _parse_single(text: str, *, times: bool) -> int:
    content = text.encode()
    bounds = np.array([[0, len(content)]], np.int64)
    found = singles(np.frombuffer(content or b" ", np.uint8), bounds, times=times)
    if found.bad[0] or found.missing[0]:
        raise ValueError(f"{text[:MOST_SHOWN]!r} is no {'time' if times else 'road id'}")
    return int(found.value[0])
