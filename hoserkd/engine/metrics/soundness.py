"""Whether trips can be driven: moves that the network has, and clocks that run forward.

Recorded trips were held against this when the city was prepared, and searches keep to it. Files of
generated trips come from anywhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from hoserkd.engine.metrics.packed import answered
from hoserkd.engine.trips import kernels
from hoserkd.engine.trips.validation import sorted_candidates
from hoserkd.engine.types import GeneratedTrips, RoadNetwork, TrajectorySet


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong with each of N trips."""

    missing_moves: Int64[np.ndarray, " N"]
    """Moves from one road to the next that `roadmap.rel` lacks."""
    backward_steps: Int64[np.ndarray, " N"]
    """Steps whose end is before their start."""

    @property
    def possible(self) -> Bool[np.ndarray, " N"]:
        """Whether the network has every move."""
        return np.asarray(self.missing_moves == 0)

    @property
    def timed(self) -> Bool[np.ndarray, " N"]:
        """Whether the clock never runs back."""
        return np.asarray(self.backward_steps == 0)


def find_faults(network: RoadNetwork, trips: TrajectorySet | GeneratedTrips) -> Faults:
    """Return what is wrong with each trip."""
    count = len(trips.offset) - 1
    missing, back = np.zeros(count, np.int64), np.zeros(count, np.int64)
    kernels.count_faults(
        np.asarray(network.candidates.offset), sorted_candidates(network.candidates),
        np.asarray(trips.offset), np.asarray(trips.road), np.asarray(trips.entered_at_s), missing,
        back)
    return Faults(missing, back)


def fault_counts(faults: Faults) -> dict[str, int]:
    """Return how many trips cannot be driven, by reason."""
    return {"impossible_trips": int((~faults.possible).sum()),
            "backward_trips": int((~faults.timed).sum())}


def fault_notes(
    network: RoadNetwork, generated: GeneratedTrips, faults: Faults
) -> Iterator[str]:
    """Yield what to know about trips that cannot be driven, with an example of each kind."""
    rated = len(answered(generated))
    moves = int(np.maximum(np.diff(generated.offset) - 1, 0).sum())
    wrong = np.flatnonzero(~faults.possible)
    if len(wrong):
        here, there = _first_missing(network, generated, int(wrong[0]))
        yield (f"{faults.missing_moves.sum():,} of {moves:,} moves, in {len(wrong):,} of {rated:,} "
               f"trips, are not in roadmap.rel (for instance trip {wrong[0] + 1}: {here} to "
               f"{there}): these trips are left out of length over shortest")
    back = np.flatnonzero(~faults.timed)
    if len(back):
        yield (f"the clock of {len(back):,} of {rated:,} trips runs back (for instance trip "
               f"{back[0] + 1}): they are left out of the figures on durations")


def _first_missing(
    network: RoadNetwork, generated: GeneratedTrips, trip: int
) -> tuple[int, int]:
    """Return the ids of the first move of a trip that the network lacks."""
    road = np.asarray(generated.road[generated.offset[trip]:generated.offset[trip + 1]])
    candidates = network.candidates
    for here, there in zip(road[:-1].tolist(), road[1:].tolist(), strict=True):
        if there not in candidates.road[candidates.offset[here]:candidates.offset[here + 1]]:
            return int(network.road_id[here]), int(network.road_id[there])
    raise ValueError(f"trip {trip} has all its moves")
