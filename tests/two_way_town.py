"""A small town with what real cities have and simple toy cities lack.

Nearly every street is two roads of opposite direction with one centroid, as 71 % of San
Francisco's roads are; some streets are one-way; there are cul-de-sacs of both kinds; and the
test trips repeat requests. The fixtures `two_way_source` and `two_way_city` of `conftest.py` give
it as source files and as a prepared city.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SIDE = 5
"""Crossings along each side."""
REQUESTS = 12
"""Distinct requests of the test trips."""
REPEATS = 3
"""Trips a request: same origin, destination and departure, other ways or other times."""
CORNER = (-122.45, 37.75)
STEP = (0.0012, 0.0009)
"""Degrees between crossings: about a hundred metres."""


@dataclass(frozen=True, slots=True)
class Town:
    """The roads of the town; `closed_in` and `closed_out` are a cul-de-sac without a turn."""

    shapes: list[list[tuple[float, float]]]
    follow: list[list[int]]
    """Roads that may follow each road."""
    opposite: list[int]
    """The road of the other direction; -1 for a one-way street."""
    closed_in: int
    """Road into the cul-de-sac: nothing follows it."""
    closed_out: int
    """Its opposite: nothing leads to it."""
    loop_in: int
    """Road into a cul-de-sac at whose end cars turn round."""


def two_way_town() -> Town:
    """Return the town: 5 x 5 crossings, two one-way streets, two cul-de-sacs."""
    node = {(x, y): (CORNER[0] + STEP[0] * x, CORNER[1] + STEP[1] * y)
            for x in range(SIDE) for y in range(SIDE)}
    closed, loop = (SIDE, 1), (SIDE, 3)
    for end in (closed, loop):
        node[end] = (CORNER[0] + STEP[0] * end[0], CORNER[1] + STEP[1] * end[1])
    pairs = [(a, b) for a in sorted(node) for b in sorted(node)
             if abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1
             and (a not in (closed, loop) or b not in (closed, loop))]
    one_way = {((3, 2), (2, 2)), ((2, 4), (2, 3))}
    arcs = [arc for arc in pairs if arc not in one_way]
    number = {arc: i for i, arc in enumerate(arcs)}
    follow = [[number[c, d] for c, d in arcs if c == b and (d != a or b == loop)]
              for a, b in arcs]
    return Town(
        shapes=[[node[a], node[b]] for a, b in arcs], follow=follow,
        opposite=[number.get((b, a), -1) for a, b in arcs],
        closed_in=number[(SIDE - 1, 1), closed], closed_out=number[closed, (SIDE - 1, 1)],
        loop_in=number[(SIDE - 1, 3), loop])


def write_two_way_source(directory: Path) -> Path:
    """Write the town as source files: 150 training, 30 validation, 36 test trips."""
    directory.mkdir(parents=True, exist_ok=True)
    town, draw = two_way_town(), np.random.default_rng(7)
    _write(directory / "roadmap.geo", ("geo_id", "type", "coordinates", "highway", "length"), [
        (road, "LineString", json.dumps(shape), "residential" if road % 3 else "secondary", 100.0)
        for road, shape in enumerate(town.shapes)])
    _write(directory / "roadmap.rel", ("rel_id", "type", "origin_id", "destination_id"), [
        (0, "geo", a, b) for a, follow in enumerate(town.follow) for b in follow])
    for day, (split, count, repeats) in enumerate((("train", 150, 1), ("val", 30, 1),
                                                   ("test", REQUESTS, REPEATS))):
        _write(directory / f"{split}.csv", ("mm_id", "entity_id", "traj_id", "rid_list",
                                            "time_list"), _trips(town, count, repeats, day, draw))
    return directory


def _trips(
    town: Town, count: int, repeats: int, day: int, draw: np.random.Generator
) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    roads = len(town.shapes)
    while len(rows) < count * repeats:
        origin, destination = (int(road) for road in draw.integers(0, roads, 2))
        departure = (np.datetime64("2024-03-04T07:00:00") + np.timedelta64(day, "D")
                     + np.timedelta64(int(draw.integers(0, 36_000)), "s"))
        found = [_way(town, origin, destination, draw) for _ in range(repeats)]
        if origin == destination or town.opposite[origin] == destination or not all(found):
            continue
        for way in found:
            clock = departure + np.cumsum([0, *draw.integers(5, 40, len(way) - 1)]).astype(
                "timedelta64[s]")
            stamps = ",".join(f"{stamp}Z" for stamp in np.datetime_as_string(clock))
            rows.append((len(rows), 0, len(rows), str(way).replace(" ", ""), stamps))
    return rows


def _way(town: Town, origin: int, destination: int, draw: np.random.Generator) -> list[int]:
    """Return a nearly shortest way, never the same road twice; empty if there is none."""
    cost = draw.uniform(1, 2.5, len(town.shapes))
    best, before = np.full(len(cost), np.inf), np.full(len(cost), -1)
    best[origin] = 0
    left = set(range(len(cost)))
    while left:
        road = min(left, key=lambda each: best[each])
        left.remove(road)
        if not np.isfinite(best[road]):
            return []
        if road == destination:
            break
        for follower in town.follow[road]:
            if best[road] + cost[follower] < best[follower]:
                best[follower], before[follower] = best[road] + cost[follower], road
    way = [destination]
    while way[0] != origin:
        way.insert(0, int(before[way[0]]))
    return way


def _write(path: Path, columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
