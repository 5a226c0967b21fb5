"""The page on a tuning study, from literal records."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from hoserkd.engine.metrics.catalogue import ONE_TRAINING
from hoserkd.engine.metrics.paired import holm
from hoserkd.engine.seeds import corrected, paired
from hoserkd.engine.tuning.objectives import objectives_of
from hoserkd.engine.tuning.rows import TrialRow, TuneOutcome, front_of
from hoserkd.report.tune import TuneReport, finals_table, render_tune, summary


def row(number: int, accuracy: float, state: str = "complete", **given: object) -> TrialRow:
    params = {"lambda_kl": 0.002 * (number + 1), "temperature": 1.0 + number / 3, "window": number,
              "student.layers": 1 + number % 2} if number else {}
    return TrialRow(number, state, {"accuracy": accuracy, "calibration": 0.1 * accuracy}, 3, params,
                    f"run-{number}", **given)  # type: ignore[arg-type]


OUTCOME = TuneOutcome(
    name="first", place="first.log", objectives=objectives_of(("accuracy",)),
    parameters=("lambda_kl", "temperature", "window", "student.layers"),
    rows=(row(0, 0.5), row(1, 0.55), row(2, 0.4, "pruned"), row(3, 0.6),
          row(4, 0.3, "failed", error="its process died", went_on_as=5), row(5, 0.58)),
    leader=3, best=3, front=(3,), importances={"accuracy": {"temperature": 0.7, "lambda_kl": 0.2,
                                                  "window": 0.1, "student.layers": 0.0}},
    comparisons=(paired("test_accuracy", [0.6, 0.61], [0.5, 0.5]),), planned=6,
    final_seeds=(1, 2))
TWO = replace(OUTCOME, objectives=objectives_of(("accuracy", "calibration")), front=(1, 3))


def plots(page: str) -> list[ET.Element]:
    """Return the drawings of a page, each parsed."""
    return [ET.fromstring(text) for text in re.findall(r"<svg class=\"plot.*?</svg>", page, re.S)]


def titles(page: str) -> list[str]:
    return [plot.attrib["aria-label"] for plot in plots(page)]


def test_page_shows_the_four_plots_and_the_comparison() -> None:
    page = render_tune(TuneReport(OUTCOME, "hoserkd train --distill", "Made today."))
    assert titles(page) == ["History", "Importance", "accuracy by parameter",
                            "Parameters and accuracy of each trial"]
    for words in ("Trial 3 is best: accuracy 0.6000", "vanilla has 0.5000", "went on as 5",
                  "hoserkd train --distill", "Final runs, 2 seeds: trial 3 against vanilla",
                  "+0.1050", "Made today."):
        assert words in page
    assert "://" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", page)
    assert page == render_tune(TuneReport(OUTCOME, "hoserkd train --distill", "Made today."))


def test_page_of_two_objectives_shows_the_front() -> None:
    page = render_tune(TuneReport(TWO, "", "now"))
    assert titles(page).count("History") == 2
    assert "Pareto front" in titles(page)
    assert "2 trials make the Pareto front" in page


def test_history_draws_a_mark_a_trial_and_leaves_out_who_was_taken_up() -> None:
    page = render_tune(TuneReport(OUTCOME, "", "now"))
    history = ET.tostring(plots(page)[0], encoding="unicode")
    # Three complete trials and a pruned one; the failed one goes on as 5.
    assert "failed" not in history
    assert "pruned" in history


@pytest.mark.parametrize("rows", [(), OUTCOME.rows[:1], OUTCOME.rows[:2], (
    row(0, 0.5), row(1, 0.4, "failed", error="not a number"))])
def test_page_of_a_study_that_has_hardly_begun(rows: tuple[TrialRow, ...]) -> None:
    complete = [r.number for r in rows if r.number and r.state == "complete"]
    young = replace(OUTCOME, rows=rows, best=complete[0] if complete else None,
                    leader=complete[0] if complete else None, front=tuple(complete),
                    importances={}, comparisons=())
    page = render_tune(TuneReport(young, "", "now"))
    assert f"{len(rows)} of 6 trials" in page or "No trial yet." in page
    assert summary(young)


def test_where_vanilla_is_not_beaten_there_is_no_best_trial() -> None:
    beaten = replace(OUTCOME, best=None, front=(0,), comparisons=())
    lines = summary(beaten)
    assert lines[1].startswith("No trial beats vanilla: trial 3 comes nearest, accuracy 0.6000")
    assert ONE_TRAINING in lines
    unknown = replace(beaten, rows=OUTCOME.rows[1:])
    assert "vanilla is not known yet" in summary(unknown)[1]


def test_verdicts_of_final_runs_are_corrected_for_all_figures() -> None:
    pairs = [([0.6, 0.61, 0.605], [0.5, 0.5, 0.5]), ([0.61, 0.6, 0.65], [0.6, 0.58, 0.61])]
    found = corrected([paired(f"test_{name}", ours, plain) for name, (ours, plain) in zip(
        ("accuracy", "accuracy_kept"), pairs, strict=True)])
    assert [c.p_holm for c in found] == pytest.approx(holm([c.p for c in found]))
    table = finals_table(replace(OUTCOME, comparisons=found))
    assert "p (Holm)" in table.columns
    assert table.rows[0][-1] == found[0].verdict
    weak = paired("test_accuracy", [0.61, 0.62, 0.63], [0.6, 0.6, 0.6])
    assert weak.verdict == weak.alone
    assert replace(weak, p_holm=0.2).verdict == "no difference"


def test_trials_are_counted_once() -> None:
    assert OUTCOME.counts == {"complete": 4, "pruned": 1}
    assert summary(OUTCOME)[0] == "5 of 6 trials: 4 complete, 1 pruned."
    assert OUTCOME.best_so_far(OUTCOME.objectives[0]) == [(1, 0.55), (3, 0.6), (5, 0.6)]


def test_the_front_holds_vanilla_where_nobody_beats_it() -> None:
    two = objectives_of(("accuracy", "calibration"))
    assert front_of((row(0, 0.9), row(1, 0.5)), objectives_of(("accuracy",))) == (0,)
    assert front_of((row(0, 0.5), row(1, 0.5)), objectives_of(("accuracy",))) == (0,)
    assert front_of((row(0, 0.5), row(1, 0.6), row(2, 0.7, "pruned")), two) == (0, 1)
