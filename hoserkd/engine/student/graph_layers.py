"""The two graph convolutions of the student, as PyTorch Geometric defines them.

Parameter names are those of `torch_geometric.nn.GATv2Conv` (one head) and `GCNConv`, so that
public weights load; the tests hold both layers to the originals. Importing that package would
cost seconds at every start.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from hoserkd.engine.student.message_edges import NEGATIVE_SLOPE, MessageEdges


class GATv2Layer(nn.Module):
    """Graph attention with one head, self loops being part of the given edges."""

    def __init__(self, dim: int, edge_dim: int = 2) -> None:
        super().__init__()
        self.att = nn.Parameter(torch.empty(1, 1, dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.lin_l = nn.Linear(dim, dim)
        self.lin_r = nn.Linear(dim, dim)
        self.lin_edge = nn.Linear(edge_dim, dim, bias=False)
        for linear in (self.lin_l, self.lin_r, self.lin_edge):
            nn.init.xavier_uniform_(linear.weight)
        nn.init.uniform_(self.att, -math.sqrt(6 / (1 + dim)), math.sqrt(6 / (1 + dim)))

    def forward(self, x: Float[Tensor, "V d"], edges: MessageEdges) -> Float[Tensor, "T d"]:
        """Return the new states of the target rows."""
        own = x if edges.own is None else x.index_select(0, edges.own)
        sent, received = self.lin_l(x), self.lin_r(own)
        attend = gathered_messages if x.is_cuda else fused_messages
        return attend(sent, received, self.lin_edge.weight, self.att[0, 0], edges) + self.bias


def fused_messages(
    sent: Float[Tensor, "V d"],
    received: Float[Tensor, "T d"],
    edge_weight: Float[Tensor, "d 2"],
    att: Float[Tensor, " d"],
    edges: MessageEdges,
) -> Float[Tensor, "T d"]:
    """Return what each target row gathers, edge by edge, on the CPU."""
    # Numba takes a second to load, and a GPU never needs it.
    from hoserkd.engine.student.fused_attention import fused_attention

    wide = torch.promote_types(edge_weight.dtype, torch.float32)
    return fused_attention(sent.to(wide), received.to(wide), edge_weight, att, edges)


def gathered_messages(
    sent: Float[Tensor, "V d"],
    received: Float[Tensor, "T d"],
    edge_weight: Float[Tensor, "d 2"],
    att: Float[Tensor, " d"],
    edges: MessageEdges,
) -> Float[Tensor, "T d"]:
    """Return what each target row gathers, by tensors of one row an edge."""
    message = sent.index_select(0, edges.source)
    mixed = message + received.index_select(0, edges.target)
    mixed = mixed + functional.linear(edges.attr.to(sent.dtype), edge_weight)
    score = functional.leaky_relu(mixed, NEGATIVE_SLOPE) @ att.to(mixed.dtype)
    share = segment_softmax(score, edges.target, len(received))
    gathered = share.new_zeros(received.shape)
    return gathered.index_add(0, edges.target, message * share[:, None])


class GCNLayer(nn.Module):
    """Graph convolution over a dense, already normalised matrix with self loops."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(dim))
        self.lin = nn.Linear(dim, dim, bias=False)
        nn.init.xavier_uniform_(self.lin.weight)

    def forward(
        self, x: Float[Tensor, "Z d"], weight: Float[Tensor, "Z Z"]
    ) -> Float[Tensor, "Z d"]:
        """Return the new states of all zones."""
        mixed: Tensor = weight.to(x.dtype) @ self.lin(x)
        return mixed + self.bias


def segment_softmax(
    score: Float[Tensor, " E"], segment: Int[Tensor, " E"], segments: int
) -> Float[Tensor, " E"]:
    """Return the softmax of `score` within each segment, in float32 or better."""
    score = score.to(torch.promote_types(score.dtype, torch.float32))
    top = score.detach().new_full((segments,), -torch.inf)
    top = top.scatter_reduce(0, segment, score.detach(), "amax")
    weight = (score - top[segment]).exp()
    total = weight.new_zeros(segments).index_add(0, segment, weight)
    return weight / total[segment]
