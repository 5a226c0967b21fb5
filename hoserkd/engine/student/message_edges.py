"""Edges of one layer of graph attention, by the row they point to."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

NEGATIVE_SLOPE = 0.2
"""Of the leaky ReLU of graph attention."""


@dataclass(frozen=True, slots=True)
class MessageEdges:
    """Which rows of a layer's input send to which rows of its output, by target row."""

    offset: Int[Tensor, " T+1"]
    """Edges of each target row."""
    target: Int[Tensor, " E"]
    source: Int[Tensor, " E"]
    """Row of the layer's input."""
    attr: Float[Tensor, "E 2"]
    own: Int[Tensor, " T"] | None
    """Row of the layer's input that holds each target's own state; None: the same rows."""
