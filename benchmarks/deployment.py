"""The exported next-road program, in batches, against `Predictor`, one question at a time.

    python -m benchmarks.deployment [--quick]

Weights are random: what is measured does not depend on them. Both answer the same random walks.
"""

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._report import Report, arguments, run_apart, timed

ROADS_A_TRIP = 29
PLAIN_TRIPS = 32
BATCHES = (1, 64)


def main() -> None:
    """Run the cases and print them."""
    options = arguments(__doc__.splitlines()[0])
    side, size = (26, "small city") if options.quick else (103, "beijing size")
    report = Report("deployment")
    done = run_apart("benchmarks.deployment", "ask", side=side)
    for batch, seconds in done.value["batches"].items():
        report.add(f"{size} batch {batch}", ours_s=seconds, plain_s=done.value["predictor_s"],
                   peak_mb=done.peak_mb, **done.value["file"])
    report.finish()


def ask(side: int) -> dict[str, Any]:
    """Return the seconds a trip of the program by batch, and those of the predictor."""
    from benchmarks.made_up import made_up_network
    from hoserkd.engine.city.storage import City
    from hoserkd.engine.config import StudentConfig
    from hoserkd.engine.deployment.program import (
        export_next_roads,
        random_walks,
        save_next_roads,
    )
    from hoserkd.engine.predict import Predictor
    from hoserkd.engine.student.storage import LoadedStudent, StudentMeta, new_student
    from hoserkd.engine.types import TimeStatistics

    network = made_up_network(side)
    city = City(Path(), "made-up", "", network, TimeStatistics(3.0, 0.6), {})
    config = StudentConfig()
    torch.manual_seed(0)
    student = LoadedStudent(new_student(config, network).eval(), StudentMeta(
        config, network.roads, len(network.highway_names), network.zones, city.times))
    began = time.perf_counter()
    export = export_next_roads(student, city)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "it.pt2"
        save_next_roads(path, export)
        file = {"export_s": time.perf_counter() - began, "file_mb": path.stat().st_size / 1e6,
                "roads": network.roads, "largest_difference": export.largest_difference}
        began = time.perf_counter()
        program = torch.export.load(path).module()
        file["load_s"] = time.perf_counter() - began
    batches = {}
    for batch in BATCHES:
        asked = random_walks(network, batch, ROADS_A_TRIP, np.random.default_rng(batch))
        asked[2].fill_(ROADS_A_TRIP)
        with torch.inference_mode():
            seconds, _ = timed(lambda asked=asked: program(*asked), repeats=8, warmup=2)
        batches[str(batch)] = seconds / batch
    predictor = Predictor(student, city)
    road, entered, _, destination = random_walks(
        network, PLAIN_TRIPS, ROADS_A_TRIP, np.random.default_rng(0))
    clock = [[datetime.fromtimestamp(s, UTC) for s in trip] for trip in entered.tolist()]

    def one_by_one() -> None:
        for trip, times, end in zip(road.tolist(), clock, destination.tolist(), strict=True):
            predictor.next_roads(trip, times, end)

    seconds, _ = timed(one_by_one, repeats=2, warmup=1)
    return {"batches": batches, "predictor_s": seconds / PLAIN_TRIPS, "file": file}


if __name__ == "__main__":
    main()
