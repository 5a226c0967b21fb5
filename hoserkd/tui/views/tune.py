"""The page of tuning studies: trials, the best so far, what accuracy follows."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import DataTable, Static

from hoserkd.text import printable
from hoserkd.tui.drawing import BLUE, GROUND, bar, clipped, figure, state_text
from hoserkd.tui.snapshot import Snapshot
from hoserkd.tui.studies import Study, Trial
from hoserkd.tui.views.chart import Chart
from hoserkd.tui.views.page import Wanted
from hoserkd.tui.views.tables import fill_table

MOST_LINES = 3
"""Sentences of a study that the head of the page has room for."""


def importance_text(study: Study, width: int = 12) -> Text:
    """Return what share of the objective's variation each parameter explains."""
    record = study.record
    if not record.importances:
        return Text("importance: after four complete trials", style="dim")
    lines = [Text(f"importance for {record.objective}\n(PED-ANOVA, complete trials)", style="dim")]
    for name, share in record.importances.items():
        lines.append(Text.assemble(f"{clipped(printable(name.rpartition('.')[2]), 11):<12}",
                                   (bar(share, width), f"{BLUE} on {GROUND}"), f" {share:4.0%}"))
    return Text("\n").join(lines)


class TuneView(Vertical):
    """One study at a time."""

    BINDINGS: ClassVar[list[BindingType]] = [("n", "next", "Next study")]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._studies: tuple[Study, ...] = ()
        self._chosen = 0
        self._drawn: object = None

    def compose(self) -> ComposeResult:
        """Headline, curve beside the parameters' importance, trials."""
        yield Static("", id="tune-head")
        with Horizontal(id="tune-top"):
            yield Chart("", id="tune-chart")
            yield Static("", id="tune-importance")
        yield DataTable(id="tune-table", cursor_type="row", zebra_stripes=True)

    def focus_table(self) -> None:
        """Give the keyboard to the trials."""
        self.query_one(DataTable).focus()

    def show(self, snapshot: Snapshot, wanted: Wanted) -> None:
        """Show the chosen study."""
        self._studies = snapshot.studies
        self._draw()

    def action_next(self) -> None:
        """Show the next study."""
        self._chosen += 1
        self._draw()

    def _draw(self) -> None:
        head, top = self.query_one("#tune-head", Static), self.query_one("#tune-top")
        top.display = self.query_one(DataTable).display = bool(self._studies)
        if not self._studies:
            head.update("no study yet: `hoserkd tune --profile NAME` begins one")
            return
        number = self._chosen % len(self._studies)
        study = self._studies[number]
        head.update(Text.assemble(
            (printable(study.name), "bold"), "  ", state_text(study.status),
            f"  study {number + 1}/{len(self._studies)}",
            *(f"\n{printable(line)}" for line in study.record.summary[:MOST_LINES])))
        self.query_one(Chart).draw([("each", study.each()), ("best", study.best_so_far())],
                                   study.record.objective, figures=False)
        self.query_one("#tune-importance", Static).update(importance_text(study))
        self._fill(study)

    def _fill(self, study: Study) -> None:
        if study == self._drawn:
            return
        self._drawn = study
        fill_table(self.query_one(DataTable),
                   ("state", "trial", "for", study.record.objective, "epoch", *study.parameters),
                   [_cells(study, trial) for trial in reversed(study.trials)])


def _cells(study: Study, trial: Trial) -> list[Text | str]:
    best = trial.number is not None and trial.number == study.record.best
    return [state_text(trial.status), printable(trial.name) + (" ★ best" if best else ""),
            printable(trial.role), figure(trial.value),
            figure(None if trial.epoch is None else trial.epoch + 1),
            *(_value(trial.parameters.get(parameter)) for parameter in study.parameters)]


def _value(value: object) -> str:
    return figure(value) if isinstance(value, int | float) or value is None else printable(
        str(value))
