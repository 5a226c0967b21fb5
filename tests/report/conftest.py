"""A judged pair of simple rules in a handmade town, made into a report."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))

from handmade import as_generated, town, walks

from hoserkd.engine.city.storage import save_city
from hoserkd.engine.config import EvaluateConfig
from hoserkd.engine.evaluate import compare_evaluations, evaluate_runs
from hoserkd.engine.metrics.baselines import frequent_turns, shortest_paths
from hoserkd.engine.metrics.calibration import bin_sums, reliability
from hoserkd.engine.metrics.model import ModelJudgement
from hoserkd.engine.metrics.packed import take_trips
from hoserkd.engine.metrics.statistics import Figure
from hoserkd.engine.types import TimeStatistics
from hoserkd.report.records import Curve, JudgedRun, Report

HOSTILE = "usual</script><b>&"


@pytest.fixture(scope="session")
def report(tmp_path_factory) -> Report:
    """Return a report on two runs; the second has a name that tries to break the page."""
    network = town()
    splits = {"train": walks(network, 300, 1), "val": walks(network, 20, 2),
              "test": walks(network, 200, 3)}
    city = save_city(tmp_path_factory.mktemp("city"), "town", network, splits,
                     TimeStatistics(3.0, 1.0))
    queries = as_generated(take_trips(city.split("test"), np.arange(60)))
    runs = {"fast": shortest_paths(network, queries),
            HOSTILE: frequent_turns(network, queries, city.split("train"))}
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, 400)
    model = ModelJudgement(
        {"next_step_accuracy": Figure(0.88, 0.87, 0.89), "ece": Figure(0.1, 0.09, 0.11)},
        reliability(bin_sums(torch.from_numpy(confidence), torch.from_numpy(
            rng.random(400) < confidence**2)).numpy()))
    found = evaluate_runs(runs, city, EvaluateConfig(bootstrap=20, bins=20, sampled_trips=5),
                          "test", models={"fast": model})
    epochs = np.arange(1.0, 6.0)
    return Report(
        title=f"fast and {HOSTILE}",
        runs=tuple(JudgedRun(e, f"/runs/{i}/test-astar.csv", f"id-{i}", {"device": "cpu"},
                             {"train.epochs": 5, "seed": i}, {"val_accuracy": Curve(
                                 epochs, 1 - 1 / epochs)}) for i, e in enumerate(found.values())),
        comparisons=(compare_evaluations(*found.values()),),
        commands=("hoserkd evaluate fast usual",), made="Made by a test.")
