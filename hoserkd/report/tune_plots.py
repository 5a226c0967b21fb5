"""Plots of a tuning study, as inline SVG: how it went, and what its figures follow."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from hoserkd.engine.tuning.objectives import Objective
from hoserkd.engine.tuning.rows import TrialRow, TuneOutcome
from hoserkd.report.plots import INK, MUTED, REAL, SIZE, STYLE, colour, inline_svg

WIDE = (9.4, 3.0)
LOG = ("lambda_kl",)
"""Searched on a log scale."""
PALE, STRONG = 0.25, 1.0


def history_plot(found: TuneOutcome, objective: Objective) -> str:
    """Return an objective trial by trial, the best so far, and vanilla's."""
    rows = told(found, objective)

    def draw(axes: Axes) -> None:
        _vanilla(axes, found, objective, axes.axhline)
        for state, marker in (("complete", "o"), ("pruned", "v"), ("failed", "x"),
                              ("running", "s")):
            points = [(row.number, row.values[objective.name]) for row in rows
                      if row.state == state and row.number]
            if points:
                axes.plot(*zip(*points, strict=True), linestyle="", marker=marker, markersize=5,
                          color=colour(0), alpha=STRONG if state == "complete" else 0.5,
                          label=state)
        best = found.best_so_far(objective)
        if best:
            axes.step(*zip(*best, strict=True), where="post", color=colour(1), linewidth=1.4,
                      label="best so far")
        axes.set_xlabel("trial")
        axes.set_ylabel(objective.name)
        axes.legend(fontsize=8)

    return _drawn(draw, "History", f"history-{objective.name}")


def importance_plot(found: TuneOutcome) -> str:
    """Return each parameter's share of an objective's variation, a bar an objective."""
    names = list(next(iter(found.importances.values())))[::-1]
    height = 0.8 / len(found.importances)

    def draw(axes: Axes) -> None:
        for index, (objective, shares) in enumerate(found.importances.items()):
            places = np.arange(len(names)) + (index - (len(found.importances) - 1) / 2) * -height
            axes.barh(places, [100 * shares.get(name, 0) for name in names], height,
                      color=colour(index), label=objective)
        axes.set_yticks(np.arange(len(names)), names)
        axes.set_xlim(0, 100)
        axes.set_xlabel("share, %")
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
        if len(found.importances) > 1:
            axes.legend(fontsize=8)

    return _drawn(draw, "Importance", "importance")


def slice_plot(found: TuneOutcome, objective: Objective) -> str:
    """Return an objective against each parameter, a panel each."""
    rows = [row for row in told(found, objective) if row.number]
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=WIDE, layout="constrained")
        grid = np.atleast_1d(canvas.subplots(1, len(found.parameters), sharey=True))
        for axes, name in zip(grid, found.parameters, strict=True):
            place = _places(rows, name)
            _vanilla(axes, found, objective, axes.axhline)
            for row in rows:
                if name in row.params:
                    axes.plot([place(row)], [row.values[objective.name]], linestyle="",
                              marker="o" if row.state == "complete" else "v", markersize=5,
                              color=colour(1 if row.number == found.best else 0),
                              alpha=STRONG if row.state == "complete" else 0.5)
            _parameter_axis(axes, rows, name)
            axes.set_xlabel(name)
        grid[0].set_ylabel(objective.name)
        grid[0].set_title("Slices")
    return inline_svg(canvas, f"slice-{objective.name}", f"{objective.name} by parameter")


def parallel_plot(found: TuneOutcome, objective: Objective) -> str:
    """Return a line a trial through its parameters to the objective; the best stands out."""
    rows = [row for row in told(found, objective) if row.number]
    values = [row.values[objective.name] for row in rows]
    low, high = min(values), max(values)
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=WIDE, layout="constrained")
        axes = canvas.add_subplot()
        places = [_unit(rows, name) for name in found.parameters]
        order = sorted(rows, key=lambda row: objective.better(
            row.values[objective.name], values[0]))
        for row in order:
            share = (row.values[objective.name] - low) / (high - low or 1)
            good = share if objective.direction == "maximize" else 1 - share
            best = row.number == found.best
            heights = [place(row) for place in places]
            axes.plot(range(len(heights) + 1), [*heights, share], linewidth=2.4 if best else 1.2,
                      color=colour(1 if best else 0), alpha=1.0 if best else PALE + 0.5 * good,
                      linestyle="-" if row.state == "complete" else ":",
                      zorder=3 if best else 2)
        for index in range(len(found.parameters) + 1):
            axes.axvline(index, color=MUTED, linewidth=0.8)
        for index, name in enumerate(found.parameters):
            ends = _ends(rows, name)
            _end_labels(axes, index, ends[0], ends[1])
        _end_labels(axes, len(found.parameters), f"{low:.4g}", f"{high:.4g}")
        axes.set_xticks(range(len(found.parameters) + 1), [*found.parameters, objective.name])
        axes.set_yticks([])
        axes.set_ylim(-0.12, 1.12)
        axes.grid(visible=False)
        axes.set_title("Parallel coordinates")
    return inline_svg(canvas, f"parallel-{objective.name}",
                      f"Parameters and {objective.name} of each trial")


def front_plot(found: TuneOutcome) -> str:
    """Return the first two objectives of every trial, the Pareto front joined up."""
    one, other = found.objectives[:2]
    rows = [row for row in found.rows if row.state == "complete"]

    def draw(axes: Axes) -> None:
        for row in rows:
            axes.plot([row.values[one.name]], [row.values[other.name]], linestyle="", marker="o",
                      markersize=5, color=REAL if row.number == 0 else colour(0),
                      label="vanilla" if row.number == 0 else None)
        front = sorted((row.values[one.name], row.values[other.name]) for row in rows
                       if row.number in found.front)
        if front:
            axes.plot(*zip(*front, strict=True), color=colour(1), marker="o", markersize=6,
                      markerfacecolor="none", linewidth=1.2, label="Pareto front")
        axes.set_xlabel(f"{one.name} ({'more' if one.direction == 'maximize' else 'less'} is "
                        "better)")
        axes.set_ylabel(f"{other.name} ({'more' if other.direction == 'maximize' else 'less'} is "
                        "better)")
        axes.legend(fontsize=8)

    return _drawn(draw, "Pareto front", "front")


def told(found: TuneOutcome, objective: Objective) -> list[TrialRow]:
    """Return the trials that tell an objective and that no other goes on with."""
    return [row for row in found.rows
            if objective.name in row.values and row.went_on_as is None]


def _drawn(draw: Callable[[Axes], None], title: str, salt: str) -> str:
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=SIZE)
        axes = canvas.add_subplot()
        axes.set_axisbelow(True)
        draw(axes)
        axes.set_title(title)
    return inline_svg(canvas, salt, title)


def _vanilla(axes: Axes, found: TuneOutcome, objective: Objective,
             line: Callable[..., Any]) -> None:
    for row in found.rows:
        if row.number == 0 and objective.name in row.values:
            line(row.values[objective.name], color=INK, linewidth=0.9, linestyle="--",
                 label="vanilla")


def _categories(rows: Sequence[TrialRow], name: str) -> list[Any] | None:
    """Return the values of a choice in order, None where the parameter has a range."""
    if "." not in name:
        return None
    values = {row.params[name] for row in rows if name in row.params}
    numbers = all(isinstance(value, int | float) for value in values)
    return sorted(values) if numbers else sorted(values, key=str)


def _places(rows: Sequence[TrialRow], name: str) -> Callable[[TrialRow], float]:
    categories = _categories(rows, name)
    if categories is None:
        return lambda row: float(row.params[name])
    return lambda row: float(categories.index(row.params[name]))


def _unit(rows: Sequence[TrialRow], name: str) -> Callable[[TrialRow], float]:
    """Return what gives a trial's height from 0 to 1 on a parameter's axis."""
    place = _places(rows, name)
    scale: Callable[[float], float] = np.log if name in LOG else float
    values = [scale(place(row)) for row in rows if name in row.params]
    low, high = min(values), max(values)
    return lambda row: (float((scale(place(row)) - low) / (high - low or 1))
                        if name in row.params else float("nan"))


def _ends(rows: Sequence[TrialRow], name: str) -> tuple[str, str]:
    categories = _categories(rows, name)
    if categories is not None:
        return str(categories[0]), str(categories[-1])
    values = [float(row.params[name]) for row in rows if name in row.params]
    return f"{min(values):.3g}", f"{max(values):.3g}"


def _end_labels(axes: Axes, index: int, low: str, high: str) -> None:
    axes.text(index, -0.03, low, ha="center", va="top", fontsize=8)
    axes.text(index, 1.03, high, ha="center", va="bottom", fontsize=8)


def _parameter_axis(axes: Axes, rows: Sequence[TrialRow], name: str) -> None:
    categories = _categories(rows, name)
    if categories is not None:
        axes.set_xticks(range(len(categories)), [str(value) for value in categories])
        axes.set_xlim(-0.5, len(categories) - 0.5)
    elif name in LOG:
        axes.set_xscale("log")
