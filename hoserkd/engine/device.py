"""Devices, seeds and number types, passed in and never global."""

import random
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from hoserkd.errors import UsageError


def resolve_device(name: str) -> torch.device:
    """Return the torch device for `auto`, `cpu` or `cuda`.

    Raises:
        UsageError: `cuda` was asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "device: cuda was asked for, but torch sees no CUDA device",
            hint="run `hoserkd doctor`, or use --device cpu",
        )
    return torch.device(name)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy's legacy generator and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries draw from it
    torch.manual_seed(seed)


def resolve_amp(name: str, device: torch.device) -> torch.dtype | None:
    """Return the autocast type for `auto`, `off`, `fp16` or `bf16`; None means float32."""
    if name == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"off": None, "fp16": torch.float16, "bf16": torch.bfloat16}[name]


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Return the autocast context for `dtype`, or one that does nothing."""
    if dtype is None:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)
