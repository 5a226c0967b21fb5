"""Completion of a file that names no destination was 100 %: every trip ends where it ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from five_roads import DATA, SMOKE

TRIPS = DATA / "04-completion-without-a-request" / "trips.csv"
UNKNOWN = "the file does not say what was requested"
EVALUATE = (*SMOKE, "--set", "evaluate.bootstrap=0", "-o", "out")


def test_what_nobody_asked_for_is_not_completed(tiny: Path, run_cli: Callable[..., Any]) -> None:
    done = run_cli("evaluate", TRIPS, *EVALUATE, "--json", "--export", "geojson")
    assert done.exit_code == 0, done.stderr
    (judged,) = json.loads(done.stdout)["evaluations"]
    for name in ("completion", "completion_200m", "answered_share", "diversity"):
        assert judged["metrics"][name] == {
            "value": None, "low": None, "high": None, "note": UNKNOWN}
    assert judged["reasons"] == {}
    assert any(note.startswith(UNKNOWN) for note in judged["notes"])
    assert all(found["metrics"]["completion"]["value"] is None
               for found in judged["scenarios"].values())
    features = json.loads((tiny / "out" / "trips-trips.geojson").read_text())["features"]
    assert {f["properties"]["reached"] for f in features
            if f["properties"]["source"] != "real"} == {None}


def test_the_sentence_is_left_out_on_every_face(tiny: Path, run_cli: Callable[..., Any]) -> None:
    shown = run_cli("evaluate", TRIPS, *EVALUATE).stdout
    pages = [(tiny / "out" / name).read_text() for name in ("report.md", "report.html")]
    for text in (shown, *pages):
        assert "end on the requested road" not in text
    assert UNKNOWN in pages[0]
    assert "| OD completion | – |" in pages[0]


def test_two_such_files_are_not_compared(tiny: Path, run_cli: Callable[..., Any]) -> None:
    Path("again.csv").write_bytes(TRIPS.read_bytes())
    done = run_cli("evaluate", TRIPS, "again.csv", *EVALUATE, "--json")
    (compared,) = json.loads(done.stdout)["comparisons"]
    assert compared["tests"] == {}
    assert UNKNOWN in compared["note"]


@pytest.mark.parametrize("rule", ["floor", "shortest path", "most frequent turns"])
def test_what_rules_reach_by_their_making_has_no_value(
    tiny: Path, run_cli: Callable[..., Any], rule: str
) -> None:
    done = run_cli("evaluate", TRIPS, *EVALUATE, "--json")
    beside = json.loads(done.stdout)["evaluations"][0]["references"][rule]
    assert beside["completion"]["value"] is None
    assert beside["completion"]["note"].startswith("by construction")
