"""Clocks that run back: counted, said, and in no figure on durations."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from five_roads import DATA, SMOKE

TRIPS = DATA / "02-clock-that-runs-back" / "trips.csv"


def test_a_clock_that_runs_back_is_told_and_left_out(
    tiny: Path, run_cli: Callable[..., Any]
) -> None:
    done = run_cli("evaluate", TRIPS, *SMOKE, "--set", "evaluate.bootstrap=0", "-o", "out")
    assert done.exit_code == 0, done.stderr
    (found,) = json.loads(Path("out/evaluation.json").read_text())["evaluations"]
    note = "the clock of 1 of 2 trips runs back (for instance trip 1)"
    assert any(note in each for each in found["notes"])
    assert note in " ".join(done.stderr.split())
    assert note in Path("out/report.html").read_text()
    assert found["counts"]["backward_trips"] == 1
    # The second trip alone: two steps, 40 seconds.
    histograms = found["histograms"]
    assert sum(histograms["trip_duration"]["generated"]) == 1
    assert sum(histograms["step_duration"]["generated"]) == 2
    assert abs(found["metrics"]["mean_trip_duration_min"]["value"] - 40 / 60) < 1e-12
    assert sum(histograms["distance"]["generated"]) == 2
