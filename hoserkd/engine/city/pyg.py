"""A prepared city as a graph of PyTorch Geometric."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float64

from hoserkd.engine.types import RoadNetwork

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

ROAD_FEATURES = ("log1p_length", "free_flow", "longitude", "latitude")
"""Columns of a road's `x`, each standardised over the city's roads (mean 0, deviation 1)."""
RELATION, ADJACENCY = ("road", "leads_to", "road"), ("road", "touches", "road")
MEMBERSHIP, TRANSITION = ("road", "lies_in", "zone"), ("zone", "changes_to", "zone")


def build_graph(network: RoadNetwork) -> "HeteroData":
    """Return the road network as a heterogeneous graph, on the CPU.

    Nodes:
        road: `x` (R, 4) float32, standardised, its columns named in `x_names`; `highway` (R) the
            class, an index into `highway_names`; `road_id` (R) the `geo_id`; `length_m` (R) metres;
            `free_flow_kmh` (R); `pos` (R, 2) longitude and latitude of the centroid in degrees.
        zone: `pos` (Z, 2) the mean of its roads' centroids in degrees; `roads` (Z) their number.

    Edges:
        road leads_to road: the relations of `roadmap.rel`, grouped by origin, each origin's in the
            order of the file: the candidates of the next road.
        road touches road: pairs of roads that share an end point, both directions; `edge_attr`
            (E, 2): heading difference folded to [0, 1], and 1.0 where the second can follow.
        road lies_in zone: one edge per road.
        zone changes_to zone: pairs of zones between which training trips change; `edge_weight`
            counts the changes.
    """
    # Two seconds that only users of the graph should wait for.
    from torch_geometric.data import HeteroData

    graph = HeteroData()
    zone = network.zone.astype(np.int64)
    origin = np.repeat(np.arange(network.roads), np.diff(network.candidates.offset))
    columns = (np.log1p(network.length_m), network.free_flow_kmh, *network.centroid_lonlat.T)
    road = graph["road"]
    road.x = torch.from_numpy(np.stack([_standardised(c) for c in columns], axis=1)).float()
    road.x_names = ROAD_FEATURES
    road.highway = torch.from_numpy(network.highway)
    road.highway_names = network.highway_names
    road.road_id = torch.from_numpy(network.road_id)
    road.length_m = torch.from_numpy(network.length_m).float()
    road.free_flow_kmh = torch.from_numpy(network.free_flow_kmh).float()
    road.pos = torch.from_numpy(network.centroid_lonlat)
    members = np.bincount(zone, minlength=network.zones)
    graph["zone"].pos = torch.from_numpy(np.stack(
        [np.bincount(zone, axis, network.zones) for axis in network.centroid_lonlat.T],
        axis=1) / np.maximum(members, 1)[:, None])
    graph["zone"].roads = torch.from_numpy(members)
    graph["zone"].num_nodes = network.zones
    graph[RELATION].edge_index = _edges(origin, network.candidates.road)
    graph[ADJACENCY].edge_index = torch.from_numpy(np.array(network.adjacency))
    graph[ADJACENCY].edge_attr = torch.from_numpy(np.array(network.adjacency_attr))
    graph[MEMBERSHIP].edge_index = _edges(np.arange(network.roads), zone)
    first, second = np.nonzero(network.zone_transitions)
    graph[TRANSITION].edge_index = _edges(first, second)
    graph[TRANSITION].edge_weight = torch.from_numpy(
        network.zone_transitions[first, second]).float()
    return graph


def _standardised(values: Float64[np.ndarray, " R"]) -> Float64[np.ndarray, " R"]:
    if values.min() == values.max():
        # Its mean is rounded, and so its deviation is not quite 0.
        return np.zeros_like(values)
    standardised: Float64[np.ndarray, " R"] = (values - values.mean()) / values.std()
    return standardised


def _edges(first: np.ndarray, second: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([first.astype(np.int64), second.astype(np.int64)]))
