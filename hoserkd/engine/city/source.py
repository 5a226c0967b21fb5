"""Finding and opening the files of a source folder, plain or compressed."""

import csv
import difflib
import io
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from hoserkd.errors import DataError

COMPRESSION = {".gz": "gzip", ".zst": "zstd"}
MAX_TABLE_BYTES = 2 << 30
"""A road table that unpacks to more than this is refused: no city on Earth needs it."""
MAX_TABLE_ROWS = 5_000_000
"""A road table of more rows, empty ones included, is refused: Beijing has 40,060 roads and 120,000
relations, and a row costs about 200 bytes while it is read."""
MAX_RECORD_BYTES = 16 << 20
"""A row longer than this is refused: a road of 100,000 points takes 4 MB."""
MAX_COLUMNS = 1000
"""A table of more columns than this is refused; the HOSER format has 13."""


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


def find_source_file(directory: Path, name: str, endings: Sequence[str]) -> Path:
    """Return the file of a source folder that is called `name` and one of `endings`, in any case.

    Args:
        name: What the file is called without its ending.
        endings: How it may end; the first is the plain form.

    Raises:
        DataError: there is none, or more than one.
    """
    there = sorted(directory.iterdir()) if directory.is_dir() else []
    found = [path for path in there if path.exists() and path.name[:len(name)] == name
             and path.name[len(name):].lower() in endings]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{directory}: {names} are all there", hint="keep one of them")
    plain = f"{name}{endings[0]}"
    if not directory.is_dir():
        raise DataError(
            f"{directory}: no such folder",
            hint="give the folder that holds roadmap.geo with --source, or try --demo",
        )
    inside = sorted(path.parent for path in directory.glob(f"*/{plain}"))
    if inside:
        raise DataError(f"{directory}: {plain} is missing", hint=f"is {inside[0]} meant?")
    close = difflib.get_close_matches(plain, [path.name for path in there], n=1)
    hint = f"is {close[0]} meant? rename it to {plain}" if close else None
    others = ", ".join(f"{name}{ending}" for ending in endings[1:])
    raise DataError(
        f"{directory}: {plain} is missing (also looked for {others})",
        hint=hint or f"a source folder needs {plain} in the HOSER format; see docs/data-format.md",
    )


def file_size(path: Path) -> int:
    """Return the size of a regular file in bytes.

    Raises:
        DataError: it cannot be read, or is a folder, a device or a named pipe; to open a pipe
            would wait for its writer for ever.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path}: not a regular file, but a folder, a pipe or a device",
                        hint="copy what it holds into a file")
    return found.st_size


@contextmanager
def open_source(path: Path) -> Iterator[SourceStream]:
    """Open a source file for reading in pieces, unpacking `.gz` and `.zst`.

    Raises:
        DataError: the file cannot be opened.
    """
    compression = COMPRESSION.get(path.suffix.lower())
    file_size(path)
    try:
        raw = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be opened: {error.strerror}") from error
    with raw:
        unpacked = raw if compression is None else pa.CompressedInputStream(raw, compression)
        yield SourceStream(path, unpacked, raw)


class _Lines:
    """The lines of an untrusted table, of which no record may be longer than `MAX_RECORD_BYTES`.

    The file is read in pieces, so that a line of many gigabytes costs no memory.
    """

    def __init__(self, stream: SourceStream) -> None:
        self._stream = stream
        self._text = io.TextIOWrapper(
            io.BufferedReader(_Unpacked(stream)), "utf-8-sig", "replace", newline="")
        self._record = 0
        self.row = 1
        """Row in the file of the next record."""

    def record_read(self, next_row: int) -> None:
        """Note that a whole record has been read, so that the next one gets the full allowance."""
        self.row, self._record = next_row, 0
        if next_row > MAX_TABLE_ROWS:
            raise DataError(f"{self._stream.path}: more than {MAX_TABLE_ROWS:,} rows",
                            hint="a road table of a whole country is smaller; cut out the city")

    def __iter__(self) -> Iterator[str]:
        while line := self._text.readline(MAX_RECORD_BYTES):
            self._record += len(line)
            if self._record >= MAX_RECORD_BYTES:
                raise DataError(
                    f"{self._stream.path}:{self.row}: a row is longer than"
                    f" {MAX_RECORD_BYTES >> 20} MiB",
                    hint="is this a CSV file with one road or relation per row, and is every"
                         " double quote closed?")
            if "\0" in line:
                raise DataError(
                    f"{self._stream.path}:{self.row}: holds zero bytes, so it is not a UTF-8"
                    " table", hint="save it as CSV in UTF-8")
            yield line


class _Unpacked(io.RawIOBase):
    """The unpacked bytes of a source file, up to `MAX_TABLE_BYTES` of them."""

    def __init__(self, stream: SourceStream) -> None:
        super().__init__()
        self._stream = stream
        self._left = MAX_TABLE_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise DataError(
                f"{self._stream.path}: more than {MAX_TABLE_BYTES >> 30} GiB when unpacked",
                hint="a road table of a whole country is smaller; is it the right file?")
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def _long_cells() -> Iterator[None]:
    # A polyline of 5,000 points is longer than the csv module's default limit.
    before = csv.field_size_limit(MAX_RECORD_BYTES)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def check_width(path: Path, header: Sequence[str]) -> None:
    """Raise DataError if a table has more than `MAX_COLUMNS`."""
    if len(header) > MAX_COLUMNS:
        raise DataError(f"{path}:1: {len(header):,} columns, at most {MAX_COLUMNS:,} are read",
                        hint="keep the columns that docs/data-format.md names")


def header_columns(path: Path, header: Sequence[str], needed: Sequence[str]) -> dict[str, int]:
    """Return the position of each column, having checked that the needed ones are there.

    Of a name that is there twice, and not needed, the first column counts.

    Raises:
        DataError: a needed column is missing or named twice, or there are over `MAX_COLUMNS`.
    """
    check_width(path, header)
    count = Counter(name.strip() for name in header)
    missing = [name for name in needed if name not in count]
    if missing:
        raise DataError(
            f"{path}:1: column {', '.join(missing)} is missing; found {', '.join(count)[:300]}",
            hint=f"the first line must name the columns; needed are {', '.join(needed)}",
        )
    twice = [name for name in needed if count[name] > 1]
    if twice:
        raise DataError(f"{path}:1: column {', '.join(twice)} is there twice")
    columns: dict[str, int] = {}
    for position, name in enumerate(header):
        columns.setdefault(name.strip(), position)
    return columns


def read_table(
    path: Path, needed: Sequence[str], optional: Sequence[str] = ()
) -> tuple[list[int], dict[str, list[str]]]:
    """Return the file row of each record, and its cells by column; absent columns are left out.

    The header is row 1. Empty lines are skipped. Memory grows with the wanted cells alone, not
    with the number of columns.

    Raises:
        DataError: the table is empty, broken, too large or lacks a needed column.
    """
    rows: list[int] = []
    uneven: list[tuple[int, int]] = []
    with _long_cells(), open_source(path) as stream:
        lines = _Lines(stream)
        reader = csv.reader(lines)
        try:
            header = next(reader, None)
            if header is None:
                raise DataError(f"{path}: the file is empty")
            columns = header_columns(path, header, needed)
            wanted = [name for name in (*needed, *optional) if name in columns]
            places = [columns[name] for name in wanted]
            cells: list[list[str]] = [[] for _ in wanted]
            lines.record_read(reader.line_num + 1)
            for record in reader:
                if len(record) == len(header):
                    rows.append(lines.row)
                    for column, place in zip(cells, places, strict=True):
                        column.append(record[place])
                elif record:
                    uneven.append((lines.row, len(record)))
                lines.record_read(reader.line_num + 1)
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: not a CSV record: {error}") from error
    if uneven:
        raise DataError(
            f"{path}:{uneven[0][0]}: {uneven[0][1]} cells where the header has {len(header)}"
            f" ({len(uneven)} such rows)",
            hint="cells that hold commas need double quotes",
        )
    return rows, dict(zip(wanted, cells, strict=True))


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
