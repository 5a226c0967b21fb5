"""What the dashboard knows of its pages."""

from dataclasses import dataclass
from typing import Protocol

from hoserkd.tui.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the visible page is about, and so what needs to be read."""

    page: str
    run_id: str | None
    compared: tuple[str, ...]


class Page(Protocol):
    """A page: a widget that shows snapshots."""

    def show(self, snapshot: Snapshot, wanted: Wanted) -> None:
        """Show a snapshot; called for the visible page only."""

    def focus_table(self) -> None:
        """Take the keyboard."""
