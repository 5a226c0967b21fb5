"""Shares of the training trips: nested draws, the same for every student."""

import numpy as np
from jaxtyping import Int64

from hoserkd.engine.config import DataConfig

STREAM = 0x5A4E
"""Keeps these draws apart from the epochs' orders, whose seeds may be the same numbers."""


def share_size(trips: int, share: float) -> int:
    """Return how many of `trips` a share holds: the nearest whole number, one at least."""
    return min(trips, max(1, round(trips * share)))


def drawn_members(trips: int, data: DataConfig) -> Int64[np.ndarray, " n"] | None:
    """Return the ids of the trips in `data.train_share`, ascending; None: all of them.

    The ids are those of the whole split, so that all that is stored by trip or step serves every
    share. With one `share_seed` a smaller share lies within a larger one.
    """
    if data.train_share == 1:
        return None
    order = np.random.default_rng([data.share_seed, STREAM]).permutation(trips)
    return np.sort(order[:share_size(trips, data.train_share)])
