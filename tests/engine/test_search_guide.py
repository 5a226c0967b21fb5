import numpy as np
import pytest
from handmade import town, walks

from hoserkd.engine.city.storage import save_city
from hoserkd.engine.metrics.paths import cheapest_paths, turn_counts, turn_surprise
from hoserkd.engine.search.guide import build_guide, remaining_cost
from hoserkd.engine.types import TimeStatistics


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    network = town()
    splits = dict.fromkeys(("train", "val", "test"), walks(network, 40, seed=1))
    return save_city(tmp_path_factory.mktemp("city"), "town", network, splits,
                     TimeStatistics(3.0, 0.5))


def test_remaining_cost_is_that_of_the_cheapest_path(city):
    network = city.network
    guide, cost = build_guide(city, 0.5), np.empty(network.roads, np.float32)
    surprise = 0.5 * turn_surprise(network, turn_counts(network, city.split("train")))
    every = np.arange(network.roads)
    for destination in (0, 17, 42):
        remaining_cost(guide, destination, cost)
        paths = cheapest_paths(network, surprise, every, np.full(network.roads, destination))
        np.testing.assert_allclose(cost, paths.cost, rtol=1e-5, atol=1e-5)
