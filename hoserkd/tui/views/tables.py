"""Tables whose columns are as wide as what stands in them."""

from collections.abc import Sequence

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
        table.add_column(title, width=max(width, LEAST_WIDTH))
    for row in rows:
        table.add_row(*row)
    if 0 < line < len(rows):
        table.move_cursor(row=line, animate=False)


def _width(cell: Cell) -> int:
    return cell.cell_len if isinstance(cell, Text) else cell_len(cell)
