"""What changes over a training: learning rate, temperature and weight of the KL term.

Pure functions of the optimiser step, counted from 0, and the number of steps there will be.
"""

import math
from dataclasses import dataclass

from hoserkd.engine.config import DistillConfig, TrainConfig


def epoch_steps(trips: int, batch_size: int, accumulation: int) -> int:
    """Return how many optimiser steps a pass over so many trips takes."""
    batches = -(-trips // batch_size)
    return -(-batches // accumulation)


def learning_rate(step: int, total: int, base: float, warmup_share: float) -> float:
    """Return the learning rate of a step: a linear rise, then a cosine towards 0.

    The first `int(total * warmup_share)` steps rise by equal parts to `base`, the first of them
    above 0. The cosine starts at `base` and would reach 0 at step `total`.
    """
    warmup = int(total * warmup_share)
    if step < warmup:
        return base * (step + 1) / warmup
    passed = (step - warmup) / max(total - warmup, 1)
    return base * 0.5 * (1 + math.cos(math.pi * min(passed, 1.0)))


def held_learning_rate(
    step: int, total: int, base: float, warmup_share: float, decay_share: float
) -> float:
    """Return the learning rate of a step: a linear rise, `base`, and a linear fall towards 0.

    The rise is that of `learning_rate`. The last `total * decay_share` steps fall by equal parts;
    the fall would reach 0 at step `total`. Where rise and fall overlap, the lower one holds.
    """
    warmup = int(total * warmup_share)
    rise = (step + 1) / warmup if step < warmup else 1.0
    fall = (total - step) / (total * decay_share)
    return base * min(rise, fall, 1.0)


def temperature(step: int, total: int, start: float, end: float | None) -> float:
    """Return T(s) = start + (1 - cos(pi s)) / 2 * (end - start); `start` where `end` is None.

    s runs from 0 at the first step to 1 at the last.
    """
    if end is None:
        return start
    passed = min(step / max(total - 1, 1), 1.0)
    return start + 0.5 * (1 - math.cos(math.pi * passed)) * (end - start)


def kl_weight(step: int, steps_per_epoch: int, weight: float, ramp_epochs: float) -> float:
    """Return the weight of the KL term: a linear rise from 0 over the first `ramp_epochs`."""
    ramp = ramp_epochs * steps_per_epoch
    if step >= ramp:
        return weight
    return weight * step / ramp


@dataclass(frozen=True, slots=True)
class StepValues:
    """What the schedules say for one optimiser step."""

    learning_rate: float
    temperature: float
    lambda_kl: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The course of a training, known from its first step."""

    train: TrainConfig
    distill: DistillConfig
    steps_per_epoch: int

    @property
    def total_steps(self) -> int:
        """Return how many optimiser steps there will be."""
        planned = self.train.epochs * self.steps_per_epoch
        return planned if self.train.max_steps is None else min(planned, self.train.max_steps)

    def validates_at(self, step: int) -> bool:
        """Return whether the epoch that ends with so many steps is followed by a validation."""
        every = self.steps_per_epoch * self.train.validate_every
        return step % every == 0 or step >= self.total_steps

    def at(self, step: int) -> StepValues:
        """Return the values of a step, counted from 0."""
        train, distill, total = self.train, self.distill, self.total_steps
        base, warmup = train.learning_rate, train.warmup_share
        if train.schedule == "hold":
            rate = held_learning_rate(step, total, base, warmup, train.decay_share)
        else:
            rate = learning_rate(step, total, base, warmup)
        return StepValues(
            rate,
            temperature(step, total, distill.temperature, distill.temperature_end),
            kl_weight(step, self.steps_per_epoch, distill.lambda_kl, distill.ramp_epochs),
        )
