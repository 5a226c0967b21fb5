import numpy as np
import pytest

from hoserkd.engine.city.grid import Grid, kilometre_cell

PORTO = (41.140092, -8.690261, 41.185969, -8.549155)


def test_covering_points_holds_them_all_and_no_more():
    lonlat = np.random.default_rng(0).uniform([-8.7, 41.1], [-8.5, 41.2], (200, 2))
    grid = Grid.covering(lonlat, 0.01)
    assert not grid.outside(lonlat).any()
    assert (grid.rows, grid.cols) == (10, 20)
    assert grid.clamped_share(lonlat) == 0


def test_token_of_a_point_is_row_times_cols_plus_col():
    grid = Grid(40.0, 116.0, 0.01, 0.02, rows=5, cols=7)
    lonlat = np.array([[116.0, 40.0], [116.021, 40.0], [116.13, 40.049]])
    np.testing.assert_array_equal(grid.tokens(lonlat), [0, 1, 4 * 7 + 6])


def test_points_outside_go_to_the_nearest_edge_and_are_counted():
    grid = Grid(40.0, 116.0, 0.01, 0.01, rows=5, cols=7)
    lonlat = np.array([[115.0, 39.0], [117.0, 41.0], [116.035, 45.0], [116.035, 40.025]])
    np.testing.assert_array_equal(grid.tokens(lonlat), [0, 34, 4 * 7 + 3, 2 * 7 + 3])
    assert grid.clamped_share(lonlat) == 0.75


@pytest.mark.parametrize("seed", range(4))
def test_cell_centre_has_the_cells_token(seed):
    rng = np.random.default_rng(seed)
    grid = Grid(*rng.uniform(-60, 60, 2), *rng.uniform(1e-4, 0.1, 2), rows=int(rng.integers(1, 90)),
                cols=int(rng.integers(1, 90)), downsample=int(rng.integers(1, 4)))
    tokens = np.arange(grid.cells)
    np.testing.assert_array_equal(grid.tokens(grid.centres(tokens)), tokens)
    assert Grid.from_json(grid.to_json()) == grid


def test_porto_bounds_in_kilometre_cells_make_the_public_grid():
    grid = Grid.from_bounds(PORTO, kilometre_cell(0.1, 0.1))
    assert (grid.rows, grid.cols) == (51, 158)
    height, width = kilometre_cell(0.1, 0.1)
    lonlat = np.random.default_rng(1).uniform([-8.69, 41.1401], [-8.5492, 41.1859], (500, 2))
    public = [int((lat - PORTO[0]) / height) * 158 + int((lng - PORTO[1]) / width)
              for lng, lat in lonlat]
    np.testing.assert_array_equal(grid.tokens(lonlat), public)


def test_downsampling_joins_cells():
    fine = Grid.from_bounds((40.0, 116.0, 40.8, 116.8), (0.01, 0.01))
    coarse = Grid.from_bounds((40.0, 116.0, 40.8, 116.8), (0.01, 0.01), downsample=2)
    assert (coarse.rows, coarse.cols) == (fine.rows // 2, fine.cols // 2)
    lonlat = np.random.default_rng(2).uniform([116.0, 40.0], [116.79, 40.79], (100, 2))
    row, col = np.divmod(fine.tokens(lonlat), fine.cols)
    np.testing.assert_array_equal(coarse.tokens(lonlat), (row // 2) * coarse.cols + col // 2)


@pytest.mark.parametrize("sizes", [(0.0, 0.1, 2, 2), (0.1, 0.1, 0, 2), (float("nan"), 0.1, 2, 2)])
def test_grid_without_size_is_refused(sizes):
    with pytest.raises(ValueError, match="grid"):
        Grid(40.0, 116.0, *sizes)


def test_covering_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        Grid.covering(np.empty((0, 2)), 0.01)
