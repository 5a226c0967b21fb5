"""Reads a public HOSER checkpoint (`best.pth`): a state dict without settings."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from torch import Tensor

from hoserkd.engine.config import StudentConfig
from hoserkd.engine.config_base import field_findings
from hoserkd.engine.teacher.pickles import read_archive
from hoserkd.engine.teacher.wrapping import NoWeightsError, find_weights
from hoserkd.engine.types import RoadNetwork
from hoserkd.errors import CheckpointError, TeacherError

BUFFERS = re.compile(
    r"road2zone|road_network_encoder\.(road_attr_\w+|road_edge_index|intersection_attr"
    r"|zone_edge_index|zone_edge_weight)|trajectory_encoder\.transformer\.h\.\d+\.attn\.bias"
)
"""Input data that the public code stores with the weights."""
UNUSED = re.compile(r"navigator\.time_estimator\.\d+\.(weight|bias)")
"""Weights that the public code makes and never uses."""
OLD_CLOCK = "trajectory_encoder.temporal_encoder.time_emb.weight"
"""How the public code encoded the time of day before its commit 0158295 of September 2025, and the
distilling fork still does; its weights mean nothing to the later encoding."""
MARKER = "road_network_encoder.zone_id_emb.weight"
"""A weight that every student has, by which its state dict is found."""
OWN_TRAINING = frozenset({"format", "optimiser", "settings", "rng"})
"""What a training of hoserkd keeps beside the weights (`training.checkpoint`)."""
HINT = "expected the state dict that the public HOSER code saves as best.pth"


@dataclass(frozen=True, slots=True)
class PublicCheckpoint:
    """A public state dict, its settings read off its shapes."""

    config: StudentConfig
    roads: int
    highway_types: int
    zones: int
    weights: Mapping[str, Tensor]
    """Without buffers and unused weights."""
    buffers: Mapping[str, Tensor]

    def check_network(self, path: Path, network: RoadNetwork) -> None:
        """Hold the network that the file was trained on to the city's.

        Raises:
            CheckpointError: Roads have other classes or zones, or other roads are adjacent.
        """
        prefix = "road_network_encoder."
        edges = self.buffers.get(prefix + "road_edge_index")
        pairs = {
            "classes": (
                self.buffers.get(prefix + "road_attr_type"),
                network.highway if self.highway_types == len(network.highway_names)
                else network.highway_verbatim,
            ),
            "zones": (self.buffers.get("road2zone"), network.zone),
        }
        for what, (theirs, ours) in pairs.items():
            if theirs is None or ours is None:
                continue
            if theirs.shape != ours.shape:
                raise CheckpointError(f"{path}: the model has {what} of {list(theirs.shape)} "
                                      f"roads, the city has {network.roads}")
            if differ := int((theirs.double().numpy() != ours).sum()):
                raise CheckpointError(
                    f"{path}: {differ} of the {network.roads} roads have other {what} "
                    "in the model than in the city",
                    hint="prepare the city from the files that the model was trained on, "
                    "road_network_partition included",
                )
        if edges is not None and not _same_edges(edges.double().numpy(), network.adjacency):
            raise CheckpointError(
                f"{path}: the model has {edges.numel() // 2} adjacency edges, the city "
                f"{network.adjacency.shape[1]}, and they are not the same",
                hint="prepare the city from the files that the model was trained on",
            )


def read_public_checkpoint(path: Path) -> PublicCheckpoint:
    """Return the public checkpoint in `path`; runs nothing that the file holds.

    Raises:
        CheckpointError: The file is no such checkpoint, or of dimensions that do not fit.
    """
    loaded = _read_tensors(path)
    buffers = {name: value for name, value in loaded.items() if BUFFERS.fullmatch(name)}
    weights = {
        name: value for name, value in loaded.items()
        if name not in buffers and not UNUSED.fullmatch(name)
    }
    if OLD_CLOCK in weights:
        raise CheckpointError(
            f"{path}: trained by the public HOSER code before its commit 0158295 (September 2025), "
            "or by a fork of that: its encoding of the time of day is another and cannot be used",
            hint="train it again, by hoserkd or by the present public code")
    try:
        config = _config(weights)
    except KeyError as error:
        raise CheckpointError(f"{path}: not a public student: {error} is missing",
                              hint=HINT) from error
    except ValidationError as error:
        raise CheckpointError(f"{path}: dimensions that do not fit: "
                              + "; ".join(field_findings(error))) from error
    except (IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"{path}: dimensions that do not fit: {error}") from error
    encoder = "road_network_encoder."
    return PublicCheckpoint(
        config=config,
        roads=len(weights[encoder + "road_id_emb.weight"]),
        highway_types=len(weights[encoder + "type_emb.weight"]),
        zones=len(weights[encoder + "zone_id_emb.weight"]),
        weights=weights,
        buffers=buffers,
    )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        archive = read_archive(path)
        if isinstance(archive.root, dict) and archive.root.keys() >= OWN_TRAINING:
            raise CheckpointError(
                f"{path}: the checkpoint of a training, from which it can be resumed",
                hint="name the student beside it, best.safetensors")
        return archive.tensors(find_weights(archive.root, MARKER).state)
    except NoWeightsError as error:
        raise CheckpointError(f"{path}: not a public student: {error}", hint=HINT) from error
    except TeacherError as error:
        reason = error.message.removeprefix(f"{path}: ")
        raise CheckpointError(f"{path}: not a public student: {reason}", hint=HINT) from error


def _config(weights: Mapping[str, Tensor]) -> StudentConfig:
    encoder, block = "road_network_encoder.", "trajectory_encoder.transformer.h."
    dim = weights[encoder + "zone_id_emb.weight"].shape[1]
    head_width = weights[block + "0.attn.relative_position_emb_k.weight"].shape[0]
    return StudentConfig(
        hidden_dim=dim,
        road_id_dim=weights[encoder + "road_id_emb.weight"].shape[1],
        attribute_dim=weights[encoder + "len_emb.weight"].shape[0],
        heads=2 * dim // head_width,
        layers=len({name.split(".")[3] for name in weights if name.startswith(block)}),
        dropout=0.0,
        features="aaai2025",
    )


def _same_edges(theirs: np.ndarray, ours: np.ndarray) -> bool:
    if theirs.shape != ours.shape:
        return False
    return bool(np.array_equal(theirs[:, np.lexsort(theirs)], ours[:, np.lexsort(ours)]))
