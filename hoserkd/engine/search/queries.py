"""What is searched for, and how a search is answered."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

Reason = Literal["reached", "same road", "unreachable", "dead end", "max steps", "unknown road",
                 "too far", "time limit"]


@dataclass(frozen=True, slots=True)
class Queries:
    """N requests for a trip."""

    origin: Int64[np.ndarray, " N"]
    """Road index; -1 for a road that the city lacks, or a point that is too far from any."""
    destination: Int64[np.ndarray, " N"]
    departure_s: Int64[np.ndarray, " N"]
    """Seconds since 1970-01-01 of the wall clock."""
    requested: Int64[np.ndarray, "N 2"] | None = None
    """Ids of origin and destination as they were asked for; None: those of the indices."""
    number: Int64[np.ndarray, " N"] | None = None
    """Number of each query, from which its random draws come; None: its place."""
    snapped_m: Float64[np.ndarray, "N 2"] | None = None
    """Metres from the points asked for to the roads taken for them, or too far away to be taken;
    None: roads were asked for."""

    def __len__(self) -> int:
        return len(self.origin)

    @property
    def numbers(self) -> Int64[np.ndarray, " N"]:
        """Number of each query."""
        return np.arange(len(self)) if self.number is None else self.number

    def select(self, index: Int64[np.ndarray, " M"] | slice) -> "Queries":
        """Return the queries at `index`, in that order, with the numbers that they have."""
        return Queries(self.origin[index], self.destination[index], self.departure_s[index],
                       None if self.requested is None else self.requested[index],
                       self.numbers[index],
                       None if self.snapped_m is None else self.snapped_m[index])

    def repeat(self, times: int) -> "Queries":
        """Return each query `times` times in a row, each with a number of its own."""
        return replace(self.select(np.repeat(np.arange(len(self)), times)), number=None)


class Answer(NamedTuple):
    """The path that one search settled on."""

    road: Int32[np.ndarray, " P"]
    clock_s: Int64[np.ndarray, " P"]
    """Seconds since the departure at which each road is entered."""
    log_prob: float
    reason: Reason


class Expansion(NamedTuple):
    """M nodes of M or fewer searches that are to be continued at once (K candidates, packed)."""

    road: Int32[np.ndarray, " M"]
    destination: Int32[np.ndarray, " M"]
    entered_at_s: Int64[np.ndarray, " M"]
    """When the node's road is entered, seconds since 1970-01-01."""
    departure_s: Int64[np.ndarray, " M"]
    """When the node's search starts."""
    history_offset: Int64[np.ndarray, " M+1"]
    history: Int32[np.ndarray, " H"]
    """Memory row of the node itself and then of each of its ancestors, nearest first."""
    candidate_offset: Int64[np.ndarray, " M+1"]
    candidate_road: Int32[np.ndarray, " K"]

    def __len__(self) -> int:
        return len(self.road)


class Continuation(NamedTuple):
    """What the model says about the candidates of an `Expansion`."""

    log_prob: Float32[np.ndarray, " K"]
    """Natural log of the probability of each candidate, given the path so far."""
    travel_time_s: Int32[np.ndarray, " K"]
    """Whole seconds on the expanded road if that candidate follows."""
