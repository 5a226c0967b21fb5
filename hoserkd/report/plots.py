"""Plots as inline SVG whose colours follow the page: drawn with stand-ins, then given variables."""

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from hoserkd.engine.metrics.calibration import Reliability
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
SHOWN = 0.995
SHOWN_BINS = 60


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
    name: str, title: str, unit: str, real: Float64[np.ndarray, " n"],
    runs: Mapping[str, Float64[np.ndarray, " m"]],
) -> str:
    """Return the shares of real and generated values in bins as fine as the eye can use.

    The bins of the divergences reach to the largest real value; one taxi that waited for an hour
    would leave a drawing of them empty. What lies beyond the drawing counts in its shares.
    """
    edges = shown_edges(unit, [real, *runs.values()])
    with mpl.rc_context(STYLE):
        canvas, axes = _axes()
        axes.stairs(_shares(real, edges), edges, fill=True, color=REAL, alpha=0.35, label="real")
        for index, (run, values) in enumerate(runs.items()):
            axes.stairs(_shares(values, edges), edges, color=colour(index), linewidth=1.3,
                        label=labelled(run))
        axes.set_xlim(0, edges[-1])
        axes.set_ylim(bottom=0)
        axes.set_title(title)
        axes.set_xlabel(unit)
        axes.set_ylabel("share a bin")
        axes.legend(fontsize=8)
    return inline_svg(canvas, f"d-{name}", f"Distribution of {title}")


def shown_edges(
    unit: str, samples: Sequence[Float64[np.ndarray, " n"]]
) -> Float64[np.ndarray, " b"]:
    """Return equal bins from 0 to where all but a two-hundredth of every sample lies below.

    Times are whole seconds, so their bins are too: others would hold one second more in turn.
    """
    reach = max((float(np.quantile(x, SHOWN)) for x in samples if len(x)), default=1.0) or 1.0
    width = reach / SHOWN_BINS
    if unit == "min":
        width = np.ceil(width * 60) / 60
    return np.arange(int(np.ceil(reach / width)) + 1) * width


def _shares(
    values: Float64[np.ndarray, " n"], edges: Float64[np.ndarray, " b"]
) -> Float64[np.ndarray, " c"]:
    return np.histogram(values, edges)[0] / max(len(values), 1)


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
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=8)
        axes.margins(x=0.02)
    return inline_svg(canvas, f"c-{name}", title)
