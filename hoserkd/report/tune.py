"""The report on a tuning study as one self-contained HTML page."""

from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hoserkd.engine.metrics.catalogue import ONE_TRAINING
from hoserkd.engine.tuning.rows import TrialRow, TuneOutcome
from hoserkd.report.tables import Table, p_text, verdict_text
from hoserkd.report.tune_plots import (
    front_plot,
    history_plot,
    importance_plot,
    parallel_plot,
    slice_plot,
    told,
)
from hoserkd.text import cell_text


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What the page shows."""

    outcome: TuneOutcome
    command: str
    """Trains with the best setting; empty where there is none."""
    made: str
    """How and when the page was made."""


def render_tune(report: TuneReport) -> str:
    """Return the page. The same report gives the same bytes."""
    environment = Environment(
        loader=PackageLoader("hoserkd.report", "templates"), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    found = report.outcome
    return environment.get_template("tune.html").render(
        report=report, found=found, summary=summary(found), trials=trials_table(found),
        finals=finals_table(found), plots=_plots(found), wide=_wide_plots(found))


def summary(found: TuneOutcome) -> list[str]:
    """Return what a study came to, in sentences."""
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items())
    lines = [f"{sum(found.counts.values())} of {found.planned} trials: {counts}." if counts
             else "No trial yet."]
    if found.leader is not None:
        lines.append(_leader_sentence(found, found.row(found.leader)))
    if not any(len(c.arm) > 1 for c in found.comparisons) and len(found.rows) > 1:
        lines.append(ONE_TRAINING)
    if len(found.objectives) > 1:
        lines.append(f"{len(found.front)} trials make the Pareto front: none beats another in "
                     + " and ".join(each.name for each in found.objectives) + ".")
    for each in found.comparisons:
        if each.metric == "test_accuracy":
            lines.append(f"Over {len(each.arm)} final seeds the test accuracy of trial "
                         f"{found.leader} differs from vanilla's by {each.difference:+.4f}: "
                         f"{each.verdict}.")
    return lines


def _leader_sentence(found: TuneOutcome, leader: TrialRow) -> str:
    """Return how the best searched trial stands to vanilla."""
    first = found.objectives[0]
    params = ", ".join(f"{name} {cell_text(value)}" for name, value in leader.params.items())
    told = f"{first.name} {leader.values[first.name]:.4f} with {params}"
    vanilla = next((row for row in found.rows if row.number == 0), None)
    plain = None if vanilla is None else vanilla.value(first.name)
    beside = "" if plain is None else f"; vanilla has {plain:.4f}"
    if found.best is not None:
        return f"Trial {leader.number} is best: {told}{beside}."
    if plain is None:
        return f"Trial {leader.number} leads: {told}; vanilla is not known yet."
    return f"No trial beats vanilla: trial {leader.number} comes nearest, {told}{beside}."


def trials_table(found: TuneOutcome) -> Table:
    """Return a row a trial."""
    names = [each.name for each in found.objectives]
    return Table(
        "Trials", ("trial", "in Optuna", "state", *names, "epochs", *found.parameters, "remark"),
        tuple((str(row.number), cell_text(row.optuna), row.state,
          *(cell_text(row.value(name)) for name in names), str(row.epochs),
          *(cell_text(row.params.get(name)) for name in found.parameters),
          remark(found, row)) for row in found.rows))


def finals_table(found: TuneOutcome) -> Table | None:
    """Return best against vanilla, a row a metric; None before the final runs."""
    if not found.comparisons:
        return None
    seeds = len(found.comparisons[0].arm)
    return Table(
        f"Final runs, {seeds} seed{'s' if seeds > 1 else ''}: trial {found.leader} against vanilla",
        ("metric", f"trial {found.leader}", "vanilla", "difference", "95 % interval", "p (Holm)",
         "verdict"),
        tuple((c.metric, cell_text(sum(c.arm) / seeds), cell_text(sum(c.vanilla) / seeds),
          f"{c.difference:+.4f}",
          "–" if c.interval is None else f"{c.interval[0]:+.4f} to {c.interval[1]:+.4f}",
          "–" if c.p_holm is None else p_text(c.p_holm), verdict_text(c))
          for c in found.comparisons),
        "Means over the seeds, paired by seed; the interval is of the mean difference, by "
        "Student's t. p: paired t test, Holm's correction over this table; in brackets what the "
        "interval alone would say."
        + (f" {ONE_TRAINING}" if seeds == 1 else ""))


def remark(found: TuneOutcome, row: TrialRow) -> str:
    """Return what else is to be said of a trial."""
    words = ["vanilla"] if row.number == 0 else []
    if row.number == found.best:
        words.append("best")
    elif row.number in found.front:
        words.append("front")
    if row.error:
        words.append(row.error)
    if row.went_on_as is not None:
        words.append(f"went on as {row.went_on_as}")
    return ", ".join(words)


def _plots(found: TuneOutcome) -> list[Markup]:
    drawn = [history_plot(found, each) for each in found.objectives if told(found, each)]
    if len(found.objectives) > 1 and found.front:
        drawn.append(front_plot(found))
    if found.importances:
        drawn.append(importance_plot(found))
    return [Markup(plot) for plot in drawn]


def _wide_plots(found: TuneOutcome) -> list[Markup]:
    drawn = []
    for each in found.objectives:
        if any(row.number for row in told(found, each)):
            drawn += [slice_plot(found, each), parallel_plot(found, each)]
    return [Markup(plot) for plot in drawn]
