"""Tables whose columns are as wide as what stands in them."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.text import Text
from textual.widgets import DataTable

Cell = Text | str
LEAST_WIDTH = 2


def fill_table(table: "DataTable[Cell]", titles: Sequence[str],
               rows: Sequence[Sequence[Cell]]) -> None:
    """Show `rows` under `titles`; the cursor stays on its line where there still is one.

    The widths are given, since a table that is out of sight does not measure its own.
    """
    line = table.cursor_row
    table.clear(columns=True)
    for place, title in enumerate(titles):
        width = max([cell_len(title), *(_width(row[place]) for row in rows)], default=0)
        table.add_column(unmarked(title), width=max(width, LEAST_WIDTH))
    for row in rows:
        table.add_row(*map(unmarked, row))
    if 0 < line < len(rows):
        table.move_cursor(row=line, animate=False)


class CalmTable(DataTable[Cell]):
    """A table in which a changed row costs that row's drawing.

    Textual's own table draws all its rows anew when a cell changes, which a live run would make it
    do every second.
    """

    def change_row(self, row: int, cells: Mapping[int, Cell]) -> None:
        """Show other contents in some places of a row."""
        row_key = self.ordered_rows[row].key
        columns = self.ordered_columns
        for place, cell in cells.items():
            self._data[row_key][columns[place].key] = cell
        caches: tuple[Any, ...] = (self._row_render_cache, self._cell_render_cache)
        for cache in caches:
            for key in [key for key in cache.keys() if key[0] == row_key]:  # noqa: SIM118 - no dict
                cache.discard(key)
        self._row_renderable_cache.clear()
        self._line_cache.clear()
        self.refresh_row(row)


def unmarked(cell: Cell) -> Cell:
    """Return the cell as a table shows it letter by letter: plain strings are read for markup."""
    return Text(cell) if isinstance(cell, str) and "[" in cell else cell


def _width(cell: Cell) -> int:
    return cell.cell_len if isinstance(cell, Text) else cell_len(cell)
