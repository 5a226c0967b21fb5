"""Columns that contradict each other: a warning with count and example, an error if strict."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from five_roads import CITY, DATA

HERE = DATA / "10-columns-never-held-against-each-other"
SAID = {
    "lenkm": ("length-against-polyline", "5 of 5 roads", "road 0 with length 0.136",
              "Are lengths in kilometres?"),
    "lenzero": ("length-against-polyline", "5 of 5 roads", "road 0 with length 0",
                "All these lengths are 0."),
    "reversedgeom": ("end-against-start", "4 of 5 relations", "2 to 3, 175 m apart",
                     "against the direction of driving?"),
    "ztm_shape": ("matrix-against-zones", "1 of 3 zones", "zone 2", ""),
    "leak": ("test-against-train", "3 of 3 trips of test.csv are in train.csv too", "row 2", ""),
}


@pytest.mark.parametrize("kind", SAID)
def test_it_is_warned_of_recorded_and_refused_where_strict(
    run_cli: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    line = ("prepare", "--source", HERE / kind, "--city", tmp_path / kind, "--set", "city.zones=2",
            "--json")
    check, *words = SAID[kind]
    strict = run_cli(*line, "--strict")
    assert (strict.exit_code, strict.stdout) == (2, "")
    assert not (tmp_path / kind / "manifest.json").exists()
    for changed in (True, False):
        done = run_cli(*line)
        assert done.exit_code == 0, done.stderr
        found = json.loads(done.stdout)
        assert (found["changed"], found["warnings"][0]["check"]) == (changed, check)
        assert all(word in " ".join(done.stderr.split()) for word in ("warning: ", *words))
    manifest = json.loads((tmp_path / kind / "manifest.json").read_text())
    assert manifest["warnings"] == found["warnings"]
    again = run_cli(*line, "--strict")
    assert again.exit_code == 2
    assert all(word in " ".join(again.stderr.split()) for word in words)


def test_a_sound_city_is_not_warned_of(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    done = run_cli("prepare", "--source", CITY, "--city", tmp_path / "c", "--set", "city.zones=2",
                   "--strict", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["warnings"] == []
