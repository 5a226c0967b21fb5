"""Reading trips and requests from Parquet: the same grammar for text, and typed columns besides.

A typed value is taken where it says the same as the text would: whole numbers for roads;
timestamps and numbers of seconds for times. Nothing is rounded.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Int64, UInt8

from hoserkd.engine.city.source import file_size
from hoserkd.engine.trips import kernels
from hoserkd.engine.trips.columns import Column, find_columns
from hoserkd.engine.trips.reading import MOST_SHOWN, SHORTEST_POINT, Cell, Singles, singles
from hoserkd.engine.trips.validation import ParsedTrips
from hoserkd.errors import DataError

BATCH_ROWS = 1 << 14
MAX_VALUES = 1 << 28
"""Values of a column in one row group; Arrow writes a million rows to each, of 29 roads or so."""
MAX_TRIP_VALUES = 1 << 14
"""Values a row on average: three times the longest trip that is thinkable."""
FREE_VALUES = 1 << 22
"""So many are read however few the rows are."""
MOST_ID = 10**18
"""Ids of text have at most 18 digits; neither have those that are numbers more."""
FIRST_S, LAST_S = -62_135_596_800, 253_402_300_799
"""The years 1 to 9999, which the text of a time can say."""
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError)


def parquet_header(path: Path) -> list[str]:
    """Return the names of a Parquet file's columns.

    Raises:
        DataError: it is no Parquet file.
    """
    return list(_open(path).schema_arrow.names)


def read_parquet(
    path: Path, needed: Sequence[str], optional: Sequence[str]
) -> Iterator[tuple["ParquetRows", int]]:
    """Yield the rows of a Parquet file, as `reading.read_rows` does those of a CSV file."""
    file = _open(path)
    columns = find_columns(path, file.schema_arrow.names, needed, optional)
    _check_size(path, file.metadata)
    total, size, row = max(file.metadata.num_rows, 1), path.stat().st_size, 1
    names = [column.name for column in columns.values()]
    batches = file.iter_batches(BATCH_ROWS, columns=names)
    while True:
        with _readable(path):
            batch = next(batches, None)
        if batch is None:
            return
        rows = np.arange(row, row + len(batch))
        row += len(batch)
        yield ParquetRows(path, rows, columns, batch), size * min(row - 1, total) // total


def _open(path: Path) -> pq.ParquetFile:
    file_size(path)
    with _readable(path):
        return pq.ParquetFile(path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what Arrow says of a damaged file into an error that names it."""
    try:
        yield
    except UNREADABLE as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}: not Parquet: {reason}",
                        hint="the file is damaged or of another kind; copy or write it again"
                        ) from error


def _check_size(path: Path, metadata: pq.FileMetaData) -> None:
    """Refuse row groups that a few bytes blow up beyond memory: Parquet counts what repeats."""
    for group in range(metadata.num_row_groups):
        part = metadata.row_group(group)
        most = min(MAX_VALUES, max(FREE_VALUES, MAX_TRIP_VALUES * part.num_rows))
        for index in range(part.num_columns):
            column = part.column(index)
            if column.num_values > most:
                raise DataError(
                    f"{path}: column {column.path_in_schema} has {column.num_values:,} values in "
                    f"{part.num_rows:,} rows of a row group, at most {most:,} are read",
                    hint="is it a file with one trip a row? if so, write it with smaller row "
                         "groups")


@dataclass(frozen=True, slots=True)
class _Lists:
    """A column of lists, packed."""

    value: Int64[np.ndarray, " P"]
    count: Int64[np.ndarray, " N"]
    """Values of each row; -1 where the list cannot be read, which has none."""


@dataclass(frozen=True, slots=True)
class ParquetRows:
    """Some rows of a Parquet file. See `reading.Rows`."""

    path: Path
    row: Int64[np.ndarray, " N"]
    columns: dict[str, Column]
    batch: pa.RecordBatch

    def has(self, name: str) -> bool:
        """Return whether the file has a column."""
        return name in self.columns

    def called(self, name: str) -> str:
        """Return how the file calls a column."""
        return self.columns[name].name

    def unreadable(self) -> dict[int, str]:
        """Return nothing: every row has all its cells."""
        return {}

    def trips(self) -> ParsedTrips:
        """Return `rid_list` and `time_list`, parsed."""
        with _readable(self.path):
            roads, times = self._lists("rid_list", False), self._lists("time_list", True)
        rows = len(self.row)
        problem = np.zeros(rows, np.uint8)
        detail_a, detail_b = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        differ = roads.count != times.count
        problem[differ] = kernels.LENGTHS
        detail_a[differ], detail_b[differ] = roads.count[differ], times.count[differ]
        for lists, code in ((times, kernels.BAD_TIMES), (roads, kernels.BAD_ROADS)):
            problem[lists.count < 0] = kernels.UNPARSABLE
            detail_a[lists.count < 0] = code
        good = problem == kernels.OK
        road, entered = (lists.value[np.repeat(good, np.maximum(lists.count, 0))]
                         for lists in (roads, times))
        return ParsedTrips(self.row, np.where(good, roads.count, 0), road, entered, problem,
                           detail_a, detail_b)

    def roads(self, name: str) -> Singles:
        """Return the road ids of a column."""
        return self._singles(name, False)

    def times(self, name: str) -> Singles:
        """Return the times of a column, in seconds of the wall clock since 1970-01-01."""
        return self._singles(name, True)

    def cells(self, name: str) -> list[Cell]:
        """Return the plain values of a column."""
        with _readable(self.path):
            cells: list[Cell] = self._column(name).to_pylist()
        return cells

    def shown(self, name: str, index: int) -> str:
        """Return how a message shows the cell of a row."""
        with _readable(self.path):
            return repr(self._column(name)[index].as_py())[:MOST_SHOWN]

    def _column(self, name: str) -> pa.Array:
        column = self.batch.column(self.batch.schema.get_field_index(self.columns[name].name))
        return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column

    def _lists(self, name: str, times: bool) -> _Lists:
        column = self._column(name)
        if _is_text(column.type):
            return _text_lists(column, times)
        if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
                or pa.types.is_fixed_size_list(column.type)):
            raise self._of_type(name, column.type)
        length = pc.list_value_length(column)
        count = length.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        inner = column.flatten()
        if pa.types.is_dictionary(inner.type):
            inner = inner.dictionary_decode()
        found = self._values(name, inner, times)
        if times and pa.types.is_timestamp(inner.type) and inner.type.tz is not None:
            found = replace(found, value=_steady(inner, found.value, count))
        row_of = np.repeat(np.arange(len(count)), count)
        bad = np.asarray(column.is_null().to_numpy(zero_copy_only=False), bool)
        bad[row_of[found.bad | found.missing]] = True
        return _Lists(found.value[~bad[row_of]], np.where(bad, -1, count))

    def _singles(self, name: str, times: bool) -> Singles:
        with _readable(self.path):
            return self._values(name, self._column(name), times)

    def _values(self, name: str, values: pa.Array, times: bool) -> Singles:
        """Return numbers, timestamps or texts as whole numbers."""
        kind = values.type
        if pa.types.is_null(kind):
            return Singles(np.zeros(len(values), np.int64), np.ones(len(values), bool),
                           np.zeros(len(values), bool))
        if _is_text(kind):
            return _text_singles(values, times)
        if times and pa.types.is_timestamp(kind):
            return _in_years(_seconds(values))
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return _in_years(_whole(values, floor=True)) if times else _whole(values, floor=False)
        raise self._of_type(name, kind)

    def _of_type(self, name: str, kind: pa.DataType) -> DataError:
        wanted = ("timestamps, seconds since 1970 or text" if name in ("time_list", "departure")
                  else "whole numbers or text")
        return DataError(
            f"{self.path}: column {self.columns[name].name} holds {str(kind)[:80]}, not {wanted}",
            hint="docs/data-format.md says how trips are written")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind)
                or pa.types.is_string_view(kind))


def _text_of(
    column: pa.Array
) -> tuple[UInt8[np.ndarray, " bytes"], Int64[np.ndarray, "N 2"], Bool[np.ndarray, " N"]]:
    """Return the bytes of a column of text, where each one lies, and which are missing."""
    column = column.cast(pa.large_string())
    _, offsets, content = column.buffers()
    count = len(column)
    ends = np.zeros(1, np.int64) if offsets is None else np.frombuffer(
        offsets, np.int64)[column.offset:column.offset + count + 1]
    text = np.frombuffer(content if content is not None and content.size else b" ", np.uint8)
    bounds = np.stack([ends[:-1], ends[1:]], axis=1)
    missing = np.asarray(column.is_null().to_numpy(zero_copy_only=False), bool)
    return text, np.ascontiguousarray(bounds), missing


def _text_lists(column: pa.Array, times: bool) -> _Lists:
    text, bounds, missing = _text_of(column)
    out = np.empty(int((bounds[:, 1] - bounds[:, 0]).sum()) // SHORTEST_POINT + len(bounds) + 1,
                   np.int64)
    count = np.zeros(len(bounds), np.int64)
    used = kernels.parse_each(text, bounds, times, out, count)
    count[missing] = -1
    return _Lists(out[:used].copy(), count)


def _text_singles(column: pa.Array, times: bool) -> Singles:
    text, bounds, missing = _text_of(column)
    found = singles(text, bounds, times=times)
    return Singles(found.value, found.missing | missing, found.bad & ~missing)


def _whole(values: pa.Array, *, floor: bool) -> Singles:
    """Return numbers that are whole, or with `floor` the whole numbers below them."""
    missing = np.asarray(values.is_null().to_numpy(zero_copy_only=False), bool)
    number = values.fill_null(0).to_numpy(zero_copy_only=False)
    if np.issubdtype(number.dtype, np.floating):
        number = number.astype(np.float64)
        missing = missing | np.isnan(number)
        number = np.where(missing, 0.0, number)
        number = np.floor(number) if floor else number
        bad = (number != np.floor(number)) | (np.abs(number) >= 2.0**53)
    else:
        # Compared before they are cast: unsigned ones may not fit.
        bad = (number >= MOST_ID) | (number <= -MOST_ID) if number.dtype.kind == "i" \
            else number >= MOST_ID
    return Singles(np.where(bad, 0, number).astype(np.int64), missing, bad)


def _seconds(values: pa.Array) -> Singles:
    """Return timestamps as seconds of the wall clock that they show in their own zone."""
    if values.type.tz is not None:
        values = pc.local_timestamp(values)
    unit = PER_SECOND[values.type.unit]
    missing = np.asarray(values.is_null().to_numpy(zero_copy_only=False), bool)
    number = values.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return Singles(np.floor_divide(number, unit), missing, np.zeros(len(number), bool))


def _steady(
    values: pa.Array, wall_s: Int64[np.ndarray, " P"], count: Int64[np.ndarray, " N"]
) -> Int64[np.ndarray, " P"]:
    """Return wall clocks with the offset from UTC that each list begins with.

    So they are written (`engine.clock`): over a change of the clocks no step is an hour longer.
    """
    utc_s = _seconds(values.cast(pa.timestamp(values.type.unit))).value
    first = np.repeat(np.cumsum(count) - count, count)
    steady: Int64[np.ndarray, " P"] = utc_s + (wall_s - utc_s)[first]
    return steady


def _in_years(found: Singles) -> Singles:
    """Mark times that no calendar of four digits has: milliseconds, for instance."""
    outside = (found.value < FIRST_S) | (found.value > LAST_S)
    return Singles(np.where(outside, 0, found.value), found.missing,
                   found.bad | outside & ~found.missing)
