"""Independent units: what intervals resample and tests compare.

Several trips that answer one request resemble each other (a search without chance gives the same
trip every time), so they are no independent evidence. The unit is the request; of a model that is
judged step by step, it is the trip.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from hoserkd.engine.types import GeneratedTrips


@dataclass(frozen=True, slots=True)
class Units:
    """Which unit each of n values belongs to."""

    of: Int64[np.ndarray, " n"]
    """Numbered from 0 in the order in which the units first occur."""
    count: int

    @property
    def alone(self) -> bool:
        """Whether each value is a unit of its own."""
        return self.count == len(self.of)

    def totals(self, values: Float64[np.ndarray, "n m"]) -> Float64[np.ndarray, "u m"]:
        """Return the column sums of each unit's values."""
        if self.alone:
            return values
        columns = [np.bincount(self.of, weights=column, minlength=self.count)
                   for column in values.T]
        return np.stack(columns, axis=1) if columns else np.empty((self.count, 0))

    def take(self, index: Int64[np.ndarray, " k"]) -> "Units":
        """Return the units of the values at `index`, numbered anew."""
        return units_of(self.of[index])


def apart(count: int) -> Units:
    """Return `count` values that are units of their own."""
    return Units(np.arange(count), count)


def units_of(*keys: Int64[np.ndarray, " n"]) -> Units:
    """Return units of the values that agree in every key."""
    rows = np.stack(keys, axis=1)
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    # Numbers in the order of first occurrence: with a unit a value they are 0, 1, 2, ...
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return Units(rank[inverse.reshape(-1)], len(first))


def request_units(generated: GeneratedTrips) -> Units:
    """Return the requests that the trips answer: equal origin, destination and departure."""
    return units_of(generated.origin, generated.destination, generated.departure_s)
