"""Lines drawn in braille dots, 2 x 4 a character, fast enough for a whole city."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

DOT = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.int64)
"""Bit of each dot (row, column) of a braille character."""
BLANK = 0x2800
MOST_DOTS = 4_000_000
"""A line list that would need more is thinned: a terminal has far fewer dots."""


@dataclass(frozen=True, slots=True)
class View:
    """Part of the plane and the characters that show it."""

    west: float
    east: float
    south: float
    north: float
    columns: int
    rows: int

    @property
    def dots_wide(self) -> int:
        """Dots across."""
        return 2 * self.columns

    @property
    def dots_high(self) -> int:
        """Dots down."""
        return 4 * self.rows

    def to_dots(self, xy: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Return points as (column, row) of dots, rows counted from the north."""
        x = (xy[:, 0] - self.west) / (self.east - self.west) * self.dots_wide
        y = (self.north - xy[:, 1]) / (self.north - self.south) * self.dots_high
        return np.stack([x, y], axis=1)


def draw_segments(view: View, start: Float[np.ndarray, "n 2"], end: Float[np.ndarray, "n 2"]
                  ) -> Bool[np.ndarray, "h w"]:
    """Return the dots that the segments from `start` to `end` touch."""
    grid = np.zeros((view.dots_high, view.dots_wide), dtype=bool)
    a, b = view.to_dots(start), view.to_dots(end)
    low, high = np.minimum(a, b), np.maximum(a, b)
    inside = ((high >= 0) & (low <= (view.dots_wide, view.dots_high))).all(axis=1)
    a, b = _clipped(view, a[inside], b[inside])
    steps = np.ceil(np.abs(b - a).max(axis=1, initial=0)).astype(np.int64) + 1
    if steps.sum() > MOST_DOTS:
        steps = np.minimum(steps, max(MOST_DOTS // max(len(steps), 1), 2))
    segment = np.repeat(np.arange(len(steps)), steps)
    first = np.repeat(np.cumsum(steps) - steps, steps)
    part = (np.arange(len(segment)) - first) / np.maximum(steps - 1, 1)[segment]
    dots = np.floor(a[segment] + (b - a)[segment] * part[:, None]).astype(np.int64)
    kept = ((dots >= 0) & (dots < (view.dots_wide, view.dots_high))).all(axis=1)
    grid[dots[kept, 1], dots[kept, 0]] = True
    return grid


def thickened(grid: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Return the dots and their neighbours, so that a line stands out without colour."""
    thick = grid.copy()
    thick[1:] |= grid[:-1]
    thick[:-1] |= grid[1:]
    thick[:, 1:] |= grid[:, :-1]
    return thick


def cells(grid: Bool[np.ndarray, "h w"]) -> Int[np.ndarray, "rows columns"]:
    """Return the braille code point of each character."""
    rows, columns = grid.shape[0] // 4, grid.shape[1] // 2
    blocks = grid.reshape(rows, 4, columns, 2).transpose(0, 2, 1, 3)
    points: Int[np.ndarray, "rows columns"] = BLANK + (blocks * DOT).sum(axis=(2, 3))
    return points


def _clipped(view: View, a: Float[np.ndarray, "n 2"], b: Float[np.ndarray, "n 2"]
             ) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]:
    """Return the parts of the segments within the view (Liang and Barsky), so that a far zoom
    into long segments stays cheap."""
    delta = b - a
    enter, leave = np.zeros(len(a)), np.ones(len(a))
    for axis, size in ((0, view.dots_wide), (1, view.dots_high)):
        along = np.where(delta[:, axis] == 0, 1e-12, delta[:, axis])
        low, high = (0 - a[:, axis]) / along, (size - a[:, axis]) / along
        enter = np.maximum(enter, np.minimum(low, high))
        leave = np.minimum(leave, np.maximum(low, high))
    kept = enter <= leave
    a, delta, enter, leave = a[kept], delta[kept], enter[kept], leave[kept]
    return a + delta * enter[:, None], a + delta * leave[:, None]
