"""An epoch of `hoserkd train` as a user has it: vanilla, distilled, and its validation.

    python -m benchmarks.epoch [--steps 40] [--cases ...] [--quick]

Trains some optimiser steps with all that belongs to them (data, loss, clipping, AdamW, events)
and judges the validation split; the epoch's time is steps times the median step. The plain form
is that of `benchmarks.step`, its data preparation included; judging, it encodes the road network
once and runs forward alone. The San Francisco cases need real trips: HOSERKD_REAL_DATA names
their folder (default ../shared/data). With a GPU, `gpu_busy` is the share of the time of some
steps in which a kernel ran, by torch's profiler.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._report import Report, peak_mb, run_apart
from benchmarks.step import prepared_san_francisco

BEIJING_TRIPS = 600_000
MADE_UP_TRIPS = 20_000
CASES = {
    "san_francisco batch 64": ("san_francisco", 64),
    "beijing batch 64": ("beijing", 64),
    "beijing batch 512": ("beijing", 512),
}
WARMUP_STEPS = 4


def main() -> None:
    """Run the cases and print them."""
    options = _options()
    steps = 8 if options.quick else options.steps
    count = 1 if options.quick else 2
    report = Report("epoch")
    with tempfile.TemporaryDirectory() as folder:
        for case in options.cases:
            name, batch_size = CASES[case]
            city = (prepared_san_francisco(Path(folder)) if name == "san_francisco"
                    else made_up_city(Path(folder)))
            if city is None:
                print(f"{case}: skipped, HOSERKD_REAL_DATA names no real trips", file=sys.stderr)
                continue
            plain = None if options.no_plain else run_apart(
                "benchmarks.step", "run_plain", case=case, city=str(city), count=count,
                threads=None).value["parts_ms"]
            for form in ("vanilla", "distilled"):
                ours = run_apart("benchmarks.epoch", "run_training", city=str(city), form=form,
                                 batch_size=batch_size, steps=steps).value
                _add(report, f"{case} {form}", name, ours,
                     None if plain is None else sum(plain.values()))
                if form == "vanilla":
                    _add_judging(report, f"{case} judging", ours, plain)
    report.finish()


def made_up_city(folder: Path) -> Path:
    """Return a city of Beijing's size whose training split stands for a longer one."""
    from benchmarks.made_up import made_up_network, made_up_trips
    from hoserkd.engine.city.storage import save_city
    from hoserkd.engine.types import TimeStatistics

    directory = folder / "beijing"
    if not directory.exists():
        network = made_up_network()
        splits = {name: made_up_trips(network, count, seed) for seed, (name, count) in enumerate(
            [("train", MADE_UP_TRIPS), ("val", 2000), ("test", 10)])}
        save_city(directory, "beijing", network, splits, TimeStatistics(3.3, 0.6))
    return directory


def run_training(
    city: str, form: str, batch_size: int, steps: int, options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Train `steps` optimiser steps and judge once; return medians and rates.

    Args:
        options: Further settings of the section `train`.
    """
    import torch

    from hoserkd.engine.city.storage import load_city
    from hoserkd.engine.config import DistillConfig, EngineConfig, ProfilingConfig, TrainConfig
    from hoserkd.engine.train import train_student

    town = load_city(Path(city))
    watch = Watch()
    busy = BusyShare(steps) if torch.cuda.is_available() else None
    with tempfile.TemporaryDirectory() as folder:
        config = EngineConfig(
            distill=DistillConfig(enabled=form == "distilled"),
            train=TrainConfig(epochs=1000, batch_size=batch_size, max_steps=steps,
                              **(options or {})),
            profiling=ProfilingConfig(interval=1))
        sources = _random_teacher(config, town, Path(folder)) if form == "distilled" else None
        train_student(config, town, directory=Path(folder) / "run", teacher_sources=sources,
                      observer=watch)
        if busy is not None:
            # The timer's events would be counted in, so these steps are not timed.
            config = config.model_copy(update={"profiling": ProfilingConfig(interval=0)})
            train_student(config, town, directory=Path(folder) / "busy", teacher_sources=sources,
                          stop=busy)
    parts = watch.parts[WARMUP_STEPS:]
    names = sorted({name for part in parts for name in part})
    return {"parts_ms": {n: statistics.median(p.get(n, 0.0) for p in parts) for n in names},
            "judged_trips": len(town.split("val")), "judging_s": watch.judging_s,
            "trips": len(town.split("train")), "batch_size": batch_size,
            "peak_mb": (peak_mb() if busy is None else torch.cuda.max_memory_allocated() / 1e6),
            "losses": watch.losses,
            **({} if busy is None else {"gpu_busy": busy.share})}


def _random_teacher(config, town, folder: Path):  # type: ignore[no-untyped-def]
    """Return the stored signal of a small teacher with random weights."""
    import numpy as np
    import torch

    from hoserkd.engine.build import build_teacher_sources
    from hoserkd.engine.city.grid import Grid
    from hoserkd.engine.teacher.lmtad import LMTAD, LMTADDimensions
    from hoserkd.engine.teacher.storage import TeacherCard, save_teacher

    torch.manual_seed(0)
    grid = Grid.covering(np.asarray(town.network.centroid_lonlat), 0.001)
    dimensions = LMTADDimensions(grid.cells + 3, 64, 1, 2, 16)
    save_teacher(folder / "teacher", LMTAD(dimensions), TeacherCard(
        "random", dimensions, grid, grid.cells + 2, grid.cells + 1, grid.cells, "", {}))
    return build_teacher_sources(config, town, folder / "teacher", auto=True)


class Watch:
    """Keeps the timings of every step, and how long the validation takes."""

    def __init__(self) -> None:
        self.parts: list[dict[str, float]] = []
        self.losses: list[float] = []
        self.judging_s = 0.0
        self._began = 0.0

    def notify(self, event) -> None:  # type: ignore[no-untyped-def]
        """Keep what matters of `event`."""
        from hoserkd.engine.events import Progress, StepDone

        if isinstance(event, StepDone):
            self.parts.append(dict(event.timings_ms))
            self.losses.append(event.metrics["loss"])
        elif isinstance(event, Progress) and "val" in event.job:
            if event.done == 0:
                self._began = time.perf_counter()
            elif event.done == event.total:
                self.judging_s = time.perf_counter() - self._began


class BusyShare:
    """Profiles the GPU from the end of the warm-up to the last step; asked as a stop request is."""

    def __init__(self, steps: int) -> None:
        self.share = 0.0
        self._steps = steps
        self._asked = 0
        self._profile: Any = None
        self._began = 0.0

    def __call__(self) -> bool:
        """Count a step; never ask to stop."""
        import torch

        self._asked += 1
        if self._asked not in (WARMUP_STEPS, self._steps):
            return False
        torch.cuda.synchronize()
        if self._asked == WARMUP_STEPS:
            activities = [torch.profiler.ProfilerActivity.CUDA]
            self._profile = torch.profiler.profile(activities=activities)
            self._profile.start()
            self._began = time.perf_counter()
        else:
            passed = time.perf_counter() - self._began
            self._profile.stop()
            kernels = sum(row.self_device_time_total for row in self._profile.key_averages())
            self.share = kernels / 1e6 / passed
        return False


def _add_judging(
    report: Report, case: str, ours: dict[str, Any], plain: dict[str, float] | None
) -> None:
    trips, seconds = ours["judged_trips"], ours["judging_s"]
    plain_s = None
    if plain is not None:
        batches = trips / ours["batch_size"]
        forward = plain["data"] + plain["forward_trips"]
        plain_s = (plain["forward_network"] + batches * forward) / 1000
    training = 1000 * ours["batch_size"] / ours["parts_ms"]["step"]
    report.add(case, ours_s=seconds, plain_s=plain_s, peak_mb=ours["peak_mb"], trips=trips,
               trips_per_s=trips / seconds, training_trips_per_s=training,
               times_training_speed=trips / seconds / training)


def _add(report: Report, case: str, name: str, ours: dict[str, Any],
         plain_step_ms: float | None) -> None:
    parts, trips = ours["parts_ms"], BEIJING_TRIPS if name == "beijing" else ours["trips"]
    step_ms, updates = parts["step"], trips / ours["batch_size"]
    report.add(
        case,
        ours_s=updates * step_ms / 1000,
        plain_s=None if plain_step_ms is None else updates * plain_step_ms / 1000,
        peak_mb=ours["peak_mb"],
        trips=trips,
        step_ms=step_ms,
        data_share=parts["data"] / step_ms,
        teacher_share=parts.get("teacher", 0.0) / step_ms,
        trips_per_s=1000 * ours["batch_size"] / step_ms,
        **({"gpu_busy": ours["gpu_busy"]} if "gpu_busy" in ours else {}),
        **{f"{part}_ms": ms for part, ms in parts.items() if part != "step"},
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES)
    parser.add_argument("--steps", type=int, default=40, help="optimiser steps to train")
    parser.add_argument("--no-plain", action="store_true", help="leave the plain form out")
    parser.add_argument("--quick", action="store_true", help="eight steps of the first case")
    options = parser.parse_args()
    if options.cases is None:
        options.cases = list(CASES)[:1] if options.quick else list(CASES)
    return options


if __name__ == "__main__":
    main()
