"""How long an evaluation takes and how much memory, beside the plain Python forms.

    python -m benchmarks.evaluate [--quick]

Cases: `pair dtw`, `pair hausdorff`, `pair edr`, `pair frechet`, `pair all four` (our kernel gives
all of them in one pass, so its time stands beside each), `distributions` and `whole` (every
metric, floor, ceilings, intervals, scenarios, the HTML page; the second of two evaluations in one
process). Trips are the real ones of san_francisco (HOSERKD_REAL_DATA or ../shared/data), or made
up where those are not; what stands for a model's trips are likeliest chains of turns. The plain
forms run on a sample; their time is scaled to the whole.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._report import REPOSITORY, Report, arguments, run_apart, timed
from benchmarks.made_up import made_up_network, made_up_trips
from benchmarks.plain_evaluate import divergence, dtw, edr, features, frechet, hausdorff
from hoserkd.engine.city.storage import City, load_city, save_city
from hoserkd.engine.config import CityConfig, EvaluateConfig
from hoserkd.engine.events import Silent, never_stop
from hoserkd.engine.metrics.baselines import frequent_turns, real_sample
from hoserkd.engine.metrics.distributions import histogram, jensen_shannon, trip_features
from hoserkd.engine.metrics.packed import as_trajectories, take_trips
from hoserkd.engine.metrics.pairwise import match_trips, pair_distances, road_cells
from hoserkd.engine.types import GeneratedTrips, TimeStatistics, TrajectorySet

FULL, QUICK = (5000, 45_000), (500, 4000)
SAMPLE, QUICK_SAMPLE = 200, 40
REPEATS = 15


def city_of(folder: Path, quick: bool) -> City:
    """Return San Francisco prepared in `folder`, or a made-up city of its size."""
    from hoserkd.engine.prepare import prepare_city

    name = "san_francisco_20k" if quick else "san_francisco"
    real = Path(os.environ.get("HOSERKD_REAL_DATA", REPOSITORY.parent / "shared" / "data")) / name
    if (real / "roadmap.geo").is_file():
        prepare_city(CityConfig(name=name), real, folder, force=False, observer=Silent(),
                     stop=never_stop)
        return load_city(folder)
    network = made_up_network(side=43, zones=100)
    sizes = QUICK if quick else FULL
    splits = {"train": made_up_trips(network, sizes[1], 1), "val": made_up_trips(network, 100, 2),
              "test": made_up_trips(network, sizes[1], 3)}
    return save_city(folder, "made up", network, splits, TimeStatistics(3.0, 1.0))


def generated_trips(city: City, count: int) -> GeneratedTrips:
    """Return likeliest chains of turns for requests of real trips."""
    queries = real_sample(city.split("test"), count, 0)
    return frequent_turns(city.network, queries, city.split("train"))


def whole(folder: str, count: int) -> dict[str, Any]:
    """Evaluate twice with the page; run in a process of its own by `main`."""
    from hoserkd.engine.evaluate import evaluate_trips
    from hoserkd.report.html import render_html
    from hoserkd.report.records import JudgedRun, Report

    city = load_city(Path(folder))
    generated = generated_trips(city, count)
    seconds, parts = [], {}
    for _ in range(2):
        began = time.perf_counter()
        found = evaluate_trips(generated, city, EvaluateConfig(), "test")
        judged = time.perf_counter()
        page = render_html(Report("benchmark", (JudgedRun(found, "benchmark"),)))
        ended = time.perf_counter()
        seconds.append(ended - began)
        parts = {"metrics_s": judged - began, "page_s": ended - judged, "page_bytes": len(page)}
    return {"cold_s": seconds[0], "warm_s": seconds[1], "pairs": found.counts["pairs"],
            "real": found.counts["real"], **parts}


def plain_points(trips: TrajectorySet, index: int, lonlat: np.ndarray) -> list[Any]:
    """Return a trip's centroids as the plain forms take them."""
    roads = trips.road[trips.offset[index]:trips.offset[index + 1]]
    return [tuple(x) for x in lonlat[roads].tolist()]


def pair_cases(report: Report, city: City, generated: GeneratedTrips, sample: int) -> float:
    """Add the pair cases; return the plain seconds a pair of all four metrics."""
    network, real = city.network, city.split("test")
    trips = as_trajectories(generated)
    pairs = match_trips(trips, real, road_cells(network.centroid_lonlat, 200.0))
    ours, found = timed(lambda: pair_distances(trips, real, pairs, network.centroid_lonlat),
                        REPEATS, warmup=1)
    chosen = np.random.default_rng(0).choice(len(pairs), min(sample, len(pairs)), replace=False)
    points = [(plain_points(trips, i, network.centroid_lonlat),
               plain_points(real, j, network.centroid_lonlat)) for i, j in pairs[chosen].tolist()]
    forms: dict[str, tuple[Callable[..., float], np.ndarray]] = {
        "dtw": (dtw, found.dtw_km), "hausdorff": (hausdorff, found.hausdorff_km),
        "edr": (edr, found.edr), "frechet": (frechet, found.frechet_km)}
    total = 0.0
    cells = float(np.mean([len(a) * len(b) for a, b in points]))
    for name, (form, values) in forms.items():
        plain, expected = timed(partial(lambda f: [f(a, b) for a, b in points], form))
        np.testing.assert_allclose(values[chosen], expected, rtol=1e-9, atol=1e-12)
        total += plain / len(points)
        report.add(f"pair {name}", ours, plain / len(points) * len(pairs), pairs=len(pairs),
                   us_a_pair=1e6 * ours / len(pairs))
    report.add("pair all four", ours, total * len(pairs), pairs=len(pairs),
               us_a_pair=1e6 * ours / len(pairs), cells_a_pair=cells, plain_sample=len(points))
    return total


def distribution_case(report: Report, city: City, generated: GeneratedTrips, sample: int) -> float:
    """Add the case of the four distributions; return its plain seconds, scaled."""
    lonlat = city.network.centroid_lonlat
    real, trips = city.split("test"), as_trajectories(generated)
    names = ("distance_km", "radius_km", "step_duration_min", "trip_duration_min")

    def ours() -> list[float]:
        a, b = trip_features(real, lonlat), trip_features(trips, lonlat)
        counts = [histogram(getattr(a, n), getattr(b, n), 100) for n in names]
        return [float(jensen_shannon(c.real, c.other)) for c in counts]

    seconds, _ = timed(ours, REPEATS, warmup=1)
    places = [tuple(x) for x in lonlat.tolist()]
    some = [take_trips(x, np.arange(min(20 * sample, len(x)))) for x in (real, trips)]
    as_lists = [[list(zip(x.road[s:e].tolist(), x.entered_at_s[s:e].tolist(), strict=True))
                 for s, e in zip(x.offset[:-1], x.offset[1:], strict=True)] for x in some]

    def plain() -> list[float]:
        a, b = (features(x, places) for x in as_lists)
        return [divergence(p, q) for p, q in zip(a, b, strict=True)]

    plain_s, expected = timed(plain)
    a, b = (trip_features(x, lonlat) for x in some)
    for name, value in zip(names, expected, strict=True):
        counts = histogram(getattr(a, name), getattr(b, name), 100)
        assert abs(float(jensen_shannon(counts.real, counts.other)) - value) < 1e-9
    share = sum(len(x.road) for x in some) / (len(real.road) + len(trips.road))
    report.add("distributions", seconds, plain_s / share, real=len(real), generated=len(trips),
               points=len(real.road) + len(trips.road), plain_share=share)
    return plain_s / share


def main() -> None:
    """Run all cases."""
    quick = arguments(str(__doc__).splitlines()[0]).quick
    count = (QUICK if quick else FULL)[0]
    sample = QUICK_SAMPLE if quick else SAMPLE
    report = Report("evaluate")
    folder = Path(tempfile.mkdtemp(prefix="hoserkd-evaluate-"))
    try:
        city = city_of(folder / "city", quick)
        generated = generated_trips(city, count)
        pair_s = pair_cases(report, city, generated, sample)
        distributions_s = distribution_case(report, city, generated, sample)
        apart = run_apart("benchmarks.evaluate", "whole", folder=str(folder / "city"), count=count)
        value = apart.value
        # The plain forms know pairs and distributions alone: no intervals, floor or ceilings.
        plain = pair_s * value["pairs"] + distributions_s
        report.add(f"whole {count} vs {value['real']}", value.pop("warm_s"), plain, apart.peak_mb,
                   **value)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.finish()


if __name__ == "__main__":
    main()
