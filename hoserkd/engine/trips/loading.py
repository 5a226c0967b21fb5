"""Reading generated trips, ours and other programs'."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from hoserkd.engine.search.od import road_index
from hoserkd.engine.trips import kernels
from hoserkd.engine.trips.bad_rows import BadRows, finite_number, is_blank
from hoserkd.engine.trips.columns import ENDINGS, LISTS, ending_of
from hoserkd.engine.trips.joining import join_trips
from hoserkd.engine.trips.reading import Rows, read_rows
from hoserkd.engine.trips.validation import Cause, ParsedTrips, detail_text
from hoserkd.engine.types import GeneratedTrips, RoadNetwork
from hoserkd.errors import DataError

OTHERS = ("origin", "destination", "departure", "log_prob", "reached", "reason")
"""Columns that a file of generated trips may have beside its lists."""
ENDS_ELSEWHERE = "ends elsewhere"
"""Reason of a trip that missed its destination, where its file gives none or says it reached it."""


def load_generated(path: str | Path, network: RoadNetwork) -> GeneratedTrips:
    """Return the trips of a CSV or Parquet file, ours or a public generator's.

    Needed are `rid_list` and `time_list`, or the public `gene_trace_road_id` and
    `gene_trace_datetime`. Where the file does not say more, a trip's first and last road are its
    origin and destination. Whether a trip reached its destination is told by its last road.
    Whether its roads follow each other and its clock never runs back is not looked at here: see
    `metrics.soundness`.

    Raises:
        DataError: The file is missing or of another kind, or holds bad rows (all are counted).
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file", hint="`hoserkd generate` makes one")
    if ending_of(path) is None:
        raise DataError(f"{path}: trips are read from {', '.join(ENDINGS)} files",
                        hint="write them again with --output FILE.csv")
    reader = _GeneratedReader(path, network)
    for rows, _ in read_rows(path, LISTS, OTHERS):
        reader.add(rows)
    return reader.trips()


class _GeneratedReader:
    """Puts the rows of a file of generated trips together."""

    def __init__(self, path: Path, network: RoadNetwork) -> None:
        self._path = path
        self._network = network
        self._wrong = BadRows(path)
        self._parts: list[GeneratedTrips] = []
        self._trips = 0

    def add(self, rows: Rows) -> None:
        """Take some rows in; bad ones are noted."""
        parsed = rows.trips()
        for i in np.flatnonzero(parsed.problem).tolist():
            self._wrong.add(int(parsed.row[i]), _list_problem(rows, parsed, i))
        offset = np.concatenate([[0], np.cumsum(parsed.points)]).astype(np.int64)
        road = road_index(self._network, parsed.road)
        self._note_unknown(parsed, offset, road)
        ends, departure_s = self._request(rows, parsed, offset)
        log_prob = self._log_prob(rows)
        arrived = ends[:, 1] == _at(parsed.road, offset[1:] - 1, offset)
        arrived = arrived & (parsed.points > 0)
        self._trips += len(parsed.row)
        self._parts.append(GeneratedTrips(
            origin=road_index(self._network, ends[:, 0]),
            destination=road_index(self._network, ends[:, 1]),
            departure_s=departure_s, offset=offset, road=road.astype(np.int32),
            entered_at_s=parsed.entered_at_s, log_prob=log_prob, reached=arrived,
            reason=self._reasons(rows, arrived), requested=ends,
            stated=rows.has("destination")))

    def trips(self) -> GeneratedTrips:
        """Return all rows.

        Raises:
            DataError: some were bad.
        """
        self._wrong.raise_if_any(self._trips, hint="roads are like [1,2,3], times like "
                                 "2015-11-05T08:30:00Z; is it a file of this city?")
        return join_trips(self._parts)

    def _note_unknown(
        self, parsed: ParsedTrips, offset: Int64[np.ndarray, " N+1"],
        road: Int64[np.ndarray, " P"],
    ) -> None:
        unknown = np.flatnonzero(road < 0)
        trip = np.searchsorted(offset, unknown, side="right") - 1
        for index in np.unique(trip, return_index=True)[1].tolist():
            i = int(trip[index])
            self._wrong.add(int(parsed.row[i]), f"trip {self._trips + i + 1}: road "
                            f"{parsed.road[unknown[index]]} is not in the city")

    def _request(
        self, rows: Rows, parsed: ParsedTrips, offset: Int64[np.ndarray, " N+1"]
    ) -> tuple[Int64[np.ndarray, "N 2"], Int64[np.ndarray, " N"]]:
        """Return the ids of origin and destination and the departure of each row."""
        empty = (parsed.points == 0) & (parsed.problem == 0)
        given = [rows.has(name) for name in ("origin", "destination", "departure")]
        if not all(given):
            for i in np.flatnonzero(empty).tolist():
                self._wrong.add(int(parsed.row[i]), "the trip is empty")
        first, last = offset[:-1], offset[1:] - 1
        found = []
        for name, values, at in (("origin", parsed.road, first), ("destination", parsed.road, last),
                                 ("departure", parsed.entered_at_s, first)):
            if rows.has(name):
                read = rows.times(name) if name == "departure" else rows.roads(name)
                self._wrong.add_cells(rows, name, read.bad | read.missing)
                found.append(read.value)
            else:
                found.append(_at(values, at, offset))
        return np.stack(found[:2], axis=1), found[2]

    def _log_prob(self, rows: Rows) -> Float64[np.ndarray, " N"]:
        values = np.zeros(len(rows.row))
        if not rows.has("log_prob"):
            return values
        for i, cell in enumerate(rows.cells("log_prob")):
            number = 0.0 if is_blank(cell) else finite_number(cell)
            if number is None:
                self._wrong.add(int(rows.row[i]), f"log_prob {rows.shown('log_prob', i)} is no "
                                "finite number")
            values[i] = number or 0.0
        return values

    def _reasons(self, rows: Rows, arrived: Bool[np.ndarray, " N"]) -> tuple[str, ...]:
        """Return the reasons; where the file contradicts its own roads, the roads count."""
        said = self._reached(rows) if rows.has("reached") else arrived.tolist()
        given = rows.cells("reason") if rows.has("reason") else [None] * len(said)
        return tuple(
            str(reason) if one == there and not is_blank(reason)
            else "reached" if there else ENDS_ELSEWHERE
            for reason, one, there in zip(given, said, arrived.tolist(), strict=True))

    def _reached(self, rows: Rows) -> list[bool]:
        words = {"true": True, "1": True, "false": False, "0": False}
        said = [words.get(str(cell).strip().lower()) for cell in rows.cells("reached")]
        for i, one in enumerate(said):
            if one is None:
                self._wrong.add(int(rows.row[i]), f"reached is {rows.shown('reached', i)}, "
                                "expected true or false")
        return [bool(one) for one in said]


def _list_problem(rows: Rows, parsed: ParsedTrips, i: int) -> str:
    """Return what is wrong with the lists of a row."""
    code, a, b = int(parsed.problem[i]), int(parsed.detail_a[i]), int(parsed.detail_b[i])
    if code == Cause.LENGTHS_DIFFER:
        return f"{a} roads, but {b} times"
    if a == kernels.BAD_CELLS:
        return detail_text(code, a, b)
    name, what = ("rid_list", "road ids") if a == kernels.BAD_ROADS else ("time_list", "times")
    return f"{rows.shown(name, i)} is no list of {what} (column {rows.called(name)})"


def _at(
    values: Int64[np.ndarray, " P"], place: Int64[np.ndarray, " N"],
    offset: Int64[np.ndarray, " N+1"],
) -> Int64[np.ndarray, " N"]:
    """Return the values at these places, one a row; 0 for rows without points."""
    found = np.zeros(len(place), np.int64)
    filled = np.diff(offset) > 0
    found[filled] = values[place[filled]]
    return found
