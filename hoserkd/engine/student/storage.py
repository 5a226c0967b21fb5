"""The student on disk: one .safetensors with its description in the header; public files too."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import save as to_safetensors
from torch import Tensor

from hoserkd.engine.city.checks import checked_times
from hoserkd.engine.city.storage import City
from hoserkd.engine.config import DataConfig, StudentConfig
from hoserkd.engine.config_base import field_findings
from hoserkd.engine.files import parse_json, replacing
from hoserkd.engine.identity import MadeFrom, decisive_sha256
from hoserkd.engine.student.hoser import Hoser
from hoserkd.engine.student.public_checkpoint import PublicCheckpoint, read_public_checkpoint
from hoserkd.engine.teacher.pickles import is_torch_file
from hoserkd.engine.types import RoadNetwork, TimeStatistics
from hoserkd.engine.weights import read_weights
from hoserkd.errors import CheckpointError

FORMAT = "hoserkd student 1"
HEADER_KEY = "hoserkd"


@dataclass(frozen=True, slots=True)
class StudentMeta:
    """What a student file says about itself."""

    config: StudentConfig
    roads: int
    highway_types: int
    zones: int
    times: TimeStatistics
    city_sha256: str | None = None
    """Hash of the prepared city it was trained on; None: unknown."""
    run_id: str | None = None
    epoch: int | None = None
    step: int | None = None
    distill: dict[str, Any] | None = None
    """The distillation settings; None: vanilla or unknown."""
    metrics: dict[str, float] = field(default_factory=dict)
    network_sha256: str | None = None
    """Hash of the road network (see `network_sha256`); None: unknown."""
    candidate_top_k: int | None = None
    """Of more candidates than this the nearest to the destination were kept in its training;
    None: unknown."""
    best_by: str | None = None
    """The setting `train.best` that chose these weights among the epochs'; None: unknown."""
    made_from: dict[str, Any] = field(default_factory=dict)
    """Names and hashes of its city, its teacher and the student that it started from, as
    `MadeFrom.to_json` gives them; empty: unknown."""

    def data(self, data: DataConfig) -> DataConfig:
        """Return `data` with the candidates that the student was trained to choose among."""
        if self.candidate_top_k is None:
            return data
        return data.model_copy(update={"candidate_top_k": self.candidate_top_k})


@dataclass(frozen=True, slots=True)
class LoadedStudent:
    """A student on the CPU, in evaluation mode, with its description."""

    model: Hoser
    meta: StudentMeta


def new_student(config: StudentConfig, network: RoadNetwork) -> Hoser:
    """Return a student of that city's size with fresh weights."""
    return Hoser(config, network.roads, len(network.highway_names), network.zones)


def network_sha256(network: RoadNetwork) -> str:
    """Return a hash of all that ties weights to a network: roads, classes, links and zones."""
    digest = hashlib.sha256()
    for values in (network.road_id, network.length_m, network.highway, network.candidates.offset,
                   network.candidates.road, network.zone):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def save_student(path: Path, model: Hoser, meta: StudentMeta) -> None:
    """Write the student, whole or not at all."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in _weights(model).items()}
    described = asdict(replace(meta, config=None))  # type: ignore[arg-type]
    described |= {"format": FORMAT, "config": meta.config.model_dump(mode="json")}
    header = {HEADER_KEY: json.dumps(described, ensure_ascii=False, default=str)}
    with replacing(path) as file:
        file.write(to_safetensors(tensors, header))


def load_student(path: str | Path, city: City) -> LoadedStudent:
    """Return the student in `path`: a file of ours, or a public `best.pth`.

    A public file names no settings: dimensions and heads are read off its tensors, the feature
    convention is `aaai2025`, and the time statistics are those of the city's training trips.

    Raises:
        CheckpointError: The file is missing, damaged, no student, or of another road network.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file", hint="`hoserkd runs list` shows the runs")
    if is_torch_file(path):
        return _from_public(path, read_public_checkpoint(path), city)
    meta, weights = _read(path)
    _check_sizes(path, meta, city.network)
    mine, theirs = meta.network_sha256, network_sha256(city.network)
    if mine is not None and mine != theirs:
        raise CheckpointError(
            f"{path}: the model was trained on another road network "
            f"(hash {mine[:12]}; the city {city.name} has {theirs[:12]})",
            hint="use the prepared city that the model was trained on (--city)",
        )
    return LoadedStudent(_filled(path, meta, weights), meta)


def stored_student_sha256(path: Path) -> str:
    """Return `identity.student_sha256` of a student file of ours, without its city.

    Raises:
        CheckpointError: The file is missing, damaged or no student.
    """
    meta, weights = _read(path)
    return decisive_sha256(weights, meta)


def _weights(model: Hoser) -> dict[str, Tensor]:
    return dict(model.state_dict())


def _read(path: Path) -> tuple[StudentMeta, dict[str, Tensor]]:
    try:
        weights, metadata = read_weights(path)
        header = parse_json(metadata.get(HEADER_KEY, "{}"))
    except (SafetensorError, ValueError, OSError, KeyError) as error:
        raise CheckpointError(f"{path}: not a student file: {error}",
                              hint="expected a .safetensors of a run, or a public best.pth"
                              ) from error
    if not isinstance(header, dict) or header.pop("format", None) != FORMAT:
        raise CheckpointError(
            f"{path}: not a student file: its header lacks the mark {FORMAT!r}",
            hint="expected a .safetensors of a run, or a public best.pth",
        )
    return _meta(path, header), weights


def _meta(path: Path, header: dict[str, Any]) -> StudentMeta:
    try:
        config = StudentConfig.model_validate(header.pop("config"))
        times = checked_times(header.pop("times"))
        top_k = header.get("candidate_top_k")
        if top_k is not None and not (type(top_k) is int and top_k >= 1):
            raise ValueError(f"candidate_top_k is {top_k!r}, not a whole number from 1 up")
        made_from = MadeFrom.from_json(header.pop("made_from", None)).to_json()
        return StudentMeta(config=config, times=times, made_from=made_from, **header)
    except (KeyError, TypeError, ValueError) as error:
        why = ("; ".join(field_findings(error)) if isinstance(error, ValidationError)
               else str(error))
        raise CheckpointError(f"{path}: the header of the student file is damaged: {why}",
                              hint="was it written by a newer hoserkd?") from error


def _from_public(path: Path, public: PublicCheckpoint, city: City) -> LoadedStudent:
    meta = StudentMeta(
        config=public.config,
        roads=public.roads,
        highway_types=public.highway_types,
        zones=public.zones,
        times=city.times,
    )
    _check_sizes(path, meta, city.network)
    public.check_network(path, city.network)
    return LoadedStudent(_filled(path, meta, public.weights), meta)


def _check_sizes(path: Path, meta: StudentMeta, network: RoadNetwork) -> None:
    types = len(network.highway_names)
    if network.highway_verbatim is not None and meta.highway_types != types:
        types = len(np.unique(network.highway_verbatim))
    theirs = {"roads": meta.roads, "highway types": meta.highway_types, "zones": meta.zones}
    ours = {"roads": network.roads, "highway types": types, "zones": network.zones}
    if theirs != ours:
        raise CheckpointError(
            f"{path}: the model is of another city: it has {_counts(theirs)}, "
            f"the city has {_counts(ours)}",
            hint="use the prepared city that the model was trained on (--city)",
        )


def _counts(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sizes.items())


def _filled(path: Path, meta: StudentMeta, weights: Mapping[str, Tensor]) -> Hoser:
    # Its shapes first, without memory: a stranger's file may claim any width.
    if meta.config.layers > len(weights):
        raise CheckpointError(f"{path}: it says {meta.config.layers} layers and holds "
                              f"{len(weights)} tensors")
    with torch.device("meta"):
        model = Hoser(meta.config, meta.roads, meta.highway_types, meta.zones)
    expected = {name: value.shape for name, value in model.state_dict().items()}
    found = {name: value.shape for name, value in weights.items()}
    wrong = [
        f"{name} (expected {_shape(expected.get(name))}, found {_shape(found.get(name))})"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
    if wrong:
        raise CheckpointError(f"{path}: {len(wrong)} tensors do not fit the model: "
                              + "; ".join(wrong[:4]) + ("; ..." if len(wrong) > 4 else ""))
    model = Hoser(meta.config, meta.roads, meta.highway_types, meta.zones)
    model.load_state_dict(dict(weights))
    return model.eval()


def _shape(shape: torch.Size | None) -> str:
    return "none" if shape is None else str(tuple(shape))


