from dataclasses import replace

import numpy as np
import pytest
import torch
from random_city import random_network
from torch_geometric.nn.models import GAT, GCN

from hoserkd.engine.config import StudentConfig
from hoserkd.engine.student import surroundings
from hoserkd.engine.student.road_network_encoder import RoadGAT, RoadNetworkEncoder, ZoneGCN
from hoserkd.engine.student.surroundings import surroundings_of, whole_network
from hoserkd.engine.student.tables import build_network_tables, edges_by_target

CPU = torch.device("cpu")
DIM = 12


@pytest.fixture(params=[0, 1])
def network(request):
    return random_network(seed=request.param)


@pytest.fixture
def tables(network):
    return build_network_tables(network, "geographic", CPU)


def public_gat(ours: RoadGAT) -> GAT:
    theirs = GAT(DIM, DIM, num_layers=2, out_channels=DIM, v2=True, edge_dim=2)
    theirs.load_state_dict(ours.state_dict())
    return theirs.double()


def test_road_attention_equals_pyg_with_its_gradients(network, tables):
    torch.manual_seed(0)
    ours = RoadGAT(DIM).double()
    theirs = public_gat(ours)
    x = torch.randn(network.roads, DIM, dtype=torch.float64)
    around = whole_network(tables)
    weight = torch.randn_like(x)
    got = ours(x, around.first, around.second)
    want = theirs(x, torch.from_numpy(network.adjacency),
                  edge_attr=torch.from_numpy(network.adjacency_attr).double())
    torch.testing.assert_close(got, want, rtol=0, atol=1e-7)
    (got * weight).sum().backward()
    (want * weight).sum().backward()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-6, atol=1e-6, msg=name)


def test_zone_convolution_equals_pyg(network, tables):
    torch.manual_seed(0)
    ours = ZoneGCN(DIM)
    theirs = GCN(DIM, DIM, num_layers=2, out_channels=DIM, cached=True)
    theirs.load_state_dict(ours.state_dict())
    counts = network.zone_transitions.astype(np.float32)
    root = 1 / np.sqrt(np.maximum(counts.sum(1), 1))
    source, target = counts.nonzero()
    edge_weight = (counts * root[:, None] * root[None])[source, target]
    x = torch.randn(network.zones, DIM)
    want = theirs(x, torch.from_numpy(np.stack([source, target])),
                  edge_weight=torch.from_numpy(edge_weight))
    torch.testing.assert_close(ours(x, tables.zone_weight), want)


def test_self_loop_of_a_road_without_neighbours_has_zero_attributes():
    offset, source, attr = edges_by_target(
        np.array([[0, 1], [1, 0]]), np.array([[0.2, 1.0], [0.4, 0.0]], np.float32), 3
    )
    assert offset.tolist() == [0, 2, 4, 5]
    assert source.tolist() == [1, 0, 0, 1, 2]
    np.testing.assert_allclose(attr, [[0.4, 0], [0.4, 0], [0.2, 1], [0.2, 1], [0, 0]])


def sparse_tables(roads: int = 300):
    """Tables of a ring, where two hops reach few roads."""
    network = random_network(roads=roads)
    road = np.arange(roads)
    pair = np.stack([road, (road + 1) % roads])
    adjacency = np.concatenate([pair, pair[::-1]], axis=1)
    attr = np.random.default_rng(0).uniform(0, 1, (adjacency.shape[1], 2)).astype(np.float32)
    network = replace(network, adjacency=adjacency, adjacency_attr=attr)
    return build_network_tables(network, "geographic", CPU)


def test_surroundings_of_a_road_on_a_ring_are_two_roads_each_way():
    around = surroundings_of(sparse_tables(), torch.tensor([10, 10, 11]))
    assert around.road.tolist() == [8, 9, 10, 11, 12, 13]
    assert around.embedded.tolist() == [10, 11]
    assert around.row[[10, 11]].tolist() == [0, 1]


def test_embeddings_of_seen_roads_equal_those_of_the_whole_network():
    tables = sparse_tables()
    torch.manual_seed(0)
    config = StudentConfig(hidden_dim=DIM, road_id_dim=4, attribute_dim=2, heads=2)
    encoder = RoadNetworkEncoder(config, tables.roads, tables.highway_types, tables.zones).double()
    seen = torch.tensor([5, 250, 6, 17, 5])
    around = surroundings_of(tables, seen)
    whole = encoder.embed_roads(tables, whole_network(tables))
    part = encoder.embed_roads(tables, around)
    torch.testing.assert_close(part[around.row[seen]], whole[seen], rtol=0, atol=1e-12)
    weight = torch.randn(len(seen), DIM, dtype=torch.float64)
    (part[around.row[seen]] * weight).sum().backward()
    partial = {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad()
    (whole[seen] * weight).sum().backward()
    for name, gradient in partial.items():
        torch.testing.assert_close(gradient, encoder.get_parameter(name).grad, msg=name)


def test_surroundings_of_most_roads_are_the_whole_network(monkeypatch):
    tables = sparse_tables()
    monkeypatch.setattr(surroundings, "WORTHWHILE_SHARE", 0.01)
    assert surroundings_of(tables, torch.arange(3)).road is None
