"""How a training computes: options that change its speed and memory, not what it learns.

Each changes results by rounding at most. `auto` picks what docs/performance.md found to be best.
"""

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int

from hoserkd.engine.config import StudentConfig, Switch, TrainConfig
from hoserkd.engine.device import resolve_amp
from hoserkd.engine.trips.batches import cut_groups, group_trips
from hoserkd.engine.trips.residency import available_ram
from hoserkd.errors import ConfigError

KEPT_WIDTHS = 21
"""Numbers that a block keeps for the backward pass per step and unit of its width: two norms, the
attention's 3 projections and their gradients, its output, and twice the four times wider middle."""
KEPT_PAIRS = 6
"""Numbers that a block keeps per head and pair of points: scores, shares, and their relations."""
MEMORY_SHARE = 0.5
"""Of the free memory, what the trajectory encoder may keep; embeddings and gradients need room."""


@dataclass(frozen=True, slots=True)
class Acceleration:
    """The options of a training on one device, every `auto` decided; by default all are off."""

    amp: torch.dtype | None = None
    """Type of mixed precision; None: float32 throughout."""
    tf32: bool = False
    compiled: bool = False
    recompute: bool = False
    all_roads: bool = False
    """False: those that a batch can see, where these are fewer by enough."""
    cuda_graphs: bool = False
    why: str = ""
    """One sentence that says what was chosen."""


def choose_acceleration(
    train: TrainConfig, student: StudentConfig, steps: Int[np.ndarray, " N"], device: torch.device
) -> Acceleration:
    """Return how to train on `device`.

    Args:
        steps: Steps of every training trip, for the largest batch that there may be.

    Raises:
        ConfigError: see `compiles`.
    """
    cuda = device.type == "cuda"
    amp = resolve_amp(train.amp, device)
    kept = kept_bytes(train, student, steps, device, 4 if amp is None else 2)
    free = torch.cuda.mem_get_info(device)[0] if cuda else available_ram()
    too_large = kept > MEMORY_SHARE * free
    return Acceleration(
        amp=amp,
        tf32=cuda and decided(train.tf32, True),
        compiled=compiles(train, device),
        recompute=decided(train.recompute, too_large),
        all_roads=decided(train.all_roads, False),
        cuda_graphs=cuda and decided(train.cuda_graphs, False),
        why=_sentence(amp, too_large and train.recompute == "auto", kept, free),
    )


def decided(switch: Switch, auto: bool) -> bool:
    """Return what a switch says, `auto` being answered by the caller."""
    return auto if switch == "auto" else switch


def compiles(train: TrainConfig, device: torch.device) -> bool:
    """Return whether the model is to be compiled.

    Raises:
        ConfigError: it is, and what torch.compile needs is not on this machine.
    """
    if not decided(train.compile, False):
        return False
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    missing = []
    if shutil.which(compiler) is None:
        missing.append(f"a C++ compiler ({compiler})")
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        missing.append("the package triton")
    if missing:
        raise ConfigError(f"train.compile: torch.compile needs {' and '.join(missing)}",
                          hint="install what is missing, or leave train.compile at auto")
    return True


def kept_bytes(
    train: TrainConfig, student: StudentConfig, steps: Int[np.ndarray, " N"],
    device: torch.device, width: int,
) -> int:
    """Return about how many bytes the trajectory encoder keeps of a batch of the longest trips.

    Args:
        width: Bytes of a number.
    """
    longest = np.sort(steps)[-train.batch_size:].astype(np.int64)
    groups = cut_groups(longest, group_trips(device))
    pairs = sum(group.trips * group.longest**2 for group in groups)
    dim = 2 * student.hidden_dim
    block = KEPT_WIDTHS * dim * int(longest.sum()) + KEPT_PAIRS * student.heads * pairs
    return width * student.layers * block


@contextmanager
def matrix_precision(tf32: bool) -> Iterator[None]:
    """Let CUDA multiply in TF32, or not, within the block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _sentence(amp: torch.dtype | None, saving: bool, kept: int, free: int) -> str:
    precision = "float32" if amp is None else str(amp).removeprefix("torch.")
    if not saving:
        return f"computing in {precision}"
    return (f"computing in {precision}; blocks are computed again in the backward pass, since a "
            f"batch of the longest trips would keep {kept / 1e9:.1f} GB of {free / 1e9:.1f} free")
