"""Graph attention over edges in one pass each way, for the CPU.

No tensor of the size edges x width exists: scores and messages are made edge by edge from rows
that stay in the cache. Sums run in a fixed order whatever the number of threads, so that two runs
give the same bits. What it computes is `GATv2Layer`'s, the tests hold both to each other.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hoserkd.engine.student.edge_kernels import edges_by_source
from hoserkd.engine.student.message_edges import NEGATIVE_SLOPE, MessageEdges

PARTS = 32
"""Pieces that the rows are cut into; sums over edges are added up piece by piece."""
# Without nnan and ninf: a loss that is not a number must show.
REORDER = {"reassoc", "contract", "nsz", "arcp"}
SLOPE = NEGATIVE_SLOPE


def fused_attention(
    sent: Float[Tensor, "V d"],
    received: Float[Tensor, "T d"],
    edge_weight: Float[Tensor, "d 2"],
    att: Float[Tensor, " d"],
    edges: MessageEdges,
) -> Float[Tensor, "T d"]:
    """Return what each target row gathers: the messages' mean by the softmax of their scores."""
    gathered: Tensor = _FusedAttention.apply(  # type: ignore[no-untyped-call]
        sent, received, edge_weight, att, edges
    )
    return gathered


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, sent: Tensor, received: Tensor, edge_weight: Tensor, att: Tensor,
        edges: MessageEdges,
    ) -> Tensor:
        arrays = _arrays(sent, received, edge_weight, att, edges)
        share = np.empty(len(arrays[6]), dtype=arrays[0].dtype)
        gathered = np.empty_like(arrays[1])
        _in_parts(len(gathered), lambda first, last, _: _gather(
            *arrays, share, gathered, first, last
        ))
        ctx.save_for_backward(sent, received, edge_weight, att, torch.from_numpy(share))
        ctx.edges = edges
        return torch.from_numpy(gathered)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        sent, received, edge_weight, att, share = ctx.saved_tensors
        arrays = _arrays(sent, received, edge_weight, att, ctx.edges)
        above, shares = gradients[0].contiguous().numpy(), share.numpy()
        d_score = np.empty_like(shares)
        d_received, d_sent = np.empty_like(arrays[1]), np.empty_like(arrays[0])
        sums = np.zeros((PARTS, 3, att.shape[0]), dtype=arrays[0].dtype)
        _in_parts(len(d_received), lambda first, last, part: _to_targets(
            *arrays, shares, above, d_score, d_received, sums[part], first, last
        ))
        target = ctx.edges.target.numpy()
        out_offset, out_edge = edges_by_source(arrays[6], len(d_sent))
        _in_parts(len(d_sent), lambda first, last, _: _to_sources(
            *arrays[:5], target, shares, above, d_score, out_offset, out_edge, d_sent, first, last
        ))
        total = torch.from_numpy(sums.sum(0))
        return (torch.from_numpy(d_sent), torch.from_numpy(d_received), total[:2].t().contiguous(),
                total[2], None)


def _arrays(
    sent: Tensor, received: Tensor, edge_weight: Tensor, att: Tensor, edges: MessageEdges
) -> tuple[np.ndarray, ...]:
    learnt = (sent, received, edge_weight.t(), att)
    return (
        *(value.detach().contiguous().numpy() for value in learnt),
        edges.attr.to(sent.dtype).numpy(), edges.offset.numpy(), edges.source.numpy(),
    )


def _in_parts(rows: int, work: Callable[[int, int, int], None]) -> None:
    """Call `work(first, last, part)` for every piece of `rows`, on torch's number of threads."""
    bounds = [rows * part // PARTS for part in range(PARTS + 1)]
    pieces = [(bounds[part], bounds[part + 1], part) for part in range(PARTS)]
    threads = min(torch.get_num_threads(), PARTS)
    if threads == 1:
        for piece in pieces:
            work(*piece)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, *piece) for piece in pieces]:
            done.result()


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` compiled with sums that may be reordered, cached where that is possible."""
    try:
        made: Callable[..., Any] = numba.njit(cache=True, nogil=True, fastmath=REORDER)(function)
    except RuntimeError:
        # A read-only install without a home folder has no place for a cache.
        made = numba.njit(nogil=True, fastmath=REORDER)(function)
    return made


@_compiled
def _gather(  # type: ignore[no-untyped-def]
    sent, received, weight, att, attr, offset, source, share, gathered, first, last
):
    width = sent.shape[1]
    leak = sent.dtype.type(SLOPE)  # a bare Python float would make float32 sums float64
    for row in range(first, last):
        mine, out = received[row], gathered[row]
        top = -np.inf
        for edge in range(offset[row], offset[row + 1]):
            theirs = sent[source[edge]]
            turn, reach = attr[edge, 0], attr[edge, 1]
            score = sent.dtype.type(0)
            for c in range(width):
                mixed = theirs[c] + mine[c] + turn * weight[0, c] + reach * weight[1, c]
                score += att[c] * (mixed if mixed > 0 else leak * mixed)
            share[edge] = score
            top = max(top, score)
        total = sent.dtype.type(0)
        for edge in range(offset[row], offset[row + 1]):
            share[edge] = np.exp(share[edge] - top)
            total += share[edge]
        out[:] = 0
        for edge in range(offset[row], offset[row + 1]):
            share[edge] /= total
            theirs, part = sent[source[edge]], share[edge]
            for c in range(width):
                out[c] += part * theirs[c]


@_compiled
def _to_targets(  # type: ignore[no-untyped-def]
    sent, received, weight, att, attr, offset, source, share, above, d_score, d_received, sums,
    first, last,
):
    width = sent.shape[1]
    one, leak = sent.dtype.type(1), sent.dtype.type(SLOPE)
    for row in range(first, last):
        mine, grad, out = received[row], above[row], d_received[row]
        mean = sent.dtype.type(0)
        for edge in range(offset[row], offset[row + 1]):
            theirs = sent[source[edge]]
            along = sent.dtype.type(0)
            for c in range(width):
                along += grad[c] * theirs[c]
            d_score[edge] = along
            mean += share[edge] * along
        out[:] = 0
        for edge in range(offset[row], offset[row + 1]):
            d_score[edge] = share[edge] * (d_score[edge] - mean)
            theirs, slope = sent[source[edge]], d_score[edge]
            turn, reach = attr[edge, 0], attr[edge, 1]
            for c in range(width):
                mixed = theirs[c] + mine[c] + turn * weight[0, c] + reach * weight[1, c]
                bent = mixed if mixed > 0 else leak * mixed
                d_mixed = slope * att[c] * (one if mixed > 0 else leak)
                out[c] += d_mixed
                sums[0, c] += turn * d_mixed
                sums[1, c] += reach * d_mixed
                sums[2, c] += slope * bent


@_compiled
def _to_sources(  # type: ignore[no-untyped-def]
    sent, received, weight, att, attr, target, share, above, d_score, out_offset, out_edge, d_sent,
    first, last,
):
    width = sent.shape[1]
    one, leak = sent.dtype.type(1), sent.dtype.type(SLOPE)
    for row in range(first, last):
        theirs, out = sent[row], d_sent[row]
        out[:] = 0
        for place in range(out_offset[row], out_offset[row + 1]):
            edge = out_edge[place]
            mine, grad = received[target[edge]], above[target[edge]]
            turn, reach = attr[edge, 0], attr[edge, 1]
            part, slope = share[edge], d_score[edge]
            for c in range(width):
                mixed = theirs[c] + mine[c] + turn * weight[0, c] + reach * weight[1, c]
                out[c] += part * grad[c] + slope * att[c] * (one if mixed > 0 else leak)
