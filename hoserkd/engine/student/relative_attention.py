"""Causal attention with relative terms of rank 2 (ENGINE.md sections 2 and 5.3).

With D and L the two relative matrices and W = [w_D, w_L]: the key term q.(W[D,L] + b) is
(q.w_D) D + (q.w_L) L and a constant of the row, which drops out of the softmax; the value term
sum_j a_ij (W[D,L] + b) is w_D sum_j a D + w_L sum_j a L + b. No (T, T, h) tensor exists.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Relation:
    """How the points of trips lie to each other, padded to the longest trip."""

    distance: Float[Tensor, "B 1 Q T"]
    """min(metres, 1000) / 1000."""
    interval: Float[Tensor, "B 1 Q T"]
    """min(minutes, 5) / 5."""
    hidden: Bool[Tensor, "#B 1 Q T"]
    """Pairs that must not see each other: later points, and padding where it comes earlier."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the packed steps of some trips stand in the padded form."""

    slot: Int[Tensor, " S"]
    """trip * length + position."""
    trips: int
    length: int
    first: int = 0
    """Where the steps begin in the batch."""

    @property
    def steps(self) -> slice:
        """Which packed steps of the batch these are."""
        return slice(self.first, self.first + len(self.slot))

    def pad(self, values: Float[Tensor, "S c"]) -> Float[Tensor, "B T c"]:
        """Return the values trip by trip, zeros after each trip's end."""
        flat = values.new_zeros(self.trips * self.length, values.shape[1])
        return flat.index_copy(0, self.slot, values).view(self.trips, self.length, -1)

    def pack(self, values: Float[Tensor, "B T c"]) -> Float[Tensor, "S c"]:
        """Return the values of the real steps."""
        return values.flatten(0, 1).index_select(0, self.slot)


def build_layout(
    offset: Int[Tensor, " B+1"], steps: int, longest: int, first: int = 0
) -> Layout:
    """Return the layout of the `steps` packed steps from `first` on, of trips at `offset`."""
    trips = len(offset) - 1
    trip = torch.repeat_interleave(
        torch.arange(trips, device=offset.device), offset.diff(), output_size=steps
    )
    position = torch.arange(first, first + steps, device=offset.device) - offset[trip]
    return Layout(trip * longest + position, trips, longest, first)


@dataclass(frozen=True, slots=True)
class View:
    """What attention needs to know of a group of trips."""

    layout: Layout
    relation: Relation


def relate(
    place_m: Float[Tensor, "B Q 3"],
    clock_min: Float[Tensor, "B Q"],
    other_place_m: Float[Tensor, "B T 3"],
    other_clock_min: Float[Tensor, "B T"],
) -> tuple[Float[Tensor, "B 1 Q T"], Float[Tensor, "B 1 Q T"]]:
    """Return the relative distance and interval of every pair of points.

    The chord stands for the arc: within the 1000 m that count they differ by a micrometre.
    """
    metres = torch.cdist(
        place_m, other_place_m, compute_mode="donot_use_mm_for_euclid_dist"
    )
    minutes = (clock_min[:, :, None] - other_clock_min[:, None, :]).abs()
    return metres.clamp(max=1000)[:, None] / 1000, minutes.clamp(max=5)[:, None] / 5


class RelativeAttention(nn.Module):
    """Self-attention of several heads that also looks at distances and intervals."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_emb_k = nn.Linear(2, dim // heads)
        self.relative_position_emb_v = nn.Linear(2, dim // heads)
        self.c_attn = nn.Linear(dim, 3 * dim)
        self.c_proj = nn.Linear(dim, dim)
        self.resid_dropout = nn.Dropout(dropout)
        # It adds the same to every score of a row, so it has no effect and no gradient; the
        # checkpoint format has it.
        self.relative_position_emb_k.bias.requires_grad_(False)

    def forward(self, x: Float[Tensor, "S c"], views: Sequence[View]) -> Float[Tensor, "S c"]:
        """Return what attention adds to each packed step; each group is padded by itself."""
        qkv = self.c_attn(x)
        gathered = []
        for view in views:
            query, key, value = self.project(view.layout.pad(qkv[view.layout.steps]))
            gathered.append(view.layout.pack(self.mix(query, key, value, view.relation)))
        return self.output(torch.cat(gathered))

    def project(
        self, qkv: Float[Tensor, "B T 3*H*h"]
    ) -> tuple[Float[Tensor, "B H T h"], Float[Tensor, "B H T h"], Float[Tensor, "B H T h"]]:
        """Split the output of `c_attn` into queries, keys and values by head."""
        trips, length, width = qkv.shape
        split = qkv.view(trips, length, 3, self.heads, width // (3 * self.heads))
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def mix(
        self,
        query: Float[Tensor, "B H Q h"],
        key: Float[Tensor, "B H T h"],
        value: Float[Tensor, "B H T h"],
        relation: Relation,
    ) -> Float[Tensor, "B Q c"]:
        """Return what each query gathers; keys and values may be more than queries."""
        score = self._scores(query, key, relation)
        share = functional.softmax(score.masked_fill(relation.hidden, -torch.inf), dim=-1)
        weight = self.relative_position_emb_v.weight
        gathered = share.to(value.dtype) @ value + self.relative_position_emb_v.bias
        moment = torch.stack(
            [(share * relation.distance).sum(-1), (share * relation.interval).sum(-1)], dim=-1
        )
        gathered = gathered + moment.to(value.dtype) @ weight.t().to(value.dtype)
        return gathered.transpose(1, 2).flatten(2)

    def output(self, gathered: Float[Tensor, "S c"]) -> Float[Tensor, "S c"]:
        """Return the projection of what the heads gathered."""
        projected: Tensor = self.resid_dropout(self.c_proj(gathered))
        return projected

    def _scores(
        self, query: Float[Tensor, "B H Q h"], key: Float[Tensor, "B H T h"], relation: Relation
    ) -> Float[Tensor, "B H Q T"]:
        query = query / math.sqrt(query.shape[-1])
        along = query @ self.relative_position_emb_k.weight.to(query.dtype)
        relative = along[..., :1] * relation.distance + along[..., 1:] * relation.interval
        return query @ key.transpose(-2, -1) + relative
