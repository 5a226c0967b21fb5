"""How the search compiles its loops: divisions by zero are numpy's, and Python types are kept."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from hoserkd.engine import compiled as loops

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Return `function` compiled on its first call, keeping the order of its arithmetic."""
    return cast(F, loops.compiled(function, error_model="numpy"))


def compiled_fast(function: F) -> F:
    """Return `function` compiled so that sums may be reordered, once and for all."""
    return cast(F, loops.compiled(function, error_model="numpy", fastmath=True))
