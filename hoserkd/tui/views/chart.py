"""A plot of a few curves with its legend in the frame."""

from collections.abc import Sequence

import numpy as np
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Container, Grid
from textual.reactive import reactive
from textual.strip import Strip
from textual_hires_canvas import Canvas
from textual_plot import HiResMode, PlotWidget
from textual_plot.plot_widget import Legend

from hoserkd.tui.drawing import SERIES_MARKS, SERIES_STYLES, short_figure
from hoserkd.tui.snapshot import Curve

FRAME = 6
"""Columns of the frame's corners beside its title."""
MARKS = 3
"""Letters along a curve."""


def mark_places(curve: Curve, index: int, curves: int) -> tuple[list[float], list[float]]:
    """Return where a curve bears its letter: each curve elsewhere along its way, on its line.

    Curves that lie upon each other would else hide all letters but the last one's.
    """
    first, last = curve.step[0], curve.step[-1]
    x = [first + (last - first) * (part + (index + 1) / (curves + 1)) / MARKS
         for part in range(MARKS)]
    y = np.interp(x, curve.step, curve.value)
    return (x, y.tolist()) if last > first else ([first], [curve.value[-1]])


class StyledCanvas(Canvas):
    """A canvas without unstyled segments, on which Textual's filter for NO_COLOR stumbles."""

    def render_line(self, y: int) -> Strip:
        """Return a line in which every segment has a style."""
        strip = super().render_line(y)
        if all(segment.style is not None for segment in strip):
            return strip
        return Strip([Segment(s.text, s.style or Style(), s.control) for s in strip],
                     strip.cell_length)


class Plot(PlotWidget, can_focus=False):
    """A plot with narrow margins."""

    margin_top = reactive(0)
    margin_bottom = reactive(1)
    margin_left = reactive(8)

    def compose(self) -> ComposeResult:
        """The parts that a plot draws on."""
        with Grid():
            for part in ("margin-top", "margin-left", "plot", "margin-bottom"):
                yield StyledCanvas(1, 1, id=part)
        yield Legend(id="legend")


class Chart(Container):
    """Draws curves; each carries its letter, in the frame and on the curve."""

    def __init__(self, title: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._title = title
        self._shown: tuple[str, tuple[tuple[str, Curve], ...]] | None = None
        self.border_title = title

    def compose(self) -> ComposeResult:
        """Hold one plot."""
        yield Plot(allow_pan_and_zoom=False)

    def draw(self, curves: Sequence[tuple[str, Curve]], title: str | None = None, *,
             figures: bool = True) -> None:
        """Show (label, curve) pairs; nothing is redrawn where nothing has changed.

        Args:
            figures: tell each curve's newest value in the frame.
        """
        wanted = (title or self._title, tuple(curves))
        if wanted == self._shown:
            return
        self._shown = wanted
        legend = self._legend(wanted[0], curves, figures)
        if self.size.width and legend.cell_len > self.size.width - FRAME:
            legend = self._legend(wanted[0], curves, figures=False)
        self.border_title = legend
        plot = self.query_one(PlotWidget)
        plot.clear()
        for index, (_, curve) in enumerate(curves):
            if len(curve.step) > 1:
                plot.plot(curve.step, curve.value, hires_mode=HiResMode.BRAILLE,
                          line_style=SERIES_STYLES[index % len(SERIES_STYLES)])
        # Letters come over all lines.
        for index, (_, curve) in enumerate(curves):
            if len(curve.step) == 1 or (curve.step and len(curves) > 1):
                x, y = mark_places(curve, index, len(curves))
                plot.scatter(x, y, marker=SERIES_MARKS[index % len(SERIES_MARKS)],
                             marker_style=SERIES_STYLES[index % len(SERIES_STYLES)])

    @staticmethod
    def _legend(title: str, curves: Sequence[tuple[str, Curve]], figures: bool) -> Text:
        text = Text(title, style="bold")
        for index, (label, curve) in enumerate(curves):
            style = SERIES_STYLES[index % len(SERIES_STYLES)]
            text.append("  ")
            if len(curves) > 1:
                text.append(SERIES_MARKS[index % len(SERIES_MARKS)], style=f"bold {style}")
                text.append(f" {label}")
            if figures:
                text.append(f" {short_figure(curve.last)}", style=style)
        return text
