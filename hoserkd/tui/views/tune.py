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
from hoserkd.tui.studies import LEAST_TRIALS, Study, Trial
from hoserkd.tui.views.chart import Chart
from hoserkd.tui.views.page import Wanted
from hoserkd.tui.views.tables import fill_table

FLAT = 0.1
"""A rank correlation below this is no direction."""


def importance_text(study: Study, width: int = 12) -> Text:
    """Return what share of the accuracy's spread each parameter explains, and which way it goes."""
    found = study.importance()
    if not found:
        return Text(f"importance: after {LEAST_TRIALS} searched trials", style="dim")
    lines = [Text("importance: share of accuracy's spread\n"
                  "that each explains alone; rank tie ρ", style="dim")]
    for name, one in found.items():
        tie = "" if one.tie is None else f"  {_way(one.tie)} {one.tie:+.2f}"
        lines.append(Text.assemble(f"{clipped(printable(name.rpartition('.')[2]), 11):<12}",
                                   (bar(one.share, width), f"{BLUE} on {GROUND}"),
                                   f" {one.share:4.0%}{tie}"))
    return Text("\n").join(lines)


def _way(tie: float) -> str:
    return "↗" if tie > FLAT else "↘" if tie < -FLAT else "→"


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
        best = study.best
        head.update(Text.assemble(
            (printable(study.name), "bold"), "  ", state_text(study.status),
            f"  {len(study.trials)} trials",
            f"  best {figure(best.val_accuracy)} ({printable(best.name)})" if best else "",
            f"  study {number + 1}/{len(self._studies)}"))
        self.query_one(Chart).draw([("each", study.each()), ("best", study.best_so_far())],
                                   "val accuracy", figures=False)
        self.query_one("#tune-importance", Static).update(importance_text(study))
        self._fill(study)

    def _fill(self, study: Study) -> None:
        if study.trials == self._drawn:
            return
        self._drawn = study.trials
        fill_table(self.query_one(DataTable),
                   ("state", "trial", "for", "val acc", "epoch", *study.parameters),
                   [_cells(study, trial) for trial in reversed(study.trials)])


def _cells(study: Study, trial: Trial) -> list[Text | str]:
    name = printable(trial.name) + (" ★ best" if trial == study.best else "")
    return [state_text(trial.status), name, printable(trial.role), figure(trial.val_accuracy),
            figure(None if trial.epoch is None else trial.epoch + 1),
            *(_value(trial.parameters.get(parameter)) for parameter in study.parameters)]


def _value(value: float | str | None) -> str:
    return printable(value) if isinstance(value, str) else figure(value)
