import itertools
import math

import numpy as np
import pytest
from handmade import pack, town, walks

from hoserkd.engine.metrics.distributions import (
    bin_counts,
    bin_edges,
    bin_index,
    cosine,
    histogram,
    jensen_shannon,
    trip_features,
)
from hoserkd.engine.metrics.packed import ranks_within, sum_by_trip, take_trips

DEGREE_KM = math.radians(1) * 6371.0088


def test_features_of_a_line_on_the_equator_have_closed_forms():
    lonlat = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    trips = pack([[0, 1, 2], [2, 1]], [[0, 60, 180], [0, 30]])
    found = trip_features(trips, lonlat)
    np.testing.assert_allclose(found.distance_km, [2 * DEGREE_KM, DEGREE_KM])
    np.testing.assert_allclose(found.radius_km, [2 / 3 * DEGREE_KM, DEGREE_KM / 2])
    np.testing.assert_allclose(found.step_duration_min, [1.0, 2.0, 0.5])
    np.testing.assert_allclose(found.trip_duration_min, [3.0, 0.5])


def test_features_of_random_walks_equal_the_plain_loop():
    network = town()
    trips = walks(network, 30, seed=1)
    found = trip_features(trips, network.centroid_lonlat)

    def km(a, b):
        lon_a, lat_a, lon_b, lat_b = map(math.radians, (*a, *b))
        h = (math.sin((lat_b - lat_a) / 2) ** 2
             + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2)
        return 2 * 6371.0088 * math.asin(math.sqrt(h))

    for i in range(len(trips)):
        points = network.centroid_lonlat[trips.road[trips.offset[i]:trips.offset[i + 1]]]
        middle = points.mean(axis=0)
        distance = sum(km(a, b) for a, b in itertools.pairwise(points))
        assert found.distance_km[i] == pytest.approx(distance, rel=1e-9)
        radius = sum(km(p, middle) for p in points) / len(points)
        assert found.radius_km[i] == pytest.approx(radius, rel=1e-9)


def test_histogram_has_its_largest_real_value_and_all_above_in_the_open_bin():
    found = histogram(np.array([0.0, 1.0, 4.0]), np.array([3.9, 4.0, 9.0]), bins=5)
    np.testing.assert_array_equal(found.edge, [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(found.real, [1, 1, 0, 0, 1])
    np.testing.assert_array_equal(found.other, [0, 0, 0, 1, 2])


@pytest.mark.parametrize("seed", range(3))
def test_bins_are_those_of_numpy(seed):
    rng = np.random.default_rng(seed)
    edge = bin_edges(rng.exponential(3.0, 50), 100)
    values = np.concatenate([rng.exponential(3.0, 500), edge, np.nextafter(edge, -1),
                             np.nextafter(edge, 99), [-1.0, 1e9, np.inf]])
    expected = np.searchsorted(edge, values, side="right") - 1
    np.testing.assert_array_equal(bin_index(values, edge), expected)
    np.testing.assert_array_equal(bin_counts(values, edge),
                                  np.bincount(expected[expected >= 0], minlength=100))


def test_bins_of_zeros_alone_are_all_one_place():
    np.testing.assert_array_equal(bin_index(np.array([0.0, 1.0]), bin_edges(np.zeros(2), 5)), 4)


def test_divergence_is_zero_at_equality_and_log_two_when_disjoint():
    p = np.array([1.0, 3.0, 0.0])
    assert jensen_shannon(p, 5 * p) == 0.0
    assert jensen_shannon(p, np.array([0.0, 0.0, 2.0])) == pytest.approx(math.log(2))


def test_divergence_of_known_shares_equals_the_formula():
    p, q = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    middle = (p + q) / 2
    expected = sum(0.5 * x[i] * math.log(x[i] / middle[i]) for x in (p, q) for i in range(2))
    assert jensen_shannon(p, q) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_divergence_is_symmetric_and_bounded(seed):
    rng = np.random.default_rng(seed)
    p, q = rng.random((2, 4, 9))
    found = jensen_shannon(p, q)
    np.testing.assert_allclose(found, jensen_shannon(q, p))
    assert ((found >= 0) & (found <= math.log(2))).all()


def test_divergence_of_no_counts_is_not_a_number():
    assert np.isnan(jensen_shannon(np.zeros(3), np.ones(3)))


def test_cosine_of_counts_ignores_their_scale():
    assert cosine(np.array([1.0, 2.0]), np.array([3.0, 6.0])) == pytest.approx(1.0)
    assert cosine(np.array([1.0, 0.0]), np.array([0.0, 6.0])) == 0.0


def test_taking_trips_keeps_their_points_in_the_order_asked():
    trips = pack([[1, 2], [3, 4, 5], [6]])
    found = take_trips(trips, np.array([2, 0]))
    np.testing.assert_array_equal(found.offset, [0, 1, 3])
    np.testing.assert_array_equal(found.road, [6, 1, 2])


def test_sums_by_trip_are_zero_for_empty_rows():
    found = sum_by_trip(np.array([1.0, 2.0, 4.0]), np.array([0, 2, 2, 3, 3]))
    np.testing.assert_array_equal(found, [3.0, 0.0, 4.0, 0.0])


def test_ranks_count_earlier_entries_of_the_same_key():
    np.testing.assert_array_equal(ranks_within(np.array([7, 3, 7, 7, 3])), [0, 0, 1, 2, 1])
    assert len(ranks_within(np.empty(0, np.int64))) == 0
