"""HOSER's way of reading a city: row by row, each list evaluated, each time by strptime."""

import ast
import csv
import io
import itertools
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import zstandard


def plain_seconds(source: Path, trips: dict[str, int], sample: int) -> float:
    """Return how long the plain form takes for a whole source folder.

    The road network is read whole. Of each split the first `sample` trips are read, and the time
    is scaled to all of its trips.
    """
    began = time.perf_counter()
    relations = plain_network(source)
    seconds = time.perf_counter() - began
    for split, number in trips.items():
        began = time.perf_counter()
        read = sum(1 for _ in itertools.islice(plain_trips(source, split, relations), sample))
        seconds += (time.perf_counter() - began) * number / read
    return seconds


def plain_network(source: Path) -> set[tuple[int, int]]:
    """Build adjacency and its attributes with dictionaries; return the relations."""
    with (source / "roadmap.rel").open(newline="") as file:
        relations = {(int(row["origin_id"]), int(row["destination_id"]))
                     for row in csv.DictReader(file)}
    roads_at: dict[tuple[float, ...], set[int]] = defaultdict(set)
    heading: dict[int, float] = {}
    with (source / "roadmap.geo").open(newline="") as file:
        for row in csv.DictReader(file):
            road, shape = int(row["geo_id"]), json.loads(row["coordinates"])
            (lon_a, lat_a), (lon_b, lat_b) = shape[0], shape[-1]
            heading[road] = math.atan2(
                math.radians(lon_b - lon_a) * math.cos(math.radians(lat_a)),
                math.radians(lat_b - lat_a),
            )
            roads_at[tuple(shape[0])].add(road)
            roads_at[tuple(shape[-1])].add(road)
    attributes = {}
    for roads in roads_at.values():
        for a, b in itertools.permutations(roads, 2):
            turn = abs(heading[a] - heading[b]) % (2 * math.pi)
            attributes[a, b] = min(turn, 2 * math.pi - turn) / math.pi, (a, b) in relations
    return relations


def plain_trips(
    source: Path, split: str, relations: set[tuple[int, int]]
) -> Iterator[tuple[list[int], list[datetime]]]:
    """Yield the trips of a split, each checked against the relations."""
    with _open_text(source, split) as file:
        for row in csv.DictReader(file):
            # The public code calls eval here; literal_eval does the same to a list of numbers.
            roads = list(ast.literal_eval(row["rid_list"]))
            times = [datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
                     for text in row["time_list"].split(",")]
            for pair in itertools.pairwise(roads):
                assert pair in relations
            yield roads, times


def _open_text(source: Path, split: str) -> io.TextIOBase:
    packed = source / f"{split}.csv.zst"
    if packed.is_file():
        unpacked = zstandard.ZstdDecompressor().stream_reader(packed.open("rb"))
        return io.TextIOWrapper(unpacked, encoding="utf-8", newline="")
    return (source / f"{split}.csv").open(newline="")
