"""Cities that are odd and yet valid, as folders of source files."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from source_folder import GEO_COLUMNS, ring_road, table, trip, trips_table

Trip = tuple[str, str]


@dataclass(frozen=True, slots=True)
class WildCity:
    """Tables of a city, before they are written."""

    shapes: list[list[tuple[float, float]]]
    relations: list[tuple[int, int]]
    trips: list[Trip]
    ids: list[int] = field(default_factory=list)
    """`geo_id` of each road; empty: 0, 1, ..."""
    highway: str = "residential"
    line_end: str = "\n"
    bom: bool = False

    def files(self) -> dict[str, bytes]:
        """Return the content of the source files by the names that `write_source` takes."""
        ids = self.ids or list(range(len(self.shapes)))
        roads = [ring_road(i, ids[i], coordinates=json.dumps(shape), highway=self.highway)
                 for i, shape in enumerate(self.shapes)]
        relations = [(i, "geo", ids[a], ids[b]) for i, (a, b) in enumerate(self.relations)]
        trips = trips_table([(_named(roads_text, ids), times) for roads_text, times in self.trips])
        texts = {"geo": table(GEO_COLUMNS, roads), "train": trips, "val": trips, "test": trips,
                 "rel": table(("rel_id", "type", "origin_id", "destination_id"), relations)}
        start = "\ufeff" if self.bom else ""
        return {name: (start + text.replace("\n", self.line_end)).encode()
                for name, text in texts.items()}


def _named(roads: str, ids: list[int]) -> str:
    return json.dumps([ids[road] for road in json.loads(roads)])


def _line(lon: float, lat: float = 50.0, to: float = 0.01) -> list[tuple[float, float]]:
    return [(lon, lat), (lon + to, lat)]


def _chain(count: int, lon: float = 10.0) -> tuple[list, list]:
    shapes = [_line(lon + 0.01 * i) for i in range(count)]
    return shapes, [(i, i + 1) for i in range(count - 1)]


def one_road() -> WildCity:
    """One road that leads to itself."""
    return WildCity([_line(10)], [(0, 0)], [trip([0, 0, 0])])


def tangle() -> WildCity:
    """Two parts without a way between them; dead ends, self loops, parallel roads, and trips over
    midnight with steps of no time and of three hours; odd ids, CRLF, a byte order mark."""
    same = _line(10)
    shapes = [same, same, [(10.01, 50), (10.02, 50.01), (10.01, 50)], _line(10.01, to=0.02),
              _line(20), _line(20.01), _line(20.02)]
    relations = [(0, 2), (1, 2), (2, 2), (2, 3), (0, 3), (4, 5), (5, 4), (5, 6)]
    trips = [trip([0, 2, 2, 3], "2023-12-31T23:59:50"), trip([1, 2], step_s=0),
             trip([4, 5, 4, 5, 6], "2024-02-28T21:00:00", 3 * 3600),
             trip([0, 3], "2024-03-31T01:59:55", 10)]
    return WildCity(shapes, relations, trips, [2**40, -7, 5_000_000, 0, 9, 8, 7], "мост é",
                    "\r\n", bom=True)


def antimeridian() -> WildCity:
    """A ring across the antimeridian, written with longitudes of both signs."""
    shapes = [[(179.98, -17), (180.0, -17)], [(-180.0, -17), (-179.98, -17.001)],
              [(-179.98, -17.001), (179.98, -17.01)], [(179.98, -17.01), (179.98, -17)]]
    return WildCity(shapes, [(0, 1), (1, 2), (2, 3), (3, 0)],
                    [trip([0, 1, 2, 3]), trip([2, 3, 0, 1]), trip([3, 0])])


def pole() -> WildCity:
    """Roads that meet at the pole."""
    shapes = [[(0, 89.99), (0, 90)], [(0, 90), (120, 89.99)], [(120, 89.99), (240, 89.99)],
              [(240, 89.99), (0, 89.99)]]
    return WildCity(shapes, [(0, 1), (1, 2), (2, 3), (3, 0), (0, 3)],
                    [trip([0, 1, 2, 3]), trip([3, 0, 1])])


def star() -> WildCity:
    """A road with 1,500 candidates, of which candidate_top_k keeps 64."""
    hub = (10.0, 50.0)
    ends = [[hub, (10 + np.cos(i) / 9, 50 + np.sin(i) / 9)] for i in range(1, 1501)]
    return WildCity([[(9.9, 50), hub], *ends], [(0, i) for i in range(1500, 0, -1)],
                    [trip([0, i]) for i in (1, 750, 1500)])


def long_trips() -> WildCity:
    """A trip of 5,000 roads beside trips of two."""
    shapes, relations = _chain(3)
    return WildCity(shapes, [*relations, (1, 0), (2, 1)],
                    [trip([0, 1] * 2500, step_s=1), trip([1, 2]), trip([2, 1])])


CITIES: Mapping[str, Callable[[], WildCity]] = MappingProxyType({
    found.__name__: found for found in (one_road, tangle, antimeridian, pole, star, long_trips)})
