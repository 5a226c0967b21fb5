"""The page of the store itself: size, health, what died."""

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from hoserkd.store.quarantine import quarantine_text
from hoserkd.text import duration_text, printable, size_text
from hoserkd.tui.drawing import BLUE, GROUND, STATES, bar, clipped, state_text
from hoserkd.tui.snapshot import Snapshot, StoreHealth
from hoserkd.tui.views.page import Wanted

MOST_DAMAGED = 8


def health_table(health: StoreHealth) -> Table:
    """Return the store's figures."""
    table = Table.grid(padding=(0, 3))
    rows = [
        ("folder", printable(health.directory)),
        ("database", f"{size_text(health.database_bytes)}, " + (
            "cannot be read" if health.schema_version is None
            else f"schema {health.schema_version}")),
        ("behind the runs", f"{duration_text(health.behind_s)}: filled when somebody asks"
         if health.behind_s else "no"),
        ("spools", size_text(health.spool_bytes)),
        ("all files", size_text(health.files_bytes)),
        ("leftovers", size_text(health.leftovers_bytes)),
        ("free on the disk", size_text(health.free_bytes)),
    ]
    for name, value in rows:
        table.add_row(Text(name, style="dim"), Text(value))
    return table


def states_text(health: StoreHealth, width: int = 30) -> Text:
    """Return how many runs are in each state, as bars."""
    total = max(sum(health.runs_by_status.values()), 1)
    lines = []
    for status in STATES:
        count = health.runs_by_status.get(status, 0)
        name = state_text(status)
        name.pad_right(12 - len(name.plain))
        lines.append(Text.assemble(name, (bar(count / total, width), f"{BLUE} on {GROUND}"),
                                   f" {count}"))
    return Text("\n").join(lines)


def largest_text(health: StoreHealth, width: int = 30) -> Text:
    """Return the runs that take most room, as bars of all that the runs take."""
    lines = [Text("the runs that take most room", style="bold")]
    for name, size in health.largest:
        lines.append(Text.assemble(
            f"{clipped(printable(name), 22):<24}",
            (bar(size / max(health.files_bytes, 1), width), f"{BLUE} on {GROUND}"),
            f" {size_text(size)}"))
    return Text("\n").join(lines) if health.largest else Text("no run has made a file yet")


def quarantine_view(health: StoreHealth) -> Text:
    """Return what of the runs' records cannot be read."""
    found = health.quarantine
    if not found:
        return Text("all records of the runs can be read")
    text = Text("damaged records: ", style="bold").append(quarantine_text(found))
    for record in found[:MOST_DAMAGED]:
        what = f"{record.lines} lines, {record.reason}" if record.lines else record.reason
        text.append(f"\n  {printable(record.run_id)}  {record.file}: {printable(what)}",
                    style="not bold")
    if len(found) > MOST_DAMAGED:
        text.append(f"\n  and {len(found) - MOST_DAMAGED} more: hoserkd runs repair")
    return text


class StoreView(VerticalScroll):
    """Size, health, and the runs whose process is gone."""

    def compose(self) -> ComposeResult:
        """Figures, states, dead and large runs, what to do."""
        for part in ("store-health", "store-states", "store-dead", "store-damaged",
                     "store-largest", "store-hints"):
            yield Static("", id=part)

    def focus_table(self) -> None:
        """Take the keyboard, for scrolling."""
        self.focus()

    def show(self, snapshot: Snapshot, wanted: Wanted) -> None:
        """Show the store's state."""
        health = snapshot.store
        if health is None:
            return
        self.query_one("#store-health", Static).update(health_table(health))
        self.query_one("#store-states", Static).update(states_text(health))
        self.query_one("#store-largest", Static).update(largest_text(health))
        damaged = self.query_one("#store-damaged", Static)
        damaged.display = bool(health.quarantine)
        damaged.update(quarantine_view(health))
        dead = [run for run in snapshot.runs if run.status == "dead"]
        text = Text("runs whose process is gone\n", style="bold") if dead else Text(
            "no run's process has died unheard")
        for run in dead:
            took = "-" if run.duration_s is None else duration_text(run.duration_s)
            text.append(f"  † {printable(run.name)}  {run.run_id}  {run.kind}, after {took}\n")
        self.query_one("#store-dead", Static).update(text)
        self.query_one("#store-hints", Static).update(Text(
            "hoserkd train --resume --name RUN goes on with a stopped or dead training\n"
            "hoserkd runs gc       removes what retention rules no longer keep\n"
            "hoserkd runs repair   rebuilds the database from the runs' own files", style="dim"))
