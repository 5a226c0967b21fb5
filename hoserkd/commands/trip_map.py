"""A trip on its city's roads, drawn with braille dots in the terminal."""

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rich.text import Text

    from hoserkd.engine.types import RoadNetwork

DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""Bit of each dot of a braille cell: four rows of two."""
BLANK = 0x2800
MARGIN = 0.15
"""Of the trip's extent, shown around it."""
SMALLEST_DEG = 0.002


def trip_map(
    network: "RoadNetwork", road: np.ndarray, width: int = 76, height: int = 24
) -> "Text":
    """Return a map of the roads around a trip, with the trip itself in colour."""
    from rich.text import Text

    trip = np.concatenate([_shape(network, int(index)) for index in road])
    canvas = _Canvas(trip, width, height)
    near = [index for index in range(network.roads) if canvas.sees(_shape(network, index))]
    streets = canvas.draw([_shape(network, index) for index in near])
    path = canvas.draw([_shape(network, int(index)) for index in road])
    ends = {canvas.cell(trip[0]): "A", canvas.cell(trip[-1]): "B"}
    text = Text()
    for y in range(height):
        for x in range(width):
            bits = int(streets[y, x] | path[y, x])
            style = "bold yellow" if path[y, x] else "dim"
            if (y, x) in ends:
                text.append(ends[y, x], "bold red")
            else:
                text.append(chr(BLANK + bits) if bits else " ", style)
        text.append("\n")
    return text


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
