"""Finding and opening the files of a source folder, plain or compressed."""

import csv
import difflib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from hoserkd.errors import DataError

SUFFIXES = {"": None, ".gz": "gzip", ".zst": "zstd"}
MAX_TABLE_BYTES = 2 << 30
"""A road table that unpacks to more than this is refused: no city on Earth needs it."""


@dataclass(frozen=True, slots=True)
class SourceStream:
    """A file being read, unpacked where it is compressed."""

    path: Path
    unpacked: Any
    raw: IO[bytes]

    def read(self, size: int) -> bytes:
        """Return up to `size` unpacked bytes; none at the end.

        Raises:
            DataError: the file is damaged or cannot be read.
        """
        try:
            data: bytes = self.unpacked.read(size)
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{self.path}: cannot be read: {error}",
                hint="the file is damaged or cut short; copy or pack it again",
            ) from error
        return data

    def position(self) -> int:
        """Return how many bytes of the file on disk have been read."""
        return self.raw.tell()


def find_source_file(directory: Path, name: str) -> Path:
    """Return the file `name`, `name.gz` or `name.zst` of a source folder.

    Raises:
        DataError: there is none, or more than one.
    """
    found = [directory / f"{name}{s}" for s in SUFFIXES if (directory / f"{name}{s}").is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{directory}: {names} are all there", hint="keep one of them")
    if not directory.is_dir():
        raise DataError(
            f"{directory}: no such folder",
            hint="give the folder that holds roadmap.geo with --source, or try --demo",
        )
    inside = sorted(path.parent for path in directory.glob(f"*/{name}"))
    if inside:
        raise DataError(f"{directory}: {name} is missing", hint=f"is {inside[0]} meant?")
    there = sorted(path.name for path in directory.iterdir())
    close = difflib.get_close_matches(name, there, n=1)
    hint = f"is {close[0]} meant? rename it to {name}" if close else None
    raise DataError(
        f"{directory}: {name} is missing (also looked for {name}.gz and {name}.zst)",
        hint=hint or f"a source folder needs {name} in the HOSER format; see docs/data-format.md",
    )


@contextmanager
def open_source(path: Path) -> Iterator[SourceStream]:
    """Open a source file for reading in pieces, unpacking `.gz` and `.zst`.

    Raises:
        DataError: the file cannot be opened.
    """
    compression = SUFFIXES.get(path.suffix)
    try:
        raw = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be opened: {error.strerror}") from error
    with raw:
        unpacked = raw if compression is None else pa.CompressedInputStream(raw, compression)
        yield SourceStream(path, unpacked, raw)


def _read_table_text(path: Path) -> str:
    pieces = []
    left = MAX_TABLE_BYTES
    with open_source(path) as stream:
        while piece := stream.read(1 << 24):
            left -= len(piece)
            if left < 0:
                raise DataError(f"{path}: more than {MAX_TABLE_BYTES >> 30} GiB when unpacked")
            pieces.append(piece)
    text = b"".join(pieces)
    if b"\0" in text:
        raise DataError(
            f"{path}: holds zero bytes, so it is not a UTF-8 table",
            hint="save it as CSV in UTF-8",
        )
    return text.decode("utf-8-sig", errors="replace")


@contextmanager
def _long_cells() -> Iterator[None]:
    # A polyline of 5,000 points is longer than the csv module's default limit.
    before = csv.field_size_limit(1 << 30)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def header_columns(path: Path, header: Sequence[str], needed: Sequence[str]) -> dict[str, int]:
    """Return the position of each column, having checked that the needed ones are there.

    Raises:
        DataError: a needed column is missing or named twice.
    """
    names = [name.strip() for name in header]
    missing = [name for name in needed if name not in names]
    if missing:
        raise DataError(
            f"{path}:1: column {', '.join(missing)} is missing; found {', '.join(names)[:300]}",
            hint=f"the first line must name the columns; needed are {', '.join(needed)}",
        )
    twice = [name for name in needed if names.count(name) > 1]
    if twice:
        raise DataError(f"{path}:1: column {', '.join(twice)} is there twice")
    return {name: names.index(name) for name in names}


def read_table(
    path: Path, needed: Sequence[str], optional: Sequence[str] = ()
) -> tuple[list[int], dict[str, list[str]]]:
    """Return the file row of each record, and its cells by column; absent columns are left out.

    The header is row 1. Empty lines are skipped.

    Raises:
        DataError: the table is empty, broken or lacks a needed column.
    """
    lines = io.StringIO(_read_table_text(path), newline="")
    rows: list[int] = []
    records: list[list[str]] = []
    with _long_cells():
        reader = csv.reader(lines)
        try:
            header = next(reader, None)
            if header is None:
                raise DataError(f"{path}: the file is empty")
            columns = header_columns(path, header, needed)
            row = reader.line_num + 1
            for record in reader:
                if record:
                    rows.append(row)
                    records.append(record)
                row = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: not a CSV record: {error}") from error
    width = len(header)
    uneven = [(r, len(record)) for r, record in zip(rows, records, strict=True)
              if len(record) != width]
    if uneven:
        raise DataError(
            f"{path}:{uneven[0][0]}: {uneven[0][1]} cells where the header has {width}"
            f" ({len(uneven)} such rows)",
            hint="cells that hold commas need double quotes",
        )
    wanted = [name for name in (*needed, *optional) if name in columns]
    return rows, {name: [record[columns[name]] for record in records] for name in wanted}


class Findings:
    """Collects what is wrong with a file, to tell it all at once."""

    SHOWN = 5

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: list[tuple[int, str]] = []

    def add(self, row: int, what: str) -> None:
        """Note that `row` is wrong."""
        self._found.append((row, what))

    def raise_if_any(self, hint: str) -> None:
        """Raise what was found.

        Raises:
            DataError: something was noted; the message holds the first few findings.
        """
        if not self._found:
            return
        first = sorted(self._found, key=lambda found: found[0])[: self.SHOWN]
        message = "\n".join(f"{self._path}:{row}: {what}" for row, what in first)
        if len(self._found) > self.SHOWN:
            message += f"\nand {len(self._found) - self.SHOWN} more"
        raise DataError(message, hint=hint)
