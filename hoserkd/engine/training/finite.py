"""What no checkpoint may hold: numbers that are not finite."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

SHOWN = 3
"""Names in a message; the others are counted."""


def not_finite(state: Mapping[str, Any]) -> str | None:
    """Return which tensors of a state hold NaN or infinity, in words; None: none does.

    Args:
        state: Tensors, or mappings and sequences of them, as `state_dict()` returns.
    """
    found = [(name, tensor) for name, tensor in _tensors(state, "")
             if tensor.is_floating_point() and tensor.numel()]
    if not found:
        return None
    # One transfer from the device for all of them.
    finite = torch.stack([tensor.isfinite().all() for _, tensor in found]).tolist()
    wrong = [name for (name, _), good in zip(found, finite, strict=True) if not good]
    if not wrong:
        return None
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return ", ".join(wrong[:SHOWN]) + more


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _tensors(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, part in enumerate(value):
            yield from _tensors(part, f"{name}.{index}")
