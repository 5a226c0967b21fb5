"""The tables of an evaluation, as rows of text: the same on the terminal, in Markdown and HTML."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hoserkd.engine.metrics.baselines import FLOOR, FREQUENT, SHORTEST, STRAIGHTEST
from hoserkd.engine.metrics.catalogue import (
    BY_NAME,
    LEVELS,
    METRICS,
    SIGNIFICANT,
    Metric,
)
from hoserkd.engine.metrics.comparison import Comparison
from hoserkd.engine.metrics.evaluation import Evaluation
from hoserkd.engine.metrics.paired import PairedTest
from hoserkd.engine.metrics.statistics import Figure
from hoserkd.engine.seeds import Comparison as SeedComparison
from hoserkd.report.records import Report, SeedGroup

ABSENT = "–"
REFERENCES = (FLOOR, SHORTEST, FREQUENT, STRAIGHTEST)
SCENARIO_METRICS = ("completion", "distance_jsd", "radius_jsd", "trip_duration_jsd",
                    "hausdorff_km", "dtw_km", "edr")


@dataclass(frozen=True, slots=True)
class Table:
    """Text in rows and columns; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


def value_text(value: float | None, metric: Metric | None = None) -> str:
    """Return a figure as the tables show it: shares in per cent, the rest to three digits."""
    if value is None or not math.isfinite(value):
        return ABSENT
    if metric is not None and metric.unit == "share":
        return f"{100 * value:.1f} %"
    if value and abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"


def figure_text(figure: Figure | None, metric: Metric | None = None) -> str:
    """Return a figure with its interval."""
    if figure is None or figure.value is None:
        return ABSENT
    text = value_text(figure.value, metric)
    if figure.low is None or figure.high is None or figure.low == figure.high:
        return text
    low, high = (value_text(x, metric).removesuffix(" %") for x in (figure.low, figure.high))
    return f"{text} [{low}, {high}]"


def p_text(p: float) -> str:
    """Return a p value without pretending to know its tail."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def verdict_text(found: SeedComparison) -> str:
    """Return the verdict, and what the interval alone would say where that differs."""
    alone = found.alone
    return found.verdict if alone == found.verdict else f"{found.verdict} (alone: {alone})"


def metric_table(
    report: Report, metrics: Sequence[Metric], title: str, *, floor_interval: bool = False
) -> Table:
    """Return the runs beside floor and ceilings; metrics that no run has are left out."""
    first = report.first
    shown = [name for name in REFERENCES if name in first.references and name != STRAIGHTEST]
    rows = []
    for metric in metrics:
        figures = [run.evaluation.figures.get(metric.name) for run in report.runs]
        if all(f is None for f in figures):
            continue
        beside = [_reference(first.references[name], metric,
                             interval=floor_interval and name == FLOOR) for name in shown]
        rows.append((metric.title, *(figure_text(f, metric) for f in figures), *beside))
    columns = ("metric", *(run.name for run in report.runs), *shown)
    return Table(title, columns, tuple(rows))


def _pairs_note(found: Evaluation) -> str:
    """Return what to know about the pair metrics of the floor."""
    floor = found.references[FLOOR]["hausdorff_km"]
    if floor.value is None:
        return ""
    return (f" The floor's pair metrics rest on {floor.note}; two real trips of one pair share "
            "their cells only, while the rules answer the very request, so a run may beat them.")


def _reference(figures: dict[str, Figure], metric: Metric, *, interval: bool) -> str:
    found = figures.get(metric.name)
    if found is None or found.value is None:
        return ABSENT
    return figure_text(found, metric) if interval else value_text(found.value, metric)


def headline_table(report: Report, *, floor_interval: bool = False) -> Table:
    """Return the table of the headline figures; a terminal has no room for the floor's interval."""
    chosen = [metric for metric in METRICS if metric.headline]
    table = metric_table(report, chosen, "Headline figures", floor_interval=floor_interval)
    share = round(100 * report.first.settings.confidence)
    requests = ", ".join(f"{run.name} {run.evaluation.counts['requests']:,}" for run in report.runs)
    caption = (f"In brackets: {share} % bootstrap intervals over requests ({requests}), of the "
               "model's own figures over real trips. Floor: real trips of the other split, one a "
               "request, what a perfect generator would score. Shortest path and most frequent "
               "turns: simple rules on the same requests." + _pairs_note(report.first))
    return Table(table.title, table.columns, table.rows, caption)


def level_tables(report: Report) -> list[Table]:
    """Return one table a level with every figure."""
    tables = [metric_table(report, [m for m in METRICS if m.level == level], title,
                           floor_interval=True)
              for level, title in LEVELS.items()]
    return [table for table in tables if table.rows]


def scenario_table(report: Report, index: int) -> Table:
    """Return the breakdown of one run by kind of trip."""
    run = report.runs[index]
    rows = []
    for kind, found in run.evaluation.scenarios.items():
        cells = [figure_text(found.figures.get(name), BY_NAME[name]) for name in SCENARIO_METRICS]
        floor = value_text((found.floor.get("distance_jsd") or Figure(None)).value)
        paired = found.figures["dtw_km"].count or 0
        rows.append((kind, f"{found.requests:,}", f"{paired:,}", *cells, floor))
    figures = (BY_NAME[name].title for name in SCENARIO_METRICS)
    columns = ("trips", "requests", "with a partner", *figures, "floor of distance JSD")
    return Table(f"By kind of trip: {run.name}", columns, tuple(rows))


def _test_row(name: str, test: PairedTest) -> tuple[str, ...]:
    metric, won = BY_NAME[name], ABSENT
    if test.p_holm < SIGNIFICANT and test.effect:
        won = "first" if (test.effect < 0) == (metric.better == "lower") else "second"
    return (metric.title, f"{test.count:,}", value_text(test.mean_a), value_text(test.mean_b),
            figure_text(test.difference), p_text(test.p), p_text(test.p_holm),
            f"{test.effect:+.2f}", won)


def comparison_table(found: Comparison) -> Table:
    """Return the paired tests of two runs."""
    columns = ("per request", "requests", found.a, found.b, "difference", "p (Wilcoxon)",
               "p (Holm)", "effect", "better")
    caption = found.note or (
        "Each request's path is held against the same real trip between the same cells. "
        "Difference: first minus second with its bootstrap interval. Effect: matched-pairs "
        "rank-biserial correlation, -1 where the first is always smaller. Better is named where "
        f"p is below {SIGNIFICANT} after Holm's correction over all comparisons of this report. "
        + found.caution)
    rows = tuple(_test_row(name, test) for name, test in found.tests.items())
    return Table(f"{found.a} against {found.b}", columns, rows, caption)


def divergence_table(found: Comparison) -> Table:
    """Return the divergences of two runs over their common queries."""
    rows = tuple((name.replace("_", " "), value_text(d.a), value_text(d.b),
                  figure_text(d.difference), *(ABSENT if p is None else p_text(p)
                                               for p in (d.p, d.p_holm)))
                 for name, d in found.divergences.items())
    return Table("Divergence from the real trips, common requests",
                 ("JSD of", found.a, found.b, "difference", "p (bootstrap)", "p (Holm)"), rows)


def scenario_comparison_table(found: Comparison) -> Table:
    """Return the paired tests by kind of trip, those that matter most."""
    rows = []
    for kind, tests in found.scenarios.items():
        for name in ("dtw_km", "hausdorff_km", "edr", "completion"):
            if name in tests:
                rows.append((kind, *_test_row(name, tests[name])))
    columns = ("trips", "per request", "requests", found.a, found.b, "difference", "p (Wilcoxon)",
               "p (Holm)", "effect", "better")
    return Table("By kind of trip", columns, tuple(rows))


def seeds_table(group: SeedGroup) -> Table:
    """Return mean and spread over the seeds of one setting."""
    rows = []
    for metric in METRICS:
        if metric.headline and metric.name in group.mean:
            figure = group.mean[metric.name]
            rows.append((metric.title, value_text(figure.value, metric),
                         value_text(group.spread[metric.name], metric),
                         value_text(figure.low, metric), value_text(figure.high, metric)))
    return Table(f"Across seeds: {group.name} ({len(group.members)} runs)",
                 ("metric", "mean", "standard deviation", "least", "largest"), tuple(rows))
