"""What the dashboard knows of its pages."""

from dataclasses import dataclass
from typing import Protocol

from textual.message import Message

from hoserkd.tui.snapshot import RunRow, Snapshot


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the visible page is about, and so what needs to be read."""

    page: str
    run_id: str | None
    compared: tuple[str, ...]


class StopAsked(Message):
    """The user wants a run to stop."""

    def __init__(self, run: RunRow) -> None:
        super().__init__()
        self.run = run


class Page(Protocol):
    """A page: a widget that shows snapshots."""

    def show(self, snapshot: Snapshot, wanted: Wanted) -> None:
        """Show a snapshot; called for the visible page only."""

    def focus_table(self) -> None:
        """Take the keyboard."""
