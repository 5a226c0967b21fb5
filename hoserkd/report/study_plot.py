"""The plot of a study: accuracy and likelihood over the share, and the paired differences."""

import io
import re
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, NullLocator

from hoserkd.engine.outputs import marked_svg
from hoserkd.engine.study import ALL, VANILLA
from hoserkd.report.study import StudyReport, share_text, values_of

INK, RULE, GROUND = "#1f2430", "#cfd3da", "#ffffff"
COLOURS = ("#5b6270", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Vanilla's, then the arms'; told apart by people who see few colours, and by their markers."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "study", "font.family": "sans-serif", "font.size": 9,
    "axes.edgecolor": RULE, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "grid.color": RULE, "grid.linewidth": 0.5, "axes.grid": True, "axes.grid.axis": "y",
    "legend.frameon": False,
}
PANELS = (("accuracy", "test_accuracy", "Accuracy of the next road (more is better)"),
          ("loss_road", "test_loss_road", "Negative log-likelihood (less is better)"))
APART = 1.2
"""Factor between neighbours at one share, so that they do not hide each other."""
ASIDE = 1.1
"""Factor by which seeds stand beside their mean."""


def render_plot(report: StudyReport) -> str:
    """Return the drawing as an SVG file. The same report gives the same bytes."""
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(9.2, 6.0), layout="constrained")
        canvas.patch.set_facecolor(GROUND)
        grid = canvas.subplots(2, len(PANELS), sharex=True, height_ratios=(3, 2))
        for column, (figure, key, title) in enumerate(PANELS):
            _values(grid[0][column], report, key)
            _differences(grid[1][column], report, figure)
            grid[0][column].set_title(title)
            grid[1][column].set_title("Arm minus vanilla, paired by seed")
            grid[1][column].set_xlabel("share of the training trips")
        _share_axis(grid[1][0], [plan.share for plan in report.shares])
        # Above the panels: within them it would hide an interval sooner or later.
        canvas.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper left", fontsize=8,
                      ncols=len(COLOURS), title="Seeds, their mean and its 95 % interval",
                      title_fontsize=8, alignment="left")
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    # Points of print are no unit to some viewers.
    text = re.sub(r'(width|height)="([\d.]+)pt"', r'\1="\2"', buffer.getvalue(), count=2)
    return marked_svg(re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL))


def _place(share: float, index: int, count: int) -> float:
    return float(share * APART ** (index - (count - 1) / 2))


def _seeds(axes: Axes, x: float, values: Sequence[float], colour: str, marker: str) -> None:
    axes.plot([x * ASIDE] * len(values), values, linestyle="", marker=marker, markersize=3.5,
              color=colour, alpha=0.6, markeredgewidth=0)


def _values(axes: Axes, report: StudyReport, key: str) -> None:
    """Draw each seed as a faint point, and the means with their intervals."""
    arms = (VANILLA, *report.arms)
    for index, arm in enumerate(arms):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        means: list[tuple[float, float]] = []
        for share in sorted(plan.share for plan in report.shares):
            values, interval = values_of(report, arm, share, key)
            if not values:
                continue
            x = _place(share, index, len(arms))
            _seeds(axes, x, values, colour, marker)
            if interval is not None:
                axes.vlines(x, *interval, color=colour, linewidth=1.2)
            means.append((x, sum(values) / len(values)))
        axes.plot([x for x, _ in means], [y for _, y in means], color=colour, linewidth=1.2,
                  marker=marker, markersize=6, markerfacecolor=GROUND, label=arm)


def _differences(axes: Axes, report: StudyReport, figure: str) -> None:
    """Draw each seed's difference, their mean and its interval, and the line of no difference."""
    axes.axhline(0, color=INK, linewidth=0.8)
    for index, arm in enumerate(report.arms, 1):
        colour = COLOURS[index % len(COLOURS)]
        for each in report.comparisons:
            if (each.arm, each.part, each.figure) != (arm, ALL, figure):
                continue
            x, found = _place(each.share, index - 1, len(report.arms)), each.found
            seeds = [a - b for a, b in zip(found.arm, found.vanilla, strict=True)]
            marker = MARKERS[index % len(MARKERS)]
            _seeds(axes, x, seeds, colour, marker)
            if found.interval is not None:
                axes.vlines(x, *found.interval, color=colour, linewidth=1.2)
            axes.plot([x], [found.difference], marker=marker, markersize=6, color=colour,
                      markerfacecolor=GROUND)


def _share_axis(axes: Axes, shares: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted(shares)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sorted(shares), [share_text(share) for share in sorted(shares)])
    axes.set_xlim(min(shares) / 1.8, max(shares) * 1.8)
