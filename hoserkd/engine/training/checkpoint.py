"""The resumable checkpoint: one file of tensors and plain values, whole or absent."""

import pickle
import random
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hoserkd.engine.files import replacing
from hoserkd.errors import CheckpointError

FORMAT = 1
LAST = "last.ckpt"
BEST = "best.safetensors"
UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile)


@dataclass(slots=True)
class TrainState:
    """Where a training stands; the loop alone changes it."""

    step: int = 0
    """Optimiser steps so far; the position in the epoch's order follows from it."""
    judged: int = 0
    """Step at which an epoch was last closed, by a validation where one was due."""
    best_epoch: int | None = None
    """Epoch of the best weights; None before the first validation."""
    best_step: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    """The validation of the best weights, without prefix."""
    sums: dict[str, float] = field(default_factory=dict)
    """Sums over the steps since the last validation, from which the training loss comes."""
    epoch_s: float = 0.0
    """Seconds spent since the last validation."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that a training needs to go on as if it had never stopped."""

    model: dict[str, Tensor]
    optimiser: dict[str, Any]
    state: TrainState
    settings: dict[str, Any]
    """What the run was started with: see `hoserkd.engine.train`."""
    rng: dict[str, Any]


def rng_state(device: torch.device) -> dict[str, Any]:
    """Return the state of every generator that a training may draw from."""
    version, internal, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": [version, list(internal), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position),
                  int(has_gauss), float(cached)],
    }


def restore_rng(state: dict[str, Any], device: torch.device) -> None:
    """Set every generator to a state that `rng_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(  # noqa: NPY002
        ("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint`, whole or not at all."""
    content = {
        "format": FORMAT,
        "model": checkpoint.model,
        "optimiser": checkpoint.optimiser,
        "state": asdict(checkpoint.state),
        "settings": checkpoint.settings,
        "rng": checkpoint.rng,
    }
    with replacing(path) as file:
        torch.save(content, file)


def load_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in `path`, on the CPU, running nothing from the file.

    Raises:
        CheckpointError: the file is missing, damaged or of another format.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no checkpoint to resume",
                              hint="start the training without --resume")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path}: not a readable checkpoint ({reason})",
                              hint="start the training anew, without --resume") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"{path}: expected a checkpoint of format {FORMAT}, found {found}",
                              hint="resume it with the version of hoserkd that wrote it")
    try:
        return Checkpoint(content["model"], content["optimiser"], TrainState(**content["state"]),
                          content["settings"], content["rng"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: the checkpoint lacks something, or holds what this "
                              f"version does not know: {error}",
                              hint="resume it with the version of hoserkd that wrote it"
                              ) from error
