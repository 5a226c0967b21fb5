"""The dashboard: pages over snapshots that a thread reads, never more than one a second."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import ContentSwitcher, Footer, Static
from textual.worker import get_current_worker

from hoserkd.tui.snapshot import RunRow, Snapshot
from hoserkd.tui.views.compare import CompareView
from hoserkd.tui.views.dialogs import AskScreen, HelpScreen
from hoserkd.tui.views.run import RunView
from hoserkd.tui.views.runs import RunsView

REFRESH_S = 1.0
CURVES_EVERY = 2
"""Curves are the dear part of a drawing: only every n-th refresh has them."""
PAGES = (("runs", "Runs"), ("run", "Run"), ("compare", "Compare"))
HELP = (
    ("everywhere", (("1 … 9", "go to a page"), ("tab, shift+tab", "go to the next widget"),
                    ("ctrl+p", "all commands, themes"), ("?", "this help"), ("q", "quit"))),
    ("Runs", (("enter", "open the run"), ("space", "mark it for comparison"),
              ("/", "filter by words"), ("s, S", "sort by the next column, reverse"),
              ("t", "tag"))),
    ("Run", (("c", "next curves"), ("p", "next panel"), ("x", "stop it gently"))),
    ("Compare", (("c", "next metric"),)),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the visible page needs read."""

    page: str
    run_id: str | None
    compared: tuple[str, ...]


class Source(Protocol):
    """Reads snapshots and does the few things that the dashboard may change."""

    def read(self, wanted: Wanted) -> Snapshot:
        """Return the present state; called from a thread, one call at a time."""

    def tag(self, run_id: str, tag: str) -> str:
        """Tag a run and return what to tell the user."""

    def stop(self, run: RunRow) -> str:
        """Ask a run to stop gently and return what to tell the user."""


class Dashboard(App[None]):
    """Pages over one run store."""

    TITLE = "hoserkd"
    CSS_PATH = "dashboard.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"page('{page}')", title, show=False)
          for number, (page, title) in enumerate(PAGES, 1)),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
    ]

    class Taken(Message):
        """A snapshot has been read."""

        def __init__(self, snapshot: Snapshot) -> None:
            super().__init__()
            self.snapshot = snapshot

    def __init__(self, source: Source, *, page: str = "runs", run_id: str | None = None,
                 compared: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._source = source
        self._page = page
        self._run_id = run_id
        self._compared = compared
        self._snapshot = Snapshot()
        self.reading = False
        self._ticks = 0
        self.taken = 0
        """Snapshots shown so far."""

    def compose(self) -> ComposeResult:
        """A line of pages, the page itself, and the keys."""
        yield Static("", id="top")
        with ContentSwitcher(initial=self._page, id="pages"):
            yield RunsView(id="runs")
            yield RunView(id="run")
            yield CompareView(id="compare")
        yield Static("", id="notice")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Read at once, then once a second."""
        self.call_after_refresh(self._go, self._page)
        self.set_interval(REFRESH_S, self._tick)

    @property
    def snapshot(self) -> Snapshot:
        """What is shown."""
        return self._snapshot

    def action_page(self, page: str) -> None:
        """Go to a page."""
        self._go(page)

    def action_help(self) -> None:
        """Show all keys."""
        self.push_screen(HelpScreen(HELP))

    def stop_run(self, run: RunRow) -> None:
        """Ask a run to stop; its own page calls this."""
        self.notify(self._source.stop(run))

    def on_runs_view_opened(self, message: RunsView.Opened) -> None:
        """Go to the page of a run."""
        self._run_id = message.run_id
        self._go("run")

    def on_runs_view_marked(self, message: RunsView.Marked) -> None:
        """Remember what to compare."""
        self._compared = message.run_ids

    def on_runs_view_tag_asked(self, message: RunsView.TagAsked) -> None:
        """Ask for a tag and set it."""
        def tag(answer: str | None) -> None:
            if answer:
                self.notify(self._source.tag(message.run_id, answer))
                self.read()

        self.push_screen(AskScreen(f"tag for {message.run_id} (-TAG takes one away):"), tag)

    def on_dashboard_taken(self, message: Taken) -> None:
        """Show what was read, if it differs from what is shown."""
        self.reading = False
        self.taken += 1
        notice = self.query_one("#notice", Static)
        notice.display = message.snapshot.trouble is not None
        notice.update(message.snapshot.trouble or "")
        if message.snapshot != self._snapshot:
            self._snapshot = message.snapshot
            self._show()

    def _go(self, page: str) -> None:
        self._page = page
        if page == "run" and self._run_id is None:
            self._run_id = self.query_one(RunsView).current
        self.query_one("#pages", ContentSwitcher).current = page
        self.query_one("#top", Static).update(self._top_line())
        self._view().focus_table()
        self._show()
        self.read()

    def _top_line(self) -> Text:
        text = Text()
        text.append(" hoserkd ", style="bold reverse")
        for number, (page, title) in enumerate(PAGES, 1):
            text.append("  ")
            here = page == self._page
            text.append(f"{number} {title}", style="bold underline" if here else "dim")
        return text

    def _view(self) -> RunsView | RunView | CompareView:
        views: dict[str, Callable[[], RunsView | RunView | CompareView]] = {
            "runs": lambda: self.query_one(RunsView),
            "run": lambda: self.query_one(RunView),
            "compare": lambda: self.query_one(CompareView),
        }
        return views[self._page]()

    def _show(self) -> None:
        match self._view():
            case RunsView() as runs:
                runs.show(self._snapshot)
            case RunView() as run:
                run.show(self._snapshot, self._run_id)
            case CompareView() as compare:
                compare.show(self._snapshot, self._compared)

    def _tick(self) -> None:
        self._ticks += 1
        if self._page == "runs" or self._ticks % CURVES_EVERY == 0:
            self.read()

    def read(self) -> None:
        """Have a snapshot read, unless one is being read."""
        if not self.reading:
            self.reading = True
            self._read(Wanted(self._page, self._run_id, self._compared))

    @work(thread=True, exit_on_error=True)
    def _read(self, wanted: Wanted) -> None:
        snapshot = self._source.read(wanted)
        if not get_current_worker().is_cancelled:
            self.post_message(self.Taken(snapshot))
