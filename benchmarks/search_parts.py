"""Where the time of a best-first search goes, part by part, for one worker.

    python -m benchmarks.search_parts [--quick] [--cases san_francisco_20k "beijing size"]
                                      [--model FILE --city DIR]

`ours_s` is what a part takes of one expansion, `share` what of the whole; the parts are timed by
clocks around their calls, which the last line, what no clock saw, pays for too. The cities and
students are those of `benchmarks.generate`.
"""

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks._report import Report, run_apart
from benchmarks.generate import beijing, city_options, san_francisco
from hoserkd.engine.city.storage import load_city
from hoserkd.engine.config import GenerateConfig
from hoserkd.engine.events import Silent, never_stop
from hoserkd.engine.generate import draw_queries, generate_trips
from hoserkd.engine.search import astar, compiled_forward, rounds
from hoserkd.engine.student.storage import load_student

CASES: dict[str, tuple[Callable[..., tuple[Path, Path] | None], int]] = {
    "san_francisco_20k": (san_francisco, 1200),
    "beijing size": (beijing, 600),
}
PARTS: tuple[tuple[Any, str, str], ...] = (
    (torch, "addmm", "matrix products"),
    (compiled_forward, "attend", "attention"),
    (compiled_forward, "relations", "attention"),
    (compiled_forward.functional, "gelu", "activations and norms"),
    (torch, "layer_norm", "activations and norms"),
    (compiled_forward, "place_nodes", "embedding"),
    (compiled_forward, "compiled_features", "candidates"),
    (compiled_forward, "candidate_logits", "candidates"),
    (compiled_forward, "log_softmax", "candidates"),
    (compiled_forward, "travel_seconds", "candidates"),
    (rounds, "histories", "trees and queues"),
    (rounds, "pack_candidates", "trees and queues"),
    (rounds, "claim_rows", "trees and queues"),
    (rounds, "rows_of", "trees and queues"),
    (astar, "_start_all", "trees and queues"),
    (astar, "_select", "trees and queues"),
    (astar, "_absorb", "trees and queues"),
)
REST = "the rest: Python, small tensors, the clocks"


class Count:
    """Keeps the number of expansions that the search reports."""

    expansions = 0.0

    def notify(self, event: Any) -> None:
        """Keep the figures of a progress report."""
        self.expansions = event.metrics["expansions_per_trip"] * event.done


def main() -> None:
    """Run the cases and print their parts."""
    options = city_options(CASES, str(__doc__).splitlines()[0], "a sixth of the trips")
    report = Report("search_parts")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.cases or CASES:
            make, trips = CASES[name]
            place = make(Path(folder), options)
            if place is None:
                print(f"{name}: skipped, HOSERKD_REAL_DATA names no real trips", file=sys.stderr)
                continue
            done = run_apart("benchmarks.search_parts", "run_case", city=str(place[0]),
                             model=str(place[1]), trips=trips // (6 if options.quick else 1))
            total = sum(done.value.values())
            for part, seconds in done.value.items():
                report.add(f"{name} {part}", seconds, share=seconds / total)
    report.finish()


def run_case(city: str, model: str, trips: int) -> dict[str, float]:
    """Return the seconds that each part takes of one expansion."""
    torch.set_num_threads(1)
    town = load_city(Path(city))
    student = load_student(Path(model), town)
    queries = draw_queries(town, "test", trips, seed=0)
    config = GenerateConfig(workers=1, batch_size=128)
    device = torch.device("cpu")

    def run(observer: Any, count: int) -> float:
        began = time.perf_counter()
        for _ in generate_trips(student, town, queries.select(slice(count)), config, device=device,
                                seed=0, observer=observer, stop=never_stop):
            pass
        return time.perf_counter() - began

    run(Silent(), 32)
    count, spent = Count(), Counter[str]()
    with ExitStack() as clocks:
        for owner, name, part in PARTS:
            clocks.enter_context(_clocked(owner, name, part, spent))
        whole = run(count, trips)
    spent[REST] = whole - sum(spent.values())
    return {part: seconds / count.expansions for part, seconds in spent.most_common()}


@contextmanager
def _clocked(owner: Any, name: str, part: str, spent: Counter[str]) -> Iterator[None]:
    """Add the seconds of every call of a function to its part, for a while."""
    function = getattr(owner, name)

    def clocked(*args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        answer = function(*args, **options)
        spent[part] += time.perf_counter() - began
        return answer

    setattr(owner, name, clocked)
    try:
        yield
    finally:
        setattr(owner, name, function)


if __name__ == "__main__":
    main()
