"""Rows that cannot be taken, told together: how many, and the first few with row and column."""

import math
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from hoserkd.engine.city.roadmap import parse_decimal
from hoserkd.engine.trips.reading import Cell, Rows
from hoserkd.errors import DataError

MOST_SHOWN = 5
WHAT = {"origin": "road id", "destination": "road id", "departure": "time"}


class BadRows:
    """Collects what is wrong with the rows of one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: set[int] = set()
        self._first: list[str] = []

    def add(self, row: int, what: str) -> None:
        """Note that `row` is bad; more than its first fault is not told."""
        if row not in self._rows and len(self._first) < MOST_SHOWN:
            self._first.append(f"{self._path}:{row}: {what}")
        self._rows.add(row)

    def add_cells(self, rows: Rows, name: str, bad: Bool[np.ndarray, " N"]) -> None:
        """Note the rows whose cell of a column is no road id, or no time."""
        for i in np.flatnonzero(bad).tolist():
            self.add(int(rows.row[i]), f"{rows.called(name)} {rows.shown(name, i)} is no "
                     f"{WHAT[name]}")

    def raise_if_any(self, total: int, hint: str) -> None:
        """Raise what was noted.

        Raises:
            DataError: something was.
        """
        if not self._rows:
            return
        left = len(self._rows) - len(self._first)
        more = f"; and {left} more" if left else ""
        raise DataError(f"{len(self._rows)} of {total} rows are bad: "
                        f"{'; '.join(self._first)}{more}", hint=hint)


def is_blank(cell: Cell) -> bool:
    """Return whether a cell holds nothing."""
    if isinstance(cell, float):
        return math.isnan(cell)
    return cell is None or (isinstance(cell, str) and not cell.strip())


def finite_number(cell: Cell) -> float | None:
    """Return the number that a cell holds, or None where it holds none."""
    if isinstance(cell, str):
        return parse_decimal(cell)
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return None
    return float(cell) if abs(cell) < math.inf else None
