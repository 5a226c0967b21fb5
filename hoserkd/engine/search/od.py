"""Where queries come from: the trips of a split, a list of zones, or a file."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64, Real

from hoserkd.engine.city.storage import City
from hoserkd.engine.search.queries import Queries
from hoserkd.engine.search.snapping import MOST_AWAY_M, build_reach, snap_requests
from hoserkd.engine.trips.bad_rows import BadRows, finite_number
from hoserkd.engine.trips.reading import Rows, header_of, read_rows
from hoserkd.engine.trips.reading import parse_time as parse_time
from hoserkd.engine.types import RoadNetwork, TrajectorySet
from hoserkd.errors import UsageError

COLUMNS = ("origin", "destination", "departure")
POINT_COLUMNS = ("origin_lon", "origin_lat", "destination_lon", "destination_lat")
ZONES = "zones:"


def draw_queries(
    city: City, od: str | Path, num: int | None, seed: int, most: int | None = None,
    most_away_m: float = MOST_AWAY_M,
) -> Queries:
    """Return what to search for.

    Args:
        od: `train` or `test`: origin, destination and departure of trips of that split, drawn
            without replacement; `test-trips`: those of the test trips in their order;
            `zones:3,17,20` or `zones:all`: every ordered pair of those zones; else a CSV or
            Parquet file, see `read_queries`.
        num: How many; None: as many as there are. Where `train` and `test` are asked for more
            than they have trips, every trip is taken once before one is taken again.
        most: Of `train` and `test`, at most so many where `num` is None.
        most_away_m: Of a file with points, how far the roads taken for them may be; a request
            with a point farther off is answered by `too far`.

    Raises:
        UsageError: `od` is neither a known word nor a file.
        DataError: The file has bad rows; all of them are counted, the first few are named.
    """
    word = od if isinstance(od, str) else ""
    if word in ("train", "test"):
        trips = city.split(word)
        return _of_trips(trips, drawn_trips(
            len(trips), min(len(trips), most or len(trips)) if num is None else num, seed))
    if word == "test-trips":
        trips = city.split("test")
        return _of_trips(trips, np.arange(len(trips) if num is None else min(num, len(trips))))
    path = Path(od)
    if word.startswith(ZONES):
        queries = zone_pairs(city, word.removeprefix(ZONES), seed)
    elif path.is_file():
        queries = read_queries(path, city, seed, most_away_m)
    else:
        raise UsageError(f"od: {od} is neither train, test or test-trips nor a file",
                         hint="a CSV file needs the columns origin, destination and departure; "
                              "zones:3,17,20 means all pairs of those zones")
    return queries if num is None else queries.select(slice(num))


def drawn_trips(trips: int, count: int, seed: int) -> Int64[np.ndarray, " M"]:
    """Return the numbers of `count` of the trips in random order, each once before any twice.

    Equal seeds give lists of which the shorter one begins the longer one, so that runs that
    answer different numbers of requests share the first ones.
    """
    draw = np.random.default_rng(seed)
    rounds = -(-count // trips) if trips else 0
    order = [draw.permutation(trips) for _ in range(rounds)]
    return np.concatenate([np.empty(0, np.int64), *order])[:count]


def zone_pairs(city: City, zones: str, seed: int) -> Queries:
    """Return a query for every ordered pair of different zones.

    Origin and departure are those of a training trip that starts in the zone, the destination is
    one of a training trip that ends there; where there is none, any road of the zone will do that
    a trip can start or end on.
    """
    network, trips = city.network, city.split("train")
    chosen = _zone_list(zones, network.zones)
    draw = np.random.default_rng(seed)
    first, last = trips.offset[:-1], trips.offset[1:] - 1
    start, end = np.asarray(trips.road[first]), np.asarray(trips.road[last])
    starts = {z: np.flatnonzero(network.zone[start] == z) for z in chosen}
    ends = {z: end[network.zone[end] == z] for z in chosen}
    reach = build_reach(network)
    leaving = {z: _roads_of(network, z, reach.can_start & reach.to_hub) for z in chosen}
    entered = {z: _roads_of(network, z, reach.can_end & reach.from_hub) for z in chosen}
    rows = []
    for a in chosen:
        for b in chosen:
            if a == b or not len(leaving[a]) or not len(entered[b]):
                continue
            trip = draw.choice(starts[a] if len(starts[a]) else len(start))
            origin = start[trip] if len(starts[a]) else draw.choice(leaving[a])
            destination = draw.choice(ends[b] if len(ends[b]) else entered[b])
            rows.append((int(origin), int(destination), int(trips.entered_at_s[first[trip]])))
    table = np.array(rows, np.int64).reshape(-1, 3)
    return Queries(table[:, 0].copy(), table[:, 1].copy(), table[:, 2].copy())


def _roads_of(
    network: RoadNetwork, zone: int, usable: Bool[np.ndarray, " R"]
) -> Int64[np.ndarray, " n"]:
    """Return the usable roads of a zone, or all of them where none is."""
    inside = network.zone == zone
    return np.flatnonzero(inside & usable if (inside & usable).any() else inside)


def _zone_list(text: str, zones: int) -> list[int]:
    if text == "all":
        return list(range(zones))
    try:
        chosen = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"od: {ZONES}{text}: zones are numbers",
                         hint="for instance zones:3,17,20, or zones:all") from None
    wrong = [zone for zone in chosen if not 0 <= zone < zones]
    if wrong:
        raise UsageError(f"od: the city has no zone {wrong[0]}, only 0 to {zones - 1}")
    return list(dict.fromkeys(chosen))


def _of_trips(trips: TrajectorySet, index: Int64[np.ndarray, " N"]) -> Queries:
    first, last = trips.offset[index], trips.offset[index + 1] - 1
    return Queries(np.asarray(trips.road[first], np.int64), np.asarray(trips.road[last], np.int64),
                   np.asarray(trips.entered_at_s[first]))


def road_index(
    network: RoadNetwork, road_id: Int64[np.ndarray, " N"]
) -> Int64[np.ndarray, " N"]:
    """Return the index of each road id, -1 for those that the city lacks."""
    order = np.argsort(network.road_id, kind="stable")
    place = np.searchsorted(network.road_id, road_id, sorter=order)
    index = order[np.minimum(place, network.roads - 1)]
    return np.where(network.road_id[index] == road_id, index, -1)


def read_queries(
    path: Path, city: City, seed: int, most_away_m: float = MOST_AWAY_M
) -> Queries:
    """Return the queries of a CSV or Parquet file, in its order.

    Either `origin` and `destination` are road ids of the city's source files, or `origin_lon`,
    `origin_lat`, `destination_lon` and `destination_lat` are points, for which the nearest usable
    roads are taken (see `snap_requests`), none that passes farther away than `most_away_m`. Rows
    without a `departure` get that of a training trip drawn at random.

    Raises:
        DataError: A column is missing, or rows cannot be read.
    """
    points = set(POINT_COLUMNS) <= set(header_of(path))
    requests = _Requests(path, points)
    for rows, _ in read_rows(path, POINT_COLUMNS if points else COLUMNS[:2], COLUMNS[2:]):
        requests.add(rows)
    ends, departure_s, missing = requests.read()
    if missing.any():
        trips = city.split("train")
        drawn = np.random.default_rng(seed).integers(0, len(trips), int(missing.sum()))
        departure_s[missing] = trips.entered_at_s[trips.offset[drawn]]
    network = city.network
    if not points:
        ids = ends.astype(np.int64)
        return Queries(road_index(network, ids[:, 0]), road_index(network, ids[:, 1]),
                       departure_s, ids)
    found = snap_requests(network, ends, most_away_m)
    return Queries(found.road[:, 0].copy(), found.road[:, 1].copy(), departure_s,
                   snapped_m=found.away_m)


class _Requests:
    """Puts the rows of a file of requests together."""

    def __init__(self, path: Path, points: bool) -> None:
        self._points = points
        self._wrong = BadRows(path)
        self._rows = 0
        width = len(POINT_COLUMNS) if points else 2
        self._ends: list[np.ndarray] = [np.empty((0, width), np.float64 if points else np.int64)]
        self._departure_s: list[np.ndarray] = [np.empty(0, np.int64)]
        self._missing: list[np.ndarray] = [np.empty(0, bool)]

    def add(self, rows: Rows) -> None:
        """Take some rows in; bad ones are noted."""
        count = len(rows.row)
        self._rows += count
        for i, what in rows.unreadable().items():
            self._wrong.add(int(rows.row[i]), what)
        self._ends.append(self._angles(rows) if self._points else self._roads(rows))
        if not rows.has("departure"):
            self._departure_s.append(np.zeros(count, np.int64))
            self._missing.append(np.ones(count, bool))
            return
        departure = rows.times("departure")
        self._wrong.add_cells(rows, "departure", departure.bad)
        self._departure_s.append(departure.value)
        self._missing.append(departure.missing)

    def read(
        self
    ) -> tuple[Real[np.ndarray, "N W"], Int64[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
        """Return the ends, the departures, and which of these are missing.

        Raises:
            DataError: some rows were bad.
        """
        self._wrong.raise_if_any(self._rows, hint="origin and destination are road ids, departure "
                                 "is like 2015-11-05T08:30:00Z")
        return (np.concatenate(self._ends), np.concatenate(self._departure_s),
                np.concatenate(self._missing))

    def _roads(self, rows: Rows) -> Int64[np.ndarray, "N 2"]:
        ends = [rows.roads(name) for name in COLUMNS[:2]]
        for name, read in zip(COLUMNS[:2], ends, strict=True):
            self._wrong.add_cells(rows, name, read.bad | read.missing)
        return np.stack([read.value for read in ends], axis=1)

    def _angles(self, rows: Rows) -> Float64[np.ndarray, "N 4"]:
        ends = np.zeros((len(rows.row), len(POINT_COLUMNS)))
        for k, name in enumerate(POINT_COLUMNS):
            most = 90 if name.endswith("lat") else 360
            for i, cell in enumerate(rows.cells(name)):
                value = finite_number(cell)
                if value is None or abs(value) > most:
                    self._wrong.add(int(rows.row[i]), f"{rows.called(name)} "
                                    f"{rows.shown(name, i)} is no angle in degrees")
                ends[i, k] = value or 0.0
        return ends
