"""A city's roads and some generated trips, read straight from their files for the map."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from hoserkd.engine.files import read_json_object

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
    """Return the first trips of a generated CSV file; those on unknown roads are left out.

    Raises:
        OSError, ValueError, KeyError: the file is no such file.
    """
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(trip for trip, _ in zip(_trips(csv.DictReader(file), city),
                                             range(MOST_TRIPS), strict=False))


def _trips(rows: "csv.DictReader[str]", city: CityMap) -> Iterator[MapTrip]:
    for row in rows:
        ids = [int(word) for word in row["rid_list"].strip("[] ").split(",") if word.strip()]
        if ids and all(road in city.index for road in ids):
            yield MapTrip(tuple(city.index[road] for road in ids), row.get("departure", ""),
                          ids[-1] == int(row.get("destination") or ids[-1]),
                          row.get("reason", ""), float(row.get("log_prob") or "nan"))
