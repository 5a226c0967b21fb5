"""Writes a student as the public HOSER code stores it (`best.pth`)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hoserkd.engine.city.storage import City
from hoserkd.engine.files import replacing
from hoserkd.engine.student.hoser import Hoser
from hoserkd.engine.student.navigator import TIME_WIDTH, Navigator
from hoserkd.engine.student.storage import LoadedStudent
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.types import RoadNetwork

PUBLIC_MAX_LEN = 2000
"""`max_len` of the published settings of all three cities: the side of the causal masks that the
file must hold, for the public code compares shapes."""


def save_public_checkpoint(
    path: Path, student: LoadedStudent, city: City, max_len: int = PUBLIC_MAX_LEN
) -> None:
    """Write `student` as a state dict that the public code loads with `strict=True`.

    The public code feeds features of the `aaai2025` convention: a model that was trained on
    `geographic` ones loads there, but answers less well. It has one time a candidate: of a
    quantile head the file holds the median's row, which is a head of its own.

    Args:
        max_len: Longest trip of the public settings that will load the file.
    """
    model = student.model
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    state |= _point_head(model.navigator, state)
    state |= _buffers(model, city.network, max_len) | _unused(model.config.hidden_dim)
    with replacing(path) as file:
        torch.save(state, file)


def _point_head(navigator: Navigator, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    row = slice(navigator.point, navigator.point + 1)
    names = [f"navigator.time_estimator_linear_3.{part}" for part in ("weight", "bias")]
    return {name: state[name][row].clone() for name in names}


def _buffers(model: Hoser, network: RoadNetwork, max_len: int) -> dict[str, Tensor]:
    tables = build_network_tables(network, "aaai2025", torch.device("cpu"))
    types = model.road_network_encoder.type_emb.num_embeddings
    counts = network.zone_transitions.astype(np.float32)
    root = 1 / np.sqrt(np.maximum(counts.sum(1), np.float32(1)))
    edge = np.stack(counts.nonzero())
    weight = (counts * root[:, None] * root[None, :])[edge[0], edge[1]]
    mask = torch.ones(max_len, max_len).tril()[None, None]
    encoder = {
        "road_attr_len": tables.length,
        "road_attr_type": tables.highway_ranks(types),
        "road_attr_lon": tables.lon,
        "road_attr_lat": tables.lat,
        "road_edge_index": torch.from_numpy(network.adjacency.copy()),
        "intersection_attr": torch.from_numpy(network.adjacency_attr.copy()),
        "zone_edge_index": torch.from_numpy(edge),
        "zone_edge_weight": torch.from_numpy(weight),
    }
    masks = {
        f"trajectory_encoder.transformer.h.{layer}.attn.bias": mask
        for layer in range(model.config.layers)
    }
    return {
        "road2zone": tables.zone,
        **{f"road_network_encoder.{name}": value for name, value in encoder.items()},
        **masks,
    }


def _unused(dim: int) -> dict[str, Tensor]:
    """Return the layers that the public code makes and never uses."""
    shapes = {"0.weight": (TIME_WIDTH, 3 * dim), "0.bias": (TIME_WIDTH,),
              "2.weight": (1, TIME_WIDTH), "2.bias": (1,)}
    return {f"navigator.time_estimator.{name}": torch.zeros(shape)
            for name, shape in shapes.items()}
