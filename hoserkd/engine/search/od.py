"""Where queries come from: the trips of a split, or a file."""

import csv
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from hoserkd.engine.city.storage import City
from hoserkd.engine.search.queries import Queries
from hoserkd.engine.types import RoadNetwork, TrajectorySet
from hoserkd.errors import DataError, UsageError

COLUMNS = ("origin", "destination", "departure")
MOST_SHOWN = 5


def draw_queries(city: City, od: str, num: int | None, seed: int) -> Queries:
    """Return what to search for.

    Args:
        od: `train` or `test`: OD pairs in proportion to their counts in that split, each with the
            departure of a trip that made it; `test-trips`: the test trips' own, in their order;
            else a CSV file with the columns origin, destination and, optionally, departure.
        num: How many; None: as many as there are. `train` and `test` draw with replacement.

    Raises:
        UsageError: `od` is neither a known word nor a file.
        DataError: The file has bad rows; all of them are counted, the first few are named.
    """
    if od in ("train", "test"):
        trips = city.split(od)
        count = len(trips) if num is None else num
        return _of_trips(trips, np.random.default_rng(seed).integers(0, len(trips), count))
    if od == "test-trips":
        trips = city.split("test")
        return _of_trips(trips, np.arange(len(trips) if num is None else min(num, len(trips))))
    path = Path(od)
    if not path.is_file():
        raise UsageError(f"od: {od} is neither train, test or test-trips nor a file",
                         hint="a CSV file needs the columns origin, destination and departure")
    queries = read_queries(path, city, seed)
    return queries if num is None else queries.select(slice(num))


def _of_trips(trips: TrajectorySet, index: Int64[np.ndarray, "N"]) -> Queries:
    first, last = trips.offset[index], trips.offset[index + 1] - 1
    return Queries(np.asarray(trips.road[first], np.int64), np.asarray(trips.road[last], np.int64),
                   np.asarray(trips.entered_at_s[first]))


def road_index(
    network: RoadNetwork, road_id: Int64[np.ndarray, "N"]
) -> Int64[np.ndarray, "N"]:
    """Return the index of each road id, -1 for those that the city lacks."""
    order = np.argsort(network.road_id, kind="stable")
    place = np.searchsorted(network.road_id, road_id, sorter=order)
    index = order[np.minimum(place, network.roads - 1)]
    return np.where(network.road_id[index] == road_id, index, -1)


def read_queries(path: Path, city: City, seed: int) -> Queries:
    """Return the queries of a CSV file, in its order.

    Origins and destinations are road ids of the city's source files. Rows without a departure get
    that of a training trip drawn at random.

    Raises:
        DataError: A column is missing, or rows cannot be read.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS[:2] if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(
                f"{path}:1: no column {' or '.join(missing)}, found "
                f"{', '.join(reader.fieldnames or ()) or 'nothing'}",
                hint=f"the first line must be {','.join(COLUMNS)}")
        try:
            rows = [(reader.line_num, row) for row in reader]
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path}:{reader.line_num}: not CSV: {error}") from error
    return _parse_rows(path, rows, city, seed)


def _parse_rows(
    path: Path, rows: list[tuple[int, dict[str, str]]], city: City, seed: int
) -> Queries:
    ends = np.full((len(rows), 2), -1, np.int64)
    departure_s = np.zeros(len(rows), np.int64)
    missing = np.zeros(len(rows), bool)
    wrong = []
    for i, (line, row) in enumerate(rows):
        try:
            ends[i] = int(row["origin"]), int(row["destination"])
            text = (row.get("departure") or "").strip()
            missing[i] = not text
            departure_s[i] = 0 if missing[i] else parse_time(text)
        except (ValueError, TypeError, OverflowError) as error:
            wrong.append(f"{path}:{line}: {error}")
    if wrong:
        more = f"; and {len(wrong) - MOST_SHOWN} more" if len(wrong) > MOST_SHOWN else ""
        raise DataError(
            f"{len(wrong)} of {len(rows)} rows are bad: {'; '.join(wrong[:MOST_SHOWN])}{more}",
            hint="origin and destination are road ids, departure is like 2015-11-05T08:30:00Z")
    if missing.any():
        trips = city.split("train")
        drawn = np.random.default_rng(seed).integers(0, len(trips), int(missing.sum()))
        departure_s[missing] = trips.entered_at_s[trips.offset[drawn]]
    network = city.network
    return Queries(road_index(network, ends[:, 0]), road_index(network, ends[:, 1]), departure_s,
                   ends)


def parse_time(text: str) -> int:
    """Return seconds since 1970-01-01 of a time such as 2015-11-05T08:30:00Z, zone disregarded.

    Raises:
        ValueError: The text is no such time.
    """
    try:
        return int(np.datetime64(text.strip().removesuffix("Z").replace(" ", "T"), "s").astype(int))
    except ValueError:
        raise ValueError(f"departure {text!r} is not a time") from None
