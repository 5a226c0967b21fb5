"""Looks for recorded trips, and for places of this machine, in everything that a bundle holds."""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import zstandard

from hoserkd.engine.city.storage import City
from hoserkd.engine.trips.generated import times_as_text
from hoserkd.engine.types import TrajectorySet
from hoserkd.report.geojson import coordinates, trip_shape
from hoserkd.report.points import _wkb_line
from hoserkd.report.roadmap import project

FEWEST_ROADS = 4
"""Shorter trips have nothing of their own."""


@dataclass(frozen=True, slots=True)
class Trip:
    """A recorded trip in every form in which a file could hold it."""

    roads: tuple[int, ...]
    """Ids, as source files have them."""
    texts: tuple[str, ...]
    wkb: bytes


def members(bundle: Path) -> dict[str, bytes]:
    """Return what a `.tar.zst` holds, read by common tools."""
    with bundle.open("rb") as file:
        stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            return {info.name: archive.extractfile(info).read()  # type: ignore[union-attr]
                    for info in archive}


def holders_of_recorded_trips(
    bundle: Path, city: City, generated: Iterable[Path]
) -> dict[str, int]:
    """Return how many recorded trips each member holds, for those that hold any.

    Args:
        generated: Files of all trips that were generated. Recorded trips whose way a student took
            too are left out: a generated trip is no recorded one.
    """
    inside = members(bundle)
    driven = {roads for path in generated for roads in sequences(path.name, path.read_bytes())}
    recorded = [trip for trip in recorded_trips(city)
                if not any(within(trip.roads, roads) for roads in driven)]
    assert len(recorded) > 10
    found = {name: sum(holds(name, data, trip) for trip in recorded)
             for name, data in inside.items()}
    return {name: count for name, count in found.items() if count}


def recorded_trips(city: City) -> Iterator[Trip]:
    """Yield the longer trips of all splits."""
    projection = project(city.network)
    for split in ("train", "val", "test"):
        trips = city.split(split)
        for index in range(len(trips)):
            if trips.offset[index + 1] - trips.offset[index] >= FEWEST_ROADS:
                yield _forms(city, trips, index, projection)


def _forms(city: City, trips: TrajectorySet, index: int, projection: object) -> Trip:
    part = slice(trips.offset[index], trips.offset[index + 1])
    road = np.asarray(trips.road[part])
    ids = tuple(city.network.road_id[road].tolist())
    shape = trip_shape(city.network, trips, index)
    line = coordinates(shape)
    whole = np.concatenate([city.network.shape_lonlat[
        city.network.shape_offset[r]:city.network.shape_offset[r + 1]] for r in road.tolist()])
    points = projection.points(whole).tolist()  # type: ignore[attr-defined]
    return Trip(ids, (
        ",".join(map(str, ids)) + "]", ", ".join(map(str, ids)) + "]",
        ",".join(times_as_text(np.asarray(trips.entered_at_s[part]))),
        json.dumps(line)[1:-1], json.dumps(line, separators=(",", ":"))[1:-1],
        " ".join(f"{x},{y}" for x, y in points)), _wkb_line(shape)[9:])


def holds(name: str, data: bytes, trip: Trip) -> bool:
    """Tell whether a member holds a trip, as a text, as lines or as rows of points."""
    if trip.wkb in data or any(text.encode() in data for text in trip.texts):
        return True
    return name.endswith((".csv", ".parquet", ".geoparquet")) and any(
        within(trip.roads, roads) for roads in sequences(name, data))


def sequences(name: str, data: bytes) -> set[tuple[int, ...]]:
    """Return the ways in a table: a row a trip, or a row a road."""
    if name.endswith((".parquet", ".geoparquet")):
        table = pq.read_table(io.BytesIO(data))
    elif name.endswith(".csv") and data:
        table = pa_csv.read_csv(io.BytesIO(data))
    else:
        return set()
    if "rid_list" in table.column_names:
        return {tuple(map(int, row.strip("[]").split(","))) if isinstance(row, str) else tuple(row)
                for row in table["rid_list"].to_pylist() if row and row != "[]"}
    if {"traj_id", "road_id"} <= set(table.column_names):
        ways: dict[object, list[int]] = {}
        for trip, road in zip(table["traj_id"].to_pylist(), table["road_id"].to_pylist(),
                              strict=True):
            ways.setdefault(trip, []).append(road)
        return {tuple(way) for way in ways.values()}
    return set()


def within(part: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Tell whether a way is a part of another."""
    return f",{','.join(map(str, part))}," in f",{','.join(map(str, whole))},"


def holders_of(bundle: Path, *words: str) -> dict[str, list[str]]:
    """Return which of some words each member holds, in its name or its content."""
    found = {name: [word for word in words if word.encode() in data or word in name]
             for name, data in members(bundle).items()}
    return {name: held for name, held in found.items() if held}
