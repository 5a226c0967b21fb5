"""A trip on its city's roads, drawn with braille dots in the terminal."""

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions
    from rich.text import Text

    from hoserkd.engine.types import RoadNetwork

DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""Bit of each dot of a braille cell: four rows of two."""
BLANK = 0x2800
MARGIN = 0.15
"""Of the trip's extent, shown around it."""
SMALLEST_DEG = 0.002


class TripMap:
    """A trip from A to B on the roads around it: in colour, or of `#` where there is none.

    The roads are of dots; of full stops where the encoding has no braille.
    """

    def __init__(self, network: "RoadNetwork", road: np.ndarray, width: int = 76,
                 height: int = 24) -> None:
        trip = np.concatenate([_shape(network, int(index)) for index in road])
        canvas = _Canvas(trip, width, height)
        shapes = [_shape(network, index) for index in range(network.roads)]
        self._streets = canvas.draw([shape for shape in shapes if canvas.sees(shape)])
        self._trip = canvas.draw([shapes[int(index)] for index in road])
        self._ends = {canvas.cell(trip[0]): "A", canvas.cell(trip[-1]): "B"}

    def __rich_console__(
        self, console: "Console", options: "ConsoleOptions"
    ) -> "Iterator[Text]":
        from rich.text import Text

        plain = console.no_color or console.color_system is None
        text = Text(no_wrap=True)
        for y, x in np.ndindex(*self._streets.shape):
            bits = int(self._streets[y, x] | self._trip[y, x])
            dots = "." if options.ascii_only else chr(BLANK + bits)
            mark = dots if bits else " "
            if (y, x) in self._ends:
                text.append(self._ends[y, x], "bold red")
            elif self._trip[y, x]:
                text.append("#" if plain else mark, "bold yellow")
            else:
                text.append(mark, "dim")
            if x == self._streets.shape[1] - 1:
                text.append("\n")
        yield text


def _shape(network: "RoadNetwork", index: int) -> np.ndarray:
    first, last = network.shape_offset[index], network.shape_offset[index + 1]
    return np.asarray(network.shape_lonlat[first:last])


class _Canvas:
    """Maps degrees to dots, at one scale in both directions."""

    def __init__(self, points: np.ndarray, width: int, height: int) -> None:
        self._size = (height, width)
        self._squeeze = np.array([np.cos(np.radians(points[:, 1].mean())), 1.0])
        low, high = points.min(0), points.max(0)
        extent = np.maximum((high - low) * self._squeeze, SMALLEST_DEG) * (1 + 2 * MARGIN)
        self._degrees_per_dot = float(max(extent[0] / (2 * width), extent[1] / (4 * height)))
        self._middle = (low + high) / 2

    def dots(self, points: np.ndarray) -> np.ndarray:
        """Return (row, column) of points, in dots."""
        height, width = self._size
        step = (points - self._middle) * self._squeeze / self._degrees_per_dot
        return np.stack([2 * height - step[:, 1], width + step[:, 0]], axis=1)

    def cell(self, point: np.ndarray) -> tuple[int, int]:
        """Return (row, column) of the character that a point falls into."""
        row, column = self.dots(point[None])[0]
        return int(row // 4), int(column // 2)

    def sees(self, points: np.ndarray) -> bool:
        """Return whether any of the points is on the map."""
        dots, (height, width) = self.dots(points), self._size
        return bool(((dots >= 0) & (dots < [4 * height, 2 * width])).all(1).any())

    def draw(self, lines: list[np.ndarray]) -> np.ndarray:
        """Return the braille bits of each character with the polylines drawn."""
        height, width = self._size
        bits = np.zeros((height, width), np.int64)
        for line in lines:
            dots = self.dots(line)
            for start, end in pairwise(dots):
                count = int(np.abs(end - start).max()) + 2
                along = (start + np.linspace(0, 1, count)[:, None] * (end - start)).astype(int)
                inside = ((along >= 0) & (along < [4 * height, 2 * width])).all(1)
                row, column = along[inside].T
                np.bitwise_or.at(bits, (row // 4, column // 2), DOTS[row % 4, column % 2])
        return bits
