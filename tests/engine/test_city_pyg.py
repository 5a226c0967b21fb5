"""A city as a graph of PyTorch Geometric: the same roads and zones, and a layer learns on it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from source_folder import RING, write_source
from source_folder import prepared as prepare

from hoserkd.engine.city.pyg import ADJACENCY, MEMBERSHIP, RELATION, ROAD_FEATURES, TRANSITION
from hoserkd.engine.city.storage import City, load_city


@pytest.fixture
def city(tmp_path: Path) -> City:
    prepare(write_source(tmp_path / "source"), tmp_path / "city")
    return load_city(tmp_path / "city")


def test_the_graph_holds_what_the_network_holds(city: City) -> None:
    graph, network = city.to_pyg(), city.network
    assert graph.validate()
    assert graph["road"].num_nodes == network.roads == RING
    assert graph["zone"].num_nodes == network.zones
    assert graph["road"].x_names == ROAD_FEATURES
    assert torch.equal(graph["road"].road_id, torch.from_numpy(network.road_id))
    origin, destination = graph[RELATION].edge_index.numpy()
    assert [(a, b) for a, b in zip(origin, destination, strict=True)] == [
        (road, candidate) for road in range(network.roads)
        for candidate in network.candidates.road[
            network.candidates.offset[road]:network.candidates.offset[road + 1]]]
    assert np.array_equal(graph[ADJACENCY].edge_index.numpy(), network.adjacency)
    assert np.array_equal(graph[ADJACENCY].edge_attr.numpy(), network.adjacency_attr)
    assert np.array_equal(graph[MEMBERSHIP].edge_index.numpy()[1], network.zone)
    counts = np.zeros((network.zones, network.zones))
    counts[tuple(graph[TRANSITION].edge_index.numpy())] = graph[TRANSITION].edge_weight.numpy()
    assert np.array_equal(counts, network.zone_transitions)
    assert graph["zone"].roads.sum() == network.roads
    assert (graph.city, graph.city_sha256) == (city.name, city.sha256)


def test_the_features_are_standardised(city: City) -> None:
    x = city.to_pyg()["road"].x
    assert x.dtype == torch.float32
    assert torch.allclose(x.mean(dim=0), torch.zeros(4), atol=1e-5)
    deviation = x.std(dim=0, unbiased=False)
    # Roads of one speed leave that column at 0.
    assert torch.all(torch.isclose(deviation, torch.ones(4), atol=1e-4) | (deviation == 0))


def test_a_layer_of_pyg_trains_on_it(city: City) -> None:
    from torch_geometric.nn import GATv2Conv

    graph = city.to_pyg()
    torch.manual_seed(0)
    layer = GATv2Conv(4, 1, edge_dim=2)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    target = torch.linspace(-1, 1, graph["road"].num_nodes)
    losses = []
    for _ in range(50):
        edges = graph[ADJACENCY]
        loss = (layer(graph["road"].x, edges.edge_index, edges.edge_attr)[:, 0] - target).square()
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        losses.append(loss.mean().item())
    assert losses[-1] < 0.5 * losses[0]


def test_loading_a_city_does_not_load_pyg() -> None:
    code = ("import sys, hoserkd.engine.city.storage, hoserkd.engine.city.pyg;"
            "sys.exit('torch_geometric' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
