"""Functions that numba compiles, with their Python types kept."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Return `function` compiled on its first call, keeping the order of its arithmetic."""
    return cast(F, _compile(function, fastmath=False))


def compiled_fast(function: F) -> F:
    """Return `function` compiled so that sums may be reordered, once and for all."""
    return cast(F, _compile(function, fastmath=True))


def _compile(function: Callable[..., Any], fastmath: bool) -> Callable[..., Any]:
    options = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
    try:
        return cast(Callable[..., Any], njit(cache=True, **options)(function))
    except RuntimeError:  # numba may write neither beside the source nor in the user's cache folder
        return cast(Callable[..., Any], njit(**options)(function))
