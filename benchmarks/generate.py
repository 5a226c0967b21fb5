"""Batched searches against the public one-at-a-time search on the same weights and OD pairs.

    python -m benchmarks.generate [--quick] [--cases "astar san_francisco_20k" ...]
                                  [--model FILE --city DIR]

The plain search answers the first of the queries, ours all of them; both give seconds and CPU
seconds a trip, and the plain paths are held to ours. A best-first search makes as many plain calls
as we make expansions; its seconds are those of a call times the expansions of all queries. The San
Francisco cases need real trips (HOSERKD_REAL_DATA names their folder, default ../shared/data) and
train a student for a minute or two, unless --model and --city name one. The city of Beijing's size
is made up; its student has made-up weights that head for the destination.
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks._report import Report, peak_mb, run_apart
from benchmarks.made_up import made_up_network, made_up_trips
from benchmarks.plain_hoser import PlainHoser
from benchmarks.plain_search import PlainSearcher
from benchmarks.step import prepared_san_francisco
from hoserkd.engine.city.storage import City, load_city, save_city
from hoserkd.engine.config import (
    CityConfig,
    DistillConfig,
    EngineConfig,
    GenerateConfig,
    StudentConfig,
    TrainConfig,
)
from hoserkd.engine.events import Event, Progress, Silent, never_stop
from hoserkd.engine.generate import draw_queries, generate_trips
from hoserkd.engine.search.quality import Quality
from hoserkd.engine.student.storage import (
    LoadedStudent,
    StudentMeta,
    load_student,
    new_student,
    save_student,
)
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.types import GeneratedTrips, TimeStatistics

HEADING = 4.0
"""Strength with which the made-up student prefers the way to its destination: about as many
expansions a trip as the public search makes in Beijing."""


@dataclass(frozen=True)
class Case:
    """One row of the report."""

    city: str
    search: dict[str, object]
    trips: int
    plain: int


CASES = {
    "astar san_francisco_20k": Case("sf", {"search": "astar"}, 4000, 60),
    "astar san_francisco_20k batch 1024": Case("sf", {"search": "astar", "batch_size": 1024},
                                               4000, 0),
    "astar guided san_francisco_20k": Case("sf", {"search": "astar", "guide": True}, 4000, 0),
    "beam 4 san_francisco_20k": Case("sf", {"search": "beam", "beam_width": 4}, 4000, 100),
    "greedy san_francisco_20k": Case("sf", {"search": "greedy"}, 4000, 0),
    "sample san_francisco_20k": Case("sf", {"search": "sample"}, 4000, 0),
    "astar beijing size": Case("beijing", {"search": "astar"}, 1500, 25),
    "beam 4 beijing size": Case("beijing", {"search": "beam", "beam_width": 4}, 1500, 40),
}


QUICK = ("astar san_francisco_20k", "beam 4 san_francisco_20k")


@dataclass
class Watch:
    """Keeps the last figures that the search reports."""

    figures: dict[str, float] = field(default_factory=dict)

    def notify(self, event: Event) -> None:
        """Keep the figures of a progress report."""
        if isinstance(event, Progress):
            self.figures = dict(event.metrics)


def main() -> None:
    """Run the cases and print them."""
    options = city_options(CASES, __doc__.splitlines()[0], "an eighth of the trips of two cases")
    report = Report("generate")
    with tempfile.TemporaryDirectory() as folder:
        places: dict[str, tuple[Path, Path] | None] = {}
        for name in options.cases or (QUICK if options.quick else CASES):
            case = CASES[name]
            if case.city not in places:
                make = san_francisco if case.city == "sf" else beijing
                places[case.city] = make(Path(folder), options)
            place = places[case.city]
            if place is None:
                print(f"{name}: skipped, HOSERKD_REAL_DATA names no real trips", file=sys.stderr)
                continue
            share = 8 if options.quick else 1
            done = run_apart("benchmarks.generate", "run_case", case=name, city=str(place[0]),
                             model=str(place[1]), trips=case.trips // share,
                             plain=case.plain // share)
            report.add(name, **done.value)
    report.finish()


def run_case(case: str, city: str, model: str, trips: int, plain: int) -> dict[str, Any]:
    """Return the figures of one case: seconds a trip, ours and the plain search's."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    town = load_city(Path(city))
    student = load_student(Path(model), town)
    config = GenerateConfig.model_validate(CASES[case].search)
    queries = draw_queries(town, "test", trips, seed=0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def run(count: int, watch: Watch) -> list[GeneratedTrips]:
        return list(generate_trips(student, town, queries.select(slice(count)), config,
                                   device=device, seed=0, observer=watch, stop=never_stop))

    run(64, Watch())
    watch, quality = Watch(), Quality(town.network)
    began, busy = time.perf_counter(), time.process_time()
    chunks = run(trips, watch)
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    most = peak_mb()
    for chunk in chunks:
        quality.add(chunk)
    expansions = watch.figures["expansions_per_trip"]
    figures: dict[str, Any] = {
        "ours_s": seconds / trips, "peak_mb": most, "cpu_s": busy / trips,
        "trips": trips, "trips_per_s": trips / seconds,
        "expansions_per_trip": expansions, "us_per_expansion": 1e6 * seconds / trips / expansions,
        **quality.figures(),
    }
    if plain:
        figures |= _plain(town, student, config, _paths(chunks)[:plain])
        if config.search == "astar":
            # One call an expansion: a few trips say well what a call costs, not how many there are.
            share = expansions / figures["plain_calls_per_trip"]
            figures |= {name: figures[name] * share for name in ("plain_s", "plain_cpu_s")}
    return figures


def _plain(
    city: City, student: LoadedStudent, config: GenerateConfig, ours: list[list[int]]
) -> dict[str, Any]:
    """Time the plain search on the first queries and count equal paths."""
    queries = draw_queries(city, "test", len(ours), seed=0)
    tables = build_network_tables(city.network, "geographic", torch.device("cpu"))
    searcher = PlainSearcher(PlainHoser(student.model.cpu(), city.network, tables), city.network,
                             student.meta.times)

    def search(i: int) -> list[int]:
        ends = (int(queries.origin[i]), int(queries.destination[i]), int(queries.departure_s[i]))
        return (searcher.beam(*ends, config.beam_width) if config.search == "beam"
                else searcher.best_first(*ends)).road

    threads = min((1, torch.get_num_threads()), key=lambda n: _seconds(n, search))
    torch.set_num_threads(threads)
    searcher.calls, equal, began, busy = 0, 0, time.perf_counter(), time.process_time()
    for i, path in enumerate(ours):
        equal += search(i) == path
    seconds = (time.perf_counter() - began) / len(ours)
    busy = (time.process_time() - busy) / len(ours)
    return {"plain_s": seconds, "plain_cpu_s": busy, "plain_threads": threads,
            "plain_trips": len(ours), "equal_paths": equal,
            "plain_calls_per_trip": searcher.calls / len(ours)}


def _seconds(threads: int, search: Callable[[int], list[int]]) -> float:
    """Return how long the first three searches take with so many threads."""
    torch.set_num_threads(threads)
    began = time.perf_counter()
    for i in range(3):
        search(i)
    return time.perf_counter() - began


def _paths(chunks: list[GeneratedTrips]) -> list[list[int]]:
    return [chunk.road[first:last].tolist() for chunk in chunks
            for first, last in itertools.pairwise(chunk.offset.tolist())]


def san_francisco(folder: Path, options: argparse.Namespace) -> tuple[Path, Path] | None:
    """Return the real city and the student given, or one trained a little."""
    if options.model is not None:
        return options.city, options.model
    directory = prepared_san_francisco(folder)
    if directory is None:
        return None
    from hoserkd.engine.train import train_student

    city = load_city(directory)
    config = EngineConfig(city=CityConfig(name=city.name), distill=DistillConfig(enabled=False),
                          train=TrainConfig(max_steps=15 if options.quick else 150))
    result = train_student(config, city, directory=folder / "run", teacher_sources=None,
                           observer=Silent(), stop=never_stop, resume=False, init_from=None)
    return directory, Path(result.best)


def beijing(folder: Path, options: argparse.Namespace) -> tuple[Path, Path]:
    """Return a made-up city of 40,000 roads and a made-up student."""
    network = made_up_network()
    times = TimeStatistics(3.3, 0.6)
    trips = made_up_trips(network, 2000)
    save_city(folder / "beijing", "beijing", network,
              dict.fromkeys(("train", "val", "test"), trips), times)
    config = StudentConfig()
    torch.manual_seed(0)
    model = new_student(config, network).eval()
    head, width = model.navigator, config.hidden_dim
    with torch.no_grad():
        for first, metric in ((width, head.metric_distance_proj),
                              (2 * width, head.metric_angle_proj)):
            head.k_proj.weight[:, first:first + width] = torch.eye(width)
            metric.weight.fill_(0.6)
            metric.bias.zero_()
        head.v_proj.weight.copy_(0.02 * torch.randn(1, width) - HEADING / width)
    meta = StudentMeta(config, network.roads, len(network.highway_names), network.zones, times)
    save_student(folder / "beijing.safetensors", model, meta)
    return folder / "beijing", folder / "beijing.safetensors"


def city_options(cases: Iterable[str], description: str, quick: str) -> argparse.Namespace:
    """Return the command line of a benchmark that may be given a city and its student."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cases", nargs="+", choices=list(cases))
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--model", type=Path, help="a student of --city, for San Francisco")
    parser.add_argument("--city", type=Path, help="a prepared city")
    options = parser.parse_args()
    if (options.model is None) != (options.city is None):
        parser.error("--model and --city go together")
    return options


if __name__ == "__main__":
    main()
