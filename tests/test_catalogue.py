"""One catalogue of figures: what the engine makes and every face shows is in it, under one name."""

import re
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest

import hoserkd
from hoserkd import progress
from hoserkd.commands import generate, judged, train
from hoserkd.engine.config import DistillConfig
from hoserkd.engine.metrics.breakdown import SCENARIO_PAIRS
from hoserkd.engine.metrics.catalogue import (
    ALL,
    BY_NAME,
    METRICS,
    PAIRED,
    RENAMED,
    SPEED,
    current_name,
    metric_of,
)
from hoserkd.engine.metrics.rating import PAIR_METRICS
from hoserkd.engine.seeds import smaller_is_better
from hoserkd.engine.study import ALL as WHOLE
from hoserkd.engine.study import FIGURES, PART_FIGURES, PARTS, metric_key
from hoserkd.engine.training.meters import DISTILLED, SUPERVISED, loss_metrics, self_metrics
from hoserkd.engine.tune import COMPARED
from hoserkd.engine.tuning.objectives import OBJECTIVES
from hoserkd.report import html, tables, words
from hoserkd.store.machine import sample_machine
from hoserkd.tui.following import Following
from hoserkd.tui.views import compare, run

FACES = {
    "train": [split + name for name in train.SHOWN for split in ("val_", "test_")],
    "generate": generate.SHOWN,
    "progress": progress.SHOWN_METRICS,
    "report": [name for name, _ in html.CURVES],
    "report's steps": judged.STEP_CURVES,
    "report's kinds of trip": (*tables.SCENARIO_METRICS, *SCENARIO_PAIRS),
    "report's words": [name for name, _ in words.DIVERGENCES],
    "comparison": (*PAIRED, *PAIR_METRICS),
    "study": [*(metric_key(WHOLE, figure) for figure in FIGURES),
              *(metric_key(part, figure) for part in PARTS for figure in PART_FIGURES)],
    "tune": [*COMPARED, *(each.metric for each in OBJECTIVES.values())],
    "dashboard's run": [*(name for _, names in run.GROUPS for name in names), *run.LABELS,
                        *run.NOT_DRAWN],
    "dashboard's comparison": compare.METRICS,
}


@pytest.mark.parametrize("face", FACES)
def test_every_figure_of_a_face_is_in_the_catalogue_by_its_present_name(face):
    unknown = [name for name in FACES[face] if metric_of(name) is None or name in RENAMED]
    assert unknown == []


def test_every_figure_of_training_and_machine_is_in_the_catalogue():
    sums = dict.fromkeys((*SUPERVISED, *DISTILLED, "pinball", "weighted_kl"), 1.0)
    heads = {f"{what}_3": 1.0 for what in ("gt_road", "gt_time", "soft_kl", "soft_time")}
    made = {*loss_metrics(sums),
            *self_metrics({**sums, **heads}, (3,), DistillConfig(enabled=False))}
    process = SimpleNamespace(cpu_percent=lambda: 1.0, memory_info=lambda: SimpleNamespace(rss=1))
    machine = SimpleNamespace(cpu_percent=lambda: 1.0,
                              virtual_memory=lambda: SimpleNamespace(percent=1.0))
    made |= sample_machine(machine, process).keys()
    assert [name for name in made if metric_of(name) is None] == []


def test_names_and_labels_are_given_once():
    assert len(BY_NAME) == len(ALL)
    labels = defaultdict(list)
    for metric in ALL:
        labels[metric.title].append(metric)
    for label, metrics in labels.items():
        named = {metric.same_as or metric.name for metric in metrics}
        assert len(named) == 1, label
    evaluated = {metric.name for metric in METRICS}
    assert {metric.same_as for metric in ALL if metric.same_as} <= evaluated


def test_rates_say_what_they_count():
    """A bare `steps_per_s` was steps of trips in one place and of the optimiser in another."""
    rates = {metric.name for metric in SPEED}
    assert "steps_per_s" not in rates
    for path in Path(hoserkd.__file__).parent.rglob("*.py"):
        text = path.read_text("utf-8")
        if path.name != "catalogue.py":
            assert not re.search(r"(?<!trip_)(?<!optimiser_)steps_per_s|\bit/s\b", text), path
        for rate in re.findall(r"\"(?:val_)?(\w+_per_s)\"", text):
            assert current_name(rate) in rates, path


@pytest.mark.parametrize(("name", "smaller"), [
    ("val_accuracy", False), ("test_loss_road", True), ("test_time_mae_s", True),
    ("test_ece", True), ("val_trip_steps_per_s", False), ("val_time_coverage", False)])
def test_which_way_is_better_follows_from_the_catalogue(name, smaller):
    assert smaller_is_better(name) == smaller


def test_a_part_or_a_head_is_known_by_its_figure():
    assert metric_of("test_short_accuracy") is BY_NAME["accuracy"]
    assert metric_of("loss_gt_head_last") is BY_NAME["loss_gt_head_N"]
    assert metric_of("steps_per_s") is BY_NAME["trip_steps_per_s"]
    assert metric_of("surprise") is None


def test_an_older_run_is_followed_by_the_present_names(tmp_path):
    (tmp_path / "events.jsonl").write_text(
        '{"seq": 1, "type": "step", "step": 1, "epoch": 0, "total": 9, "t": 1e9, '
        '"m": {"steps_per_s": 7.0}}\n')
    following = Following(tmp_path, whole=True)
    following.advance()
    assert following.metrics == {"trip_steps_per_s": 7.0}
