"""The training loop: vanilla and distilled alike."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from hoserkd.engine.events import CheckpointSaved, EpochDone, Observer, StopRequested
from hoserkd.engine.training.checkpoint import (
    BEST,
    LAST,
    Checkpoint,
    TrainState,
    rng_state,
    save_checkpoint,
)
from hoserkd.engine.training.finite import not_finite
from hoserkd.engine.training.journal import Journal, StepRecord
from hoserkd.engine.training.learner import Learner
from hoserkd.engine.training.schedule import Plan, epoch_steps
from hoserkd.engine.training.selection import STUDENT, is_better
from hoserkd.engine.trips.batches import TripSource, epoch_batches
from hoserkd.engine.types import TrajectorySet
from hoserkd.errors import DivergenceError, InterruptedRunError

Groups = list[list[Int64[np.ndarray, " _"]]]
Judge = Callable[[], dict[str, float]]
"""Returns the metrics of the validation split."""
SaveBest = Callable[[Path, TrainState], None]
"""Writes the weights as a model file."""


@dataclass(frozen=True, slots=True)
class Feed:
    """The training split, in an order that depends on the seed and the epoch alone."""

    source: TripSource
    trajectories: TrajectorySet
    batch_size: int
    accumulation: int
    seed: int
    members: Int64[np.ndarray, " n"] | None = None
    """Ids of the trips that an epoch draws; None: all of the split."""

    @property
    def steps_per_epoch(self) -> int:
        """Return how many optimiser steps an epoch has; the last may have fewer batches."""
        trips = len(self.trajectories) if self.members is None else len(self.members)
        return epoch_steps(trips, self.batch_size, self.accumulation)

    def groups(self, epoch: int) -> Groups:
        """Return the trips of every batch of every optimiser step of an epoch."""
        batches = epoch_batches(self.trajectories, self.batch_size, self.seed, epoch, shuffle=True,
                                members=self.members)
        size = self.accumulation
        return [batches[i:i + size] for i in range(0, len(batches), size)]


class Training:
    """A training that can be stopped at any step and taken up again."""

    def __init__(
        self, learner: Learner, feed: Feed, plan: Plan, state: TrainState, journal: Journal,
        judge: Judge, save_best: SaveBest, directory: Path, settings: dict[str, Any],
        observer: Observer, stop: StopRequested,
    ) -> None:
        self.learner = learner
        self.feed = feed
        self.plan = plan
        self.state = state
        self.journal = journal
        self._judge = judge
        self._save_best = save_best
        self._directory = directory
        self._settings = settings
        self._observer = observer
        self._stop = stop
        self.lengths = np.diff(feed.trajectories.offset) - 1
        # A resumed training begins at its checkpoint.
        self._saved_step = state.step
        self._clock = time.perf_counter()
        if self._lacks_validation:
            state.judged = state.step - 1

    @property
    def finished(self) -> bool:
        """Whether all steps are done and the last of them has been judged."""
        state = self.state
        return state.step >= self.plan.total_steps and state.judged == state.step

    @property
    def _lacks_validation(self) -> bool:
        """Whether an epoch was closed without the validation that the present plan wants here.

        So it is where a training that validates seldom is resumed with fewer epochs. A validation
        at an epoch's end takes the epoch's sums away.
        """
        state = self.state
        return (0 < state.step == state.judged and state.step % self.plan.steps_per_epoch == 0
                and bool(state.sums) and self.plan.validates_at(state.step))

    @property
    def epoch(self) -> int:
        """Return the running epoch; an epoch runs until it has been closed."""
        epoch, done = divmod(self.state.step, self.plan.steps_per_epoch)
        return epoch - 1 if done == 0 and self.state.judged < self.state.step else epoch

    def remaining_groups(self) -> Groups:
        """Return what the running epoch still has to learn, to the last step of the training."""
        state, per_epoch = self.state, self.plan.steps_per_epoch
        done = state.step - self.epoch * per_epoch
        left = max(0, min(per_epoch - done, self.plan.total_steps - state.step))
        return self.feed.groups(self.epoch)[done:done + left]

    def close_step(self, record: StepRecord) -> None:
        """Count a step, report, save and stop where it is time to."""
        self.state.step = record.step
        self.journal.add(record)
        if self.journal.due():
            self._flush()
        if self._asked_to_stop():
            self.save_last()
            raise self._interrupted()
        if record.step % self.plan.train.checkpoint_every == 0:
            self.save_last()

    def close_epoch(self) -> None:
        """Validate where it is due, keep the best weights, and save."""
        state, epoch = self.state, self.epoch
        if not self.plan.validates_at(state.step):
            state.judged = state.step
            return
        self._flush()
        self._check_state()
        try:
            judged = self._judge()
        except InterruptedRunError:
            self.save_last()
            raise self._interrupted() from None
        self._check_judged(judged)
        self._count_time()
        self._observer.notify(EpochDone(epoch, state.step, {
            "epoch_s": state.epoch_s,
            "train_loss": self.learner.figures(state.sums)["loss"],
            **{f"val_{name}": value for name, value in judged.items()},
        }))
        best = None if state.best_epoch is None else state.best_metrics
        if is_better(judged, best, STUDENT[self.plan.train.best]):
            state.best_epoch, state.best_step, state.best_metrics = epoch, state.step, judged
        state.judged = state.step
        if state.step % self.plan.steps_per_epoch == 0:
            state.sums, state.epoch_s = {}, 0.0
        self.save_last()
        self.keep_best()
        self.journal.restart_clock()

    def save_last(self) -> None:
        """Write the checkpoint that resumes.

        Raises:
            DivergenceError: it would hold numbers that are not finite; the one before stays.
        """
        self._flush()
        self._check_state()
        self._count_time()
        learner, path = self.learner, self._directory / LAST
        if learner.ranks.first:
            save_checkpoint(path, Checkpoint(
                learner.state_dict(), learner.optimiser.state_dict(), self.state,
                self._settings, rng_state(learner.tables.device)))
            self._observer.notify(CheckpointSaved(str(path), "last", self.state.step))
        self._saved_step = self.state.step

    def keep_best(self) -> None:
        """Write the present weights as the best ones, if they are.

        After the checkpoint that says so, never before: a process that is killed in between
        leaves a checkpoint with these very weights, and the resumed training writes them. The
        other way round the file could hold an epoch that the resumed training never reaches.
        """
        path, state = self._directory / BEST, self.state
        if self.learner.ranks.first and state.best_epoch is not None and \
                state.best_step == state.step:
            self._save_best(path, self.state)
            self._observer.notify(CheckpointSaved(str(path), "best", self.state.step))

    def _count_time(self) -> None:
        """Add the time since the last call to the epoch's, which a checkpoint carries over."""
        now = time.perf_counter()
        self.state.epoch_s += now - self._clock
        self._clock = now

    def _asked_to_stop(self) -> bool:
        # Several processes must agree, which costs a message: they ask at every parcel alone.
        if self.learner.ranks.world > 1 and not self.journal.empty:
            return False
        return self.learner.ranks.any(self._stop())

    def _interrupted(self) -> InterruptedRunError:
        return InterruptedRunError(
            f"stopped after step {self.state.step} of {self.plan.total_steps}; all is saved",
            hint="`hoserkd train --resume` goes on from there")

    def _flush(self) -> None:
        try:
            self.journal.flush(self.state.sums)
            self.learner.optimiser.check_scale()
        except DivergenceError as error:
            raise self._diverged(error.message) from error

    def _check_state(self) -> None:
        """Refuse weights that the last update broke: no loss has seen them yet."""
        learner = self.learner
        broken = not_finite({"weights": learner.state_dict(),
                             "optimiser": learner.optimiser.state_dict()})
        if broken is not None:
            raise self._diverged(f"training diverged by optimiser step {self.state.step}: "
                                 f"not finite: {broken}")

    def _check_judged(self, metrics: Mapping[str, float]) -> None:
        """Refuse weights whose validation loss is not finite. (An error in seconds may overflow.)

        The check is the same in every process, since the metrics are.
        """
        broken = [name for name, value in metrics.items()
                  if "loss" in name and not math.isfinite(value)]
        if broken:
            raise self._diverged(f"training diverged by optimiser step {self.state.step}: "
                                 f"not a number in the validation: {', '.join(broken)}")

    def _diverged(self, message: str) -> DivergenceError:
        return DivergenceError(
            f"{message}; {self._last_good()}",
            hint="lower train.learning_rate or train.clip, and continue with --resume")

    def _last_good(self) -> str:
        path = self._directory / LAST
        if not path.is_file():
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {path} (step {self._saved_step})"


def fit(training: Training) -> None:
    """Train to the end: load, forward, loss, step, notify.

    Raises:
        InterruptedRunError: the user asked to stop; the state is saved.
        DivergenceError: a loss or a gradient is not a number.
    """
    learner, feed, plan = training.learner, training.feed, training.plan
    learner.model.train()
    training.keep_best()
    while not training.finished:
        epoch, groups = training.epoch, training.remaining_groups()
        shares = [learner.ranks.shares(group) for group in groups]
        batches = feed.source.prefetch([trips for share in shares for trips in share])
        for group, share in zip(groups, shares, strict=True):
            step = training.state.step
            values = plan.at(step)
            learner.ranks.seed_step(feed.seed, step)
            learner.timer.begin(step + 1)
            loaded = learner.load(batches, share, training.lengths, values, (feed.seed, step))
            sums = learner.learn(loaded, values)
            norm = learner.update(values)
            learner.timer.end()
            training.close_step(StepRecord(
                step + 1, epoch, sums, norm, values, sum(map(len, group))))
        training.close_epoch()
