"""The study's answer in words, table and plot: what it says follows from the figures."""

import xml.etree.ElementTree as ElementTree

import pytest

from hoserkd.engine.config import EngineConfig, StudyConfig
from hoserkd.engine.study import (
    ALL,
    FIGURES,
    PART_FIGURES,
    PARTS,
    PartSize,
    Trained,
    compare_arms,
    metric_key,
    plan_share,
)
from hoserkd.report.study import (
    StudyReport,
    TeacherWord,
    headline_table,
    parts_table,
    render_study,
    summary,
    values_of,
)
from hoserkd.report.study_plot import render_plot

SEEDS = (42, 43, 44)
SCATTER = {42: 0.0, 43: 0.001, 44: -0.001}
WOBBLE = {42: 0.00001, 43: -0.00001, 44: 0.0}
"""Keeps the differences of two arms from being all the same."""


def made_up(gains, seeds=SEEDS, diverged=()):
    """Return a report; `gains` gives each arm's gain in accuracy and likelihood at each share."""
    shares = tuple(next(iter(gains.values())))
    plans = tuple(plan_share(EngineConfig(study=StudyConfig(steps=100)), 5000, share)
                  for share in shares)
    trained = []
    for share in shares:
        for seed in seeds:
            for arm, gain in {"vanilla": dict.fromkeys(shares, 0.0), **gains}.items():
                value = 0.8 + SCATTER[seed] + gain[share] + WOBBLE[seed] * (arm != "vanilla")
                metrics = {metric_key(ALL, figure): 0.5 for figure in FIGURES}
                metrics |= {metric_key(part, figure): 0.5 + seed * WOBBLE[seed] * (
                    arm != "vanilla") for part in PARTS for figure in PART_FIGURES}
                metrics |= {"test_accuracy": value, "test_loss_road": 1 - value,
                            "val_accuracy": value}
                trained.append(Trained(arm, share, seed, f"run-{len(trained)}",
                                       None if (arm, share, seed) in diverged else metrics))
    trips = {ALL: 900, "short": 500, "long": 400, "seen": 100, "unseen": 800}
    sizes = {share: {part: PartSize(count, 1000 * count) for part, count in trips.items()}
             for share in shares}
    return StudyReport(
        name="s<tudy", city="town", shares=plans, sizes=sizes, trained=tuple(trained),
        comparisons=compare_arms(trained, sizes),
        teachers=(TeacherWord("distilled", "test", 0.712, 0.4),), commands=("hoserkd study",))


def test_no_difference_is_said_plainly_and_first():
    report = made_up({"distilled": {1.0: 0.0, 0.1: 0.0}})
    assert summary(report)[0] == (
        "No difference: distilled is neither better nor worse than vanilla at any share.")
    text = " ".join(summary(report))
    assert "of 10 comparisons 0 better, 0 worse, 10 no difference" in text
    assert "next road right at 71.2 % of the test steps; who guesses, 40.0 %" in text


def test_a_gain_is_told_with_its_share_and_size():
    report = made_up({"distilled": {1.0: 0.0, 0.1: 0.02, 0.01: -0.03}})
    first, second, third, *_ = summary(report)
    assert first == ("distilled: better than vanilla at 10 %; worse than vanilla at 1 %; "
                     "no difference at 100 % of the training trips.")
    assert "+0.0200 at 10 % (+0.0200 to +0.0200)" in second
    assert "With 3 seeds" in second
    assert "2 better, 2 worse, 11 no difference" in third
    assert "accuracy, distilled at 10 %: better" in third


def test_each_arm_gets_its_own_answer():
    report = made_up({"weak": {1.0: 0.0}, "strong": {1.0: 0.02}})
    assert summary(report)[0].startswith("No difference: weak")
    assert summary(report)[2] == "strong: better than vanilla at 100 % of the training trips."


def test_one_seed_gives_no_verdict():
    report = made_up({"distilled": {1.0: 0.02}}, seeds=(42,))
    assert summary(report)[0].startswith("One seed: no verdict on distilled.")
    rows = headline_table(report).rows
    assert {row[-1] for row in rows} == {"one seed: no verdict"}
    assert {row[-2] for row in rows} == {"–"}
    assert "no interval and no verdict" in headline_table(report).caption


def test_a_training_that_diverged_is_named():
    report = made_up({"distilled": {1.0: 0.0}}, diverged={("distilled", 1.0, 43)})
    assert "Diverged and left out: distilled at 100 %, seed 43." in summary(report)
    assert len(values_of(report, "distilled", 1.0, "test_accuracy")[0]) == 2


def test_tables_hold_a_row_for_every_comparison():
    report = made_up({"distilled": {1.0: 0.0, 0.1: 0.02}})
    assert len(headline_table(report).rows) == 2 * len(FIGURES)
    assert len(parts_table(report).rows) == 2 * len(PARTS) * len(PART_FIGURES)
    row = next(row for row in headline_table(report).rows
               if row[0] == "10 %" and row[2] == "accuracy ↑")
    assert row[3:6] == ("0.8000", "0.8200", "+0.0200 ± 0.0000")
    assert row[-1] == "better"
    page = render_study(report, "study.svg")
    assert "# Does distillation help? s&lt;tudy" in page
    assert "![Accuracy and negative log-likelihood over the share](study.svg)" in page
    for title in ("All test trips", "By kind of test trip", "Trainings", "Budget of a training"):
        assert f"## {title}" in page
    assert page.count("run-") == len(report.trained)


@pytest.mark.parametrize("gains", [
    {"distilled": {1.0: 0.0, 0.1: 0.02, 0.01: 0.03}}, {"distilled": {0.5: 0.01}},
    {"a": {1.0: 0.0, 0.1: 0.0}, "b": {1.0: 0.01, 0.1: 0.0}}])
def test_the_plot_is_a_file_of_its_own_and_the_same_every_time(gains):
    report = made_up(gains)
    drawing = render_plot(report)
    assert drawing == render_plot(report)
    root = ElementTree.fromstring(drawing)
    assert root.tag.endswith("svg")
    assert float(root.get("width")) > float(root.get("height")) > 0
    words = " ".join("".join(element.itertext()) for element in root.iter()
                     if element.tag.endswith("text"))
    for word in (*gains, "vanilla", "share of the training trips",
                 *(f"{100 * share:g} %" for share in next(iter(gains.values())))):
        assert word in words
    assert "http" not in drawing.split("<defs>", 1)[1]


def test_the_plot_of_one_seed_has_no_intervals():
    many, one = (render_plot(made_up({"distilled": {1.0: 0.0}}, seeds=seeds))
                 for seeds in (SEEDS, (42,)))
    assert many.count("LineCollection") == 6
    assert one.count("LineCollection") == 0
