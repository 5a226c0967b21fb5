"""The teacher's uniform grid: which cell, and so which token, holds a point.

The grid belongs to the teacher and travels in its export; it is never inferred from the roads of
a city that a foreign teacher is asked about (ENGINE.md section 4).
"""

import math
from dataclasses import asdict, dataclass
from operator import index
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float64, Int64


@dataclass(frozen=True, slots=True)
class Grid:
    """Cells counted from (min_lat, min_lng), row-major: token = row * cols + col."""

    min_lat: float
    min_lng: float
    cell_height_deg: float
    cell_width_deg: float
    rows: int
    """After downsampling."""
    cols: int
    downsample: int = 1
    """So many cells of that height and width, each way, make one."""

    def __post_init__(self) -> None:
        sizes = (self.cell_height_deg, self.cell_width_deg, self.rows, self.cols, self.downsample)
        finite = all(map(math.isfinite, (self.min_lat, self.min_lng, *sizes)))
        if not finite or min(sizes) <= 0:
            raise ValueError(f"a grid needs positive sizes and finite bounds, not {self}")

    @property
    def cells(self) -> int:
        """Number of cells, and so of tokens that are places."""
        return self.rows * self.cols

    @property
    def max_lat(self) -> float:
        """Northern edge of the last row, in degrees."""
        return self.min_lat + self.rows * self.downsample * self.cell_height_deg

    @property
    def max_lng(self) -> float:
        """Eastern edge of the last column, in degrees."""
        return self.min_lng + self.cols * self.downsample * self.cell_width_deg

    @classmethod
    def covering(cls, lonlat: Float64[np.ndarray, "R 2"], cell_size_deg: float) -> Self:
        """Return the grid of square cells from the points' south-west corner that holds them all.

        Raises:
            ValueError: There is no point, or one is not finite.
        """
        if len(lonlat) == 0 or not np.isfinite(lonlat).all():
            raise ValueError("a grid can only cover finite points, and at least one")
        min_lng, min_lat = (float(x) for x in lonlat.min(axis=0))
        span = lonlat.max(axis=0) - lonlat.min(axis=0)
        cols, rows = (int(x / cell_size_deg) + 1 for x in span)
        return cls(min_lat, min_lng, cell_size_deg, cell_size_deg, rows, cols)

    @classmethod
    def from_bounds(cls, bounds: tuple[float, float, float, float],
                    cell_deg: tuple[float, float], downsample: int = 1) -> Self:
        """Return the grid that LM-TAD's preprocessing lays over `bounds`.

        Args:
            bounds: South, west, north and east edge, in degrees.
            cell_deg: Height and width of a cell, in degrees, before downsampling.
            downsample: Cells, each way, that make one.
        """
        south, west, north, east = bounds
        rows = max((int((north - south) / cell_deg[0]) + 1) // downsample, 1)
        cols = max((int((east - west) / cell_deg[1]) + 1) // downsample, 1)
        return cls(south, west, *cell_deg, rows, cols, downsample)

    def tokens(self, lonlat: Float64[np.ndarray, "R 2"]) -> Int64[np.ndarray, " R"]:
        """Return the token of each point; points outside go to the nearest cell of the edge."""
        row, col = self._unclamped(lonlat)
        row, col = row.clip(0, self.rows - 1), col.clip(0, self.cols - 1)
        tokens: Int64[np.ndarray, " R"] = row * self.cols + col
        return tokens

    def outside(self, lonlat: Float64[np.ndarray, "R 2"]) -> Bool[np.ndarray, " R"]:
        """Tell which points lie in no cell, so that `tokens` has to clamp them."""
        row, col = self._unclamped(lonlat)
        return (row < 0) | (row >= self.rows) | (col < 0) | (col >= self.cols)

    def clamped_share(self, lonlat: Float64[np.ndarray, "R 2"]) -> float:
        """Return the share of the points, 0 to 1, that lie in no cell."""
        return float(self.outside(lonlat).mean()) if len(lonlat) else 0.0

    def centres(self, tokens: Int64[np.ndarray, " T"]) -> Float64[np.ndarray, "T 2"]:
        """Return longitude and latitude of the middle of each cell."""
        row, col = np.divmod(tokens, self.cols)
        lat = self.min_lat + (row + 0.5) * self.downsample * self.cell_height_deg
        lng = self.min_lng + (col + 0.5) * self.downsample * self.cell_width_deg
        return np.stack([lng, lat], axis=-1)

    def to_json(self) -> dict[str, Any]:
        """Return the fields, with the far bounds for readers' sake."""
        return asdict(self) | {"max_lat": self.max_lat, "max_lng": self.max_lng}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Return the grid that `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: A field is missing or cannot be right.
        """
        return cls(float(value["min_lat"]), float(value["min_lng"]),
                   float(value["cell_height_deg"]), float(value["cell_width_deg"]),
                   index(value["rows"]), index(value["cols"]), index(value["downsample"]))

    def _unclamped(self, lonlat: Float64[np.ndarray, "R 2"]
                   ) -> tuple[Int64[np.ndarray, " R"], Int64[np.ndarray, " R"]]:
        row = np.floor((lonlat[:, 1] - self.min_lat) / self.cell_height_deg).astype(np.int64)
        col = np.floor((lonlat[:, 0] - self.min_lng) / self.cell_width_deg).astype(np.int64)
        return row // self.downsample, col // self.downsample


def kilometre_cell(height_km: float, width_km: float) -> tuple[float, float]:
    """Return height and width in degrees of a cell given in kilometres.

    LM-TAD's Porto preprocessing converts so; its width holds near the equator only, and is kept
    for the tokens' sake.
    """
    return height_km / 110.574, width_km / 111.320 / 0.99974
