import numpy as np
import pytest
from shapely.geometry import LineString

from hoserkd.engine.geo import (
    EARTH_RADIUS_M,
    bearing_rad,
    folded_share,
    great_circle_m,
    heading_rad,
    polyline_centroids,
    unwrap_lonlat,
)


def test_great_circle_of_a_degree_of_latitude_is_the_known_length() -> None:
    one = great_circle_m(np.array([7.0, 3.0]), np.array([7.0, 4.0]))
    assert one == pytest.approx(EARTH_RADIUS_M * np.pi / 180, rel=1e-12)


def test_great_circle_of_opposite_points_is_half_the_circumference() -> None:
    half = great_circle_m(np.array([0.0, 0.0]), np.array([180.0, 0.0]))
    assert half == pytest.approx(EARTH_RADIUS_M * np.pi, rel=1e-12)


def test_great_circle_over_the_antimeridian_is_short() -> None:
    across = great_circle_m(np.array([179.999, 0.0]), np.array([-179.999, 0.0]))
    assert across == pytest.approx(EARTH_RADIUS_M * np.radians(0.002), rel=1e-6)


@pytest.mark.parametrize(
    ("to", "degrees"), [((0, 1), 0), ((1, 0), 90), ((0, -1), 180), ((-1, 0), -90)]
)
def test_bearing_at_the_equator_is_clockwise_from_north(to: tuple[int, int], degrees: int) -> None:
    assert np.degrees(bearing_rad(np.zeros(2), np.array(to, float))) == pytest.approx(degrees)


def test_bearing_broadcasts_one_point_against_many() -> None:
    many = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert np.degrees(bearing_rad(np.zeros(2), many)) == pytest.approx([0, 90])


def test_heading_of_a_short_road_is_its_bearing() -> None:
    rng = np.random.default_rng(0)
    a = np.stack([rng.uniform(-180, 180, 200), rng.uniform(-70, 70, 200)], axis=1)
    b = a + rng.uniform(-2e-3, 2e-3, a.shape)
    assert folded_share(heading_rad(a, b), bearing_rad(a, b)).max() < 1e-4


def test_folded_share_of_angles_lies_between_0_and_1() -> None:
    a = np.array([0.0, np.pi, 3.0, 6.0])
    b = np.array([0.0, 0.0, -3.0, 0.1])
    expected = [0, 1, (2 * np.pi - 6) / np.pi, (2 * np.pi - 5.9) / np.pi]
    assert folded_share(a, b) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_polyline_centroids_are_those_of_shapely(seed: int) -> None:
    rng = np.random.default_rng(seed)
    middle = np.array([116.3, 39.9])
    lines = [middle + rng.uniform(-0.01, 0.01, (rng.integers(2, 9), 2)) for _ in range(30)]
    offset = np.cumsum([0, *map(len, lines)])
    expected = [LineString(line).centroid.coords[0] for line in lines]
    assert polyline_centroids(offset, np.concatenate(lines)) == pytest.approx(
        np.array(expected), abs=1e-12
    )


def test_polyline_centroid_without_length_is_the_point() -> None:
    line = np.array([[1.0, 2.0], [1.0, 2.0], [5.0, 6.0], [5.0, 7.0]])
    assert polyline_centroids(np.array([0, 2, 4]), line).tolist() == [[1.0, 2.0], [5.0, 6.5]]


def test_unwrap_leaves_an_ordinary_city_alone_and_joins_one_across_the_antimeridian() -> None:
    ordinary = np.array([[10.0, 1.0], [11.0, 1.0]])
    assert unwrap_lonlat(ordinary) is ordinary
    across = np.array([[179.9, 1.0], [-179.9, 1.0], [180.0, 1.0], [-180.0, 1.0]])
    assert unwrap_lonlat(across)[:, 0].tolist() == pytest.approx([179.9, 180.1, 180.0, 180.0])
