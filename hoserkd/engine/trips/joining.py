"""Joining trips that come in pieces."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, Shaped

from hoserkd.engine.types import GeneratedTrips


def join_trips(parts: Sequence[GeneratedTrips]) -> GeneratedTrips:
    """Return trips that came in pieces as one record."""
    points = np.cumsum([0, *(len(part.road) for part in parts)])
    offset = [part.offset[:-1] + first for part, first in zip(parts, points[:-1], strict=True)]
    asked = [part.requested for part in parts if part.requested is not None]
    ids = np.concatenate([np.empty((0, 2), np.int64), *asked])

    def joined(name: str, kind: type = np.int64) -> Shaped[np.ndarray, " _"]:
        return np.concatenate([np.empty(0, kind), *(getattr(part, name) for part in parts)])

    ends: Int64[np.ndarray, " N+1"] = np.concatenate([*offset, points[-1:]]).astype(np.int64)
    return GeneratedTrips(
        origin=joined("origin"),
        destination=joined("destination"),
        departure_s=joined("departure_s"),
        offset=ends,
        road=joined("road", np.int32),
        entered_at_s=joined("entered_at_s"),
        log_prob=joined("log_prob", np.float64),
        reached=joined("reached", bool),
        reason=tuple(reason for part in parts for reason in part.reason),
        requested=ids if len(asked) == len(parts) else None,
        stated=all(part.stated for part in parts),
    )
