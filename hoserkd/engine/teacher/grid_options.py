"""Which grid a public checkpoint was trained on: the user's options held against its vocabulary.

LM-TAD's trainer never sets `grip_size`, so every public checkpoint claims the 51 x 158 cells of
its Porto default. The vocabulary is the evidence: it has one token per cell (the forks), or one
spare row and one token more (`preprocess_porto.py` counts to rows * cols + cols).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import NoReturn

from hoserkd.engine.city.grid import Grid, kilometre_cell
from hoserkd.errors import TeacherError

MAX_SIDE = 1 << 20
"""Of a grid, in cells; LM-TAD's has a few hundred."""
Shape = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What a public checkpoint does not say; None: not given."""

    rows: int | None = None
    cols: int | None = None
    bounds: tuple[float, float, float, float] | None = None
    """South, west, north, east edge in degrees."""
    cell_deg: tuple[float, float] | None = None
    """Height and width of a cell in degrees; None: the bounds hold rows x cols cells exactly."""
    downsample: int = 1
    vocab: Path | None = None
    """LM-TAD's vocab.json: token to id."""


@dataclass(frozen=True, slots=True)
class GridEvidence:
    """What a public checkpoint tells about its grid."""

    path: Path
    cell_ids: int
    """Tokens of the vocabulary before the first special one."""
    stated: Shape | None
    """Its `grip_size`, which may be a default that nobody set."""

    def fits(self, shape: Shape) -> bool:
        """Tell whether the vocabulary can be that of a grid of these rows and columns."""
        return self.cell_ids in cell_counts(shape)


def cell_counts(shape: Shape) -> tuple[int, int]:
    """Return how many tokens a grid's cells take: one each, or as public LM-TAD counts them."""
    rows, cols = shape
    return rows * cols, rows * cols + cols + 1


def find_grid(evidence: GridEvidence, options: ExportOptions) -> Grid:
    """Return the grid that the options describe and the vocabulary fits.

    Explicit rows and columns are believed first, then bounds with a cell size, then `grip_size`.

    Raises:
        TeacherError: The options do not say where the grid lies, or nothing fits the vocabulary.
    """
    if options.bounds is None:
        _ask_for(evidence, "--bounds LAT0,LON0,LAT1,LON1")
    shapes = list(_shapes(evidence, options))
    if not shapes:
        _ask_for(evidence, "--cell-size, or --grid-rows and --grid-cols")
    fitting = [shape for shape in shapes if evidence.fits(shape)]
    if not fitting:
        _refuse(evidence, options, shapes)
    return lay_grid(options, fitting[0])


def _shapes(evidence: GridEvidence, options: ExportOptions) -> Iterator[Shape]:
    """Yield the shapes that the most explicit of the options allow."""
    if options.rows and options.cols:
        yield options.rows, options.cols
    elif options.rows or options.cols:
        yield from _other_side(evidence.cell_ids, options)
    elif options.cell_deg is not None:
        counts = _counts(options)
        yield from dict.fromkeys(product(counts[0], counts[1]))
    elif evidence.stated is not None:
        yield evidence.stated


def _other_side(cell_ids: int, options: ExportOptions) -> Iterator[Shape]:
    """Yield the two shapes with the given rows or columns that come closest to the vocabulary."""
    if options.rows:
        rows = options.rows
        yield from ((rows, max(cell_ids // rows, 1)), (rows, max((cell_ids - 1) // (rows + 1), 1)))
    elif options.cols:
        cols = options.cols
        yield from ((max(cell_ids // cols, 1), cols), (max((cell_ids - 1) // cols - 1, 1), cols))


def _counts(options: ExportOptions) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return rows and columns as LM-TAD counts them, and where bounds are cells' outer edges."""
    assert options.bounds is not None
    assert options.cell_deg is not None
    south, west, north, east = options.bounds
    grid = Grid.from_bounds(options.bounds, options.cell_deg, options.downsample)
    rows, cols = (max(math.ceil(span / (cell * options.downsample) - 1e-6), 1) for span, cell in
                  zip((north - south, east - west), options.cell_deg, strict=True))
    return (grid.rows, rows), (grid.cols, cols)


def lay_grid(options: ExportOptions, shape: Shape) -> Grid:
    """Return the grid of this shape that bounds and cell size describe.

    Raises:
        TeacherError: They contradict each other; shows both sides.
    """
    assert options.bounds is not None
    south, west, north, east = options.bounds
    factor = options.downsample
    if options.cell_deg is None:
        height, width = (north - south) / shape[0], (east - west) / shape[1]
        return Grid(south, west, height / factor, width / factor, *shape, factor)
    rows, cols = _counts(options)
    if shape[0] not in rows or shape[1] not in cols:
        raise TeacherError(
            f"{_bounds_text(options)} make {rows[0]} x {cols[0]} cells, but the "
            f"teacher has {shape[0]} x {shape[1]}",
            hint="give the bounds and the cell size of the teacher's own preprocessing")
    grid = Grid.from_bounds(options.bounds, options.cell_deg, factor)
    return replace(grid, rows=shape[0], cols=shape[1])


def read_shape(value: object) -> Shape | None:
    """Return rows and columns of a `grip_size`, a pair or `"205 252"`; None: it is none."""
    if isinstance(value, str):
        value = [int(word) for word in value.split() if word.isdecimal() and len(word) < 8]
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        return None
    rows, cols = value
    if not (isinstance(rows, int) and isinstance(cols, int)):
        return None
    return (rows, cols) if 0 < rows < MAX_SIDE and 0 < cols < MAX_SIDE else None


def parse_bounds(text: str) -> tuple[float, float, float, float]:
    """Return south, west, north, east of `LAT0,LON0,LAT1,LON1`.

    Raises:
        TeacherError: The text is no such box.
    """
    try:
        south, west, north, east = (float(part) for part in text.split(","))
    except ValueError as error:
        raise TeacherError(f"--bounds: expected LAT0,LON0,LAT1,LON1, found {text!r}") from error
    if not (-90 <= south < north <= 90 and -180 <= west < east <= 180):
        raise TeacherError(
            f"--bounds: expected LAT0,LON0,LAT1,LON1 with LAT0 < LAT1 and LON0 < LON1 in degrees, "
            f"found {text!r}", hint="the south-west corner first; latitude before longitude")
    return south, west, north, east


def parse_cell_size(text: str) -> tuple[float, float]:
    """Return height and width in degrees of `0.001`, `0.001,0.002` or `0.1km`.

    Raises:
        TeacherError: The text is no such size.
    """
    kilometres = text.endswith("km")
    try:
        sizes = [float(part) for part in text.removesuffix("km").split(",")]
        height, width = sizes if len(sizes) == 2 else (sizes[0], sizes[0])
    except ValueError as error:
        raise TeacherError(f"--cell-size: expected degrees, or kilometres as 0.1km, found {text!r}"
                           ) from error
    if not (0 < height < 1e3 and 0 < width < 1e3) or len(sizes) > 2:
        raise TeacherError(f"--cell-size: expected one or two positive sizes, found {text!r}")
    return kilometre_cell(height, width) if kilometres else (height, width)


def _ask_for(evidence: GridEvidence, lacking: str) -> NoReturn:
    stated = evidence.stated
    if stated is None:
        known = ""
    elif evidence.fits(stated):
        known = f" (it has {_shape_text(stated)} cells)"
    else:
        known = f" (its grip_size, {_shape_text(stated)}, does not fit its vocabulary)"
    raise TeacherError(
        f"{evidence.path} does not say where its grid lies{known}",
        hint=f"give {lacking}, as in the preprocessing that the teacher was trained with")


def _refuse(
    evidence: GridEvidence, options: ExportOptions, shapes: Sequence[Shape]
) -> NoReturn:
    """Say which vocabularies the options would need, and which one the checkpoint has."""
    described = f"the checkpoint's grip_size, {_shape_text(shapes[0])}"
    if options.rows or options.cols:
        named = (("--grid-rows", options.rows), ("--grid-cols", options.cols))
        described = " and ".join(f"{name} {value}" for name, value in named if value)
    elif options.cell_deg is not None:
        described = f"{_bounds_text(options)}, which make {_shape_text(shapes[0])} cells"
    needed = " or ".join(map(str, cell_counts(shapes[0])))
    stated = evidence.stated
    better = (f"; its own grip_size, {_shape_text(stated)}, would"
              if stated is not None and stated != shapes[0] and evidence.fits(stated) else "")
    raise TeacherError(
        f"{evidence.path}: its vocabulary has {evidence.cell_ids} ids before its special ones, "
        f"which does not fit {described}: that needs {needed}{better}",
        hint="give the --bounds and --cell-size of its own preprocessing, or --grid-rows and "
             "--grid-cols; LM-TAD's trainer writes grip_size 51 x 158 whatever the grid")


def _bounds_text(options: ExportOptions) -> str:
    assert options.cell_deg is not None
    height, width = options.cell_deg
    return f"bounds {options.bounds} with cells of {height:g} x {width:g} degrees"


def _shape_text(shape: Shape) -> str:
    return f"{shape[0]} x {shape[1]}"
