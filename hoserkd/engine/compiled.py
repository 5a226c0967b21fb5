"""Loops that numba compiles, kept beside their source where that can be written."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Return `function` compiled on its first call, without Python's lock; `options` are numba's.

    The machine code is cached for the next process; where no folder can be written it is made
    anew each time, which takes some seconds.
    """
    try:
        made: Callable[..., Any] = numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:
        # numba found no place for its cache: a read-only install without a home folder.
        made = numba.njit(nogil=True, **options)(function)
    return made
