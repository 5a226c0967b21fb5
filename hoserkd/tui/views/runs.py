"""The page of all runs: a table that can be filtered, sorted and marked for comparison."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import DataTable, Input, OptionList, Static

from hoserkd.store.elsewhere import OtherStore
from hoserkd.text import printable
from hoserkd.tui.drawing import clipped, figure, progress_text, short_span, state_text
from hoserkd.tui.snapshot import RunRow, Snapshot
from hoserkd.tui.views.page import StopAsked, Wanted
from hoserkd.tui.views.tables import CalmTable, unmarked


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table."""

    title: str
    width: int
    cell: Callable[[RunRow], Text | str]
    key: Callable[[RunRow], object]
    """What to sort by; None sorts last."""


NAME_WIDTH = 17
"""Of the name at least; it takes what the other columns leave."""
COLUMNS = (
    Column("state", 11, lambda r: state_text(r.status), lambda r: r.status),
    Column("name", NAME_WIDTH, lambda r: printable(r.name), lambda r: r.name),
    Column("kind", 14, lambda r: r.kind, lambda r: r.kind),
    Column("progress", 12, lambda r: progress_text(r.progress), lambda r: r.progress),
    Column("val acc", 8, lambda r: figure(r.val_accuracy), lambda r: r.val_accuracy),
    Column("opt. steps/s", 13, lambda r: figure(r.optimiser_steps_per_s),
           lambda r: r.optimiser_steps_per_s),
    Column("ETA", 6, lambda r: short_span(r.eta_s), lambda r: r.eta_s),
    Column("trips/s", 9, lambda r: figure(r.trips_per_s), lambda r: r.trips_per_s),
    Column("KL", 8, lambda r: figure(r.loss_kl), lambda r: r.loss_kl),
    Column("profile", 14, lambda r: printable(r.profile), lambda r: r.profile),
    Column("started", 14, lambda r: _moment(r.started_s), lambda r: r.started_s),
    Column("took", 8, lambda r: short_span(r.duration_s), lambda r: r.duration_s),
    Column("tags", 16, lambda r: printable(", ".join(r.tags)), lambda r: ",".join(r.tags)),
)
"""The weightiest first: where the page is narrow, the last ones come by scrolling."""
FIXED = 3
"""Columns that stay while others scroll: mark, state, name."""
SCROLLBAR = 2
ALL_WIDTH = 2 + sum(column.width for column in COLUMNS)


def matching(runs: tuple[RunRow, ...], words: str) -> tuple[RunRow, ...]:
    """Return the runs in which every word of the filter occurs (id, name, kind, state, tags)."""
    wanted = words.lower().split()
    return tuple(
        run for run in runs
        if all(word in " ".join((run.run_id, run.name, run.kind, run.profile, run.status,
                                 *run.tags)).lower() for word in wanted)
    )


def ordered(runs: tuple[RunRow, ...], column: Column | None,
            descending: bool) -> tuple[RunRow, ...]:
    """Return the runs sorted by a column, those without a value last; None: as they come."""
    if column is None:
        return runs
    known = [run for run in runs if column.key(run) is not None]
    unknown = [run for run in runs if column.key(run) is None]
    known.sort(key=lambda run: column.key(run), reverse=descending)  # type: ignore[arg-type, return-value]
    return (*known, *unknown)


class RunsView(Vertical):
    """The table of runs, its filter line, and what is marked."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("slash", "filter", "Filter"),
        ("space", "mark", "Mark"),
        ("s", "sort", "Sort"),
        ("S", "reverse", "Reverse"),
        ("t", "tag", "Tag"),
        Binding("x", "stop", "Stop gently", show=False),
    ]

    class Opened(Message):
        """The user wants to see a run."""

        def __init__(self, run_id: str) -> None:
            super().__init__()
            self.run_id = run_id

    class Marked(Message):
        """The set of runs to compare has changed."""

        def __init__(self, run_ids: tuple[str, ...]) -> None:
            super().__init__()
            self.run_ids = run_ids

    class StoreChosen(Message):
        """The user wants to see another store."""

        def __init__(self, store: OtherStore) -> None:
            super().__init__()
            self.store = store

    class TagAsked(Message):
        """The user wants to tag a run."""

        def __init__(self, run_id: str) -> None:
            super().__init__()
            self.run_id = run_id

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._snapshot = Snapshot()
        self._rows: tuple[RunRow, ...] = ()
        self._name_width = 0
        """Of the table as it stands; 0: it must be built anew."""
        self._drawn: list[list[Text | str]] = []
        self._made: dict[str, tuple[RunRow, bool, list[Text | str]]] = {}
        """(run, marked, cells) by id: most runs have ended, and their cells stay."""
        self._marked: tuple[str, ...] = ()
        self._summary = ""
        self._sort: int | None = None
        self._descending = True

    def compose(self) -> ComposeResult:
        """A filter line above the table."""
        filter_line = Input(placeholder="filter: words of name, kind, state, tag", id="filter")
        filter_line.display = False
        yield filter_line
        yield CalmTable(cursor_type="row", zebra_stripes=True, cell_padding=0, fixed_columns=FIXED,
                        id="runs-table")
        others = OptionList(id="other-stores")
        others.display = False
        yield others
        yield Static("", id="runs-summary")

    @property
    def table(self) -> CalmTable:
        """The table itself."""
        return self.query_one(CalmTable)

    @property
    def current(self) -> str | None:
        """The run under the cursor."""
        row = self.table.cursor_row
        return self._rows[row].run_id if 0 <= row < len(self._rows) else None

    def focus_table(self) -> None:
        """Give the keyboard to the table, or to the other stores where there is no run."""
        (self._others if self._others.display else self.table).focus()

    @property
    def _others(self) -> OptionList:
        return self.query_one("#other-stores", OptionList)

    def on_resize(self) -> None:
        """Show as many columns as fit."""
        self._draw()

    def show(self, snapshot: Snapshot, wanted: Wanted) -> None:
        """Show the runs of a snapshot; only cells that changed are touched."""
        if snapshot.other_stores != self._snapshot.other_stores:
            self._offer(snapshot.other_stores)
        self._snapshot = snapshot
        self._draw()

    def _offer(self, stores: tuple[OtherStore, ...]) -> None:
        """List other stores below the empty table; Enter opens one."""
        had_focus = self.table.has_focus
        self._others.clear_options()
        self._others.add_options(
            [Text(f"{store.count} in {printable(str(store.directory))}") for store in stores])
        self._others.display = bool(stores)
        self._others.highlighted = 0 if stores else None
        if stores and had_focus:
            self._others.focus()

    def _draw(self) -> None:
        snapshot = self._snapshot
        if not self.size.width:
            return
        current = self.current
        column = None if self._sort is None else COLUMNS[self._sort]
        words = self.query_one("#filter", Input).value
        rows = ordered(matching(snapshot.runs, words), column, self._descending)
        name_width = NAME_WIDTH + max(self.size.width - ALL_WIDTH - SCROLLBAR, 0)
        cells = [self._cells(run, name_width) for run in rows]
        self._made = {run.run_id: (run, run.run_id in self._marked, line)
                      for run, line in zip(rows, cells, strict=True)}
        same_shape = (name_width == self._name_width
                      and [r.run_id for r in rows] == [r.run_id for r in self._rows])
        self._rows = rows
        if same_shape:
            self._update(cells)
        else:
            self._rebuild(name_width, cells, current)
        self._drawn = cells
        self._summarise(len(snapshot.runs))

    def _cells(self, run: RunRow, name_width: int) -> list[Text | str]:
        marked = run.run_id in self._marked
        made = self._made.get(run.run_id) if name_width == self._name_width else None
        if made is not None and made[:2] == (run, marked):
            return made[2]
        mark = Text.assemble(("●", "bold") if marked else " ")
        found = {column.title: column.cell(run) for column in COLUMNS}
        found["name"] = clipped(str(found["name"]), name_width - 1)
        return [mark, *found.values()]

    def _update(self, cells: list[list[Text | str]]) -> None:
        for row, line in enumerate(cells):
            if line is self._drawn[row]:
                continue
            self.table.change_row(row, {place: unmarked(cell) for place, cell in enumerate(line)
                                        if cell != self._drawn[row][place]})

    def _rebuild(self, name_width: int, cells: list[list[Text | str]],
                 current: str | None) -> None:
        self._name_width = name_width
        table = self.table
        table.clear(columns=True)
        table.add_column(" ", width=2)
        for column in COLUMNS:
            sorted_here = self._sort is not None and column is COLUMNS[self._sort]
            arrow = ("↓" if self._descending else "↑") if sorted_here else ""
            width = name_width if column.title == "name" else column.width
            table.add_column(column.title + arrow, width=width)
        for run, line in zip(self._rows, cells, strict=True):
            table.add_row(*map(unmarked, line), key=run.run_id)
        ids = [run.run_id for run in self._rows]
        if current in ids:
            table.move_cursor(row=ids.index(current), animate=False)

    def _summarise(self, total: int) -> None:
        live = sum(run.live for run in self._snapshot.runs)
        hidden = total - len(self._rows)
        shown = f"{total} runs" + (f" ({hidden} filtered out)" if hidden else "")
        text = f"{shown}, {live} at work, {len(self._marked)} marked to compare"
        if self.size.width < ALL_WIDTH:
            text += "; ← → show more columns"
        if not total:
            text = "no runs yet: `hoserkd demo`, `hoserkd train`, or N to start one here"
            if self._snapshot.other_stores:
                text = "no runs in this store yet; Enter opens one of the others above"
        if text != self._summary:
            self._summary = text
            self.query_one("#runs-summary", Static).update(text)

    def action_filter(self) -> None:
        """Open the filter line."""
        line = self.query_one("#filter", Input)
        line.display = True
        line.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while typing."""
        event.stop()
        self._draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go back to the table; an empty filter goes away."""
        event.stop()
        event.input.display = bool(event.value)
        self.table.focus()

    def action_mark(self) -> None:
        """Mark or unmark the run under the cursor; six can be compared."""
        current = self.current
        if current is None:
            return
        if current in self._marked:
            self._marked = tuple(run for run in self._marked if run != current)
        else:
            self._marked = (*self._marked, current)[-6:]
        self._draw()
        self.post_message(self.Marked(self._marked))

    def action_sort(self) -> None:
        """Sort by the next column."""
        self._sort = 0 if self._sort is None else (self._sort + 1) % len(COLUMNS)
        self._name_width = 0
        self._draw()

    def action_reverse(self) -> None:
        """Turn the order round."""
        self._descending = not self._descending
        self._name_width = 0
        self._draw()

    def action_stop(self) -> None:
        """Ask the run under the cursor to stop at a safe point."""
        for run in self._rows:
            if run.run_id == self.current:
                self.post_message(StopAsked(run))

    def action_tag(self) -> None:
        """Ask for a tag for the run under the cursor."""
        if (current := self.current) is not None:
            self.post_message(self.TagAsked(current))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Open another store by Enter or click."""
        event.stop()
        self.post_message(self.StoreChosen(self._snapshot.other_stores[event.option_index]))

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Open a run by Enter or click."""
        event.stop()
        if (current := self.current) is not None:
            self.post_message(self.Opened(current))

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """Sort by a clicked column."""
        event.stop()
        if event.column_index == 0:
            return
        clicked = event.column_index - 1
        self._descending = not self._descending if clicked == self._sort else True
        self._sort = clicked
        self._name_width = 0
        self._draw()


def _moment(seconds: float | None) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds).strftime("%d %b %H:%M")
