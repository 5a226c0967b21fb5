"""Roads that do not join: counted, said, and in no length over the shortest way."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from five_roads import DATA, SMOKE

TRIPS = DATA / "03-roads-that-do-not-join" / "trips.csv"


def test_moves_that_the_network_lacks_are_told_and_left_out(
    tiny: Path, run_cli: Callable[..., Any]
) -> None:
    done = run_cli("evaluate", TRIPS, *SMOKE, "--set", "evaluate.bootstrap=0", "-o", "out")
    assert done.exit_code == 0, done.stderr
    (found,) = json.loads(Path("out/evaluation.json").read_text())["evaluations"]
    note = "4 of 4 moves, in 2 of 2 trips, are not in roadmap.rel (for instance trip 1: 0 to 4)"
    assert any(note in each for each in found["notes"])
    assert note in " ".join(done.stderr.split())
    assert note in Path("out/report.html").read_text()
    assert found["counts"]["impossible_trips"] == 2
    assert found["metrics"]["length_ratio"]["value"] is None
