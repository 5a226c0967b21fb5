"""From a trip's state and its destination to logits and times of candidates (ENGINE.md 2).

All that is linear in a road or zone embedding is applied to the embedding tables once and
gathered. The time head's GELU acts on each half of a concatenation apart, so its output, a point
or several quantiles, is a part of the step plus a part of the candidate road.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from hoserkd.engine.config import MEDIAN
from hoserkd.engine.types import NavigatorOutput

TIME_WIDTH = 64


@dataclass(frozen=True, slots=True)
class RoadKeys:
    """What the navigator knows of roads, zones and metrics before it sees a trip."""

    key: Float[Tensor, "V d"]
    """Of each road, the metric projections' constant part included."""
    time: Float[Tensor, "V ..."]
    """Each road's part of the standardised travel time, or of each of its quantiles."""
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

    levels: Float[Tensor, " Q"] | None
    """Which quantiles the time head gives; None: it gives a point."""

    def __init__(self, dim: int, quantiles: Sequence[float] | None = None) -> None:
        """Make fresh weights.

        Args:
            quantiles: Which quantiles the time head gives, the median among them; None: a point.
        """
        super().__init__()
        self.dim = dim
        self.point = 0 if quantiles is None else list(quantiles).index(MEDIAN)
        """Which output of the time head is the point estimate."""
        levels = None if quantiles is None else torch.tensor(quantiles, dtype=torch.float64)
        self.register_buffer("levels", levels, persistent=False)
        self.metric_distance_proj = nn.Linear(1, dim)
        self.metric_angle_proj = nn.Linear(1, dim)
        self.q_proj = nn.Linear(3 * dim, dim, bias=False)
        self.k_proj = nn.Linear(3 * dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, 1, bias=False)
        self.time_estimator_linear_1 = nn.Linear(2 * dim, TIME_WIDTH)
        self.time_estimator_linear_2 = nn.Linear(dim, TIME_WIDTH)
        outputs = 1 if quantiles is None else len(quantiles)
        self.time_estimator_linear_3 = nn.Linear(2 * TIME_WIDTH, outputs)

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
            time=self._outputs(functional.linear(time, of_candidate)),
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
        logits, time = _wide(self.v_proj(mixed.tanh()).squeeze(1)), _wide(time)
        if self.levels is None:
            return NavigatorOutput(logits, time)
        return NavigatorOutput(logits, time[:, self.point], time)

    def _step_time(self, state: Float[Tensor, "S c"]) -> Float[Tensor, "S ..."]:
        head = self.time_estimator_linear_3
        hidden = functional.gelu(self.time_estimator_linear_1(state))
        return self._outputs(
            functional.linear(hidden, head.weight[:, :TIME_WIDTH], head.bias))

    def _outputs(self, values: Float[Tensor, "N Q"]) -> Float[Tensor, "N ..."]:
        return values.squeeze(1) if self.levels is None else values


def uncrossed(quantiles: Float[Tensor, "N Q"], point: int) -> Float[Tensor, "N Q"]:
    """Return the quantiles in rising order, pushed outwards from the one at `point`.

    A quantile that lies nearer to the median than one between the two takes that one's place, so
    the median itself, the point estimate, is never moved; those that do not cross stay as they are.
    """
    below = quantiles[:, :point + 1].flip(1).cummin(1).values.flip(1)
    above = quantiles[:, point:].cummax(1).values
    return torch.cat([below, above[:, 1:]], dim=1)


def _wide(values: Float[Tensor, "K ..."]) -> Float[Tensor, "K ..."]:
    """Return values in float32 or better, which losses need under mixed precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
