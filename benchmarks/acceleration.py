"""What each option that may speed a training up, or make it smaller, does to a step.

    python -m benchmarks.acceleration [--quick] [--steps 30]

Every case is one option set, against a training with all of them off: `ours_s` and `plain_s` are
median steps of 64 trips, `memory` is the option's peak over the plain one's, and `loss_change`
the relative difference of the mean loss of the first steps, which rounding explains or nothing
does. San Francisco needs real trips (HOSERKD_REAL_DATA, default ../shared/data); without them the
made-up city of Beijing's size stands in.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._report import Report, run_apart
from benchmarks.epoch import made_up_city
from benchmarks.step import prepared_san_francisco

OFF = {"amp": "off", "compile": False, "tf32": False, "recompute": False, "all_roads": False,
       "cuda_graphs": False}
ANYWHERE: dict[str, dict[str, Any]] = {
    "amp bf16": {"amp": "bf16"},
    "compile": {"compile": True},
    "recompute": {"recompute": True},
    "all roads": {"all_roads": True},
    "not deterministic": {"deterministic": False},
}
ON_A_GPU: dict[str, dict[str, Any]] = {
    "amp fp16": {"amp": "fp16"},
    "tf32": {"tf32": True},
    "cuda graphs": {"cuda_graphs": True},
    "amp bf16, cuda graphs": {"amp": "bf16", "cuda_graphs": True},
    "amp bf16, compile": {"amp": "bf16", "compile": True},
}
QUICK = ("amp bf16", "recompute")
BATCH = 64


def main() -> None:
    """Run the cases and print them."""
    import torch

    options = _options()
    cases = ANYWHERE | (ON_A_GPU if torch.cuda.is_available() else {})
    report = Report("acceleration")
    with tempfile.TemporaryDirectory() as folder:
        city = prepared_san_francisco(Path(folder))
        name = "beijing" if city is None else "san_francisco"
        city = city or made_up_city(Path(folder))
        steps = 8 if options.quick else options.steps
        plain = _trained(city, steps, {})
        for case in QUICK if options.quick else cases:
            ours = _trained(city, steps, cases[case])
            report.add(
                f"{name} {case}", ours["parts_ms"]["step"] / 1000,
                plain["parts_ms"]["step"] / 1000, ours["peak_mb"],
                memory=ours["peak_mb"] / plain["peak_mb"],
                loss_change=_mean_loss(ours) / _mean_loss(plain) - 1)
    report.finish()


def _trained(city: Path, steps: int, options: dict[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = run_apart(
        "benchmarks.epoch", "run_training", city=str(city), form="vanilla", batch_size=BATCH,
        steps=steps, options=OFF | options).value
    return value


def _mean_loss(trained: dict[str, Any]) -> float:
    return statistics.fmean(trained["losses"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--steps", type=int, default=30, help="optimiser steps of a case")
    parser.add_argument("--quick", action="store_true", help="eight steps of two options")
    return parser.parse_args()


if __name__ == "__main__":
    main()
