"""The page of evaluations: figures beside floor and simple rules, distributions."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical
from textual.widgets import DataTable, Static

from hoserkd.text import printable
from hoserkd.tui.judgements import REFERENCES, Judgement
from hoserkd.tui.snapshot import Curve, Snapshot
from hoserkd.tui.views.chart import Chart
from hoserkd.tui.views.page import Wanted
from hoserkd.tui.views.tables import fill_table

WIDE = 120
BIN_WIDTH = 4
"""Columns of the page for each bin of a distribution; narrower ones look like noise."""
UNITS = {"distance": "km", "radius": "km", "duration": "min"}


class EvaluationView(Vertical):
    """One evaluation at a time."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("n", "next", "Next evaluation"),
        ("c", "distribution", "Next distribution"),
        ("i", "intervals", "Intervals"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._judgements: tuple[Judgement, ...] = ()
        self._chosen = 0
        self._distribution = 0
        self._intervals = False
        self._drawn: object = None

    def compose(self) -> ComposeResult:
        """Headline, figures, distribution, tests."""
        yield Static("", id="judged-head")
        with Container(id="judged-body"):
            yield DataTable(id="judged-table", cursor_type="row", zebra_stripes=True)
            with Vertical(id="judged-side"):
                yield Chart("", id="judged-chart")
                yield DataTable(id="judged-tests", cursor_type="row", zebra_stripes=True)

    def focus_table(self) -> None:
        """Give the keyboard to the figures."""
        self.query_one("#judged-table", DataTable).focus()

    def on_resize(self) -> None:
        """Lay out anew."""
        self.set_class(self.size.width >= WIDE, "wide")
        self._drawn = None
        self._draw()

    def show(self, snapshot: Snapshot, wanted: Wanted) -> None:
        """Show the chosen evaluation."""
        self._judgements = snapshot.judgements
        self._draw()

    def action_next(self) -> None:
        """Show the next evaluation."""
        self._chosen += 1
        self._draw()

    def action_distribution(self) -> None:
        """Show the next distribution."""
        self._distribution += 1
        self._draw()

    def action_intervals(self) -> None:
        """Show intervals, or leave them out."""
        self._intervals = not self._intervals
        self._draw()

    def _draw(self) -> None:
        head = self.query_one("#judged-head", Static)
        self.query_one("#judged-body").display = bool(self._judgements)
        if not self._judgements:
            head.update("no evaluation yet: `hoserkd evaluate RUN` makes one")
            return
        number = self._chosen % len(self._judgements)
        judged = self._judgements[number]
        head.update(Text.assemble(
            (printable(" against ".join(judged.names)), "bold"), f"  {judged.od} ODs  ",
            (printable(judged.title), "dim"), f"  evaluation {number + 1}/{len(self._judgements)}",
            (f"\n{judged.caution}" if len(judged.names) > 1 else "", "dim")))
        self._fill(judged)
        self._draw_distribution(judged)

    def _fill(self, judged: Judgement) -> None:
        if (judged, self._intervals) == self._drawn:
            return
        self._drawn = (judged, self._intervals)
        fill_table(
            self.query_one("#judged-table", DataTable),
            ("metric", *(printable(name) for name in judged.names), *REFERENCES.values()),
            [(line.label, *(line.intervals if self._intervals else line.values),
              *line.references) for line in judged.lines])
        fill_table(
            self.query_one("#judged-tests", DataTable), ("metric", "verdict", "p", "a", "b"),
            [tuple(printable(text) for text in (one.metric, one.verdict, one.p, one.a, one.b))
             for one in judged.tests])
        self.query_one("#judged-tests").display = bool(judged.tests) and self.has_class("wide")

    def _draw_distribution(self, judged: Judgement) -> None:
        chart = self.query_one(Chart)
        chart.display = bool(judged.distributions)
        if not judged.distributions:
            return
        number = self._distribution % len(judged.distributions)
        found = judged.distributions[number].coarser(max(self.size.width // BIN_WIDTH, 10))
        curves = [("real", Curve("real", found.edge, found.real))]
        curves += [(name, Curve(name, found.edge, shares)) for name, shares in found.generated]
        chart.draw(curves, _distribution_title(found.name), figures=False)
        chart.border_subtitle = f"{number + 1}/{len(judged.distributions)}"


def _distribution_title(name: str) -> str:
    unit = UNITS.get(name.rpartition("_")[2], "")
    return f"{name.replace('_', ' ')}{unit and ', '}{unit}: share a bin"
