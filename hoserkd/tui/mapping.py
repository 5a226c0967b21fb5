"""A city's roads and some generated trips, read straight from their files for the map."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from hoserkd.engine.files import read_json_object

ROAD = re.compile(r"(-?[0-9]{1,18})|np\.u?int[0-9]+\((-?[0-9]{1,18})\)")
"""A road id, or one as numpy 2 prints it in a list."""
MOST_TRIPS = 500
"""Trips of a file that the map can step through."""


@dataclass(frozen=True, eq=False, slots=True)
class CityMap:
    """The polylines of a city's roads as segments; compared by identity."""

    name: str
    start: Float64[np.ndarray, "s 2"]
    """Longitude and latitude where each segment starts, in the order of the roads."""
    end: Float64[np.ndarray, "s 2"]
    first: Int64[np.ndarray, " R+1"]
    """First segment of each road."""
    index: dict[int, int]
    """Index of a road by its id."""

    def segments(self, roads: list[int]) -> tuple[Float64[np.ndarray, "n 2"],
                                                  Float64[np.ndarray, "n 2"]]:
        """Return the segments of roads given by index."""
        chosen = np.concatenate([np.arange(self.first[r], self.first[r + 1]) for r in roads]
                                or [np.zeros(0, np.int64)])
        return self.start[chosen], self.end[chosen]


@dataclass(frozen=True, slots=True)
class MapTrip:
    """One generated trip."""

    roads: tuple[int, ...]
    """Indices."""
    departure: str
    reached: bool
    reason: str
    log_prob: float


@dataclass(frozen=True, eq=False, slots=True)
class MapData:
    """What the map shows; compared by identity."""

    city: CityMap
    source: str
    trips: tuple[MapTrip, ...]


def read_city_map(directory: Path) -> CityMap:
    """Return the roads of a prepared city.

    Raises:
        OSError, ValueError, KeyError: the folder holds no such city.
    """
    manifest = read_json_object(directory / "manifest.json")
    tables = directory / manifest["content"] / "network"
    offset = np.load(tables / "shape_offset.npy", allow_pickle=False)
    points = np.load(tables / "shape_lonlat.npy", allow_pickle=False)
    ids = np.load(tables / "road_id.npy", allow_pickle=False)
    last = np.zeros(len(points), dtype=bool)
    last[offset[1:] - 1] = True
    starts = np.flatnonzero(~last)
    first = np.searchsorted(starts, offset)
    return CityMap(str(manifest["name"]), points[starts], points[starts + 1], first,
                   {int(road_id): index for index, road_id in enumerate(ids)})


def read_trips(path: Path, city: CityMap) -> tuple[MapTrip, ...]:
    """Return the first trips of a generated CSV file; those with other roads are left out.

    The dashboard loads no engine, so it does not use its reader of trips: it shows what is written
    as hoserkd or the public code write it, and skips every other row.

    Raises:
        OSError, ValueError, KeyError: the file is no such file.
    """
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(trip for trip, _ in zip(_trips(csv.DictReader(file), city),
                                             range(MOST_TRIPS), strict=False))


def _trips(rows: "csv.DictReader[str]", city: CityMap) -> Iterator[MapTrip]:
    for row in rows:
        text = row.get("rid_list") or row.get("gene_trace_road_id") or ""
        ids = _road_ids(text)
        if ids and all(road in city.index for road in ids):
            wanted = row.get("destination") or row.get("destination_road_id") or str(ids[-1])
            yield MapTrip(tuple(city.index[road] for road in ids),
                          row.get("departure") or row.get("source_origin_time") or "",
                          _road_ids(wanted) == ids[-1:], row.get("reason") or "",
                          float(row.get("log_prob") or "nan"))


def _road_ids(text: str) -> list[int]:
    """Return the ids of a list; none where one of them is not written as an id is."""
    found = [ROAD.fullmatch(word.strip()) for word in text.strip("[] ").split(",")]
    return [int(match[1] or match[2]) for match in found if match] if all(found) else []
