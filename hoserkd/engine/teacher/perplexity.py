"""How likely a teacher finds whole trips: the loss it is trained with, and a trip's perplexity."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn import functional as F

from hoserkd.engine.teacher.fit import road_cells
from hoserkd.engine.teacher.lmtad import LMTAD
from hoserkd.engine.teacher.sequences import TokenTrips, token_batches, token_trips
from hoserkd.engine.teacher.storage import Teacher
from hoserkd.engine.types import GeneratedTrips, RoadNetwork, TrajectorySet

LOGITS_AT_ONCE = 1 << 25
"""The (tokens, vocabulary) matrix is made by pieces of at most so many numbers."""


class _HeadLoss(torch.autograd.Function):
    """Sum of the cross-entropies of a linear head, without ever holding all of its logits.

    The gradients are computed on the way forward, where each piece's softmax is at hand:
    d loss / d logits = softmax - one-hot.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, ignored: int
                ) -> Tensor:
        """Return the sum over the targets that are not ignored."""
        needs = weight.requires_grad or hidden.requires_grad
        rows = max(LOGITS_AT_ONCE // weight.shape[0], 1)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if needs else None
        grad_weight = torch.zeros_like(weight) if needs else None
        typed = weight.to(hidden.dtype)
        for i in range(0, len(hidden), rows):
            states, wanted = hidden[i:i + rows], target[i:i + rows]
            counts = (wanted != ignored).unsqueeze(1)
            logits = (states @ typed.T).float()
            level = logits.logsumexp(dim=1, keepdim=True)
            column = wanted.unsqueeze(1)
            total += ((level - logits.gather(1, column)) * counts).sum()
            if grad_hidden is None or grad_weight is None:
                continue
            slope = logits.sub_(level).exp_()
            slope.scatter_add_(1, column, torch.full_like(column, -1, dtype=slope.dtype))
            slope = slope.mul_(counts).to(hidden.dtype)
            grad_hidden[i:i + rows] = slope @ typed
            grad_weight += slope.T @ states
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor, Tensor, None, None]:
        """Scale the gradients of the way forward."""
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * upstream[0], grad_weight * upstream[0], None, None


def next_token_loss(model: LMTAD, tokens: Int[Tensor, "B T"], pad_id: int) -> Float[Tensor, ""]:
    """Return the sum of -log p(next token) over a batch; what follows a trip's EOT is left out."""
    hidden = model(tokens[:, :-1]).flatten(0, 1)
    target = tokens[:, 1:].flatten()
    total: Tensor = _HeadLoss.apply(  # type: ignore[no-untyped-call]
        hidden, model.token_embedding, target, pad_id)
    return total


@torch.no_grad()
def sequence_log_perplexity(model: LMTAD, tokens: Int[Tensor, "B T"], pad_id: int
                            ) -> Float[Tensor, "B"]:
    """Return the mean of -log p(next token) of each sequence, in nats, EOT counted."""
    target = tokens[:, 1:]
    hidden = model(tokens[:, :-1])
    rows = max(LOGITS_AT_ONCE // (model.dimensions.vocab_size * hidden.shape[1]), 1)
    loss = torch.cat([
        F.cross_entropy(model.all_logits(h).float().transpose(1, 2), t, reduction="none")
        for h, t in zip(torch.split(hidden, rows), torch.split(target, rows), strict=True)])
    counts = target != pad_id
    return (loss * counts).sum(1) / counts.sum(1)


def token_log_perplexity(model: LMTAD, trips: TokenTrips, batch_tokens: int = 1 << 14
                         ) -> Float64[np.ndarray, "N"]:
    """Return each trip's log-perplexity; see `trip_log_perplexity`."""
    found = np.zeros(len(trips))
    for batch in token_batches(trips.length, batch_tokens):
        values = sequence_log_perplexity(model, trips.batch(batch), trips.pad_id)
        found[batch] = values.double().cpu().numpy()
    return found


def trip_log_perplexity(teacher: Teacher, network: RoadNetwork,
                        trips: TrajectorySet | GeneratedTrips) -> Float64[np.ndarray, "N"]:
    """Return each trip's log-perplexity: the mean of -log p over its tokens and EOT, in nats.

    This is LM-TAD's own score of how unusual a trip is. A trip longer than the teacher's
    positions is judged by its beginning; a generated trip without a road is nan.

    Args:
        teacher: Its grid holds the city (`check_grid_fit`).
        network: The roads that the trips name.
        trips: Real or generated ones.
    """
    packed = trips if isinstance(trips, TrajectorySet) else TrajectorySet(
        trips.offset, trips.road, trips.entered_at_s)
    cells = road_cells(teacher.grid, network)
    tokens = token_trips(packed, cells, teacher.card, teacher.model.device)
    if not len(tokens.token):
        return np.full(len(tokens), np.nan)
    found = token_log_perplexity(teacher.model, tokens)
    found[tokens.points == 0] = np.nan
    return found
