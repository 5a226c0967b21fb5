"""Reading the road tables `roadmap.geo` and `roadmap.rel` of the HOSER format."""

import ast
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int32, Int64

from hoserkd.engine.city.source import Findings, read_table
from hoserkd.engine.files import parse_json
from hoserkd.errors import DataError

KMH_PER_MPH = 1.609344
FREE_FLOW_KMH = {
    "motorway": 100.0, "motorway_link": 60.0, "trunk": 80.0, "trunk_link": 50.0,
    "primary": 60.0, "primary_link": 45.0, "secondary": 50.0, "secondary_link": 40.0,
    "tertiary": 40.0, "tertiary_link": 35.0, "unclassified": 35.0, "residential": 30.0,
    "living_street": 15.0, "service": 20.0,
}
"""Usual speed of a class of road, where `maxspeed` says nothing."""
OTHER_FREE_FLOW_KMH = 40.0
UNNAMED_HIGHWAY = "unclassified"
"""Class of a road whose `highway` cell is empty or an empty list."""
INTEGER = re.compile(r"-?[0-9]{1,18}")
"""As the lists of trips write road ids: other signs and other alphabets' digits are no part."""
DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
SPEED = re.compile(r"\s*([0-9]{1,4}(?:\.[0-9]{1,6})?)\s*(mph|km/h|kmh|kph)?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Roadmap:
    """The road tables as read, roads in the order of their `geo_id`."""

    road_id: Int64[np.ndarray, " R"]
    shape_offset: Int64[np.ndarray, " R+1"]
    shape_lonlat: Float64[np.ndarray, "P 2"]
    length_m: Float64[np.ndarray, " R"]
    highway: Int64[np.ndarray, " R"]
    highway_names: tuple[str, ...]
    highway_verbatim: Int64[np.ndarray, " R"] | None
    free_flow_kmh: Float64[np.ndarray, " R"]
    origin: Int32[np.ndarray, " K"]
    """Road index from which each relation leads, in the order of `roadmap.rel`."""
    destination: Int32[np.ndarray, " K"]
    repeated_relations: int
    """How many rows of `roadmap.rel` repeat an earlier one; they are left out."""
    repeated_example: str
    """The row of one of them; empty: there is none."""

    @property
    def roads(self) -> int:
        """Number of roads."""
        return len(self.road_id)


def read_roadmap(geo_path: Path, rel_path: Path) -> Roadmap:
    """Read and check both road tables.

    Args:
        geo_path: `roadmap.geo`, plain or compressed.
        rel_path: `roadmap.rel`, plain or compressed.

    Raises:
        DataError: a file or cell is missing or wrong; the message names the rows.
    """
    rows, cells = read_table(
        geo_path, ("geo_id", "coordinates", "highway", "length"), ("maxspeed",)
    )
    if not rows:
        raise DataError(f"{geo_path}: holds no roads", hint="one road a line is needed")
    road_id = _unique_ids(geo_path, rows, cells["geo_id"])
    offset, lonlat, length = _shapes(geo_path, rows, cells)
    order = np.argsort(road_id, kind="stable")
    shape_offset, shape_lonlat = _reorder(offset, lonlat, order)
    highways = [highway_class(text) for text in cells["highway"]]
    rank, names = rank_values(highways)
    verbatim, _ = rank_values([text.strip() for text in cells["highway"]])
    speed = _free_flow(highways, cells.get("maxspeed"))
    origin, destination, repeated, example = read_relations(rel_path, road_id[order])
    return Roadmap(
        road_id=road_id[order],
        shape_offset=shape_offset,
        shape_lonlat=shape_lonlat,
        length_m=length[order],
        highway=rank[order],
        highway_names=names,
        highway_verbatim=None if np.array_equal(rank, verbatim) else verbatim[order],
        free_flow_kmh=speed[order],
        origin=origin,
        destination=destination,
        repeated_relations=repeated,
        repeated_example=example,
    )


def parse_integer(text: str) -> int | None:
    """Return the integer written in a cell, or None where there is none (or too long a one)."""
    text = text.strip()
    return int(text) if INTEGER.fullmatch(text) else None


def parse_decimal(text: str) -> float | None:
    """Return the finite number written in a cell, or None where there is none."""
    text = text.strip()
    value = float(text) if DECIMAL.fullmatch(text) else math.inf
    return value if math.isfinite(value) else None


def _unique_ids(path: Path, rows: list[int], cells: list[str]) -> Int64[np.ndarray, " R"]:
    findings = Findings(path)
    first_row: dict[int, int] = {}
    for row, text in zip(rows, cells, strict=True):
        value = parse_integer(text)
        if value is None:
            findings.add(row, f"geo_id {text[:40]!r} is not an integer")
        elif value in first_row:
            findings.add(row, f"geo_id {value} was already used in row {first_row[value]}")
        else:
            first_row[value] = row
    findings.raise_if_any(hint="give every road an integer id of its own")
    return np.fromiter(first_row, np.int64, len(first_row))


def _shapes(
    path: Path, rows: list[int], cells: dict[str, list[str]]
) -> tuple[Int64[np.ndarray, " R+1"], Float64[np.ndarray, "P 2"], Float64[np.ndarray, " R"]]:
    findings = Findings(path)
    points: list[tuple[float, float]] = []
    ends = [0]
    lengths = []
    for row, coordinates, length in zip(rows, cells["coordinates"], cells["length"], strict=True):
        try:
            points.extend(parse_coordinates(coordinates))
            lengths.append(_parse_length(length))
        except ValueError as error:
            findings.add(row, str(error))
        ends.append(len(points))
    findings.raise_if_any(hint="coordinates are [[lon, lat], ...] in degrees, length is in metres")
    offset = np.array(ends, np.int64)
    return offset, np.array(points, np.float64).reshape(-1, 2), np.array(lengths, np.float64)


def parse_coordinates(text: str) -> list[tuple[float, float]]:
    """Return the (lon, lat) points of a `coordinates` cell; heights are left out.

    Raises:
        ValueError: the cell is not JSON `[[lon, lat], ...]` with two points or more.
    """
    shown = text if len(text) <= 60 else text[:57] + "..."
    try:
        # One message for every way in which JSON can be wrong.
        points = [_lonlat(point) for point in parse_json(text)]
    except (ValueError, TypeError, LookupError, OverflowError):
        raise ValueError(f"coordinates {shown!r} are not JSON [[lon, lat], ...]") from None
    if len(points) < 2:
        raise ValueError(f"coordinates {shown!r} hold {len(points)} points, a road has at least 2")
    for lon, lat in points:
        # Written so that NaN fails too.
        if not (abs(lon) <= 360 and abs(lat) <= 90):
            order = "; are they [lat, lon]?" if abs(lat) <= 360 and abs(lon) <= 90 else ""
            raise ValueError(
                f"coordinates hold ({lon}, {lat}), which is no (lon, lat) in degrees{order}")
    return points


def _lonlat(point: object) -> tuple[float, float]:
    """Return the first two numbers of a list; text is none, though it can be cut up like one."""
    if not isinstance(point, list) or any(
            not isinstance(number, int | float) or isinstance(number, bool)
            for number in point[:2]):
        raise TypeError("a point is a list of numbers")
    return float(point[0]), float(point[1])


def _parse_length(text: str) -> float:
    length = parse_decimal(text)
    if length is None or not 0 <= length < 1e8:
        raise ValueError(f"length {text[:40]!r} is not a number of metres")
    return length


def _reorder(
    offset: Int64[np.ndarray, " R+1"],
    lonlat: Float64[np.ndarray, "P 2"],
    order: Int64[np.ndarray, " R"],
) -> tuple[Int64[np.ndarray, " R+1"], Float64[np.ndarray, "P 2"]]:
    counts = np.diff(offset)[order]
    moved = np.concatenate([[0], np.cumsum(counts)])
    source = np.arange(moved[-1]) + np.repeat(offset[:-1][order] - moved[:-1], counts)
    return moved, lonlat[source]


def highway_class(text: str) -> str:
    """Return the class named by a `highway` cell: a word, a code or the choice from a list.

    Of a list the first entry that is not `unclassified` counts.
    """
    text = text.strip()
    if not text.startswith(("[", "(")):
        return text or UNNAMED_HIGHWAY
    try:
        with warnings.catch_warnings():
            # What Python thinks of a stranger's spelling is not the user's concern.
            warnings.simplefilter("ignore")
            values = ast.literal_eval(text) if len(text) <= 10_000 else None
        # Inside, for an integer can be too long to be written.
        entries = [str(value).strip() for value in values] if isinstance(values, list | tuple) \
            else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        entries = None
    if entries is None:
        return text
    return next((entry for entry in entries if entry not in ("", UNNAMED_HIGHWAY)), UNNAMED_HIGHWAY)


def rank_values(values: Sequence[str]) -> tuple[Int64[np.ndarray, " R"], tuple[str, ...]]:
    """Return each value's rank among the sorted distinct values, and those values.

    Integer codes are sorted as numbers, all else as text.
    """
    distinct = sorted(set(values))
    if all(INTEGER.fullmatch(value) for value in distinct):
        distinct.sort(key=int)
    rank = {value: i for i, value in enumerate(distinct)}
    return np.array([rank[value] for value in values], np.int64), tuple(distinct)


def _free_flow(
    highways: Sequence[str], maxspeed: Sequence[str] | None
) -> Float64[np.ndarray, " R"]:
    usual = [FREE_FLOW_KMH.get(name, OTHER_FREE_FLOW_KMH) for name in highways]
    given = [parse_speed_kmh(text) for text in maxspeed] if maxspeed else [None] * len(usual)
    return np.array([g if g is not None else u for g, u in zip(given, usual, strict=True)])


def parse_speed_kmh(text: str) -> float | None:
    """Return the speed of a `maxspeed` cell in km/h: the first of a list; None where none is said.

    A number without a unit is in km/h; words such as `signals` say nothing.
    """
    first = text.strip().strip("[](){} '\"").split(",")[0].split(";")[0].strip(" '\"")
    match = SPEED.fullmatch(first)
    if match is None:
        return None
    speed = float(match[1]) * (KMH_PER_MPH if (match[2] or "").lower() == "mph" else 1.0)
    return speed if 0 < speed <= 300 else None


def read_relations(
    path: Path, road_id: Int64[np.ndarray, " R"]
) -> tuple[Int32[np.ndarray, " K"], Int32[np.ndarray, " K"], int, str]:
    """Return origin and destination of each relation as road indices, how many repeats, and one.

    Args:
        path: `roadmap.rel`.
        road_id: all `geo_id`, ascending.

    Raises:
        DataError: a relation names no road of the city.
    """
    rows, cells = read_table(path, ("origin_id", "destination_id"))
    findings = Findings(path)
    known = {int(value): index for index, value in enumerate(road_id)}
    ends = []
    for name in ("origin_id", "destination_id"):
        # Most cells repeat: each distinct text is parsed once.
        index = {text: known.get(value) if (value := parse_integer(text)) is not None else None
                 for text in set(cells[name])}
        for row, text in zip(rows, cells[name], strict=True):
            if index[text] is None:
                findings.add(row, f"{name} {text[:40]!r} is no geo_id of roadmap.geo")
        ends.append([index[text] or 0 for text in cells[name]])
    findings.raise_if_any(hint="both road tables must come from the same export")
    origin, destination = (np.array(end, np.int32).reshape(-1) for end in ends)
    key = origin.astype(np.int64) * len(road_id) + destination
    first = np.sort(np.unique(key, return_index=True)[1])
    again = np.setdiff1d(np.arange(len(key)), first)[:1].tolist()
    example = f"row {rows[again[0]]}" if again else ""
    return origin[first], destination[first], len(key) - len(first), example
