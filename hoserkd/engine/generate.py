"""From OD pairs and departures to trips (ENGINE.md section 6)."""

import math
import time
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float64, Int64

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import GenerateConfig
from hoserkd.engine.events import Observer, Progress, StopRequested
from hoserkd.engine.search.astar import AStar
from hoserkd.engine.search.beam import Beam
from hoserkd.engine.search.frontier import reachable
from hoserkd.engine.search.incremental import IncrementalStudent
from hoserkd.engine.search.od import draw_queries as draw_queries
from hoserkd.engine.search.queries import Answer, Queries
from hoserkd.engine.search.rounds import Rounds, Strategy
from hoserkd.engine.search.sample import Sample
from hoserkd.engine.student.storage import LoadedStudent
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.types import GeneratedTrips, RoadNetwork
from hoserkd.errors import InterruptedRunError

CHUNK_TRIPS = 256
REPORT_EVERY_S = 0.25
JOB = "searching"


def generate_trips(
    student: LoadedStudent, city: City, queries: Queries, config: GenerateConfig, *,
    device: torch.device, seed: int, observer: Observer, stop: StopRequested,
) -> Iterator[GeneratedTrips]:
    """Yield the answers in the order of the queries, some hundred at a time, as they are made.

    Equal weights, queries, settings and seed give equal trips, whatever the batch size.

    Raises:
        InterruptedRunError: A stop was asked for; all that was yielded is whole.
        CheckpointError: The weights hold numbers that are none.
    """
    network = city.network
    searchable = np.flatnonzero(
        (queries.origin >= 0) & (queries.destination >= 0)
        & (queries.origin != queries.destination))
    strategy = build_strategy(network, queries, config, seed, len(searchable))
    model = student.model.to(device)
    tables = build_network_tables(network, student.meta.config.features, device)
    expander = IncrementalStudent(model, tables, student.meta.times)
    rounds = Rounds(strategy, expander, network.candidates, queries)
    collector = _Collector(network, queries)
    report = _Reporter(observer, len(queries), rounds)
    for ended in rounds.run(searchable):
        for query, answer in ended:
            collector.add(query, answer)
        yield from collector.ready(CHUNK_TRIPS)
        report.update(collector)
        if stop():
            yield from collector.ready(1)
            raise InterruptedRunError(
                f"stopped after {collector.done:,} of {len(queries):,} trips")
    yield from collector.ready(1)
    report.update(collector, last=True)


def build_strategy(
    network: RoadNetwork, queries: Queries, config: GenerateConfig, seed: int, count: int
) -> Strategy:
    """Return the search that the settings name, with room for at most `count` at once."""
    slots = max(1, min(config.batch_size, count))
    centroid = _on_sphere(network.centroid_lonlat)
    if config.search == "astar":
        return AStar(network.candidates, centroid, queries, slots=slots,
                     max_steps=config.max_steps)
    if config.search == "sample":
        return Sample(network.candidates, centroid, queries, slots=slots,
                      max_steps=config.max_steps, temperature=config.temperature,
                      top_p=config.top_p, forbid_loops=config.forbid_loops, seed=seed)
    width = config.beam_width if config.search == "beam" else 1
    return Beam(network.candidates, centroid, queries, slots=slots, max_steps=config.max_steps,
                width=width)


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
        self.reached = 0
        for query in np.flatnonzero(
            (queries.origin < 0) | (queries.destination < 0)
            | (queries.origin == queries.destination)
        ).tolist():
            self._take(query, self._trivial(query))

    def add(self, query: int, answer: Answer) -> None:
        """Take the answer of a search in."""
        if answer.reason not in ("reached", "unreachable"):
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
            yield pack_answers(part, answers)

    def _take(self, query: int, answer: Answer) -> None:
        self._waiting[query] = answer
        self.done += 1
        self.reached += answer.reason in ("reached", "same road")

    def _trivial(self, query: int) -> Answer:
        origin = int(self._queries.origin[query])
        if origin < 0 or self._queries.destination[query] < 0:
            nothing = np.empty(0, np.int32)
            return Answer(nothing, nothing.astype(np.int64), 0.0, "unknown road")
        return Answer(np.array([origin], np.int32), np.zeros(1, np.int64), 0.0, "same road")


def pack_answers(queries: Queries, answers: list[Answer]) -> GeneratedTrips:
    """Return the answers of `queries`, in the same order, as one packed record."""
    length = np.array([len(answer.road) for answer in answers], np.int64)
    offset: Int64[np.ndarray, "N+1"] = np.concatenate([[0], np.cumsum(length)])
    departure = np.repeat(queries.departure_s, length)
    return GeneratedTrips(
        origin=queries.origin,
        destination=queries.destination,
        departure_s=queries.departure_s,
        offset=offset,
        road=np.concatenate([np.empty(0, np.int32), *(a.road for a in answers)]),
        entered_at_s=departure + np.concatenate(
            [np.empty(0, np.int64), *(a.clock_s for a in answers)]),
        log_prob=np.array([a.log_prob for a in answers], np.float64),
        reached=np.array([a.reason in ("reached", "same road") for a in answers], bool),
        reason=tuple(a.reason for a in answers),
        requested=queries.requested,
    )


class _Reporter:
    """Tells the observer how far the searches are, a few times a second."""

    def __init__(self, observer: Observer, total: int, rounds: Rounds) -> None:
        self._observer = observer
        self._total = total
        self._rounds = rounds
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
            "reached_share": collector.reached / done,
            "expansions_per_trip": self._rounds.expansions / done,
        }))
