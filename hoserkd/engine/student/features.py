"""The student's inputs of a step, from per-road tables and entry times (ENGINE.md 2 and 5.1)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from hoserkd.engine.geo import EARTH_RADIUS_M
from hoserkd.engine.student.tables import Features, NetworkTables, bearing_rad

DAY_S = 86400
IGNORED_LABEL = -100


@dataclass(frozen=True, slots=True)
class CandidateSet:
    """The kept candidates of S steps, packed by step, in the order of the road's list."""

    offset: Int[Tensor, " S+1"]
    step: Int[Tensor, " K"]
    """Which step each candidate belongs to."""
    road: Int[Tensor, " K"]
    slot: Int[Tensor, " K"]
    """Position in the road's whole candidate list."""
    distance: Float[Tensor, " K"]
    """log1p of how much farther from the destination than the nearest candidate, in 100 m."""
    angle: Float[Tensor, " K"]
    """Angle between the ways to the candidate's end and to the destination's, / pi."""


def candidate_features(
    tables: NetworkTables,
    road: Int[Tensor, " S"],
    destination: Int[Tensor, " S"],
    top_k: int,
    size: int | None = None,
) -> CandidateSet:
    """Return the candidates of each step and their features towards its destination.

    Args:
        top_k: Of more candidates than this the nearest to the destination are kept.
        size: How many are kept altogether, if known; saves waiting for the device.
    """
    first = tables.candidate_offset[road]
    count = tables.candidate_offset[road + 1] - first
    trim = tables.max_candidates > top_k
    step, slot, offset = expand_segments(count, None if trim else size)
    candidate = tables.candidate_road[first[step] + slot]
    metres = centroid_distance_m(tables, candidate, destination[step]).to(torch.float32)
    if trim:
        kept = torch.nonzero(nearest_candidates(metres, step, offset, top_k)).squeeze(1)
        step, slot, candidate, metres = step[kept], slot[kept], candidate[kept], metres[kept]
        offset = _offsets(count.clamp(max=top_k))
    return CandidateSet(
        offset=offset,
        step=step,
        road=candidate,
        slot=slot,
        distance=beyond_nearest(metres, step, len(road)),
        angle=turn_angles(tables, road, destination, step, first[step] + slot),
    )


def expand_segments(
    count: Int[Tensor, " S"], size: int | None = None
) -> tuple[Int[Tensor, " K"], Int[Tensor, " K"], Int[Tensor, " S+1"]]:
    """Return (segment of each element, position within it, offsets) for the given counts."""
    offset = _offsets(count)
    total = int(offset[-1]) if size is None else size
    segments = torch.arange(len(count), device=count.device)
    segment = torch.repeat_interleave(segments, count, output_size=total)
    position = torch.arange(total, device=count.device) - offset[segment]
    return segment, position, offset


def candidate_labels(
    candidates: CandidateSet, taken: Int[Tensor, " S"]
) -> Int[Tensor, " S"]:
    """Return the index of the road taken among each step's kept candidates, or -100."""
    far = torch.iinfo(torch.int64).max
    position = torch.arange(len(candidates.road), device=taken.device)
    position = position - candidates.offset[candidates.step]
    match = torch.where(candidates.road == taken[candidates.step], position, far)
    label = torch.full_like(taken, far).scatter_reduce(0, candidates.step, match, "amin")
    return torch.where(label == far, IGNORED_LABEL, label)


def clock_features(
    entered_at_s: Int[Tensor, " S"], started_at_s: Int[Tensor, " S"], features: Features
) -> tuple[Float[Tensor, " S"], Float[Tensor, " S"]]:
    """Return (time_of_day, elapsed_min) of steps from their entry and their trip's start.

    The time of day is minutes since midnight / 1440, negated for trips that start on a Saturday or
    Sunday. There `geographic` writes midnight as -1, since 0 has no sign; `aaai2025` loses it.
    Only differences of `elapsed_min` within a trip count: in `geographic` they are real minutes,
    in `aaai2025` differences of the clock, which wrap at midnight.
    """
    second = entered_at_s.remainder(DAY_S)
    hour = second.div(3600, rounding_mode="floor")
    minute = second.remainder(3600).div(60, rounding_mode="floor")
    # The order of operations is the public code's, so that float32 rounds to the same bits.
    minutes = hour.to(torch.float64) * 60 + minute + second.remainder(60).to(torch.float64) / 60
    time = (minutes / 1440).to(torch.float32)
    weekend = is_weekend(started_at_s)
    if features == "aaai2025":
        time = torch.where(weekend, -time, time)
        return time, time * 1440.0
    time = torch.where(weekend, torch.where(second == 0, -1.0, -time), time)
    return time, ((entered_at_s - started_at_s).to(torch.float64) / 60).to(torch.float32)


def is_weekend(at_s: Int[Tensor, " S"]) -> Bool[Tensor, " S"]:
    """Return which times fall on a Saturday or Sunday."""
    # 1970-01-01 was a Thursday, weekday 3.
    return (at_s.div(DAY_S, rounding_mode="floor") + 3).remainder(7) >= 5


def _offsets(count: Int[Tensor, " S"]) -> Int[Tensor, " S+1"]:
    return torch.nn.functional.pad(count.cumsum(0), (1, 0))


def centroid_distance_m(
    tables: NetworkTables, road: Int[Tensor, " K"], other: Int[Tensor, " K"]
) -> Float64[Tensor, " K"]:
    """Return the great-circle metres between the centroids of pairs of roads."""
    here, there = tables.centroid_rad[road], tables.centroid_rad[other]
    half = ((there - here) / 2).sin().square()
    chord = half[:, 1] + here[:, 1].cos() * there[:, 1].cos() * half[:, 0]
    return 2 * EARTH_RADIUS_M * chord.clamp(max=1).sqrt().asin()


def nearest_candidates(
    metres: Float[Tensor, " K"], step: Int[Tensor, " K"], offset: Int[Tensor, " S+1"], top_k: int
) -> Bool[Tensor, " K"]:
    """Return which candidates are among the `top_k` nearest of their step; ties go in order."""
    by_distance = torch.argsort(metres, stable=True)
    order = by_distance[torch.argsort(step[by_distance], stable=True)]
    rank = torch.arange(metres.shape[0], device=metres.device) - offset[step]
    return torch.empty_like(rank).index_copy_(0, order, rank) < top_k


def beyond_nearest(
    metres: Float[Tensor, " K"], step: Int[Tensor, " K"], steps: int
) -> Float[Tensor, " K"]:
    """Return m_c of ENGINE.md section 2 from the candidates' metres to the destination."""
    nearest = metres.new_full((steps,), torch.inf).scatter_reduce(0, step, metres, "amin")
    return torch.log1p((metres - nearest[step]) / 100)


def turn_angles(
    tables: NetworkTables,
    road: Int[Tensor, " S"],
    destination: Int[Tensor, " S"],
    step: Int[Tensor, " K"],
    entry: Int[Tensor, " K"],
) -> Float[Tensor, " K"]:
    """Return alpha_c of ENGINE.md section 2.

    Args:
        road: The present road of each step.
        step: Which step each candidate belongs to.
        entry: Where each candidate stands in the network's packed candidates.
    """
    ahead = bearing_rad(tables.end_lonlat[road], tables.end_lonlat[destination], tables.features)
    turn = (tables.candidate_bearing[entry] - ahead[step]).abs().to(torch.float32)
    return torch.where(turn > torch.pi, 2 * torch.pi - turn, turn) / torch.pi
