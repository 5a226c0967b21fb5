"""From a trip's state and its destination to logits and times of candidates (ENGINE.md 2).

All that is linear in a road or zone embedding is applied to the embedding tables once and
gathered. The time head's GELU acts on each half of a concatenation apart, so its output is a
number of the step plus a number of the candidate road.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from hoserkd.engine.types import NavigatorOutput

TIME_WIDTH = 64


@dataclass(frozen=True, slots=True)
class RoadKeys:
    """What the navigator knows of roads, zones and metrics before it sees a trip."""

    key: Float[Tensor, "V d"]
    """Of each road, the metric projections' constant part included."""
    time: Float[Tensor, " V"]
    """Each road's part of the standardised travel time."""
    zone_query: Float[Tensor, "Z d"]
    """Each destination zone's part of the query."""
    distance: Float[Tensor, " d"]
    """What a unit of m_c adds to the key."""
    angle: Float[Tensor, " d"]
    """What a unit of alpha_c adds to the key."""


@dataclass(frozen=True, slots=True)
class CandidateRows:
    """Packed candidates as the navigator needs them."""

    step: Int[Tensor, " K"]
    """Which state each candidate belongs to."""
    row: Int[Tensor, " K"]
    """Row of the candidate's road in `RoadKeys`."""
    distance: Float[Tensor, " K"]
    angle: Float[Tensor, " K"]


class Navigator(nn.Module):
    """Scores candidates and predicts how long the next step takes."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.metric_distance_proj = nn.Linear(1, dim)
        self.metric_angle_proj = nn.Linear(1, dim)
        self.q_proj = nn.Linear(3 * dim, dim, bias=False)
        self.k_proj = nn.Linear(3 * dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, 1, bias=False)
        self.time_estimator_linear_1 = nn.Linear(2 * dim, TIME_WIDTH)
        self.time_estimator_linear_2 = nn.Linear(dim, TIME_WIDTH)
        self.time_estimator_linear_3 = nn.Linear(2 * TIME_WIDTH, 1)

    def project(self, road: Float[Tensor, "V d"], zone: Float[Tensor, "Z d"]) -> RoadKeys:
        """Return everything that depends on embeddings alone."""
        of_road, of_distance, of_angle = torch.split(self.k_proj.weight, self.dim, dim=1)
        constant = (
            of_distance @ self.metric_distance_proj.bias + of_angle @ self.metric_angle_proj.bias
        )
        of_candidate = self.time_estimator_linear_3.weight[:, TIME_WIDTH:]
        time = functional.gelu(self.time_estimator_linear_2(road))
        return RoadKeys(
            key=functional.linear(road, of_road, constant),
            time=functional.linear(time, of_candidate).squeeze(1),
            zone_query=functional.linear(zone, self.q_proj.weight[:, 2 * self.dim :]),
            distance=of_distance @ self.metric_distance_proj.weight[:, 0],
            angle=of_angle @ self.metric_angle_proj.weight[:, 0],
        )

    def forward(
        self,
        state: Float[Tensor, "S c"],
        destination_zone: Int[Tensor, " S"],
        keys: RoadKeys,
        candidates: CandidateRows,
    ) -> NavigatorOutput:
        """Return logits and standardised log travel times of packed candidates."""
        query = functional.linear(state, self.q_proj.weight[:, : 2 * self.dim])
        query = query + keys.zone_query.index_select(0, destination_zone)
        dtype = query.dtype
        mixed = query.index_select(0, candidates.step) + keys.key.index_select(0, candidates.row)
        mixed = mixed + candidates.distance.to(dtype)[:, None] * keys.distance.to(dtype)
        mixed = mixed + candidates.angle.to(dtype)[:, None] * keys.angle.to(dtype)
        time = self._step_time(state).index_select(0, candidates.step)
        time = time + keys.time.index_select(0, candidates.row)
        return NavigatorOutput(
            logits=_wide(self.v_proj(mixed.tanh()).squeeze(1)), travel_time=_wide(time)
        )

    def _step_time(self, state: Float[Tensor, "S c"]) -> Float[Tensor, " S"]:
        head = self.time_estimator_linear_3
        hidden = functional.gelu(self.time_estimator_linear_1(state))
        return functional.linear(hidden, head.weight[:, :TIME_WIDTH], head.bias).squeeze(1)


def _wide(values: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
    """Return values in float32 or better, which losses need under mixed precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
