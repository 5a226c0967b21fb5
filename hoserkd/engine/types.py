"""The records that flow through the engine.

Axes: R roads, E adjacency edges, P shape points, Z zones, N trajectories, S steps (packed),
K candidates (packed), B trips of a batch, Q distilled steps. Packed means one flat array and
offsets: row i is `values[offset[i]:offset[i + 1]]`. Padding exists only inside attention.
"""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int, Int32, Int64
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Candidates:
    """The roads reachable from each road, packed, in the order of `roadmap.rel`."""

    offset: Int64[np.ndarray, " R+1"]
    road: Int32[np.ndarray, " K"]


@dataclass(frozen=True, slots=True)
class RoadNetwork:
    """A city's directed road segments (ENGINE.md section 1), indexed 0..R-1."""

    road_id: Int64[np.ndarray, " R"]
    """`geo_id` of the source file; equal to the index in most cities."""
    length_m: Float64[np.ndarray, " R"]
    highway: Int64[np.ndarray, " R"]
    """Rank among the sorted distinct `highway` values."""
    highway_names: tuple[str, ...]
    free_flow_kmh: Float64[np.ndarray, " R"]
    """`maxspeed` where given, else a usual speed for the class of road."""
    centroid_lonlat: Float64[np.ndarray, "R 2"]
    """Centroid of the polyline by length."""
    start_lonlat: Float64[np.ndarray, "R 2"]
    end_lonlat: Float64[np.ndarray, "R 2"]
    shape_offset: Int64[np.ndarray, " R+1"]
    shape_lonlat: Float64[np.ndarray, "P 2"]
    candidates: Candidates
    adjacency: Int64[np.ndarray, "2 E"]
    """Pairs of roads that share an end point, both directions."""
    adjacency_attr: Float32[np.ndarray, "E 2"]
    """Heading difference folded to [0, 1]; 1.0 where the second is reachable from the first."""
    zone: Int32[np.ndarray, " R"]
    zone_transitions: Int64[np.ndarray, "Z Z"]
    """Zone changes counted over the training trips; the diagonal is zero."""
    highway_verbatim: Int64[np.ndarray, " R"] | None = None
    """Rank among the `highway` texts with lists left as written, as the public code ranks them in
    most cities; None: the same as `highway`."""
    timezone: str | None = None
    """IANA name of the zone whose clocks the city's trips show; None: unknown."""

    @property
    def roads(self) -> int:
        """Number of roads."""
        return len(self.road_id)

    @property
    def zones(self) -> int:
        """Number of zones."""
        return len(self.zone_transitions)


@dataclass(frozen=True, slots=True)
class TrajectorySet:
    """A whole split of trips, packed by point. A trip of n steps has n+1 points."""

    offset: Int64[np.ndarray, " N+1"]
    road: Int32[np.ndarray, " S+N"]
    entered_at_s: Int64[np.ndarray, " S+N"]
    """Seconds since 1970-01-01 of the wall clock written in the file."""

    def __len__(self) -> int:
        return len(self.offset) - 1

    @property
    def steps(self) -> int:
        """Number of steps, one fewer than points in every trip."""
        return len(self.road) - len(self)

    def step_offset(self) -> Int64[np.ndarray, " N+1"]:
        """First step id of each trip: steps are numbered through the split, trip by trip."""
        return self.offset - np.arange(len(self.offset))


@dataclass(frozen=True, slots=True)
class GeneratedTrips:
    """The answers of a search, one a query, packed by point."""

    origin: Int64[np.ndarray, " N"]
    """Road index; -1 where the query names a road that the city lacks, or a point that is too far
    from any."""
    destination: Int64[np.ndarray, " N"]
    departure_s: Int64[np.ndarray, " N"]
    offset: Int64[np.ndarray, " N+1"]
    road: Int32[np.ndarray, " P"]
    entered_at_s: Int64[np.ndarray, " P"]
    log_prob: Float64[np.ndarray, " N"]
    """Natural log of the path's probability under the model; 0 for a path of one road."""
    reached: Bool[np.ndarray, " N"]
    """Whether the path's last road is the destination."""
    reason: tuple[str, ...]
    """Why a search ended: `reached`, `same road`, `unreachable`, `dead end`, `max steps`,
    `unknown road`, `too far`, `time limit`; of a file that does not say: `ends elsewhere`."""
    requested: Int64[np.ndarray, "N 2"] | None = None
    """Ids of origin and destination as they were asked for, which may be unknown to the city;
    None: those of the roads at the indices."""
    stated: bool = True
    """False: nobody said what was requested; origin, destination and departure are the trips' own
    ends, so that nothing can be said about doing what was asked."""

    def __len__(self) -> int:
        return len(self.origin)


@dataclass(frozen=True, slots=True)
class TimeStatistics:
    """Mean and population standard deviation of log1p(seconds) over the training steps."""

    log1p_mean: float
    log1p_std: float


@dataclass(frozen=True, slots=True)
class TripGroup:
    """Consecutive trips of a batch that attention pads to one length."""

    trips: int
    steps: int
    """Of all of them together."""
    longest: int
    """Steps of the longest."""


@dataclass(frozen=True, slots=True)
class StepBatch:
    """B trips, packed by step, with their candidates packed by step, on one device."""

    offset: Int[Tensor, " B+1"]
    """First step of each trip."""
    step_id: Int[Tensor, " S"]
    """Number of the step in its split (see `TrajectorySet.step_offset`)."""
    road: Int[Tensor, " S"]
    time_of_day: Float[Tensor, " S"]
    """Minutes since midnight / 1440 at entry, negated for trips that start at a weekend."""
    elapsed_min: Float[Tensor, " S"]
    """Minutes since the trip's start (`geographic`) or of the day (`aaai2025`)."""
    destination: Int[Tensor, " B"]
    label: Int[Tensor, " S"]
    """Index of the next road among the step's kept candidates; -100 if it is not among them."""
    travel_time_s: Float[Tensor, " S"]
    candidate_offset: Int[Tensor, " S+1"]
    candidate_road: Int[Tensor, " K"]
    candidate_slot: Int[Tensor, " K"]
    """Position of the kept candidate in the road's whole candidate list."""
    candidate_distance: Float[Tensor, " K"]
    """m_c of ENGINE.md section 2."""
    candidate_angle: Float[Tensor, " K"]
    """alpha_c of ENGINE.md section 2, in [0, 1]."""
    groups: tuple[TripGroup, ...] | None = None
    """All trips, cut into groups of like length; None: asked of the device, as one group."""

    @property
    def trips(self) -> int:
        """Number of trips."""
        return self.destination.shape[0]

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.road.shape[0]

    @property
    def longest_trip(self) -> int:
        """Steps of the longest trip."""
        return max((group.longest for group in self.trip_groups), default=0)

    @property
    def trip_groups(self) -> tuple[TripGroup, ...]:
        """The groups that attention pads to one length each, in the order of the trips."""
        if self.groups is not None:
            return self.groups
        return (TripGroup(self.trips, self.steps, int(self.offset.diff().max())),)

    def to(self, device: torch.device, non_blocking: bool = False) -> Self:
        """Return the batch on `device`."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "groups"}
        moved = {name: value.to(device, non_blocking=non_blocking)
                 for name, value in tensors.items()}
        return type(self)(**moved, groups=self.groups)


@dataclass(frozen=True, slots=True)
class NavigatorOutput:
    """The student's answer for every candidate of every step of a batch."""

    logits: Float[Tensor, " K"]
    travel_time: Float[Tensor, " K"]
    """Standardised log1p(seconds) if that candidate is taken; with a quantile head its median."""
    travel_time_quantiles: Float[Tensor, "K Q"] | None = None
    """The same of every quantile, as the head gives them: they may cross. None: a point head."""


@dataclass(frozen=True, slots=True)
class TeacherSignal:
    """What a teacher says about Q steps of a batch: raw logits, no temperature applied."""

    step: Int[Tensor, " Q"]
    """Which steps of the batch."""
    offset: Int[Tensor, " Q+1"]
    logits: Float[Tensor, " K'"]
    """One for each kept candidate of each of those steps, in the batch's order."""
    cell: Int[Tensor, " K'"] | None
    """Grid token of each candidate; None where candidates cannot collide."""


@dataclass(frozen=True, slots=True)
class LossTerms:
    """The parts of the loss of ENGINE.md section 3, as scalars that carry gradients."""

    road: Float[Tensor, ""]
    time: Float[Tensor, ""]
    kl: Float[Tensor, ""]
    total: Float[Tensor, ""]

