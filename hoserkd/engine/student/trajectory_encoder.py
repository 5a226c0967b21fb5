"""From the roads and times of trips to a state for every step (ENGINE.md section 2)."""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hoserkd.engine.config import StudentConfig
from hoserkd.engine.student.relative_attention import RelativeAttention, View

FUSION_WIDTH = 64


class TemporalEncoder(nn.Module):
    """Waves of learnt frequencies over the time of day."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.freqs = nn.Parameter(torch.randn(dim // 2))

    def forward(self, time_of_day: Float[Tensor, " S"]) -> Float[Tensor, "S d"]:
        """Return the embeddings of times of day (see `StepBatch.time_of_day`)."""
        phase = time_of_day.to(self.freqs.dtype)[:, None] * self.freqs
        scale = math.sqrt(1 / (4 * len(self.freqs)))
        return torch.cat([phase.cos(), phase.sin()], dim=1) * scale


class Block(nn.Module):
    """A pre-norm transformer block over packed steps."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(dim)
        self.attn = RelativeAttention(dim, heads, dropout)
        self.ln_2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim), nn.Dropout(dropout)
        )

    def forward(
        self, x: Float[Tensor, "S c"], views: Sequence[View]
    ) -> Float[Tensor, "S c"]:
        """Return the next states."""
        return self.finish(x, self.attn(self.ln_1(x), views))

    def finish(
        self, x: Float[Tensor, "S c"], attended: Float[Tensor, "S c"]
    ) -> Float[Tensor, "S c"]:
        """Return the next states from the block's input and its attention's output."""
        x = x + attended
        widened: Tensor = self.mlp(self.ln_2(x))
        return x + widened


class TrajectoryEncoder(nn.Module):
    """Fuses roads with their zones, adds time, and looks back along the trip."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.recompute = False
        """Compute the blocks again in the backward pass instead of keeping what they need."""
        self.road_zone_fusion_mlp = nn.Sequential(
            nn.Linear(2 * dim, FUSION_WIDTH), nn.GELU(), nn.Linear(FUSION_WIDTH, 1)
        )
        self.temporal_encoder = TemporalEncoder(dim)
        blocks = [Block(2 * dim, config.heads, config.dropout) for _ in range(config.layers)]
        self.transformer = nn.ModuleDict(
            {"drop": nn.Dropout(config.dropout), "h": nn.ModuleList(blocks)}
        )

    @property
    def blocks(self) -> list[Block]:
        """The transformer's blocks, in order."""
        return [block for block in self.transformer["h"].children() if isinstance(block, Block)]

    def fuse(
        self, road: Float[Tensor, "V d"], zone: Float[Tensor, "V d"]
    ) -> Float[Tensor, "V d"]:
        """Return roads with as much of their zones as the gate lets through."""
        gate = torch.sigmoid(self.road_zone_fusion_mlp(torch.cat([road, zone], dim=1)))
        return road + gate * zone

    def embed_points(
        self, spatial: Float[Tensor, "S d"], time_of_day: Float[Tensor, " S"]
    ) -> Float[Tensor, "S c"]:
        """Return the first states from fused roads and times of day."""
        x = torch.cat([spatial, self.temporal_encoder(time_of_day).to(spatial.dtype)], dim=1)
        dropped: Tensor = self.transformer["drop"](x)
        return dropped

    def states(
        self, x: Float[Tensor, "S c"], views: Sequence[View]
    ) -> Iterator[Float[Tensor, "S c"]]:
        """Yield the states after each block."""
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, views, use_reentrant=False)
            else:
                x = block(x, views)
            yield x

    def forward(
        self, x: Float[Tensor, "S c"], views: Sequence[View]
    ) -> Float[Tensor, "S c"]:
        """Return the states after the last block."""
        for state in self.states(x, views):
            x = state
        return x
