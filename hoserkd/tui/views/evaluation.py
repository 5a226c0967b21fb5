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

WIDE = 120


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
                yield Static("", id="judged-tests")

    def focus_table(self) -> None:
        """Give the keyboard to the figures."""
        self.query_one(DataTable).focus()

    def on_resize(self) -> None:
        """Lay out anew."""
        self.set_class(self.size.width >= WIDE, "wide")

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
            (printable(judged.title), "dim"), f"  evaluation {number + 1}/{len(self._judgements)}"))
        self._fill(judged)
        self._draw_distribution(judged)
        self.query_one("#judged-tests", Static).update(
            Text("\n".join(printable(line) for line in judged.tests)))

    def _fill(self, judged: Judgement) -> None:
        if (judged, self._intervals) == self._drawn:
            return
        self._drawn = (judged, self._intervals)
        table = self.query_one(DataTable)
        table.clear(columns=True)
        names = [printable(name) for name in judged.names]
        table.add_columns("metric", *names, *REFERENCES.values())
        for line in judged.lines:
            values = line.intervals if self._intervals else line.values
            table.add_row(line.label, *values, *line.references)

    def _draw_distribution(self, judged: Judgement) -> None:
        chart = self.query_one(Chart)
        chart.display = bool(judged.distributions)
        if not judged.distributions:
            return
        number = self._distribution % len(judged.distributions)
        found = judged.distributions[number]
        curves = [("real", Curve("real", found.edge, found.real))]
        curves += [(name, Curve(name, found.edge, shares)) for name, shares in found.generated]
        chart.draw(curves, f"{found.name.replace('_', ' ')}, share of trips", figures=False)
        chart.border_subtitle = f"{number + 1}/{len(judged.distributions)}"
