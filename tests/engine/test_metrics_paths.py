import itertools

import numpy as np
import pytest
from handmade import pack, town, walks
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from hoserkd.engine.metrics.paths import (
    cheapest_paths,
    free_flow_s,
    mean_step_s,
    timed_paths,
    turn_counts,
    turn_surprise,
)


def plain_costs(network, turn_cost, origin):
    shape = (network.roads, network.roads)
    graph = csr_matrix((turn_cost, network.candidates.road, network.candidates.offset), shape)
    return dijkstra(graph, indices=origin)


@pytest.mark.parametrize("weight", ["length", "time", "random", "turns"])
def test_cheapest_paths_equal_dijkstra(weight):
    network = town(6)
    road = network.candidates.road
    cost = {
        "length": network.length_m[road],
        "time": free_flow_s(network)[road],
        "random": np.random.default_rng(0).random(len(road)),
        "turns": turn_surprise(network, turn_counts(network, walks(network, 100, seed=1))),
    }[weight]
    rng = np.random.default_rng(2)
    origin, destination = rng.integers(0, network.roads, (2, 200))
    found = cheapest_paths(network, cost, origin, destination)
    expected = plain_costs(network, cost, origin)[np.arange(200), destination]
    np.testing.assert_allclose(found.cost, expected, rtol=1e-9)


def test_paths_go_along_candidates_and_cost_what_they_say():
    network = town()
    turn_cost = network.length_m[network.candidates.road]
    found = cheapest_paths(network, turn_cost, np.array([0, 5, 7]), np.array([40, 5, 9]))
    for q, (first, last) in enumerate([(0, 40), (5, 5), (7, 9)]):
        path = found.road[found.offset[q]:found.offset[q + 1]]
        assert (path[0], path[-1]) == (first, last)
        for a, b in itertools.pairwise(path):
            slots = network.candidates.offset[a:a + 2]
            assert b in network.candidates.road[slice(*slots)]
        assert found.cost[q] == pytest.approx(network.length_m[path[1:]].sum())


def test_an_unreachable_destination_has_no_path():
    network = town(2)
    # Without a way back at the end of a road, the two directions round the block never meet.
    costs = plain_costs(network, np.ones(len(network.candidates.road)), np.array([0]))[0]
    goal = int(np.flatnonzero(np.isinf(costs))[0])
    found = cheapest_paths(network, np.ones(len(network.candidates.road)), np.array([0]),
                           np.array([goal]))
    assert found.cost[0] == np.inf
    np.testing.assert_array_equal(found.offset, [0, 0])


def test_turns_are_counted_as_the_plain_loop_counts_them():
    network = town()
    trips = walks(network, 50, seed=3)
    expected = np.zeros(len(network.candidates.road), int)
    for s, e in zip(trips.offset[:-1], trips.offset[1:], strict=True):
        for a, b in zip(trips.road[s:e - 1], trips.road[s + 1:e], strict=True):
            start, stop = network.candidates.offset[a:a + 2]
            expected[start + list(network.candidates.road[start:stop]).index(b)] += 1
    np.testing.assert_array_equal(turn_counts(network, trips), expected)


def test_surprise_of_turns_is_minus_the_log_of_shares_that_sum_to_one():
    network = town()
    surprise = turn_surprise(network, turn_counts(network, walks(network, 50, seed=3)))
    share = np.add.reduceat(np.exp(-surprise), network.candidates.offset[:-1])
    np.testing.assert_allclose(share, 1.0)


def test_mean_times_fall_back_to_free_flow():
    network = town()
    found = mean_step_s(network, pack([[0, 1, 2], [0, 1]], [[0, 10, 40], [0, 20]]))
    assert found[0] == 15.0
    assert found[1] == 30.0
    assert found[2] == free_flow_s(network)[2]


def test_timed_paths_enter_each_road_when_the_last_is_left():
    network = town()
    cost = network.length_m[network.candidates.road]
    paths = cheapest_paths(network, cost, np.array([0, 3]), np.array([30, 31]))
    found = timed_paths(paths, np.array([1000, 2000]), np.full(network.roads, 7.0))
    for q, departure in enumerate((1000, 2000)):
        times = found.entered_at_s[found.offset[q]:found.offset[q + 1]]
        np.testing.assert_array_equal(times, departure + 7 * np.arange(len(times)))
