"""The report as one self-contained HTML page."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hoserkd.engine.metrics.baselines import FLOOR, FREQUENT, SHORTEST
from hoserkd.engine.metrics.catalogue import METRICS
from hoserkd.report.plots import curve_plot, distribution_plot, reliability_plot
from hoserkd.report.recorded import FEWEST, WITHOUT, only_made, script_json
from hoserkd.report.records import Report
from hoserkd.report.roadmap import ZONE_TONES, MapView, map_view
from hoserkd.report.strips import strip
from hoserkd.report.tables import (
    Table,
    comparison_table,
    divergence_table,
    headline_table,
    level_tables,
    scenario_comparison_table,
    scenario_table,
    seeds_table,
)
from hoserkd.report.words import summary

DISTRIBUTIONS = (("distance", "Trip distance", "km"), ("radius", "Trip radius", "km"),
                 ("step_duration", "Step duration", "min"),
                 ("trip_duration", "Trip duration", "min"))
CURVES = (("train_loss", "Training loss"), ("loss", "Loss a step"),
          ("val_accuracy", "Validation accuracy"), ("val_loss_kl", "KL to the teacher, validation"),
          ("loss_kl", "KL to the teacher a step"), ("val_time_mae_s", "Validation time error, s"))


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("hoserkd.report", "templates"), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def render_html(report: Report) -> str:
    """Return the page. The same report gives the same bytes."""
    first = report.first
    sampled = first.settings.sampled_trips
    view = map_view(tuple(run.evaluation for run in report.runs), sampled,
                    real_trips=report.real_trips)
    return _environment().get_template("report.html").render(
        report=report,
        first=first,
        summary=summary(report),
        headline=headline_table(report, floor_interval=True),
        strips=_strips(report),
        levels=level_tables(report),
        distributions=_distributions(report),
        reliability=_reliability(report),
        curves=_curves(report),
        scenarios=[scenario_table(report, k) for k in range(len(report.runs))
                   if report.runs[k].evaluation.scenarios],
        comparisons=[_comparison_tables(found) for found in report.comparisons],
        groups=[seeds_table(group) for group in report.groups],
        view=view,
        tones=range(ZONE_TONES),
        map_data=Markup(script_json(_map_data(report, view))),
        recorded=Markup(script_json(view.recorded)),
        without=WITHOUT,
        fewest=FEWEST,
        settings=_settings(report),
        judged_by=_flat(first.settings.model_dump(mode="json")),
        metrics=METRICS,
    )


def _strips(report: Report) -> list[Markup]:
    """Return a drawing for each row of the headline table."""
    drawn = []
    references = report.first.references
    for metric in METRICS:
        figures = [run.evaluation.figures.get(metric.name) for run in report.runs]
        if not metric.headline or all(f is None for f in figures):
            continue
        drawn.append(Markup(strip(
            figures, references.get(FLOOR, {}).get(metric.name),
            [references.get(name, {}).get(metric.name) for name in (SHORTEST, FREQUENT)])))
    return drawn


def _distributions(report: Report) -> list[Markup]:
    drawn = []
    for name, title, unit in DISTRIBUTIONS:
        runs = {run.name: getattr(run.evaluation.rating.features, f"{name}_{unit}")
                for run in report.runs}
        real = getattr(report.first.truth.features, f"{name}_{unit}")
        if len(real) and any(map(len, runs.values())):
            drawn.append(Markup(distribution_plot(name, title, unit, real, runs)))
    return drawn


def _reliability(report: Report) -> Markup | None:
    curves = {run.name: run.evaluation.reliability for run in report.runs
              if run.evaluation.reliability is not None}
    return Markup(reliability_plot(curves)) if curves else None


def _curves(report: Report) -> list[Markup]:
    drawn = []
    for name, title in CURVES:
        curves = {run.name: (index, run.curves[name]) for index, run in enumerate(report.runs)
                  if name in run.curves and len(run.curves[name].x) > 1}
        if curves:
            drawn.append(Markup(curve_plot(name, title, curves)))
    return drawn


def _comparison_tables(found: Any) -> list[Table]:
    tables = [comparison_table(found)]
    if found.divergences:
        tables.append(divergence_table(found))
    if found.scenarios:
        tables.append(scenario_comparison_table(found))
    return tables


def _map_data(report: Report, view: MapView) -> dict[str, Any]:
    data = {"trips": view.trips, "names": [run.name for run in report.runs],
            "made": [run.made for run in report.runs]}
    return data if report.real_trips else only_made(data)


def _flat(settings: Mapping[str, Any], prefix: str = "evaluate.") -> list[tuple[str, str]]:
    """Return nested settings by dotted key, with their values as JSON."""
    rows = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((prefix + key, json.dumps(value)))
    return rows


def _settings(report: Report) -> list[tuple[str, list[str], bool]]:
    """Return each setting with its value in every run, and whether the runs differ in it."""
    keys: Mapping[str, None] = {key: None for run in report.runs for key in run.settings}
    rows = []
    for key in keys:
        values = [json.dumps(run.settings[key]) if key in run.settings else "–"
                  for run in report.runs]
        rows.append((key, values, len(set(values)) > 1))
    return rows
