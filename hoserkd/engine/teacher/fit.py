"""How a teacher's grid lies on a city: which roads fall where, and whether they fit at all."""

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Int64

from hoserkd.engine.city.grid import Grid
from hoserkd.engine.types import Candidates, RoadNetwork, TrajectorySet
from hoserkd.errors import TeacherError

MAX_CLAMPED_SHARE = 0.01
"""More roads than this outside the grid mean that the teacher is of another place."""


@dataclass(frozen=True, slots=True)
class GridReport:
    """How much of a city the teacher can tell apart."""

    roads: int
    cells: int
    cells_used: int
    """Cells that hold the centroid of at least one road."""
    roads_per_cell_mean: float
    """Over the cells used."""
    roads_per_cell_max: int
    clamped_share: float
    """Of the roads, those outside the grid, which go to its edge."""
    colliding_roads_share: float
    """Of the roads with two candidates or more, those where two fall into one cell."""
    undecided_roads_share: float
    """Of the same roads, those where all candidates fall into one cell."""
    colliding_steps_share: float | None = None
    """Of all steps of the trips, those whose candidates collide; None: no trips were given."""

    def to_json(self) -> dict[str, float | int | None]:
        """Return the fields."""
        return asdict(self)


def road_cells(grid: Grid, network: RoadNetwork) -> Int64[np.ndarray, " R"]:
    """Return the grid token of each road, by its centroid."""
    return grid.tokens(np.asarray(network.centroid_lonlat))


def grid_report(grid: Grid, network: RoadNetwork, trips: TrajectorySet | None = None) -> GridReport:
    """Measure how the grid lies on the roads, and on the steps of `trips` where they are given."""
    cell = road_cells(grid, network)
    _, counts = np.unique(cell, return_counts=True)
    colliding, undecided = collisions(network.candidates, cell)
    several = np.diff(network.candidates.offset) > 1
    choices = max(int(several.sum()), 1)
    steps_share = None
    if trips is not None:
        steps = np.ones(len(trips.road), dtype=bool)
        steps[trips.offset[1:] - 1] = False
        steps_share = float(colliding[trips.road[steps]].mean()) if trips.steps else 0.0
    return GridReport(
        roads=network.roads, cells=grid.cells, cells_used=len(counts),
        roads_per_cell_mean=float(counts.mean()), roads_per_cell_max=int(counts.max()),
        clamped_share=grid.clamped_share(np.asarray(network.centroid_lonlat)),
        colliding_roads_share=float(colliding.sum() / choices),
        undecided_roads_share=float((undecided & several).sum() / choices),
        colliding_steps_share=steps_share)


def collisions(candidates: Candidates, cell: Int64[np.ndarray, " R"]
               ) -> tuple[Bool[np.ndarray, " R"], Bool[np.ndarray, " R"]]:
    """Tell for each road whether two of its candidates share a cell, and whether all do.

    A road with no candidate or one has no collision, and all in one cell.
    """
    count = np.diff(candidates.offset)
    owner = np.repeat(np.arange(len(count)), count)
    pairs = np.unique(np.stack([owner, cell[candidates.road]]), axis=1)
    distinct = np.bincount(pairs[0], minlength=len(count))
    return distinct < count, distinct <= 1


def check_grid_fit(grid: Grid, network: RoadNetwork, *, teacher: str, city: str) -> str:
    """Check that the city lies inside the teacher's grid, and return a line that says how.

    Raises:
        TeacherError: More than 1 % of the roads are outside; shows both sides.
    """
    lonlat = np.asarray(network.centroid_lonlat)
    share = grid.clamped_share(lonlat)
    if share <= MAX_CLAMPED_SHARE:
        return f"grid of {grid.rows} x {grid.cols} cells, {share:.1%} of the roads outside"
    west, south = lonlat.min(axis=0)
    east, north = lonlat.max(axis=0)
    raise TeacherError(
        f"teacher {teacher} does not fit city {city}: {share:.1%} of the roads lie outside its "
        f"grid (at most {MAX_CLAMPED_SHARE:.0%}); grid {grid.rows} x {grid.cols} cells, lat "
        f"{grid.min_lat:.4f} to {grid.max_lat:.4f}, lng {grid.min_lng:.4f} to {grid.max_lng:.4f}; "
        f"roads lat {south:.4f} to {north:.4f}, lng {west:.4f} to {east:.4f}",
        hint="use a teacher of this city, or export it again with the --bounds it was trained with")
