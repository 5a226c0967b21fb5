import dataclasses
import itertools

import numpy as np
from handmade import as_generated, pack, town, walks

from hoserkd.engine.geo import bearing_rad
from hoserkd.engine.metrics.task import (
    completion,
    diversity,
    most_frequent_next,
    path_length_m,
    revisits,
    road_visits,
    straightest_next,
    used_columns,
    zone_changes,
)


def test_completion_asks_for_the_road_itself_or_for_200_metres():
    lonlat = np.array([[0.0, 0.0], [0.001, 0.0], [0.01, 0.0]])
    trips = as_generated(pack([[2, 0], [2, 1], [0, 2], [1]]))
    asked = dataclasses.replace(trips, destination=np.array([0, 0, 0, -1]))
    exact, near = completion(asked, lonlat)
    np.testing.assert_array_equal(exact, [True, False, False, False])
    np.testing.assert_array_equal(near, [True, True, False, False])


def test_completion_of_an_empty_path_is_false():
    trips = as_generated(pack([[0, 1]]))
    empty = dataclasses.replace(trips, offset=np.array([0, 0]), road=np.empty(0, np.int32),
                                entered_at_s=np.empty(0, np.int64))
    exact, near = completion(empty, np.zeros((2, 2)))
    assert not exact[0]
    assert not near[0]


def test_zone_changes_equal_the_plain_loop():
    network = town()
    trips = walks(network, 30, seed=1)
    found = zone_changes(trips, network.zone)
    expected = np.zeros((4, 4), int)
    for s, e in zip(trips.offset[:-1], trips.offset[1:], strict=True):
        of = network.zone[trips.road[s:e]]
        for a, b in itertools.pairwise(of):
            expected[a, b] += a != b
    np.testing.assert_array_equal(found.total().reshape(4, 4), expected)
    assert found.offset[-1] == expected.sum()


def test_used_columns_keep_the_counts():
    a, b = road_visits(pack([[1, 5]]), 9), road_visits(pack([[5, 7, 7]]), 9)
    short_a, short_b = used_columns(a, b)
    np.testing.assert_array_equal(short_a.total(), [1, 1, 0])
    np.testing.assert_array_equal(short_b.total(), [0, 1, 2])


def test_lengths_and_revisits_follow_the_roads():
    trips = pack([[0, 1, 0], [2, 1]])
    np.testing.assert_allclose(path_length_m(trips, np.array([10.0, 5.0, 1.0])), [25.0, 6.0])
    np.testing.assert_array_equal(revisits(trips), [True, False])


def test_diversity_is_zero_for_copies_and_one_for_disjoint_ways():
    trips = pack([[0, 1, 9], [0, 1, 9], [0, 2, 8], [3, 4], [5, 6], [7, 8]])
    origin = np.array([0, 0, 1, 1, 2, 3])
    destination = np.array([9, 9, 8, 8, 6, 8])
    np.testing.assert_allclose(diversity(trips, origin, destination), [0.0, 1.0])


def test_most_frequent_turn_is_right_as_often_as_the_plain_count():
    network = town()
    train, trips = walks(network, 200, seed=1), walks(network, 30, seed=2)
    counts = {}
    for s, e in zip(train.offset[:-1], train.offset[1:], strict=True):
        for a, b in zip(train.road[s:e - 1], train.road[s + 1:e], strict=True):
            counts.setdefault(int(a), {}).setdefault(int(b), 0)
            counts[int(a)][int(b)] += 1
    expected = []
    for s, e in zip(trips.offset[:-1], trips.offset[1:], strict=True):
        for a, b in zip(trips.road[s:e - 1], trips.road[s + 1:e], strict=True):
            start, stop = network.candidates.offset[a:a + 2]
            choices = network.candidates.road[start:stop].tolist()
            best = max(choices, key=lambda c: counts.get(int(a), {}).get(c, 0))
            expected.append(float(best == b))
    np.testing.assert_array_equal(most_frequent_next(network, train, trips), expected)


def test_straightest_turn_is_the_one_of_the_smallest_angle():
    network = town()
    trips = walks(network, 30, seed=2)
    end, expected = network.end_lonlat, []
    for s, e in zip(trips.offset[:-1], trips.offset[1:], strict=True):
        goal = end[trips.road[e - 1]]
        for a, b in zip(trips.road[s:e - 1], trips.road[s + 1:e], strict=True):
            start, stop = network.candidates.offset[a:a + 2]
            choices = network.candidates.road[start:stop]

            def turn(c, a=a, goal=goal):
                gap = abs(bearing_rad(end[a], end[c]) - bearing_rad(end[a], goal)) % (2 * np.pi)
                return min(gap, 2 * np.pi - gap)

            expected.append(float(min(choices, key=turn) == b))
    np.testing.assert_array_equal(straightest_next(network, trips), expected)
