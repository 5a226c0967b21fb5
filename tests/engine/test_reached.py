"""Reached means: the last road of the answer is the requested one, in every search."""

from functools import partial

import numpy as np
import pytest
import torch
from random_city import random_network, random_walks
from source_folder import prepared, write_source
from two_way_town import two_way_town
from wild_cities import CITIES

from hoserkd.engine import generate
from hoserkd.engine.city.storage import load_city, save_city
from hoserkd.engine.config import EvaluateConfig, GenerateConfig
from hoserkd.engine.events import Silent, never_stop
from hoserkd.engine.library import join_trips, judge_trips
from hoserkd.engine.metrics.task import completion
from hoserkd.engine.search.compiled_forward import CompiledForward
from hoserkd.engine.search.incremental import incremental_students
from hoserkd.engine.search.padded_forward import PaddedForward
from hoserkd.engine.search.quality import Quality
from hoserkd.engine.search.queries import Queries
from hoserkd.engine.types import TimeStatistics

SEARCHES = {
    "astar": {}, "astar, cut short": {"max_steps": 7}, "astar, guided": {"guide": True},
    "beam": {"search": "beam"}, "beam, cut short": {"search": "beam", "max_steps": 5},
    "beam, by mean": {"search": "beam", "length_normalised": True},
    "greedy": {"search": "greedy"},
    "sample": {"search": "sample"}, "sample, again": {"search": "sample", "attempts": 3},
    "sample, with loops": {"search": "sample", "forbid_loops": False, "max_steps": 60},
    "sample, cut short": {"search": "sample", "max_steps": 6},
}
SMALL = [name for name in CITIES if name not in ("star", "long_trips")]


def search(monkeypatch, student, city, queries, forward=CompiledForward, **settings):
    with monkeypatch.context() as patch:
        patch.setattr(generate, "incremental_students",
                      partial(incremental_students, forward=forward))
        return join_trips(list(generate.generate_trips(
            student, city, queries, GenerateConfig(**settings), device=torch.device("cpu"), seed=3,
            observer=Silent(), stop=never_stop)))


def any_queries(roads, count, seed=0, pairs=()):
    """Random requests, some from a road to itself, and the given pairs in both directions."""
    draw = np.random.default_rng(seed)
    asked = np.concatenate([draw.integers(0, roads, (count, 2)), np.array(pairs).reshape(-1, 2),
                            np.array(pairs).reshape(-1, 2)[:, ::-1]]).astype(np.int64)
    asked[:2, 1] = asked[:2, 0]
    return Queries(asked[:, 0].copy(), asked[:, 1].copy(),
                   1_709_539_200 + draw.integers(0, 86_400, len(asked)))


def assert_reached_is_arrived(city, trips):
    paths = [trips.road[a:b] for a, b in zip(trips.offset[:-1], trips.offset[1:], strict=True)]
    arrived = [len(path) > 0 and path[-1] == wanted
               for path, wanted in zip(paths, trips.destination, strict=True)]
    assert trips.reached.tolist() == arrived
    assert [reason in ("reached", "same road") for reason in trips.reason] == arrived
    assert completion(trips, city.network.centroid_lonlat)[0].tolist() == arrived
    quality = Quality(city.network, loops=True)
    quality.add(trips)
    ways = (trips.origin >= 0) & (trips.destination >= 0) & (trips.origin != trips.destination)
    if ways.any():
        assert quality.figures()["completion"] == np.mean(np.array(arrived)[ways])


@pytest.mark.parametrize("settings", SEARCHES.values(), ids=SEARCHES)
def test_reached_means_the_last_road_is_the_destination_where_roads_share_centroids(
    two_way_city, new_tiny_student, monkeypatch, settings
):
    opposite = [pair for pair in enumerate(two_way_town().opposite) if pair[1] >= 0][::7]
    queries = any_queries(two_way_city.network.roads, 70, pairs=opposite)
    student = new_tiny_student(two_way_city)
    trips = search(monkeypatch, student, two_way_city, queries, **settings)
    assert_reached_is_arrived(two_way_city, trips)
    assert trips.reached.sum() > len(queries) / 20
    assert trips.reason[:2] == ("same road", "same road")
    for batch_size, count in ((1, 10), (16, 40)):
        again = search(monkeypatch, student, two_way_city, queries.select(slice(count)),
                       batch_size=batch_size, **settings)
        assert again.reached.tolist() == trips.reached[:count].tolist()
        assert again.road.tolist() == trips.road[:len(again.road)].tolist()


@pytest.mark.parametrize("name", ["astar", "beam", "greedy", "sample"])
def test_reached_means_the_last_road_is_the_destination_on_any_device(
    two_way_city, new_tiny_student, monkeypatch, name
):
    queries = any_queries(two_way_city.network.roads, 60, seed=1)
    trips = search(monkeypatch, new_tiny_student(two_way_city), two_way_city, queries,
                   PaddedForward, search=name, max_steps=60)
    assert_reached_is_arrived(two_way_city, trips)
    assert trips.reached.sum() > 3


@pytest.mark.parametrize("where", ["random", *SMALL])
def test_reached_means_the_last_road_is_the_destination_in_odd_cities(
    tmp_path, new_tiny_student, monkeypatch, where
):
    if where == "random":
        network = random_network(40)
        walks = random_walks(network, trips=20)
        city = save_city(tmp_path, where, network, dict.fromkeys(("train", "val", "test"), walks),
                         TimeStatistics(3.4, 0.5))
    else:
        prepared(write_source(tmp_path / "source", **CITIES[where]().files()), tmp_path / "city",
                 zones=1)
        city = load_city(tmp_path / "city")
    student, queries = new_tiny_student(city), any_queries(city.network.roads, 25)
    for settings in SEARCHES.values():
        assert_reached_is_arrived(city, search(monkeypatch, student, city, queries, **settings))


@pytest.mark.parametrize("name", ["beam", "sample"])
def test_completion_as_evaluated_is_the_share_reached(two_way_city, new_tiny_student, monkeypatch,
                                                      name):
    queries = any_queries(two_way_city.network.roads, 80, seed=2)
    trips = search(monkeypatch, new_tiny_student(two_way_city), two_way_city, queries, search=name)
    judged = judge_trips(trips, two_way_city, config=EvaluateConfig(bootstrap=0, model_trips=0))
    asked = trips.origin != trips.destination
    assert 0 < trips.reached[asked].mean() < 1
    assert judged.figures["completion"].value == pytest.approx(trips.reached[asked].mean())


@pytest.mark.parametrize("name", ["astar", "beam", "greedy", "sample"])
def test_time_limit_leaves_reached_true_to_the_roads(
    two_way_city, new_tiny_student, monkeypatch, name
):
    town = two_way_town()
    pairs = [(a, b) for a, follow in enumerate(town.follow) for b in follow][::3]
    queries = any_queries(two_way_city.network.roads, 4, pairs=pairs)
    for limits in ({"search_time_limit_s": 1e-9}, {"time_limit_s": 1e-9}):
        trips = search(monkeypatch, new_tiny_student(two_way_city), two_way_city, queries,
                       search=name, **limits)
        assert "time limit" in trips.reason
        assert_reached_is_arrived(two_way_city, trips)


@pytest.mark.real_data
def test_reached_means_the_last_road_is_the_destination_on_real_roads(
    real_data, tmp_path, new_tiny_student, monkeypatch
):
    prepared(real_data / "san_francisco_mini", tmp_path / "city", zones=8)
    city = load_city(tmp_path / "city")
    queries = generate.draw_queries(city, "test-trips", 100, 0)
    student = new_tiny_student(city)
    for settings in ({"search": "sample", "attempts": 3}, {"search": "greedy"},
                     {"max_steps": 100}):
        assert_reached_is_arrived(city, search(monkeypatch, student, city, queries, **settings))
