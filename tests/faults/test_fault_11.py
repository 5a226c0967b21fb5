"""`length_ratio` of the same trips was two figures: one of `generate`, one of `evaluate`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from five_roads import SMOKE


@pytest.mark.parametrize("search", ["greedy", "sample"])
def test_generate_and_evaluate_give_one_figure_each(
    tiny: Path, run_cli: Callable[..., Any], search: str
) -> None:
    """Whatever both tell is told once: of the same trips, the same figure."""
    made = run_cli("generate", "--run", "x", "--city", "tiny", "--od", "train", "--search", search,
                   "--set", "generate.max_steps=3", "--set", "generate.forbid_loops=false",
                   "-o", "g.csv", "--json")
    assert made.exit_code == 0, made.stderr
    judged = run_cli("evaluate", "g.csv", *SMOKE, "--od", "train", "--json",
                     "--set", "evaluate.bootstrap=0")
    assert judged.exit_code == 0, judged.stderr
    figures = json.loads(judged.stdout)["evaluations"][0]["metrics"]
    told = json.loads(made.stdout)["metrics"]
    both = told.keys() & figures.keys()
    assert {"length_ratio", "completion"} <= both
    for name in both:
        assert figures[name]["value"] == pytest.approx(told[name]), name
