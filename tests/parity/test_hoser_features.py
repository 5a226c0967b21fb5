import numpy as np
import pytest
import torch
from public_city import expected, public_city

from hoserkd.engine.config import DataConfig, StudentConfig
from hoserkd.engine.student.hoser import views_of
from hoserkd.engine.student.storage import new_student
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.trips.batches import TripSource

CPU = torch.device("cpu")
TRIPS = 24


@pytest.fixture(scope="module")
def tables():
    return build_network_tables(public_city().network, "aaai2025", CPU)


@pytest.fixture(scope="module")
def batch(tables):
    source = TripSource(public_city().split("test"), tables, DataConfig(), CPU)
    return source.batch(np.arange(TRIPS))


@pytest.mark.parametrize(
    ("recorded", "ours"),
    [
        ("offset", "offset"),
        ("road", "road"),
        ("destination", "destination"),
        ("label", "label"),
        ("temporal_info", "time_of_day"),
        ("travel_time_s", "travel_time_s"),
        ("candidate_road", "candidate_road"),
        ("candidate_distance", "candidate_distance"),
        ("candidate_angle", "candidate_angle"),
    ],
)
def test_step_feature_of_recorded_trips_equals_the_public_one(batch, recorded, ours):
    np.testing.assert_allclose(getattr(batch, ours), expected()[recorded], rtol=0, atol=1e-5)


def test_candidate_counts_of_recorded_trips_equal_the_public_ones(batch):
    np.testing.assert_array_equal(batch.candidate_offset.diff(), expected()["candidate_len"])


def test_pairwise_features_of_recorded_trips_equal_the_public_ones(tables, batch):
    model = new_student(
        StudentConfig(hidden_dim=8, road_id_dim=4, attribute_dim=1, heads=1), public_city().network
    )
    views = views_of(model.encode_network(tables), batch, torch.float32)
    length = batch.offset.diff().tolist()
    for name in ("distance", "interval"):
        padded = [matrix[0] for view in views for matrix in getattr(view.relation, name)]
        flat = torch.cat(
            [matrix[:n, :n].flatten() for matrix, n in zip(padded, length, strict=True)]
        )
        np.testing.assert_allclose(flat, expected()[f"pair_{name}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("recorded", "ours"),
    [("len", "length"), ("lon", "lon"), ("lat", "lat")],
)
def test_road_attribute_equals_the_public_one(tables, recorded, ours):
    np.testing.assert_allclose(
        getattr(tables, ours), expected()[f"road_attr_{recorded}"], rtol=0, atol=1e-5
    )


def test_road_classes_as_a_model_of_five_counts_them_equal_the_public_ones(tables):
    # The public code leaves list-valued classes as they are written in cities like this one.
    recorded = expected()["road_attr_type"]
    np.testing.assert_array_equal(tables.highway_ranks(recorded.max() + 1), recorded)


def test_zones_equal_the_public_ones(tables):
    np.testing.assert_array_equal(tables.zone, expected()["zone"])


def test_time_statistics_equal_the_public_ones():
    times = public_city().times
    assert times.log1p_mean == pytest.approx(expected()["log1p_mean"], abs=1e-6)
    assert times.log1p_std == pytest.approx(expected()["log1p_std"], abs=1e-6)


def test_adjacency_equals_the_public_one():
    network, recorded = public_city().network, expected()
    ours = np.lexsort(network.adjacency)
    theirs = np.lexsort(recorded["adjacency"])
    np.testing.assert_array_equal(network.adjacency[:, ours], recorded["adjacency"][:, theirs])
    np.testing.assert_allclose(
        network.adjacency_attr[ours], recorded["adjacency_attr"][theirs], rtol=0, atol=1e-5
    )
