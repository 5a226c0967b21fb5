"""The demo city's drivers: where they go, which way they like, and how long it takes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from hoserkd.engine.city.synthetic_map import DemoMap
from hoserkd.engine.geo import bearing_rad

START_S = 1_709_510_400
"""2024-03-04 00:00, a Monday."""
DAYS = 28
CLASSES = ("motorway", "motorway_link", "primary", "secondary", "tertiary", "residential")
SPEED_KMH = np.array([92.0, 48.0, 46.0, 38.0, 31.0, 22.0])
CONGESTION = np.array([0.45, 0.30, 0.60, 0.50, 0.30, 0.15])
"""Share of its speed that each class loses in the worst hour at the centre."""
WEEKDAY_HOURS = np.array([1, 1, 1, 1, 1, 2, 5, 9, 9, 6, 5, 5, 6, 5, 5, 6, 8, 10, 9, 6, 4, 3, 2, 2])
WEEKEND_HOURS = np.array([3, 3, 2, 1, 1, 1, 1, 2, 3, 5, 7, 8, 8, 8, 8, 7, 7, 6, 6, 6, 5, 4, 4, 3])
LEFT_S, RIGHT_S = 9.0, 3.0
FEWEST_ROADS, MOST_ROADS = 4, 120
CHOICE_NOISE = 0.16
"""Spread of the log cost that a driver happens to see in a road on one day."""


@dataclass(frozen=True, slots=True)
class DemoTrip:
    """One trip of one driver."""

    driver: int
    road: Int64[np.ndarray, " n"]
    entered_at_s: Int64[np.ndarray, " n"]


class _Town:
    """The map as tables of the drivers' choices."""

    def __init__(self, road_map: DemoMap) -> None:
        self.roads = road_map.roads
        self.kind = np.array([CLASSES.index(name) for name in road_map.highway])
        self.length_m = road_map.length_m
        self.middle = road_map.middle
        self.river = road_map.river_nearness
        self.central = np.exp(-(((road_map.middle - 0.5) / 0.25) ** 2).sum(axis=1))
        ends = np.array([[s[0], s[-2], s[-1], s[1]] for s in road_map.shape])
        out_heading = bearing_rad(ends[:, 1], ends[:, 2])
        in_heading = bearing_rad(ends[:, 0], ends[:, 3])
        order = np.lexsort((road_map.destination, road_map.origin))
        self.after = road_map.destination[order].astype(np.int32)
        before = road_map.origin[order]
        self.first = np.searchsorted(before, np.arange(self.roads + 1)).astype(np.int32)
        turn = (in_heading[self.after] - out_heading[before] + np.pi) % (2 * np.pi) - np.pi
        self.turn_s = np.where(turn < -0.7, LEFT_S, np.where(turn > 0.7, RIGHT_S, 0.0))

    def seconds(self, hour: float, weekend: bool) -> Float64[np.ndarray, " R"]:
        """Return the usual travel time of every road at that hour."""
        lost = CONGESTION[self.kind] * (0.35 + 0.65 * self.central) * _traffic(hour, weekend)
        seconds: Float64[np.ndarray, " R"] = self.length_m / (
            SPEED_KMH[self.kind] / 3.6 * (1 - lost)
        )
        return seconds

    def path(
        self, cost: Float64[np.ndarray, " R"], origin: int, destination: int
    ) -> list[int] | None:
        """Return the cheapest roads from origin to destination, or None if there is no way."""
        graph = csr_matrix(
            (cost[self.after] + self.turn_s, self.after, self.first),
            shape=(self.roads, self.roads),
        )
        _, before = dijkstra(graph, indices=origin, return_predecessors=True)
        path = [destination]
        while path[-1] != origin:
            previous = int(before[path[-1]])
            if previous < 0:
                return None
            path.append(previous)
        return path[::-1]


def _traffic(hour: float, weekend: bool) -> float:
    """Return how full the streets are, 0 to 1."""
    if weekend:
        return 0.15 + 0.35 * float(np.exp(-(((hour - 14) / 3.5) ** 2)))
    morning = np.exp(-(((hour - 8) / 1.3) ** 2))
    evening = np.exp(-(((hour - 17.5) / 1.8) ** 2))
    noon = 0.4 * np.exp(-(((hour - 13) / 3.0) ** 2))
    return float(min(0.05 + max(morning, evening, noon), 1.0))


class _Drivers:
    """The drivers: where each lives and works, and what each likes."""

    def __init__(self, town: _Town, drivers: int, rng: np.random.Generator) -> None:
        self._town = town
        outer = 1.05 - town.central
        minor = np.where(town.kind == CLASSES.index("residential"), 3.0, 1.0)
        street = town.kind > CLASSES.index("motorway_link")
        self._home_weight = _shares(outer * minor * street)
        self._work_weight = _shares((0.03 + town.central) * street)
        self._leisure_weight = _shares((0.05 + town.river**2) * street)
        self.home = rng.choice(town.roads, drivers, p=self._home_weight)
        self.work = rng.choice(town.roads, drivers, p=self._work_weight)
        self.class_taste = rng.normal(0, 0.22, (drivers, len(CLASSES)))
        self.group = rng.integers(0, 4, drivers)
        self._liking = np.stack([_field(town.middle, rng) for _ in range(4)])

    def ends(
        self, driver: int, hour: float, weekend: bool, rng: np.random.Generator
    ) -> tuple[int, int]:
        """Return origin and destination of a trip that the driver makes at that hour."""
        weights = (self._home_weight, self._work_weight, self._leisure_weight)
        anywhere = rng.choice(self._town.roads, p=weights[int(rng.integers(0, 3))])
        elsewhere = rng.choice(self._town.roads, p=weights[2 if weekend else 1])
        home = self._near(int(self.home[driver]), rng)
        work = self._near(int(self.work[driver]), rng)
        if rng.random() < 0.35:
            return int(anywhere), int(elsewhere)
        if weekend:
            return (home, int(elsewhere)) if hour < 15 else (int(elsewhere), home)
        if hour < 11:
            return home, work
        return (work, home) if hour >= 15 else (work, int(anywhere))

    def _near(self, road: int, rng: np.random.Generator) -> int:
        """Return a road close to the given one: nobody always parks at the same place."""
        gap = ((self._town.middle - self._town.middle[road]) ** 2).sum(axis=1)
        return int(rng.choice(np.argpartition(gap, 6)[:6]))

    def seen_cost(
        self, driver: int, hour: float, weekend: bool, rng: np.random.Generator
    ) -> Float64[np.ndarray, " R"]:
        """Return what each road costs in the driver's eyes, in seconds."""
        town = self._town
        log_cost = self.class_taste[driver][town.kind] + self._liking[self.group[driver]]
        if weekend:
            log_cost = log_cost - 0.5 * town.river
        if hour < 6 or hour >= 22:
            # At night people keep to the large, lit roads.
            log_cost = log_cost + 0.35 * (town.kind == CLASSES.index("residential"))
        log_cost = log_cost + rng.normal(0, CHOICE_NOISE, town.roads)
        cost: Float64[np.ndarray, " R"] = town.seconds(hour, weekend) * np.exp(log_cost)
        return cost


def _shares(weight: Float64[np.ndarray, " R"]) -> Float64[np.ndarray, " R"]:
    shares: Float64[np.ndarray, " R"] = weight / weight.sum()
    return shares


def _field(
    middle: Float64[np.ndarray, "R 2"], rng: np.random.Generator
) -> Float64[np.ndarray, " R"]:
    """Return a smooth dislike of parts of the town, a few tenths up and down."""
    centres = rng.uniform(0, 1, (7, 2))
    heights = rng.normal(0, 0.45, 7)
    gap = ((middle[:, None, :] - centres) ** 2).sum(axis=-1)
    field: Float64[np.ndarray, " R"] = (np.exp(-gap / 0.03) * heights).sum(axis=1)
    return field


def draw_trips(road_map: DemoMap, trips: int, seed: int) -> list[DemoTrip]:
    """Return the trips in order of departure.

    Each takes the cheapest way by its driver's own and the day's perception (random utility);
    times follow class, hour and place, with a spread by driver, road and crossing.
    """
    rng = np.random.default_rng([seed, 2])
    town = _Town(road_map)
    drivers = _Drivers(town, max(trips // 20, 10), rng)
    made: list[DemoTrip] = []
    for departure in np.sort(_departures(trips, rng)).tolist():
        trip = None
        while trip is None:
            trip = _one_trip(town, drivers, departure, rng)
        made.append(trip)
    return made


def _departures(trips: int, rng: np.random.Generator) -> Int64[np.ndarray, " n"]:
    day = rng.integers(0, DAYS, trips)
    hours = np.stack([_shares(WEEKDAY_HOURS.astype(float)), _shares(WEEKEND_HOURS.astype(float))])
    chance = hours[(day % 7 >= 5).astype(int)].cumsum(axis=1)
    hour = (rng.random(trips)[:, None] > chance).sum(axis=1).clip(max=23)
    departure: Int64[np.ndarray, " n"] = (
        START_S + day * 86400 + hour * 3600 + rng.integers(0, 3600, trips)
    )
    return departure


def _one_trip(
    town: _Town, drivers: _Drivers, departure: int, rng: np.random.Generator
) -> DemoTrip | None:
    since = departure - START_S
    hour, weekend = since % 86400 / 3600, since // 86400 % 7 >= 5
    driver = int(rng.integers(0, len(drivers.home)))
    origin, destination = drivers.ends(driver, hour, weekend, rng)
    if origin == destination:
        return None
    path = town.path(drivers.seen_cost(driver, hour, weekend, rng), origin, destination)
    if path is None or not FEWEST_ROADS <= len(path) <= MOST_ROADS:
        return None
    road = np.array(path)
    pace = rng.lognormal(0, 0.10) * rng.lognormal(0, 0.12, len(road))
    waits = rng.exponential(4.0, len(road)) * (rng.random(len(road)) < 0.4)
    taken = town.seconds(hour, weekend)[road] * pace + waits
    entered = departure + np.round(np.concatenate([[0.0], np.cumsum(taken[:-1])])).astype(np.int64)
    return DemoTrip(driver=driver, road=road, entered_at_s=entered)
