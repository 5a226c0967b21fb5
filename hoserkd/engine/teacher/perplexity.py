"""How likely a teacher finds whole trips: the loss it is trained with, and a trip's perplexity."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor
from torch.nn import functional as F

from hoserkd.engine.events import Observer, Progress, Silent, StopRequested, never_stop
from hoserkd.engine.teacher.fit import road_cells
from hoserkd.engine.teacher.lmtad import LMTAD
from hoserkd.engine.teacher.sequences import TokenTrips, token_batches, token_trips
from hoserkd.engine.teacher.storage import Teacher
from hoserkd.engine.types import GeneratedTrips, RoadNetwork, TrajectorySet
from hoserkd.errors import InterruptedRunError

SILENT = Silent()
LOGITS_AT_ONCE = 1 << 25
"""The (tokens, vocabulary) matrix is made by pieces of at most so many numbers."""


class _HeadLoss(torch.autograd.Function):
    """Sum of the cross-entropies of a linear head, without ever holding all of its logits.

    The gradients are computed on the way forward, where each piece's softmax is at hand:
    d loss / d logits = softmax - one-hot. Where no gradient is wanted, use `head_sums`: inside
    `forward` nothing tells whether the caller is within `torch.no_grad`.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, ignored: int
                ) -> Tensor:
        """Return the sum over the targets that are not ignored."""
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        typed = weight.to(hidden.dtype)
        for part in _pieces(len(hidden), len(weight)):
            states, wanted = hidden[part], target[part]
            counts = (wanted != ignored).unsqueeze(1)
            logits = (states @ typed.T).float()
            level = logits.logsumexp(dim=1, keepdim=True)
            column = wanted.unsqueeze(1)
            total += ((level - logits.gather(1, column)) * counts).sum()
            slope = logits.sub_(level).exp_()
            slope.scatter_add_(1, column, torch.full_like(column, -1, dtype=slope.dtype))
            slope = slope.mul_(counts).to(hidden.dtype)
            grad_hidden[part] = slope @ typed
            grad_weight += slope.T @ states
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor, Tensor, None, None]:
        """Scale the gradients of the way forward."""
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * upstream[0], grad_weight * upstream[0], None, None


def _pieces(rows: int, columns: int) -> Iterator[slice]:
    """Yield slices of so many rows that a (rows, columns) matrix is held by parts."""
    size = max(LOGITS_AT_ONCE // columns, 1)
    for start in range(0, rows, size):
        yield slice(start, start + size)


@torch.no_grad()
def head_sums(
    hidden: Float[Tensor, "N C"], weight: Float[Tensor, "V C"], target: Int[Tensor, " N"],
    ignored: int,
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Return the sum of the cross-entropies of a linear head, and how often it is right.

    Only targets other than `ignored` count. Computes and keeps nothing for gradients.
    """
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    right = torch.zeros((), dtype=torch.long, device=hidden.device)
    typed = weight.to(hidden.dtype)
    for part in _pieces(len(hidden), len(weight)):
        wanted = target[part]
        counts = wanted != ignored
        logits = (hidden[part] @ typed.T).float()
        loss = logits.logsumexp(dim=1) - logits.gather(1, wanted.unsqueeze(1)).squeeze(1)
        total += (loss * counts).sum()
        right += ((logits.argmax(dim=1) == wanted) & counts).sum()
    return total, right


def next_token_loss(model: LMTAD, tokens: Int[Tensor, "B T"], pad_id: int) -> Float[Tensor, ""]:
    """Return the sum of -log p(next token) over a batch; what follows a trip's EOT is left out."""
    hidden, weight = model(tokens[:, :-1]).flatten(0, 1), model.token_embedding
    target = tokens[:, 1:].flatten()
    if not (torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)):
        return head_sums(hidden, weight, target, pad_id)[0]
    total: Tensor = _HeadLoss.apply(  # type: ignore[no-untyped-call]
        hidden, weight, target, pad_id)
    return total


@torch.no_grad()
def next_token_sums(
    model: LMTAD, tokens: Int[Tensor, "B T"], pad_id: int
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Return the sum of -log p(next token) over a batch, and how many the model foresees.

    What follows a trip's EOT is left out.
    """
    hidden = model(tokens[:, :-1]).flatten(0, 1)
    return head_sums(hidden, model.token_embedding, tokens[:, 1:].flatten(), pad_id)


@torch.no_grad()
def sequence_surprise(model: LMTAD, tokens: Int[Tensor, "B T"], pad_id: int
                      ) -> Float[Tensor, " B"]:
    """Return the sum of -log p(next token) of each sequence, in nats, EOT counted."""
    target = tokens[:, 1:]
    hidden = model(tokens[:, :-1])
    rows = max(LOGITS_AT_ONCE // (model.dimensions.vocab_size * hidden.shape[1]), 1)
    loss = torch.cat([
        F.cross_entropy(model.all_logits(h).float().transpose(1, 2), t, reduction="none")
        for h, t in zip(torch.split(hidden, rows), torch.split(target, rows), strict=True)])
    return (loss * (target != pad_id)).sum(1)


@dataclass(frozen=True, slots=True)
class TripScores:
    """How unusual a teacher finds each of N trips."""

    surprise: Float64[np.ndarray, " N"]
    """Sum of -log p over the trip's tokens and EOT, in nats."""
    tokens: Int64[np.ndarray, " N"]
    """How many tokens that is; 0 for a trip without a road."""

    @property
    def log_perplexity(self) -> Float64[np.ndarray, " N"]:
        """Mean surprise a token, LM-TAD's own score of a trip; nan for a trip without a road."""
        found: Float64[np.ndarray, " N"] = np.where(
            self.tokens > 0, self.surprise / np.maximum(self.tokens, 1), np.nan)
        return found

    @property
    def perplexity(self) -> float:
        """exp of the mean surprise a token over all trips; nan where there is none."""
        total = int(self.tokens.sum())
        return math.exp(float(self.surprise.sum()) / total) if total else math.nan


def score_tokens(model: LMTAD, trips: TokenTrips, *, batch_tokens: int = 1 << 14,
                 observer: Observer = SILENT, stop: StopRequested = never_stop) -> TripScores:
    """Return the scores of trips that are tokens already; see `score_trips`."""
    surprise = np.zeros(len(trips))
    done = 0
    for batch in token_batches(trips.length, batch_tokens):
        if stop():
            raise InterruptedRunError("stopped while the teacher was reading trips")
        values = sequence_surprise(model, trips.batch(batch), trips.pad_id)
        surprise[batch] = values.double().cpu().numpy()
        done += len(batch)
        observer.notify(Progress("the teacher reads trips", done, len(trips), "trips"))
    empty = trips.points == 0
    surprise[empty] = 0.0
    return TripScores(surprise, np.where(empty, 0, trips.length - 1))


def score_trips(teacher: Teacher, network: RoadNetwork, trips: TrajectorySet | GeneratedTrips, *,
                most: int | None = None, seed: int = 0, batch_tokens: int = 1 << 14,
                observer: Observer = SILENT, stop: StopRequested = never_stop) -> TripScores:
    """Return how unusual a teacher finds trips.

    A trip longer than the teacher's positions is judged by its beginning.

    Args:
        teacher: Its grid holds the city (`check_grid_fit`).
        network: The roads that the trips name.
        trips: Real or generated ones.
        most: Score only so many of them, drawn at random; None: all, in order.
        seed: Of the draw.
        batch_tokens: Tokens that go through the teacher at once.
        observer: Hears of progress in trips.
        stop: Asked between batches.

    Raises:
        InterruptedRunError: `stop` said so.
    """
    packed = TrajectorySet(trips.offset, trips.road, trips.entered_at_s)
    cells = road_cells(teacher.grid, network)
    tokens = token_trips(packed, cells, teacher.card, teacher.model.device)
    if most is not None and len(tokens) > most:
        drawn = np.random.default_rng(seed).choice(len(tokens), size=most, replace=False)
        tokens = tokens.chosen(np.sort(drawn))
    if not len(tokens.token):
        return TripScores(np.zeros(len(tokens)), np.zeros(len(tokens), dtype=np.int64))
    return score_tokens(teacher.model, tokens, batch_tokens=batch_tokens, observer=observer,
                        stop=stop)


def trip_log_perplexity(teacher: Teacher, network: RoadNetwork,
                        trips: TrajectorySet | GeneratedTrips) -> Float64[np.ndarray, " N"]:
    """Return each trip's mean of -log p over its tokens and EOT, in nats; see `score_trips`."""
    return score_trips(teacher, network, trips).log_perplexity
