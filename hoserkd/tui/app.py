"""The dashboard: pages over snapshots that a thread reads, never more than one a second."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar, Protocol, cast

from rich.style import Style
from rich.text import Text
from textual import work
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import ContentSwitcher, Footer, Static
from textual.worker import get_current_worker

from hoserkd.store.elsewhere import OtherStore
from hoserkd.tui.launching import Launch
from hoserkd.tui.snapshot import RunRow, Snapshot
from hoserkd.tui.views.dialogs import AskScreen, ConfirmScreen, HelpScreen
from hoserkd.tui.views.launch import LaunchScreen
from hoserkd.tui.views.page import Page, StopAsked, Wanted
from hoserkd.tui.views.runs import RunsView

REFRESH_S = 1.0
PAUSES = {"runs": 1, "store": 10}
CURVES_PAUSE = 5
"""Seconds between two looks by page; pages with curves, which are dear to draw, wait longer."""


@dataclass(frozen=True, slots=True)
class PageInfo:
    """A page, what it is called, and its keys."""

    name: str
    title: str
    view: str
    """Class of the page, in the module `hoserkd.tui.views.<name>`."""
    keys: tuple[tuple[str, str], ...]

    def build(self) -> Widget:
        """Return the page; what it draws with is imported now, not at the dashboard's start."""
        module = import_module(f"hoserkd.tui.views.{self.name}")
        return cast(Widget, getattr(module, self.view)(id=self.name))


PAGES = (
    PageInfo("runs", "Runs", "RunsView", (
        ("enter", "open the run"), ("space", "mark it for comparison"),
        ("/", "filter by words"), ("s, S", "sort by the next column, reverse"), ("t", "tag"),
        ("x", "stop it gently"), ("left, right", "show more columns"))),
    PageInfo("run", "Run", "RunView", (
        ("c, C", "next and previous curves"), ("p", "next panel"), ("x", "stop it gently"))),
    PageInfo("compare", "Compare", "CompareView", (("c", "next metric"),)),
    PageInfo("tune", "Tune", "TuneView", (("n", "next study"),)),
    PageInfo("evaluation", "Evaluation", "EvaluationView", (
        ("n", "next evaluation"), ("c", "next distribution"), ("i", "intervals"))),
    PageInfo("map", "Map", "MapView", (
        ("n, p", "next and previous trip"), ("f, r", "fit the trip, the whole city"),
        ("+, -, arrows", "zoom and pan; the mouse's wheel and pulling too"))),
    PageInfo("store", "Store", "StoreView", (("up, down", "scroll"),)),
)
BY_NAME = {page.name: page for page in PAGES}
EVERYWHERE = (("1 … 7", "go to a page"), ("N", "start a run"),
              ("tab, shift+tab", "go to the next widget"), ("ctrl+p", "all commands, themes"),
              ("?", "this help"), ("q", "quit"))


class Source(Protocol):
    """Reads snapshots and does the few things that the dashboard may change."""

    def read(self, wanted: Wanted) -> Snapshot:
        """Return the present state; called from a thread, one call at a time."""

    def tag(self, run_id: str, tag: str) -> str:
        """Tag a run and return what to tell the user."""

    def stop(self, run: RunRow) -> str:
        """Ask a run to stop gently and return what to tell the user."""

    def profiles(self) -> Sequence[str]:
        """Return the names of the profiles that a run can be started with."""

    def refusal(self, launch: Launch) -> str | None:
        """Return why a run cannot be started so; None: it can."""

    def launch(self, launch: Launch) -> str:
        """Start a run in a process of its own and return what to tell the user."""

    def opened(self, store: OtherStore) -> "Source":
        """Return what reads another store."""


class Dashboard(App[None]):
    """Pages over one run store."""

    TITLE = "hoserkd"
    CSS_PATH = "dashboard.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"page('{page.name}')", page.title, show=False)
          for number, page in enumerate(PAGES, 1)),
        Binding("N", "launch", "Start"),
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
        self._ticks = 0
        self._begun = False
        self.reading = False
        self.taken = 0
        """Snapshots shown so far."""

    def compose(self) -> ComposeResult:
        """A line of pages, the page itself, and the keys."""
        yield Static("", id="top")
        with ContentSwitcher(initial=self._page, id="pages"):
            yield BY_NAME[self._page].build()
        yield Static("", id="notice")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Read at once, then once a second at most."""
        self.call_after_refresh(self._begin)
        self.set_interval(REFRESH_S, self._tick)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Offer pages and the start of a run in the command palette."""
        yield from super().get_system_commands(screen)
        for page in PAGES:
            yield SystemCommand(f"Page: {page.title}", f"Go to the page {page.title}",
                                lambda name=page.name: self._go(name))
        yield SystemCommand("Start a run", "Choose command, profile and settings",
                            self.action_launch)

    @property
    def wanted(self) -> Wanted:
        """What the visible page is about."""
        return Wanted(self._page, self._run_id, self._compared)

    async def action_page(self, page: str) -> None:
        """Go to a page."""
        await self._go(page)

    def action_help(self) -> None:
        """Show all keys."""
        self.push_screen(HelpScreen([("everywhere", EVERYWHERE),
                                     *((page.title, page.keys) for page in PAGES)]))

    def action_launch(self) -> None:
        """Ask what to start, and start it."""
        def start(launch: Launch | None) -> None:
            if launch is not None:
                self.notify(self._source.launch(launch), timeout=8, markup=False)

        profiles = self._source.profiles()
        if profiles:
            newest = next((run.profile for run in self._snapshot.runs
                           if run.profile in profiles), "")
            self.push_screen(LaunchScreen(profiles, newest, self._source.refusal), start)

    def on_stop_asked(self, message: StopAsked) -> None:
        """Ask whether a run shall stop, and have it stopped."""
        def stop(sure: bool | None) -> None:
            if sure:
                self.notify(self._source.stop(message.run), markup=False)

        if message.run.live:
            self.push_screen(ConfirmScreen(
                f"Stop {message.run.name} at its next safe point? It can be resumed."), stop)
        else:
            self.notify(f"{message.run.name} is not at work", markup=False)

    async def on_runs_view_opened(self, message: RunsView.Opened) -> None:
        """Go to the page of a run."""
        self._run_id = message.run_id
        await self._go("run")

    def on_runs_view_marked(self, message: RunsView.Marked) -> None:
        """Remember what to compare."""
        self._compared = message.run_ids

    def on_runs_view_store_chosen(self, message: RunsView.StoreChosen) -> None:
        """Show another store from here on."""
        self._source = self._source.opened(message.store)
        self._run_id, self._compared = None, ()
        self.notify(f"showing {message.store.directory}", markup=False)
        self.read()

    def on_runs_view_tag_asked(self, message: RunsView.TagAsked) -> None:
        """Ask for a tag and set it."""
        def tag(answer: str | None) -> None:
            if answer:
                self.notify(self._source.tag(message.run_id, answer), markup=False)
                self.read()

        self.push_screen(AskScreen(f"tag for {message.run_id} (-TAG takes one away):"), tag)

    def on_dashboard_taken(self, message: Taken) -> None:
        """Show what was read, if it differs from what is shown."""
        self.reading = False
        self.taken += 1
        if not self.screen_stack:
            # It came while the dashboard was closing: nobody is left to show it to.
            return
        if message.snapshot.trouble != self._snapshot.trouble:
            notice = self._base.query_one("#notice", Static)
            notice.display = message.snapshot.trouble is not None
            notice.update(Text(message.snapshot.trouble or ""))
        for told in message.snapshot.news:
            self.notify(told, severity="error", timeout=15, markup=False)
        if message.snapshot != self._snapshot:
            self._snapshot = message.snapshot
            self._show()
            # What had nothing to show could not take the keyboard before.
            if self.focused is None and len(self.screen_stack) == 1 and self._begun:
                self._view.focus_table()

    def read(self) -> None:
        """Have a snapshot read, unless one is being read."""
        if not self.reading:
            self.reading = True
            self._read(self.wanted)

    async def _begin(self) -> None:
        self._begun = True
        await self._go(self._page)

    async def _go(self, page: str) -> None:
        self._page = page
        if not self._begun:
            return
        if page in ("run", "map") and self._run_id is None:
            self._run_id = self._default_run()
        switcher = self._base.query_one("#pages", ContentSwitcher)
        if not switcher.query(f"#{page}"):
            await switcher.add_content(BY_NAME[page].build())
        if page != self._page:
            return  # the user has gone on meanwhile
        switcher.current = page
        self._base.query_one("#top", Static).update(self._top_line())
        self._view.focus_table()
        self._show()
        self.read()

    def _default_run(self) -> str | None:
        for table in self._base.query(RunsView):
            return table.current
        return self._snapshot.runs[0].run_id if self._snapshot.runs else None

    def _top_line(self) -> Text:
        text = Text()
        text.append(" hoserkd ", style="bold reverse")
        for number, page in enumerate(PAGES, 1):
            here = page.name == self._page
            text.append(" ")
            style = Style.parse("bold underline" if here else "dim")
            click = Style(meta={"@click": f"app.page('{page.name}')"})
            text.append(f"{number} {page.title}", style=style + click)
        return text

    @property
    def _base(self) -> Screen[object]:
        """The pages' own screen, whatever window is open over it."""
        return self.screen_stack[0]

    @property
    def _view(self) -> Page:
        return cast(Page, self._base.query_one(f"#{self._page}"))

    def _show(self) -> None:
        # A page on its way to its first sight shows what is there when it arrives.
        if self._base.query(f"#{self._page}"):
            self._view.show(self._snapshot, self.wanted)

    def _tick(self) -> None:
        self._ticks += 1
        if self._ticks % PAUSES.get(self._page, CURVES_PAUSE) == 0:
            self.read()

    @work(thread=True, exit_on_error=True)
    def _read(self, wanted: Wanted) -> None:
        snapshot = self._source.read(wanted)
        if not get_current_worker().is_cancelled:
            self.post_message(self.Taken(snapshot))
