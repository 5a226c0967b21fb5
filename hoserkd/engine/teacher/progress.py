"""Where a teacher's training stands, and how well it does on trained and on held-out trips."""

import math
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hoserkd.engine.teacher.lmtad import LMTAD
from hoserkd.engine.teacher.perplexity import next_token_sums
from hoserkd.engine.teacher.sequences import TokenTrips, token_batches

MOST = 700.0
"""The exponential of a larger loss is no double."""


@dataclass(slots=True)
class Progress:
    """Where a training stands."""

    epoch: int = 0
    batch: int = 0
    """Batches of the epoch that are done."""
    step: int = 0
    loss_sum: float = 0.0
    """Over the epoch so far."""
    token_sum: int = 0
    reported_loss: float = 0.0
    """Of `loss_sum`, what the reports of steps have told."""
    reported_tokens: int = 0
    epoch_s: float = 0.0
    """Seconds spent on the epoch so far."""
    best_epoch: int = -1
    """-1: none has been judged."""
    best_loss: float = math.inf
    best_metrics: dict[str, float] = field(default_factory=dict)
    """Of the best epoch; empty where an older version judged it."""
    finished: bool = False

    @property
    def best_figures(self) -> dict[str, float] | None:
        """Return the held-out figures of the best epoch, None where there is none yet."""
        if self.best_epoch < 0:
            return None
        figures = {"loss": self.best_loss}
        if (accuracy := self.best_metrics.get("val_token_accuracy")) is not None:
            figures["accuracy"] = accuracy
        return figures

    @property
    def best_perplexity(self) -> float:
        """Return exp of the best epoch's loss, which is bounded so that it is a number."""
        return math.exp(min(self.best_loss, MOST))


class Meter:
    """Sums over an epoch on the device, brought to the host only when they are reported."""

    def __init__(self, device: torch.device, progress: Progress) -> None:
        self._loss = torch.tensor(progress.loss_sum, device=device, dtype=torch.float64)
        self._tokens = progress.token_sum
        self._norm = torch.zeros((), device=device)
        self.reported = (progress.reported_loss, progress.reported_tokens)
        """Loss and tokens up to the last report."""
        self._time, self._timed = time.perf_counter(), progress.token_sum
        self._steps = 0
        """Optimiser steps since the last report."""

    def add(self, loss: Tensor, norm: Tensor, tokens: int) -> None:
        """Count one step."""
        self._loss += loss
        self._norm = norm
        self._tokens += tokens
        self._steps += 1

    def window(self) -> tuple[float, float, dict[str, float]]:
        """Return mean loss, last gradient norm and the speeds since the last call."""
        loss, now = float(self._loss), time.perf_counter()
        mean = (loss - self.reported[0]) / max(self._tokens - self.reported[1], 1)
        elapsed = max(now - self._time, 1e-9)
        speed = {"tokens_per_s": (self._tokens - self._timed) / elapsed,
                 "optimiser_steps_per_s": self._steps / elapsed}
        self.reported = (loss, self._tokens)
        self._time, self._timed, self._steps = now, self._tokens, 0
        return mean, float(self._norm), speed

    def sums(self) -> tuple[float, int]:
        """Return loss and tokens of the epoch so far."""
        return float(self._loss), self._tokens


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a teacher makes of trips that it has not read."""

    loss: float
    """Mean of -log p over all tokens, EOT counted, in nats."""
    accuracy: float
    """Share of the tokens whose likeliest prediction is right, EOT counted."""

    @property
    def perplexity(self) -> float:
        """Return exp of the loss, which is bounded so that it is a number."""
        return math.exp(min(self.loss, MOST))


@torch.no_grad()
def held_out(model: LMTAD, trips: TokenTrips, batch_tokens: int) -> HeldOut:
    """Return what the model makes of some trips; it computes nothing for gradients.

    The model is in evaluation mode for that time, and in its own afterwards.
    """
    training = model.training
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=model.device)
    right = torch.zeros((), dtype=torch.long, device=model.device)
    for batch in token_batches(trips.length, batch_tokens):
        loss, correct = next_token_sums(model, trips.batch(batch), trips.pad_id)
        total += loss
        right += correct
    model.train(training)
    tokens = max(int(trips.length.sum()) - len(trips), 1)
    return HeldOut(float(total) / tokens, float(right) / tokens)


def held_out_loss(model: LMTAD, trips: TokenTrips, batch_tokens: int) -> float:
    """Return the mean of -log p over all tokens of some trips, EOT counted, in nats."""
    return held_out(model, trips, batch_tokens).loss
