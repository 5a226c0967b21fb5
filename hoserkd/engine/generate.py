"""From OD pairs and departures to trips (ENGINE.md section 6)."""

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float64, Int64

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import GenerateConfig
from hoserkd.engine.events import Observer, Progress, StopRequested
from hoserkd.engine.geo import great_circle_m
from hoserkd.engine.metrics.packed import arrived
from hoserkd.engine.search.astar import AStar
from hoserkd.engine.search.beam import Beam
from hoserkd.engine.search.frontier import reachable
from hoserkd.engine.search.guide import Guide, build_guide
from hoserkd.engine.search.incremental import incremental_students
from hoserkd.engine.search.od import draw_queries as draw_queries
from hoserkd.engine.search.queries import Answer, Queries, Reason
from hoserkd.engine.search.rounds import Rounds, Strategy
from hoserkd.engine.search.sample import Sample
from hoserkd.engine.search.team import Team
from hoserkd.engine.student.storage import LoadedStudent
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.types import GeneratedTrips, RoadNetwork
from hoserkd.errors import InterruptedRunError

CHUNK_TRIPS = 256
WINDOW_TRIPS = 4096
"""Within so many queries the long ways are searched first, so that none ends up alone."""
REPORT_EVERY_S = 0.25
JOB = "searching"


def generate_trips(
    student: LoadedStudent, city: City, queries: Queries, config: GenerateConfig, *,
    device: torch.device, seed: int, observer: Observer, stop: StopRequested,
) -> Iterator[GeneratedTrips]:
    """Yield the answers in the order of the queries, some hundred at a time, as they are made.

    Equal weights, queries, settings and seed give equal trips, whatever the batch size and the
    number of workers (limits of time apart).

    Raises:
        InterruptedRunError: A stop was asked for; all that was yielded is whole.
        CheckpointError: The weights hold numbers that are none.
    """
    began = time.perf_counter()
    network = city.network
    waiting = deque(_search_order(network, queries).tolist())
    team = _build_team(student, city, queries, config, device, seed, len(waiting))
    collector = _Collector(network, queries)
    report = _Reporter(observer, len(queries), team)

    def late() -> bool:
        spent = time.perf_counter() - began
        return config.time_limit_s is not None and spent > config.time_limit_s

    with closing(team.run(waiting, late)) as running:
        for ended in running:
            for query, answer in ended:
                collector.add(query, answer)
            yield from collector.ready(CHUNK_TRIPS)
            report.update(collector)
            if stop():
                yield from collector.ready(1)
                raise InterruptedRunError(
                    f"stopped after {collector.yielded:,} of {len(queries):,} trips")
    for query in waiting:
        collector.add(query, _at_origin(int(queries.origin[query]), "time limit"))
    yield from collector.ready(1)
    report.update(collector, last=True)


def _search_order(network: RoadNetwork, queries: Queries) -> Int64[np.ndarray, " M"]:
    """Return the queries that need a search: window by window, in each the longest way first."""
    known = (queries.origin >= 0) & (queries.destination >= 0)
    index = np.flatnonzero(known & (queries.origin != queries.destination))
    centroid = network.centroid_lonlat
    away = great_circle_m(centroid[queries.origin[index]], centroid[queries.destination[index]])
    return index[np.lexsort((-away, index // WINDOW_TRIPS))]


def _build_team(
    student: LoadedStudent, city: City, queries: Queries, config: GenerateConfig,
    device: torch.device, seed: int, count: int,
) -> Team:
    """Return the workers, each with its own slots and memory and one encoding for all."""
    network, model = city.network, student.model.to(device)
    tables = build_network_tables(network, student.meta.config.features, device)
    wanted = config.workers or torch.get_num_threads()
    workers = max(1, min(wanted if device.type == "cpu" else 1, count))
    slots = -(-max(1, min(config.batch_size, count)) // workers)
    memory = (config.memory_mb << 20) // workers
    students = incremental_students(model, tables, student.meta.times, workers, memory)
    guide = build_guide(city, config.guide_weight) if config.guide else None
    return Team([
        Rounds(build_strategy(network, queries, config, seed, slots, guide), expander,
               network.candidates, queries, config.search_time_limit_s or math.inf)
        for expander in students])


def build_strategy(
    network: RoadNetwork, queries: Queries, config: GenerateConfig, seed: int, slots: int,
    guide: Guide | None = None,
) -> Strategy:
    """Return the search that the settings name."""
    centroid = _on_sphere(network.centroid_lonlat)
    if config.search == "astar":
        return AStar(network.candidates, centroid, queries, slots=slots,
                     max_steps=config.max_steps, guide=guide)
    if config.search == "sample":
        return Sample(network.candidates, centroid, queries, slots=slots,
                      max_steps=config.max_steps, temperature=config.temperature,
                      top_p=config.top_p, forbid_loops=config.forbid_loops, seed=seed,
                      attempts=config.attempts)
    width = config.beam_width if config.search == "beam" else 1
    return Beam(network.candidates, centroid, queries, slots=slots, max_steps=config.max_steps,
                width=width, normalised=config.length_normalised and width > 1)


def _on_sphere(lonlat: Float64[np.ndarray, "R 2"]) -> Float64[np.ndarray, "R 3"]:
    lon, lat = np.radians(lonlat).T
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


class _Collector:
    """Puts answers into the order of the queries, and adds those that need no search."""

    def __init__(self, network: RoadNetwork, queries: Queries) -> None:
        self._network = network
        self._queries = queries
        self._waiting: dict[int, Answer] = {}
        self._first = 0
        self.done = 0
        self.yielded = 0
        self.asked = 0
        """Done queries for a way between two different roads."""
        self.reached = 0
        for query in np.flatnonzero(
            (queries.origin < 0) | (queries.destination < 0)
            | (queries.origin == queries.destination)
        ).tolist():
            self._take(query, self._trivial(query))

    def add(self, query: int, answer: Answer) -> None:
        """Take the answer of a search in."""
        if answer.reason in ("dead end", "max steps"):
            candidates = self._network.candidates
            origin, destination = self._queries.origin[query], self._queries.destination[query]
            if not reachable(candidates.offset, candidates.road, int(origin), int(destination)):
                stuck = answer.reason == "dead end" and len(answer.road) == 1
                answer = answer._replace(reason="dead end" if stuck else "unreachable")
        self._take(query, answer)

    def ready(self, least: int) -> Iterator[GeneratedTrips]:
        """Yield the answers that nothing before them is missing for, if at least `least`."""
        last = self._first
        while last in self._waiting:
            last += 1
        if last - self._first >= least:
            answers = [self._waiting.pop(i) for i in range(self._first, last)]
            part = self._queries.select(slice(self._first, last))
            self._first = last
            self.yielded += len(answers)
            yield pack_answers(part, answers)

    def _take(self, query: int, answer: Answer) -> None:
        self._waiting[query] = answer
        self.done += 1
        origin, destination = self._queries.origin[query], self._queries.destination[query]
        self.asked += int(origin >= 0 and destination >= 0 and origin != destination)
        self.reached += answer.reason == "reached"

    def _trivial(self, query: int) -> Answer:
        origin = int(self._queries.origin[query])
        if origin < 0 or self._queries.destination[query] < 0:
            nothing = np.empty(0, np.int32)
            reason: Reason = "unknown road" if self._queries.snapped_m is None else "too far"
            return Answer(nothing, nothing.astype(np.int64), 0.0, reason)
        return _at_origin(origin, "same road")


def _at_origin(origin: int, reason: Reason) -> Answer:
    return Answer(np.array([origin], np.int32), np.zeros(1, np.int64), 0.0, reason)


def pack_answers(queries: Queries, answers: list[Answer]) -> GeneratedTrips:
    """Return the answers of `queries`, in the same order, as one packed record."""
    length = np.array([len(answer.road) for answer in answers], np.int64)
    offset: Int64[np.ndarray, " N+1"] = np.concatenate([[0], np.cumsum(length)])
    departure = np.repeat(queries.departure_s, length)
    packed = GeneratedTrips(
        origin=queries.origin,
        destination=queries.destination,
        departure_s=queries.departure_s,
        offset=offset,
        road=np.concatenate([np.empty(0, np.int32), *(a.road for a in answers)]),
        entered_at_s=departure + np.concatenate(
            [np.empty(0, np.int64), *(a.clock_s for a in answers)]),
        log_prob=np.array([a.log_prob for a in answers], np.float64),
        reached=np.zeros(len(answers), bool),
        reason=tuple(a.reason for a in answers),
        requested=queries.requested,
    )
    return replace(packed, reached=arrived(packed))


class _Reporter:
    """Tells the observer how far the searches are, a few times a second."""

    def __init__(self, observer: Observer, total: int, team: Team) -> None:
        self._observer = observer
        self._total = total
        self._team = team
        self._began = time.perf_counter()
        self._next = -math.inf

    def update(self, collector: _Collector, last: bool = False) -> None:
        """Report if it is time to, or if this is the last report."""
        now = time.perf_counter()
        if now < self._next and not last:
            return
        self._next = now + REPORT_EVERY_S
        done = max(collector.done, 1)
        self._observer.notify(Progress(JOB, collector.done, self._total, "trips", {
            "trips_per_s": collector.done / max(now - self._began, 1e-9),
            "completion": collector.reached / max(collector.asked, 1),
            "expansions_per_trip": self._team.expansions / done,
        }))
