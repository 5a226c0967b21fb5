"""Plots as inline SVG whose colours follow the page: drawn with stand-ins, then given variables."""

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from hoserkd.engine.metrics.distributions import Histogram
from hoserkd.engine.metrics.task import Reliability
from hoserkd.report.records import Curve
from hoserkd.text import printable

INK, MUTED, REAL = "#010203", "#020304", "#030405"
RUNS = tuple(f"#0a0b{k:02x}" for k in range(1, 7))
"""Stand-ins; no plot has another colour."""
VARIABLES = {INK: "var(--ink)", MUTED: "var(--rule)", REAL: "var(--real)",
             **{colour: f"var(--run{k})" for k, colour in enumerate(RUNS, 1)}}
STYLE = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "axes.edgecolor": MUTED,
    "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "grid.color": MUTED,
    "grid.linewidth": 0.5, "legend.frameon": False, "axes.grid": True, "axes.grid.axis": "y",
    "text.parse_math": False,
}
SIZE = (4.6, 2.7)


def colour(index: int) -> str:
    """Return the stand-in of a run's colour."""
    return RUNS[index % len(RUNS)]


def labelled(name: str) -> str:
    """Return a run's name as a legend shows it: matplotlib hides what begins with a line."""
    return printable(" " + name if name.startswith("_") else name)


def inline_svg(canvas: Canvas, salt: str, label: str) -> str:
    """Return the drawing as an SVG element that takes the page's colours and width."""
    buffer = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": salt}):
        canvas.savefig(buffer, format="svg", transparent=True, bbox_inches="tight",
                       metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg"):]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Ids would clash between the plots of one page.
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{salt}-", text)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font: \1 var(--sans)", text)
    text = re.sub(r"font: bold ([\d.]+px)[^;\"]*|font: 700 ([\d.]+px)[^;\"]*",
                  lambda m: f"font: 700 {m[1] or m[2]} var(--sans)", text)
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, variable)
    return re.sub(r'<svg [^>]*viewBox="([^"]+)"[^>]*>',
                  rf'<svg class="plot" role="img" aria-label="{label}" viewBox="\1" '
                  'xmlns="http://www.w3.org/2000/svg" '
                  'xmlns:xlink="http://www.w3.org/1999/xlink">', text, count=1)


def _axes() -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=SIZE)
    axes = canvas.add_subplot()
    axes.set_axisbelow(True)
    return canvas, axes


def distribution_plot(
    name: str, title: str, unit: str, histograms: Mapping[str, Histogram]
) -> str:
    """Return the shares of real and generated trips over the bins; the open bin stands last."""
    with mpl.rc_context(STYLE):
        canvas, axes = _axes()
        first = next(iter(histograms.values()))
        width = first.edge[1] - first.edge[0] if len(first.edge) > 1 else 1.0
        edges = np.append(first.edge, first.edge[-1] + width)
        axes.stairs(first.real / max(first.real.sum(), 1), edges, fill=True, color=REAL,
                    alpha=0.35, label="real")
        for index, (run, found) in enumerate(histograms.items()):
            axes.stairs(found.other / max(found.other.sum(), 1), edges, color=colour(index),
                        linewidth=1.3, label=labelled(run))
        cut = _last_filled([first.real, *(h.other for h in histograms.values())])
        axes.set_xlim(0, edges[min(cut + 2, len(edges) - 1)])
        axes.set_ylim(bottom=0)
        axes.set_title(title)
        axes.set_xlabel(unit)
        axes.set_ylabel("share a bin")
        axes.legend(fontsize=8)
    return inline_svg(canvas, f"d-{name}", f"Distribution of {title}")


def _last_filled(counts: Sequence[np.ndarray]) -> int:
    """Return the bin below which all but a thousandth of every sample lies."""
    last = 0
    for values in counts:
        share = np.cumsum(values) / max(values.sum(), 1)
        last = max(last, int(np.searchsorted(share, 0.999)))
    return last


def reliability_plot(curves: Mapping[str, Reliability]) -> str:
    """Return accuracy over confidence; the diagonal is a calibrated model."""
    with mpl.rc_context(STYLE):
        canvas, axes = _axes()
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--", label="calibrated")
        for index, (run, curve) in enumerate(curves.items()):
            filled = curve.count > 0
            size = 60 * curve.count[filled] / max(curve.count.max(), 1) + 6
            axes.plot(curve.confidence[filled], curve.accuracy[filled], color=colour(index),
                      linewidth=1.3, label=labelled(run))
            axes.scatter(curve.confidence[filled], curve.accuracy[filled], s=size,
                         color=colour(index), alpha=0.6, linewidths=0)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.set_title("Reliability")
        axes.set_xlabel("confidence in the likeliest road")
        axes.set_ylabel("share right")
        axes.legend(fontsize=8, loc="upper left")
    return inline_svg(canvas, "reliability", "Reliability curve")


def curve_plot(name: str, title: str, curves: Mapping[str, tuple[int, Curve]]) -> str:
    """Return one training figure over time; curves are given with their run's place."""
    with mpl.rc_context(STYLE):
        canvas, axes = _axes()
        for run, (index, curve) in curves.items():
            axes.plot(curve.x, curve.y, color=colour(index), linewidth=1.3, label=labelled(run),
                      marker="o" if len(curve.x) <= 30 else None, markersize=3)
        axes.set_title(title)
        axes.set_xlabel("epoch" if name.startswith(("val_", "train_")) else "step")
        axes.legend(fontsize=8)
        axes.margins(x=0.02)
    return inline_svg(canvas, f"c-{name}", title)
