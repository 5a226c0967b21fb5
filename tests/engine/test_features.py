import math

import numpy as np
import pytest
import torch
from random_city import random_network

from hoserkd.engine.geo import bearing_rad as bearing
from hoserkd.engine.geo import folded_share, great_circle_m
from hoserkd.engine.student.features import candidate_features, candidate_labels, clock_features
from hoserkd.engine.student.tables import build_network_tables

CPU = torch.device("cpu")
MONDAY_S, SATURDAY_S, SUNDAY_S = 1446422400, 1446854400, 1446940800


def seconds(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def plain_candidates(network, road, destination, top_k):
    """Candidates, distances and angles of one step, as ENGINE.md section 2 words them."""
    first, last = network.candidates.offset[road : road + 2]
    candidate = network.candidates.road[first:last]
    centroid, end = network.centroid_lonlat, network.end_lonlat
    metres = great_circle_m(centroid[candidate], centroid[destination])
    nearest = sorted(sorted(range(len(candidate)), key=lambda i: metres[i])[:top_k])
    distance = np.log1p((metres - metres.min()) / 100)
    angle = folded_share(bearing(end[road], end[candidate]), bearing(end[road], end[destination]))
    return candidate[nearest], np.array(nearest), distance[nearest], angle[nearest]


@pytest.mark.parametrize("top_k", [2, 3, 64])
def test_candidate_features_of_random_steps_equal_the_plain_ones(top_k):
    network = random_network(seed=top_k)
    tables = build_network_tables(network, "geographic", CPU)
    rng = np.random.default_rng(top_k)
    road, destination = rng.integers(0, network.roads, (2, 30))
    found = candidate_features(
        tables, torch.from_numpy(road), torch.from_numpy(destination), top_k
    )
    for step in range(30):
        rows = slice(found.offset[step], found.offset[step + 1])
        plain = plain_candidates(network, road[step], destination[step], top_k)
        np.testing.assert_array_equal(found.road[rows], plain[0])
        np.testing.assert_array_equal(found.slot[rows], plain[1])
        np.testing.assert_allclose(found.distance[rows], plain[2], atol=1e-6)
        np.testing.assert_allclose(found.angle[rows], plain[3], atol=1e-6)


def test_candidate_features_of_a_dead_end_are_empty():
    network = random_network()
    network.candidates.offset[-2] = network.candidates.offset[-1]
    tables = build_network_tables(network, "geographic", CPU)
    dead_end = network.roads - 1
    found = candidate_features(tables, torch.tensor([dead_end, 0]), torch.tensor([3, 3]), 64)
    assert found.offset[1] == 0
    assert len(found.road) == found.offset[2] == network.candidates.offset[1]
    assert candidate_labels(found, found.road[[0, 1]]).tolist() == [-100, 1]


def test_candidate_label_that_fell_out_of_top_k_is_masked():
    network = random_network()
    tables = build_network_tables(network, "geographic", CPU)
    road = int(np.argmax(np.diff(network.candidates.offset)))
    start, end = network.candidates.offset[road : road + 2]
    destination = torch.tensor([7])
    whole = candidate_features(tables, torch.tensor([road]), destination, 64)
    kept = candidate_features(tables, torch.tensor([road]), destination, 1)
    farthest = whole.road[whole.distance.argmax()][None]
    assert end - start > 1
    assert candidate_labels(whole, farthest).item() == whole.distance.argmax()
    assert candidate_labels(kept, farthest).item() == -100
    assert candidate_labels(kept, kept.road).item() == 0


def test_angle_towards_a_candidate_is_right_only_in_the_geographic_convention():
    network = random_network()
    # At 60 degrees north a degree of longitude is half one of latitude.
    network.end_lonlat[0] = [10.0, 60.0]
    network.end_lonlat[1] = [10.002, 60.0]
    network.end_lonlat[2] = [10.002, 60.001]
    network.candidates.road[0] = 1
    start, towards = torch.tensor([0]), torch.tensor([2])
    right = candidate_features(build_network_tables(network, "geographic", CPU), start, towards, 64)
    skewed = candidate_features(build_network_tables(network, "aaai2025", CPU), start, towards, 64)
    assert right.angle[0].item() == pytest.approx(0.25, abs=1e-4)
    assert skewed.angle[0].item() == pytest.approx(
        math.atan2(0.001 * math.cos(math.radians(10)), 0.002) / math.pi, abs=1e-4
    )


@pytest.mark.parametrize("convention", ["geographic", "aaai2025"])
def test_time_of_day_on_a_weekday_is_positive_and_on_a_weekend_negative(convention):
    entered = seconds(MONDAY_S + 43200, SATURDAY_S + 43200, SUNDAY_S + 21600)
    time, _ = clock_features(entered, entered - 60, convention)
    assert time.tolist() == [0.5, -0.5, -0.25]


def test_time_of_day_of_a_weekend_trip_at_midnight_keeps_its_sign_when_geographic():
    started = seconds(SATURDAY_S + 86390)
    geographic, _ = clock_features(seconds(SUNDAY_S), started, "geographic")
    public, _ = clock_features(seconds(SUNDAY_S), started, "aaai2025")
    assert geographic.item() == -1.0
    assert public.item() == 0.0


def test_weekend_is_judged_by_the_start_of_the_trip():
    time, _ = clock_features(seconds(MONDAY_S + 600), seconds(MONDAY_S - 60), "geographic")
    assert time.item() == pytest.approx(-600 / 86400)


def test_interval_across_midnight_is_real_when_geographic_and_wraps_when_public():
    entered, started = seconds(MONDAY_S - 60, MONDAY_S + 60), seconds(MONDAY_S - 60, MONDAY_S - 60)
    _, geographic = clock_features(entered, started, "geographic")
    assert geographic.diff().item() == pytest.approx(2.0)
    weekday = started - 86400 * 2
    _, public = clock_features(entered - 86400 * 2, weekday, "aaai2025")
    assert abs(public.diff().item()) == pytest.approx(1438.0)
