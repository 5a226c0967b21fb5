"""Generated trips as files: CSV in the HOSER format, Parquet and GeoJSON."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Int64

from hoserkd.engine.clock import arrow_type, instants, iso_times, utc_offsets_s
from hoserkd.engine.files import replacing
from hoserkd.engine.geo import cut_at_antimeridian, great_circle_m
from hoserkd.engine.search.queries import Queries
from hoserkd.engine.trips.loading import load_generated as load_generated
from hoserkd.engine.trips.maker import (
    METADATA_KEY,
    TripsDigest,
    TripsMaker,
    note_text,
    write_note,
)
from hoserkd.engine.types import GeneratedTrips, RoadNetwork
from hoserkd.errors import UsageError
from hoserkd.text import no_formula

COLUMNS = ("origin", "destination", "departure", "rid_list", "time_list", "log_prob", "reached",
           "reason")
DIGITS = 6
"""Decimals of a coordinate: a tenth of a metre."""
SUFFIXES = (".csv", ".parquet", ".geojson")
KEPLER = ".kepler.geojson"
"""End of the name of a file for kepler.gl: each point has a height of 0 and a time."""


def save_generated(
    path: str | Path, trips: GeneratedTrips, network: RoadNetwork,
    maker: TripsMaker | None = None,
) -> None:
    """Write the trips whole or not at all, in the format that the suffix names."""
    save_chunks(Path(path), [trips], network, maker)


def save_chunks(
    path: Path, chunks: Iterable[GeneratedTrips], network: RoadNetwork,
    maker: TripsMaker | None = None,
) -> int:
    """Write trips as they come, whole or not at all; return how many.

    Args:
        maker: Who made them, for the file's metadata (Parquet) or a JSON file beside it; None:
            unknown.

    Raises:
        UsageError: The suffix is none of .csv, .parquet and .geojson.
    """
    check_suffix(path)
    write = {".csv": _write_csv, ".geojson": _write_geojson}
    digest = TripsDigest()
    chunks = digest.through(chunks)
    with replacing(path) as file:
        if path.suffix == ".parquet":
            return _write_parquet(file, chunks, network, digest, maker)
        writer = _write_kepler if path.name.endswith(KEPLER) else write[path.suffix]
        count = writer(file, chunks, network)
    # After the trips: a note that is not theirs, as after a kill in between, is not believed.
    write_note(path, digest.note(maker))
    return count


def note_saved(path: Path, network: RoadNetwork, maker: TripsMaker) -> None:
    """Write beside a CSV file of trips, in whatever columns, who made what it holds."""
    digest = TripsDigest()
    digest.add(load_generated(path, network))
    write_note(path, digest.note(maker))


def check_suffix(path: Path) -> None:
    """Raise UsageError if trips cannot be written to a file of that name."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: trips are written as {', '.join(SUFFIXES)}",
                         hint=f"for instance {path.with_suffix('.csv').name}")


def save_snapping(path: Path, queries: Queries, network: RoadNetwork) -> Path | None:
    """Write beside the trips of `path` which roads were taken for the points asked for.

    A cell is empty where no road was near enough.

    Returns the file, a row a query in the order of the trips; None where roads were asked for.
    """
    if queries.snapped_m is None:
        return None
    beside = snapping_path(path)
    ends = np.stack([queries.origin, queries.destination], axis=1)
    ids = np.where(ends >= 0, network.road_id[ends].astype(str), "")
    with replacing(beside, "w") as file:
        file.write("origin,destination,origin_away_m,destination_away_m\n")
        for (origin, destination), (first, last) in zip(ids.tolist(), queries.snapped_m.tolist(),
                                                        strict=True):
            file.write(f"{origin},{destination},{first:.1f},{last:.1f}\n")
    return beside


def snapping_path(path: Path) -> Path:
    """Return where the roads are told that were taken for the points of the trips in `path`."""
    end = KEPLER if path.name.endswith(KEPLER) else path.suffix
    return path.with_name(path.name.removesuffix(end) + ".snapped.csv")


def times_as_text(at_s: Int64[np.ndarray, " P"]) -> list[str]:
    """Return wall clocks as the HOSER format writes them, such as 2015-11-05T08:30:00Z."""
    return [f"{t}Z" for t in np.datetime_as_string(at_s.astype("datetime64[s]"))]


@dataclass(frozen=True, slots=True)
class _Times:
    """Departures and entries of some trips as texts."""

    departure: list[str]
    entered: list[str]


def _hoser_times(trips: GeneratedTrips, network: RoadNetwork) -> _Times:
    return _Times(times_as_text(trips.departure_s), times_as_text(trips.entered_at_s))


def _iso_times(trips: GeneratedTrips, network: RoadNetwork) -> _Times:
    offset_s = utc_offsets_s(network.timezone, trips.departure_s)
    return _Times(iso_times(trips.departure_s, offset_s),
                  iso_times(trips.entered_at_s, _per_point(trips, offset_s)))


def _per_point(
    trips: GeneratedTrips, values: Int64[np.ndarray, " N"] | None
) -> Int64[np.ndarray, " P"] | None:
    return None if values is None else np.repeat(values, np.diff(trips.offset))


def requested_ids(trips: GeneratedTrips, network: RoadNetwork) -> Int64[np.ndarray, "N 2"]:
    """Return origin and destination of each query as source files call them."""
    if trips.requested is not None:
        return trips.requested
    ends = np.stack([trips.origin, trips.destination], axis=1)
    return np.where(ends >= 0, network.road_id[ends], -1)


def _rows(
    trips: GeneratedTrips, network: RoadNetwork, times: _Times
) -> Iterator[tuple[Any, ...]]:
    """Yield (origin, destination, departure, road ids, times, log_prob, reached, reason)."""
    ends = requested_ids(trips, network).tolist()
    departure, entered = times.departure, times.entered
    road = network.road_id[trips.road].tolist()
    log_prob = trips.log_prob.tolist()
    for i, (first, last) in enumerate(zip(trips.offset[:-1], trips.offset[1:], strict=True)):
        yield (*ends[i], departure[i], road[first:last], entered[first:last], log_prob[i],
               bool(trips.reached[i]), trips.reason[i])


def _write_csv(file: IO[bytes], chunks: Iterable[GeneratedTrips], network: RoadNetwork) -> int:
    file.write((",".join(COLUMNS) + "\n").encode())
    count = 0
    for trips in chunks:
        for origin, destination, departure, road, entered, log_prob, reached, why in _rows(
                trips, network, _hoser_times(trips, network)):
            clocks = ",".join(entered)
            file.write(f'{origin},{destination},{departure},"{road}","{clocks}",{log_prob:.6f},'
                       f"{str(reached).lower()},{_quoted(why)}\n".encode())
        count += len(trips)
    return count


def _quoted(text: str) -> str:
    """Return a cell of text, which may be a stranger's: read from one file, written to another."""
    text = no_formula(text)
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",\r\n]', text) else text


def _write_parquet(
    file: IO[bytes], chunks: Iterable[GeneratedTrips], network: RoadNetwork, digest: TripsDigest,
    maker: TripsMaker | None,
) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    seconds = arrow_type(network.timezone)
    schema = pa.schema([
        ("origin", pa.int64()), ("destination", pa.int64()), ("departure", seconds),
        ("rid_list", pa.list_(pa.int64())), ("time_list", pa.list_(seconds)),
        ("log_prob", pa.float64()), ("reached", pa.bool_()), ("reason", pa.string()),
    ])
    count = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for trips in chunks:
            ends = requested_ids(trips, network)
            offset = pa.array(trips.offset.astype(np.int32))
            away_s = utc_offsets_s(network.timezone, trips.departure_s)
            departure = instants(trips.departure_s, away_s)
            entered = instants(trips.entered_at_s, _per_point(trips, away_s))
            writer.write_table(pa.table([
                pa.array(ends[:, 0]), pa.array(ends[:, 1]), pa.array(departure, seconds),
                pa.ListArray.from_arrays(offset, pa.array(network.road_id[trips.road])),
                pa.ListArray.from_arrays(offset, pa.array(entered, seconds)),
                pa.array(trips.log_prob), pa.array(trips.reached), pa.array(list(trips.reason)),
            ], schema=schema))
            count += len(trips)
        note = digest.note(maker)
        if note is not None:
            writer.add_key_value_metadata({METADATA_KEY: note_text(note)})
    return count


def path_lonlat(road: Sequence[int] | np.ndarray, network: RoadNetwork) -> list[list[float]]:
    """Return the shape of a path: its roads' polylines one after another, without repetitions."""
    points: list[list[float]] = []
    for index in road:
        first, last = network.shape_offset[index], network.shape_offset[index + 1]
        for point in network.shape_lonlat[first:last].round(DIGITS).tolist():
            if not points or point != points[-1]:
                points.append(point)
    return points


def timed_lonlat(
    road: np.ndarray, entered_at_s: np.ndarray, network: RoadNetwork
) -> list[list[float]]:
    """Return a path's points as (lon, lat, 0, seconds), at even speed on each road.

    The last road, which no time is known to be left at, is driven at its free-flow speed.
    """
    points: list[list[float]] = []
    for i, index in enumerate(road):
        first, last = network.shape_offset[index], network.shape_offset[index + 1]
        shape = network.shape_lonlat[first:last]
        way = np.concatenate([[0.0], np.cumsum(great_circle_m(shape[:-1], shape[1:]))])
        spent = (entered_at_s[i + 1] - entered_at_s[i] if i + 1 < len(road)
                 else network.length_m[index] / (network.free_flow_kmh[index] / 3.6))
        at = entered_at_s[i] + way / max(way[-1], 1e-9) * spent
        for (lon, lat), second in zip(shape.round(DIGITS).tolist(), at.tolist(), strict=True):
            if not points or [lon, lat] != points[-1][:2]:
                points.append([lon, lat, 0, round(second)])
    return points


def _write_kepler(file: IO[bytes], chunks: Iterable[GeneratedTrips], network: RoadNetwork) -> int:
    # A moving trip cannot be cut: beyond the antimeridian its longitudes go on past 180.
    return _write_features(file, chunks, network, lambda road, entered: timed_lonlat(
        road, entered, network), cut=False)


def _write_geojson(file: IO[bytes], chunks: Iterable[GeneratedTrips], network: RoadNetwork) -> int:
    return _write_features(file, chunks, network, lambda road, _: path_lonlat(road, network))


def _write_features(
    file: IO[bytes], chunks: Iterable[GeneratedTrips], network: RoadNetwork,
    shape: Callable[[np.ndarray, np.ndarray], list[list[float]]], cut: bool = True,
) -> int:
    file.write(b'{"type": "FeatureCollection", "generator": "hoserkd", "features": [')
    count = 0
    for trips in chunks:
        offset_s = _per_point(trips, utc_offsets_s(network.timezone, trips.departure_s))
        entered_at_s = instants(trips.entered_at_s, offset_s)
        for i, row in enumerate(_rows(trips, network, _iso_times(trips, network))):
            part = slice(trips.offset[i], trips.offset[i + 1])
            points = shape(trips.road[part], entered_at_s[part])
            feature = {"type": "Feature", "geometry": _geometry(points, cut),
                       "properties": _properties(count, row)}
            file.write(b",\n" if count else b"\n")
            file.write(json.dumps(feature).encode())
            count += 1
    file.write(b"\n]}\n")
    return count


def _geometry(points: list[list[float]], cut: bool) -> dict[str, Any] | None:
    if len(points) > 1 and cut and max(abs(point[0]) for point in points) > 180:
        parts = cut_at_antimeridian(np.array(points))
        lines = [part.round(DIGITS).tolist() for part in parts]
        return {"type": "MultiLineString", "coordinates": lines} if len(lines) > 1 else {
            "type": "LineString", "coordinates": lines[0]}
    if len(points) > 1:
        return {"type": "LineString", "coordinates": points}
    return {"type": "Point", "coordinates": points[0]} if points else None


def _properties(number: int, row: tuple[Any, ...]) -> dict[str, Any]:
    origin, destination, departure, road, entered, log_prob, reached, reason = row
    return {
        "traj_id": str(number), "origin": origin, "destination": destination,
        "departure": departure,
        "arrival": entered[-1] if entered else None, "roads": len(road),
        "log_prob": round(log_prob, 6), "reached": reached, "reason": reason,
        "rid_list": road,
    }
