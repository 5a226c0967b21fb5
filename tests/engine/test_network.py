from pathlib import Path

import numpy as np
import pytest

from hoserkd.engine.city.network import (
    build_adjacency,
    build_candidates,
    build_network,
    strongly_connected_share,
)
from hoserkd.engine.city.roadmap import read_roadmap
from hoserkd.engine.types import RoadNetwork

RECORDED = Path(__file__).parents[1] / "data" / "hoser"


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    return dict(np.load(RECORDED / "expected.npz"))


@pytest.fixture(scope="module")
def network(recorded: dict[str, np.ndarray]) -> RoadNetwork:
    city = RECORDED / "city"
    roadmap = read_roadmap(city / "roadmap.geo", city / "roadmap.rel")
    return build_network(roadmap, recorded["zone"].astype(np.int32), np.zeros((6, 6), np.int64))


def test_adjacency_is_the_recorded_one_in_the_recorded_order(
    network: RoadNetwork, recorded: dict[str, np.ndarray]
) -> None:
    assert np.array_equal(network.adjacency, recorded["adjacency"])


def test_adjacency_attributes_are_the_recorded_ones(
    network: RoadNetwork, recorded: dict[str, np.ndarray]
) -> None:
    assert np.abs(network.adjacency_attr - recorded["adjacency_attr"]).max() < 1e-6


@pytest.mark.parametrize(("axis", "name"), [(0, "road_attr_lon"), (1, "road_attr_lat")])
def test_centroids_standardised_in_float32_are_the_recorded_ones(
    network: RoadNetwork, recorded: dict[str, np.ndarray], axis: int, name: str
) -> None:
    value = network.centroid_lonlat[:, axis].astype(np.float32)
    assert np.array_equal((value - value.mean()) / value.std(), recorded[name])


def test_verbatim_highway_ranks_are_the_recorded_ones(
    network: RoadNetwork, recorded: dict[str, np.ndarray]
) -> None:
    assert len(network.highway_names) == 4
    assert network.highway_verbatim is not None
    assert np.array_equal(network.highway_verbatim, recorded["road_attr_type"])


def test_candidates_are_the_recorded_ones_in_their_order(
    network: RoadNetwork, recorded: dict[str, np.ndarray]
) -> None:
    offset, road = network.candidates.offset, network.candidates.road
    expected = np.split(recorded["candidate_road"], np.cumsum(recorded["candidate_len"])[:-1])
    for here, candidates in zip(recorded["road"], expected, strict=True):
        assert road[offset[here] : offset[here + 1]].tolist() == candidates.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_adjacency_equals_the_plain_comparison_of_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    start, end = rng.integers(-2, 3, (2, 40, 2)).astype(float)
    ends = [{tuple(a), tuple(b)} for a, b in zip(start.tolist(), end.tolist(), strict=True)]
    plain = [(i, j) for i in range(40) for j in range(40) if i != j and ends[i] & ends[j]]
    assert build_adjacency(start, end).T.tolist() == [list(pair) for pair in plain]


def test_candidates_keep_the_order_of_the_relations() -> None:
    candidates = build_candidates(3, np.array([2, 0, 2], np.int32), np.array([1, 2, 0], np.int32))
    assert candidates.offset.tolist() == [0, 1, 1, 3]
    assert candidates.road.tolist() == [2, 1, 0]


def test_strongly_connected_share_of_two_rings_is_that_of_the_larger() -> None:
    origin, destination = np.array([0, 1, 2, 3, 4]), np.array([1, 2, 0, 4, 3])
    candidates = build_candidates(5, origin.astype(np.int32), destination.astype(np.int32))
    assert strongly_connected_share(candidates) == pytest.approx(0.6)


def test_strongly_connected_share_without_relations_is_one_road() -> None:
    none = np.zeros(0, np.int32)
    assert strongly_connected_share(build_candidates(4, none, none)) == pytest.approx(0.25)
