"""LM-TAD, the teacher: a GPT over grid tokens.

Attribute names are the public checkpoints' (`transformer.h.0.attn.c_attn.weight`, ...), so its
weights load with `strict=True`. What is unusual beside nanoGPT: no bias anywhere, LayerNorm
included; `forward` stops at the last hidden state, since the head is needed at a few tokens only
(ENGINE.md section 5); `extend` adds one token to many contexts that share prefixes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from hoserkd.engine.teacher.card import LMTADDimensions

__all__ = ["LMTAD", "Ancestors", "LMTADDimensions", "LevelCache"]


@dataclass(frozen=True, slots=True)
class LevelCache:
    """Keys and values of n tokens that stand at one position, for every layer."""

    keys: Float[Tensor, "L n C"]
    values: Float[Tensor, "L n C"]


@dataclass(frozen=True, slots=True)
class Ancestors:
    """The tokens before the new ones at one position: which of the cache's each new one follows."""

    cache: LevelCache
    index: Int[Tensor, " N"]


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, dimensions: LMTADDimensions) -> None:
        super().__init__()
        width = dimensions.n_embd
        self.c_attn = nn.Linear(width, 3 * width, bias=False)
        self.c_proj = nn.Linear(width, width, bias=False)
        self.resid_dropout = nn.Dropout(dimensions.dropout)
        self.heads = dimensions.n_head
        self.dropout = dimensions.dropout

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Attend to the positions up to each one's own."""
        query, key, value = (self._split(part) for part in self.c_attn(x).chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, dropout_p=self.dropout if self.training else 0.0)
        mixed = mixed.transpose(1, 2).flatten(2)  # (B, T, C)
        return cast(Tensor, self.resid_dropout(self.c_proj(mixed)))

    def extend(self, x: Float[Tensor, "N C"], keys: Float[Tensor, "T N C"],
               values: Float[Tensor, "T N C"]) -> Float[Tensor, "N C"]:
        """Attend from one new token a context to its past and itself.

        Args:
            x: The new tokens' normalised states.
            keys: At each position; the last, the new tokens', is filled in here.
            values: Likewise.
        """
        query, key, value = self.c_attn(x).chunk(3, dim=-1)
        keys[-1], values[-1] = key, value
        mixed = F.scaled_dot_product_attention(
            self._split(query.unsqueeze(1)), self._split(keys.transpose(0, 1)),
            self._split(values.transpose(0, 1)))
        return cast(Tensor, self.c_proj(mixed.flatten(1)))

    def _split(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B H T h"]:
        batch, length, width = x.shape
        return x.reshape(batch, length, self.heads, width // self.heads).transpose(1, 2)


class FeedForward(nn.Module):
    """The block's second half."""

    def __init__(self, dimensions: LMTADDimensions) -> None:
        super().__init__()
        width = dimensions.n_embd
        self.c_fc = nn.Linear(width, 4 * width, bias=False)
        self.c_proj = nn.Linear(4 * width, width, bias=False)
        self.dropout = nn.Dropout(dimensions.dropout)

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """Widen by four, GELU (the exact one), narrow."""
        return cast(Tensor, self.dropout(self.c_proj(F.gelu(self.c_fc(x)))))


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, dimensions: LMTADDimensions) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(dimensions.n_embd, bias=False)
        self.attn = Attention(dimensions)
        self.ln_2 = nn.LayerNorm(dimensions.n_embd, bias=False)
        self.mlp = FeedForward(dimensions)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Attend, then transform each position."""
        x = x + self.attn(self.ln_1(x))
        return cast(Tensor, x + self.mlp(self.ln_2(x)))

    def extend(self, x: Float[Tensor, "N C"], keys: Float[Tensor, "T N C"],
               values: Float[Tensor, "T N C"]) -> Float[Tensor, "N C"]:
        """Do the same for one new token a context; see `Attention.extend`."""
        x = x + self.attn.extend(self.ln_1(x), keys, values)
        return cast(Tensor, x + self.mlp(self.ln_2(x)))


class LMTAD(nn.Module):
    """GPT-2's decoder over grid tokens, its head tied to the token embedding."""

    def __init__(self, dimensions: LMTADDimensions) -> None:
        super().__init__()
        if dimensions.n_embd % dimensions.n_head:
            raise ValueError(f"n_head must divide n_embd: {dimensions}")
        self.dimensions = dimensions
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(dimensions.vocab_size, dimensions.n_embd),
            "wpe": nn.Embedding(dimensions.block_size, dimensions.n_embd),
            "drop": nn.Dropout(dimensions.dropout),
            "h": nn.ModuleList([Block(dimensions) for _ in range(dimensions.n_layer)]),
            "ln_f": nn.LayerNorm(dimensions.n_embd, bias=False),
        })
        self.lm_head = nn.Linear(dimensions.n_embd, dimensions.vocab_size, bias=False)
        self.lm_head.weight = self.token_embedding
        self._initialise()

    @property
    def token_embedding(self) -> nn.Parameter:
        """The matrix (V, C) that embeds tokens and, transposed, is the head."""
        return cast(nn.Parameter, self.transformer["wte"].weight)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.token_embedding.device

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """Return the last hidden state at every position, before the head.

        Padding belongs on the right, where nothing that counts attends to it.
        """
        length = tokens.shape[1]
        if length > self.dimensions.block_size:
            raise ValueError(f"{length} tokens do not fit into {self.dimensions.block_size}")
        position = torch.arange(length, device=tokens.device)
        x = self.transformer["drop"](self._embed(tokens, position))
        for block in self._blocks():
            x = block(x)
        return cast(Tensor, self.transformer["ln_f"](x))

    @torch.no_grad()
    def extend(self, tokens: Int[Tensor, " N"], past: Sequence[Ancestors]
               ) -> tuple[Float[Tensor, "N C"], LevelCache]:
        """Return the last hidden states of N contexts, each one token longer than its past.

        Equal to `forward` on the N whole contexts at their last position (dropout off), at the
        cost of one token each. The new tokens stand at position `len(past)`.

        Args:
            tokens: The new tokens.
            past: One entry for each earlier position, in order.
        """
        x = self._embed(tokens, torch.full_like(tokens, len(past)))
        own = LevelCache(*(x.new_empty((self.dimensions.n_layer, *x.shape)) for _ in range(2)))
        keys, values = (x.new_empty((len(past) + 1, *x.shape)) for _ in range(2))
        for layer, block in enumerate(self._blocks()):
            for position, before in enumerate(past):
                cache, index = before.cache, before.index
                torch.index_select(cache.keys[layer], 0, index, out=keys[position])
                torch.index_select(cache.values[layer], 0, index, out=values[position])
            x = block.extend(x, keys, values)
            own.keys[layer], own.values[layer] = keys[-1], values[-1]
        return cast(Tensor, self.transformer["ln_f"](x)), own

    def logits(
        self, hidden: Float[Tensor, "M C"], tokens: Int[Tensor, " M"]
    ) -> Float[Tensor, " M"]:
        """Return the logit of one token for each hidden state: the head where it is needed."""
        return (hidden * F.embedding(tokens, self.token_embedding)).sum(dim=-1)

    def all_logits(self, hidden: Float[Tensor, "*B C"]) -> Float[Tensor, "*B V"]:
        """Return the logits of the whole vocabulary."""
        return cast(Tensor, self.lm_head(hidden))

    def _embed(self, tokens: Tensor, position: Tensor) -> Tensor:
        embedded = self.transformer["wte"](tokens) + self.transformer["wpe"](position)
        return cast(Tensor, embedded)

    def _blocks(self) -> list[Block]:
        return list(cast(Sequence[Block], self.transformer["h"]))

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            # GPT-2 scales what is added to the residual stream by the number of additions.
            shrink = math.sqrt(2 * self.dimensions.n_layer) if name.endswith("c_proj.weight") else 1
            nn.init.normal_(parameter, std=0.02 / shrink)
