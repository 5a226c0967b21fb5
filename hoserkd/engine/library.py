"""The engine's jobs for programs and notebooks: one call each, with defaults for all that may be.

What is public, and where it comes from, `hoserkd.engine` says.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import floor
from operator import index

import numpy as np

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import DataConfig, EvaluateConfig, GenerateConfig
from hoserkd.engine.device import resolve_device
from hoserkd.engine.evaluate import evaluate_trips
from hoserkd.engine.events import Observer, Silent, StopRequested, never_stop
from hoserkd.engine.generate import generate_trips
from hoserkd.engine.identity import Identity, student_sha256
from hoserkd.engine.metrics.evaluation import Evaluation, Split
from hoserkd.engine.metrics.model import judge_model
from hoserkd.engine.metrics.statistics import Resampling
from hoserkd.engine.search.od import road_index
from hoserkd.engine.search.queries import Queries
from hoserkd.engine.student.storage import LoadedStudent
from hoserkd.engine.trips.joining import join_trips as join_trips
from hoserkd.engine.trips.maker import TripsMaker, trips_maker
from hoserkd.engine.types import GeneratedTrips
from hoserkd.errors import DataError

SILENT = Silent()


@dataclass(frozen=True, slots=True)
class TripRequest:
    """A trip that is wanted."""

    origin: int
    """Road id, as in `roadmap.geo`."""
    destination: int
    departure: datetime
    """On the city's wall clock; a time zone is disregarded."""


def build_queries(city: City, requests: Iterable[TripRequest]) -> Queries:
    """Return the requests as a search takes them; `draw_queries` draws some from recorded trips.

    A road that the city lacks is answered by `unknown road`.

    Raises:
        TypeError: an id is no whole number.
    """
    asked = list(requests)
    # numpy would cut 0.5 down to road 0.
    ids = [(index(one.origin), index(one.destination)) for one in asked]
    ends = np.array(ids, np.int64).reshape(-1, 2)
    roads = road_index(city.network, ends.ravel()).reshape(-1, 2)
    departure = [floor(one.departure.replace(tzinfo=UTC).timestamp()) for one in asked]
    return Queries(roads[:, 0].copy(), roads[:, 1].copy(), np.array(departure, np.int64), ends)


def search_trips(
    student: LoadedStudent, city: City, queries: Queries, config: GenerateConfig | None = None,
    *, seed: int = 0, device: str = "cpu", observer: Observer = SILENT,
    stop: StopRequested = never_stop,
) -> GeneratedTrips:
    """Return the trips that a student makes of the queries, in their order.

    Args:
        config: Which search and how far; None: `astar` with the defaults.
        seed: Of the draws of `sample`.
        device: `cpu`, `cuda`, `cuda:1` or `auto`.

    Raises:
        DataError: there is no query.
        InterruptedRunError: `stop` said so.
    """
    if not len(queries):
        raise DataError("no trip is asked for")
    return join_trips(list(generate_trips(
        student, city, queries, config or GenerateConfig(), device=resolve_device(device),
        seed=seed, observer=observer, stop=stop)))


def made_by(
    student: LoadedStudent, city: City, queries: Queries, config: GenerateConfig | None = None, *,
    seed: int = 0, name: str = "student", source: str = "requests",
) -> TripsMaker:
    """Return who makes the trips that `search_trips` returns for the same arguments.

    `save_generated` writes it into the file or beside it; equal makers give equal trips.

    Args:
        name: What to call the student.
        source: What to call the requests, such as `test`.
    """
    identity = Identity("student", name, student_sha256(student))
    return trips_maker(identity, city, queries, source, config or GenerateConfig(), seed)


def judge_trips(
    trips: GeneratedTrips, city: City, od: Split = "test", config: EvaluateConfig | None = None,
    *, student: LoadedStudent | None = None, seed: int = 0, device: str = "cpu",
    observer: Observer = SILENT, stop: StopRequested = never_stop,
) -> Evaluation:
    """Return the judgement of trips against the recorded ones of a split.

    Args:
        od: The split that the queries were drawn from.
        config: Bins, resamples and limits; None: the defaults.
        student: Who made the trips, to be judged step by step too: accuracy, calibration, times.
        seed: Of the resamples.

    Raises:
        DataError: the city came without trips, or no trip has two roads.
        InterruptedRunError: `stop` said so.
    """
    how = config or EvaluateConfig()
    model = None if student is None else judge_model(
        student, city, od, DataConfig(), how.model_trips,
        Resampling(how.bootstrap, how.confidence, seed),
        device=resolve_device(device), observer=observer, stop=stop)
    return evaluate_trips(trips, city, how, od, seed=seed, model=model, observer=observer)
