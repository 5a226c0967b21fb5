"""The page of one run: curves, where the time of a step goes, settings and the newest notes."""

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Grid, Vertical, VerticalScroll
from textual.widgets import Static

from hoserkd.text import printable
from hoserkd.tui.drawing import (
    clipped,
    figure,
    key_values,
    progress_text,
    short_span,
    state_text,
    timing_bars,
)
from hoserkd.tui.snapshot import Curve, RunDetail, RunRow, Snapshot
from hoserkd.tui.views.chart import Chart
from hoserkd.tui.views.page import StopAsked, Wanted

GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("loss", ("loss", "loss_road", "loss_time", "loss_pinball")),
    ("KL", ("loss_kl", "val_loss_kl")),
    ("accuracy", ("accuracy", "val_accuracy", "val_accuracy_kept")),
    ("throughput", ("trips_per_s", "tokens_per_s")),
    ("perplexity", ("perplexity", "val_perplexity")),
    ("validation loss", ("val_loss", "val_loss_road", "val_loss_time", "val_loss_pinball")),
    ("temperature", ("temperature",)),
    ("lambda_kl", ("lambda_kl",)),
    ("agreement", ("agreement", "teacher_accuracy")),
    ("entropy", ("teacher_entropy", "student_entropy")),
    ("informative steps", ("informative_share", "collision_share")),
    ("learning rate", ("learning_rate",)),
    ("gradient norm", ("grad_norm",)),
    ("processor, %", ("process_cpu_percent", "cpu_percent", "gpu_percent")),
    ("memory, MB", ("process_memory_mb", "gpu_memory_mb")),
    ("memory, %", ("memory_percent", "gpu_memory_percent")),
)
"""Curves that are drawn together, in the order of their pages."""
LABELS = {
    "loss": "all", "loss_road": "road", "loss_time": "time", "loss_pinball": "pinball",
    "loss_kl": "train", "val_loss_kl": "val", "accuracy": "train", "val_accuracy": "val",
    "val_accuracy_kept": "kept", "trips_per_s": "trips/s", "tokens_per_s": "tokens/s",
    "perplexity": "train", "val_perplexity": "val", "val_loss": "all", "val_loss_road": "road",
    "val_loss_time": "time", "val_loss_pinball": "pinball", "teacher_accuracy": "teacher right",
    "agreement": "same choice", "teacher_entropy": "teacher", "student_entropy": "student",
    "informative_share": "informative", "collision_share": "collisions",
    "process_cpu_percent": "process", "cpu_percent": "machine", "gpu_percent": "GPU",
    "process_memory_mb": "process", "gpu_memory_mb": "GPU", "memory_percent": "machine",
    "gpu_memory_percent": "GPU",
}
"""What a curve is called beside its chart's title, where the metric's own name is long."""
NOT_DRAWN = ("trip_steps_per_s", "optimiser_steps_per_s", "epoch_s")
WIDE = 120
NAME_WIDTH = 36
CHARTS = 4
PANELS = ("time", "settings", "log")


def charts_of(curves: dict[str, Curve]) -> list[tuple[str, list[tuple[str, Curve]]]]:
    """Return (title, labelled curves) of every group that has data, then of what is in no group."""
    found = []
    grouped = {name for _, names in GROUPS for name in names}
    for title, names in GROUPS:
        present = [(LABELS.get(name, name), curves[name]) for name in names if name in curves]
        if present:
            found.append((title, present))
    rest = [name for name in curves if name not in grouped and name not in NOT_DRAWN]
    return found + [(name, [(name, curves[name])]) for name in rest]


def headline(row: RunRow, wide: bool) -> Text:
    """Return who the run is and how far it has come, in two lines, or three narrow ones."""
    clock = ("ETA", short_span(row.eta_s)) if row.live else ("took", short_span(row.duration_s))
    first = Text.assemble((clipped(printable(row.name), NAME_WIDTH), "bold"), "  ",
                          state_text(row.status), "  ", progress_text(row.progress, 12), "  ",
                          key_values([clock]))
    pairs = [("kind", row.kind), ("profile", row.profile), ("seed", figure(row.seed)),
             ("device", row.device or "-")]
    second = key_values([
        _done(row),
        ("epoch", figure(None if row.epoch is None else row.epoch + 1)),
        ("trips/s", figure(row.trips_per_s)),
        ("val acc", figure(row.val_accuracy)), ("KL", figure(row.loss_kl))])
    return Text.assemble(first, "   " if wide else "\n", key_values(pairs), "\n", second)


def _done(row: RunRow) -> tuple[str, str]:
    """Return how far a training is in optimiser steps, with their rate, or another run's work."""
    done = f"{figure(row.step)}/{figure(row.total_steps)}"
    if row.optimiser_steps_per_s is not None:
        done += f" at {figure(row.optimiser_steps_per_s)}/s"
    return "done" if row.epoch is None else "optimiser step", done


def settings_text(detail: RunDetail) -> Text:
    """Return the settings, one a line, those that differ from the profile first."""
    text = Text()
    for setting in detail.settings:
        if setting.differs:
            text.append(f"≠ {setting.key} = {printable(setting.value)}", style="bold")
            text.append(f"  (profile: {printable(setting.profile_value or '')})\n")
        else:
            text.append(f"  {setting.key} = {printable(setting.value)}\n", style="dim")
    return text


class RunView(Vertical):
    """Curves on the left, panels on the right; one of each where there is little room."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("c", "charts(1)", "Next curves"),
        Binding("C", "charts(-1)", "Previous curves", show=False),
        ("p", "panel", "Next panel"),
        ("x", "stop", "Stop gently"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._detail: RunDetail | None = None
        self._page = 0
        self._head_lines = 0
        self._panel = 0
        self.can_focus = True

    def compose(self) -> ComposeResult:
        """Headline, charts, panels."""
        yield Static("", id="run-head")
        with Container(id="run-body"):
            with Grid(id="run-charts"):
                for index in range(CHARTS):
                    yield Chart("", id=f"chart-{index}")
            with Vertical(id="run-panels"):
                for name in PANELS:
                    with VerticalScroll(id=f"panel-{name}", classes="panel") as panel:
                        panel.border_title = name
                        yield Static("", id=f"text-{name}")

    @property
    def wide(self) -> bool:
        """Tell whether there is room for all charts and panels at once."""
        return self.size.width >= WIDE and self.size.height >= 34

    def on_resize(self) -> None:
        """Lay out anew."""
        self._arrange()
        self._draw()

    def focus_table(self) -> None:
        """Give the keyboard to this page."""
        self.focus()

    def show(self, snapshot: Snapshot, wanted: Wanted) -> None:
        """Show one of the snapshot's runs."""
        self._detail = snapshot.details.get(wanted.run_id or "")
        self._draw()

    def action_charts(self, by: int) -> None:
        """Show the next charts, or those before."""
        self._page += by
        self._draw()

    def action_panel(self) -> None:
        """Show the next panel, where there is room for one only."""
        self._panel = (self._panel + 1) % len(PANELS)
        self._arrange()

    def action_stop(self) -> None:
        """Ask a run at work to stop at a safe point."""
        if self._detail is not None:
            self.post_message(StopAsked(self._detail.row))

    def _arrange(self) -> None:
        self.set_class(self.wide, "wide")
        for index, name in enumerate(PANELS):
            self.query_one(f"#panel-{name}").display = self.wide or index == self._panel

    def _draw(self) -> None:
        if self._detail is None:
            self.query_one("#run-head", Static).update("no run chosen: press 1, go to one, Enter")
            self._head_lines = 1
            return
        detail = self._detail
        head = headline(detail.row, self.wide)
        # Where its lines stay as many as they were, nothing else has to move.
        lines = sum(1 + line.cell_len // max(self.size.width - 2, 1) for line in head.split())
        self.query_one("#run-head", Static).update(head, layout=lines != self._head_lines)
        self._head_lines = lines
        self._draw_charts(charts_of(dict(detail.curves)))
        width = max(self.query_one("#panel-time").size.width - 4, 20)
        self._put("time", timing_bars(detail.timings_ms, width))
        self._put("settings", settings_text(detail))
        self._put("log", Text("\n".join(printable(line) for line in reversed(detail.log))
                              or "no notes"))

    def _put(self, panel: str, text: Text) -> None:
        static = self.query_one(f"#text-{panel}", Static)
        if getattr(static, "shown", None) != text:
            static.shown = text  # type: ignore[attr-defined]
            static.update(text)

    def _draw_charts(self, charts: Sequence[tuple[str, list[tuple[str, Curve]]]]) -> None:
        room = CHARTS if self.wide else 1
        pages = max(-(-len(charts) // room), 1)
        page = self._page % pages
        shown = charts[page * room:(page + 1) * room]
        for index in range(CHARTS):
            chart = self.query_one(f"#chart-{index}", Chart)
            chart.display = index < max(len(shown), 1)
            if index < len(shown):
                title, curves = shown[index]
                chart.draw(curves, title)
                chart.border_subtitle = f"{page + 1}/{pages}" if index == len(shown) - 1 else ""
