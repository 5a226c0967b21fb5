"""Writes a student as the public HOSER code loads it: a state dict, buffers included."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hoserkd.engine.city.storage import City
from hoserkd.engine.files import replacing
from hoserkd.engine.student.storage import LoadedStudent
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.types import RoadNetwork

PUBLIC_MAX_LEN = 2048
"""Longest trip of the public model: the side of the causal masks that its state dict holds."""


def save_public_checkpoint(
    path: Path, student: LoadedStudent, city: City, max_len: int = PUBLIC_MAX_LEN
) -> None:
    """Write `student` as a public `best.pth`, whole or not at all.

    The public code computes the `aaai2025` features: a student trained on `geographic` ones loads
    there, but is asked with angles that it does not know.

    Args:
        max_len: The public configuration's longest trip.
    """
    state = public_state_dict(student, city.network, max_len)
    with replacing(path) as file:
        torch.save(state, file)


def public_state_dict(
    student: LoadedStudent, network: RoadNetwork, max_len: int
) -> dict[str, Tensor]:
    """Return weights, buffers and the parts that the public code makes but never uses."""
    weights = {name: value.detach().cpu().clone()
               for name, value in student.model.state_dict().items()}
    dim = student.meta.config.hidden_dim
    mask = torch.tril(torch.ones(max_len, max_len))[None, None]
    masks = {f"trajectory_encoder.transformer.h.{layer}.attn.bias": mask
             for layer in range(student.meta.config.layers)}
    unused = {
        "navigator.time_estimator.0.weight": torch.zeros(2 * dim, 3 * dim),
        "navigator.time_estimator.0.bias": torch.zeros(2 * dim),
        "navigator.time_estimator.2.weight": torch.zeros(1, 2 * dim),
        "navigator.time_estimator.2.bias": torch.zeros(1),
    }
    return {**_inputs(network, student.meta.highway_types), **weights, **masks, **unused}


def _inputs(network: RoadNetwork, highway_types: int) -> dict[str, Tensor]:
    tables = build_network_tables(network, "aaai2025", torch.device("cpu"))
    counts = network.zone_transitions.astype(np.float32)
    root = 1 / np.sqrt(np.maximum(counts.sum(1), np.float32(1)))
    pair = np.stack(np.nonzero(network.zone_transitions))
    weight = (counts * root[:, None] * root[None, :])[pair[0], pair[1]]
    prefix = "road_network_encoder."
    return {
        "road2zone": tables.zone.clone(),
        prefix + "road_attr_len": tables.length,
        prefix + "road_attr_type": tables.highway_ranks(highway_types).clone(),
        prefix + "road_attr_lon": tables.lon,
        prefix + "road_attr_lat": tables.lat,
        prefix + "road_edge_index": torch.from_numpy(np.array(network.adjacency, dtype=np.int64)),
        prefix + "intersection_attr": torch.from_numpy(
            np.array(network.adjacency_attr, dtype=np.float32)),
        prefix + "zone_edge_index": torch.from_numpy(pair.astype(np.int64)),
        prefix + "zone_edge_weight": torch.from_numpy(weight),
    }
