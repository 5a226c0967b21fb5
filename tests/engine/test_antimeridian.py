"""Lines that cross the antimeridian, for programs that know longitudes from -180 to 180 only."""

import numpy as np
import pytest

from hoserkd.engine.geo import cut_at_antimeridian, unwrap_lonlat, wrapped_lonlat


def parts(*points: tuple[float, float]) -> list[list[list[float]]]:
    return [part.tolist() for part in cut_at_antimeridian(np.array(points, float))]


def test_a_line_that_stays_on_one_side_is_left_as_it_is() -> None:
    assert parts((179, 1), (180, 2)) == [[[179, 1], [180, 2]]]
    assert parts((-180, 1), (-179, 2)) == [[[-180, 1], [-179, 2]]]
    assert parts((181, 1), (182, 2)) == [[[-179, 1], [-178, 2]]]
    assert parts((-181, 1), (-182, 2)) == [[[179, 1], [178, 2]]]


def test_a_line_across_is_cut_where_it_crosses() -> None:
    assert parts((179, 0), (181, 2)) == [[[179, 0], [180, 1]], [[-180, 1], [-179, 2]]]
    assert parts((181, 2), (179, 0)) == [[[-179, 2], [-180, 1]], [[180, 1], [179, 0]]]
    assert parts((-179, 0), (-181, 2)) == [[[-179, 0], [-180, 1]], [[180, 1], [179, 2]]]
    there_and_back = parts((179, 0), (181, 0), (179, 0))
    assert [len(part) for part in there_and_back] == [2, 3, 2]


def test_a_line_that_ends_on_the_border_has_no_empty_part() -> None:
    assert parts((179, 0), (180, 0), (181, 0)) == [[[179, 0], [180, 0], [180, 0]],
                                                   [[-180, 0], [-179, 0]]]
    assert parts((180, 0), (181, 0)) == [[[-180, 0], [-179, 0]]]
    assert parts((181, 3), (181, 3)) == [[[-179, 3], [-179, 3]]]


@pytest.mark.parametrize("seed", range(20))
def test_cutting_moves_no_point(seed: int) -> None:
    draw = np.random.default_rng(seed)
    line = np.cumsum(draw.normal(0, 0.4, (12, 2)), axis=0) + np.array([180, 0])
    found = cut_at_antimeridian(line)
    assert all((np.abs(part[:, 0]) <= 180).all() for part in found)
    whole = np.concatenate(found)
    for point in wrapped_lonlat(line):
        assert np.abs(whole - point).sum(axis=1).min() < 1e-9
    assert unwrap_lonlat(whole)[:, 0].max() - unwrap_lonlat(whole)[:, 0].min() < 30
