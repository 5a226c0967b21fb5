"""The page that lays two to six runs over each other."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.widgets import DataTable, Static

from hoserkd.engine.metrics.catalogue import ONE_TRAINING
from hoserkd.text import printable
from hoserkd.tui.drawing import (
    SERIES_MARKS,
    SERIES_STYLES,
    clipped,
    figure,
    short_span,
    state_text,
)
from hoserkd.tui.snapshot import Curve, RunDetail, Snapshot, settings_diff
from hoserkd.tui.views.chart import Chart
from hoserkd.tui.views.page import Wanted
from hoserkd.tui.views.tables import fill_table

FIGURES_WIDTH = 52
"""Columns that a run's state and figures take in the legend."""
METRICS = ("val_accuracy", "loss", "loss_road", "loss_time", "loss_kl", "accuracy",
           "trips_per_s", "val_loss_road", "val_loss_time", "val_time_mae_s")


def overlay(details: list[RunDetail], metric: str) -> list[tuple[str, Curve]]:
    """Return every run's curve of one metric; an empty curve where it has none."""
    return [(detail.row.name, detail.curves.get(metric, Curve(metric, (), ())))
            for detail in details]


class CompareView(Vertical):
    """Overlaid curves of one metric at a time, and the settings in which the runs differ."""

    BINDINGS: ClassVar[list[BindingType]] = [("c", "metric", "Next metric")]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._details: list[RunDetail] = []
        self._metric = 0
        self._drawn: object = None

    def compose(self) -> ComposeResult:
        """Legend, chart, table of differences."""
        yield Static("", id="compare-head")
        yield Chart("", id="compare-chart")
        yield DataTable(id="compare-table", cursor_type="row", zebra_stripes=True)

    def focus_table(self) -> None:
        """Give the keyboard to the table."""
        self.query_one(DataTable).focus()

    def show(self, snapshot: Snapshot, wanted: Wanted) -> None:
        """Lay the marked runs over each other."""
        details = snapshot.details
        self._details = [details[run] for run in wanted.compared if run in details]
        self._draw()

    def action_metric(self) -> None:
        """Show the next metric that a run has."""
        self._metric += 1
        self._draw()

    def _draw(self) -> None:
        head, chart = self.query_one("#compare-head", Static), self.query_one(Chart)
        if len(self._details) < 2:
            head.update("mark two to six runs with Space on page 1, then come back")
            chart.display = self.query_one(DataTable).display = False
            return
        chart.display = self.query_one(DataTable).display = True
        metrics = [name for name in METRICS
                   if any(name in detail.curves for detail in self._details)] or ["loss"]
        metric = metrics[self._metric % len(metrics)]
        head.update(self._legend())
        chart.draw(overlay(self._details, metric), metric)
        chart.border_subtitle = f"{self._metric % len(metrics) + 1}/{len(metrics)}"
        self._fill_table()

    def _legend(self) -> Text:
        room = max(self.size.width - FIGURES_WIDTH, 10)
        width = min(max(len(printable(one.row.name)) for one in self._details), room)
        lines = [Text(f"{'':<{width + 15}}{'val acc':>8}{'KL':>9}{'trips/s':>9}{'took':>7}",
                      style="dim")]
        for index, detail in enumerate(self._details):
            row = detail.row
            state = state_text(row.status)
            state.pad_right(12 - state.cell_len)
            lines.append(Text.assemble(
                (SERIES_MARKS[index], f"bold {SERIES_STYLES[index]}"),
                f" {clipped(printable(row.name), width):<{width}} ", state,
                f"{figure(row.val_accuracy):>8}{figure(row.loss_kl):>9}"
                f"{figure(row.trips_per_s):>9}{short_span(row.duration_s):>7}"))
        lines.append(Text(ONE_TRAINING, style="dim"))
        return Text("\n").join(lines)

    def _fill_table(self) -> None:
        rows = settings_diff(self._details)
        shown = [(detail.row.run_id, detail.row.name) for detail in self._details], rows
        if shown == self._drawn:
            return
        self._drawn = shown
        table = self.query_one(DataTable)
        names = [f"{mark} {printable(detail.row.name)}"
                 for mark, detail in zip(SERIES_MARKS, self._details, strict=False)]
        fill_table(table, ("setting", *names),
                   [(key, *(printable(value) for value in values)) for key, values in rows])
        table.border_title = "settings that differ" if rows else "the settings are the same"
