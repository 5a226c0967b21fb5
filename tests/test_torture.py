"""The short form of `make torture`: faults at the calls of small works (docs/reliability.md)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from torture.kills import differences
from torture.points import spread
from torture.shim import compiler
from torture.wholeness import lost

REPOSITORY = Path(__file__).resolve().parents[1]
needs_compiler = pytest.mark.skipif(
    compiler() is None or sys.platform != "linux", reason="needs Linux and a C compiler")


def torture(folder: Path, *options: str) -> list[dict[str, object]]:
    done = subprocess.run([sys.executable, "-m", "torture", "--folder", str(folder), *options],
                          cwd=REPOSITORY, capture_output=True, text=True, check=False,
                          env=os.environ | {"TMPDIR": str(folder)})
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@needs_compiler
@pytest.mark.parametrize(("works", "points"), [
    ("replace a file,append to a study", "99"), ("ingest three runs", "2")])
def test_small_works_survive_a_fault_at_their_calls(
        tmp_path: Path, works: str, points: str) -> None:
    cases = torture(tmp_path, "--only", "small", "--jobs", works, "--points", points)
    assert {case["case"] for case in cases} == set(works.split(","))
    assert {str(case["torture"]).split(" at ")[0] for case in cases} == {
        "death", "half a write", "no space", "an error", "no permission"}
    assert all(case["faults"] == case["survived"] > 0 for case in cases)
    assert list(tmp_path.iterdir()) == []


def test_points_are_spread_from_the_first_call_to_the_last() -> None:
    assert list(spread(4, None)) == [1, 2, 3, 4]
    assert list(spread(100, 3)) == [1, 51, 100]
    assert list(spread(2, 9)) == [1, 2]


def test_a_difference_is_found_and_named() -> None:
    assert differences({"a": [1, 2]}, {"a": [1, 2]}) == []
    assert differences({"a": [1, 2]}, {"a": [1, 3]}) == ["result.a[1] is 3, undisturbed 2"]
    assert differences({"a": 1}, {}) == ["result.a is None, undisturbed 1"]


def test_events_that_are_gone_are_found() -> None:
    assert lost({"r": "1\n2\n"}, {"r": "1\n2\n3\n"}) == []
    assert lost({"r": "1\n2\n"}, {"r": "1\n"}) != []
    assert lost({"r": "1\n"}, {}) != []
