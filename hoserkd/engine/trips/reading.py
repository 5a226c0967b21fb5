"""Reading trip files of the HOSER format in pieces of bounded memory."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from hoserkd.engine.city.source import SourceStream, header_columns, open_source
from hoserkd.engine.trips import kernels
from hoserkd.engine.trips.validation import ParsedTrips
from hoserkd.errors import DataError

CHUNK_BYTES = 8 << 20
MAX_LINE_BYTES = 256 << 20
"""A line longer than this is no trip: 5,000 roads take 150 kB."""
NEEDED = ("rid_list", "time_list")
BOM = b"\xef\xbb\xbf"
SHORTEST_POINT = 2
"""Bytes of a point in `rid_list`: a digit and a comma."""


def read_trips(path: Path, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[ParsedTrips, int]]:
    """Yield the lines of a trip file in order, some at a time, and the bytes of the file read.

    A line is a trip; empty lines are skipped but counted as rows. Nothing is checked against a
    road network.

    Args:
        path: `.csv`, `.csv.gz` or `.csv.zst` with the columns `rid_list` and `time_list`.
        chunk_bytes: size of a piece before parsing; the last line of a piece waits for the next.

    Raises:
        DataError: the file is empty, damaged or lacks a needed column.
    """
    with open_source(path) as stream:
        header, rest = _read_header(stream)
        columns = header_columns(path, header, NEEDED)
        row = 2
        for text in _whole_lines(stream, rest, chunk_bytes):
            trips, lines = _parse(text, row, len(header), columns)
            row += lines
            yield trips, stream.position()


def _read_header(stream: SourceStream) -> tuple[list[str], bytes]:
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
        raise DataError(
            f"{stream.path}: {'the first line is' if head else 'the file is'} empty",
            hint=f"the first line must name the columns; needed are {', '.join(NEEDED)}",
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


def _parse(
    text: bytes, row: int, width: int, columns: dict[str, int]
) -> tuple[ParsedTrips, int]:
    """Return the trips of whole lines, the first of which is `row`, and the number of lines."""
    raw: UInt8[np.ndarray, " bytes"] = np.frombuffer(text, np.uint8)
    lines = text.count(b"\n")
    room = len(text) // SHORTEST_POINT + 1
    road, entered = np.empty(room, np.int64), np.empty(room, np.int64)
    points, detail_a, detail_b = (np.zeros(lines, np.int64) for _ in range(3))
    problem = np.zeros(lines, np.uint8)
    kernels.parse_lines(
        raw, len(raw), width, columns["rid_list"], columns["time_list"],
        road, entered, points, problem, detail_a, detail_b,
    )
    used = int(points.sum())
    kept = problem != kernels.BLANK
    trips = ParsedTrips(
        row=np.flatnonzero(kept) + row,
        points=points[kept],
        road=road[:used].copy(),
        entered_at_s=entered[:used].copy(),
        problem=problem[kept],
        detail_a=detail_a[kept],
        detail_b=detail_b[kept],
    )
    return trips, lines
