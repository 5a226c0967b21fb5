"""One optimiser step: load, forward, loss, backward, update."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoserkd.engine.config import DistillConfig
from hoserkd.engine.device import autocast
from hoserkd.engine.student.hoser import Hoser, NetworkEncoding
from hoserkd.engine.student.network_graph import RecordedNetwork
from hoserkd.engine.student.tables import NetworkTables
from hoserkd.engine.teacher.signal import TeacherSource
from hoserkd.engine.training.acceleration import Acceleration
from hoserkd.engine.training.distributed import Ranks
from hoserkd.engine.training.losses import (
    TeacherTarget,
    Term,
    distillation_meters,
    kept_steps,
    kl_term,
    student_log_probability,
    teacher_target,
)
from hoserkd.engine.training.meters import DISTILLED, loss_metrics, self_metrics, supervised_names
from hoserkd.engine.training.optim import Optimiser
from hoserkd.engine.training.quantiles import supervise
from hoserkd.engine.training.schedule import StepValues
from hoserkd.engine.training.self_distillation import AuxiliaryHeads, self_loss
from hoserkd.engine.training.timing import PartTimer
from hoserkd.engine.types import NavigatorOutput, StepBatch, TimeStatistics

AUXILIARY = "auxiliary."
"""Prefix of the heads' weights in a checkpoint."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A batch with all that its loss needs and the student does not give."""

    batch: StepBatch
    target: TeacherTarget | None


@dataclass(frozen=True, slots=True)
class Counts:
    """Steps of a whole optimiser step, over its batches and all processes."""

    labelled: Float[Tensor, ""]
    informative: Float[Tensor, ""]


def chosen_steps(
    choice: str | int, batch: StepBatch, lengths: Int[np.ndarray, " B"],
    generator: np.random.Generator,
) -> Int[Tensor, " Q"]:
    """Return which steps of the batch are distilled: all, the last of each trip, or some.

    Args:
        choice: `all`, `last`, or how many steps of each trip to draw without replacement.
        lengths: Steps of each trip of the batch.
        generator: Draws; on the host, so that nothing waits for the device.
    """
    device = batch.road.device
    if choice == "all":
        return torch.arange(batch.steps, device=device)
    if choice == "last":
        return batch.offset[1:] - 1
    keys = generator.random(int(lengths.sum()))
    trip = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((keys, trip))
    first = np.cumsum(lengths) - lengths
    rank = np.arange(len(order)) - first[trip]
    drawn = np.sort(order[rank < int(choice)])
    return torch.from_numpy(drawn).to(device, non_blocking=True)


class Learner:
    """The student, what it reads, and how its loss is made."""

    def __init__(
        self,
        model: Hoser,
        tables: NetworkTables,
        times: TimeStatistics,
        optimiser: Optimiser,
        distill: DistillConfig,
        signal: TeacherSource | None,
        acceleration: Acceleration,
        ranks: Ranks,
        timer: PartTimer,
        heads: AuxiliaryHeads | None = None,
    ) -> None:
        self.model = model
        model.trajectory_encoder.recompute = acceleration.recompute
        self.forward = model.forward_encoded
        if acceleration.compiled:
            self.forward = torch.compile(model.forward_encoded, dynamic=True)
        self._all_roads = acceleration.all_roads
        self._recorded = None
        if acceleration.cuda_graphs:
            self._recorded = RecordedNetwork(model, tables, acceleration.amp)
        self.tables = tables
        self.times = times
        self.optimiser = optimiser
        self.distill = distill
        self.signal = signal
        self.amp = acceleration.amp
        self.ranks = ranks
        self.timer = timer
        self.heads = heads
        """Of self-distillation; None: none."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return what is summed over steps, in the order of `learn`'s answer."""
        names = supervised_names(self.model.config)
        if self.heads is not None:
            return (*names, "informative", *self.heads.names)
        return names if self.signal is None else (*names, *DISTILLED)

    def figures(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Return the metrics that sums over steps come to."""
        if self.heads is not None:
            return self_metrics(sums, self.heads.layers, self.distill)
        return loss_metrics(sums)

    def state_dict(self) -> dict[str, Tensor]:
        """Return all weights that are trained, those of auxiliary heads under a prefix."""
        state: dict[str, Tensor] = dict(self.model.state_dict())
        if self.heads is not None:
            state |= {AUXILIARY + name: value for name, value in self.heads.state_dict().items()}
        return state

    def load(
        self, batches: Iterator[StepBatch], group: Sequence[Int[np.ndarray, " _"]],
        lengths: Int[np.ndarray, " N"], values: StepValues, draw: tuple[int, ...],
    ) -> list[Loaded]:
        """Return the next `len(group)` batches with the teacher's answers.

        Args:
            group: Trip ids of each of these batches.
            lengths: Steps of every trip of the split.
            draw: Seed of whatever is drawn at this step.
        """
        generator = np.random.default_rng(draw)
        loaded = []
        for trips in group:
            with self.timer.part("data"):
                batch = next(batches)
            loaded.append(Loaded(batch, self._ask(batch, lengths[trips], values, generator)))
        return loaded

    def learn(self, loaded: Sequence[Loaded], values: StepValues) -> Float[Tensor, " M"]:
        """Add the gradients of one optimiser step and return its sums, on the device.

        The road network is encoded once for all batches; their gradients meet at the encoding
        and go through the road network together.
        """
        counts = self._counts(loaded)
        sums = torch.zeros(len(self.names), device=self.tables.device)
        if not loaded:
            return sums
        with self.timer.part("forward"), autocast(self.tables.device, self.amp):
            encoding = self._encode([item.batch for item in loaded])
            leaves = encoding.leaves()
        for item in loaded:
            with self.timer.part("forward"):
                loss, meters = self._loss(leaves, item, values, counts)
            with self.timer.part("backward"):
                self.optimiser.backward(loss)
            sums += torch.stack([meters[name].detach().to(sums.dtype) for name in self.names])
        with self.timer.part("backward"):
            encoding.backward_from(leaves)
        return sums

    def update(self, values: StepValues) -> Float[Tensor, ""]:
        """Update the weights; return the gradient's norm before clipping."""
        with self.timer.part("optimiser"):
            self.ranks.add_up_gradients(self.optimiser.parameters)
            return self.optimiser.step(values.learning_rate)

    def _ask(
        self, batch: StepBatch, lengths: Int[np.ndarray, " B"], values: StepValues,
        generator: np.random.Generator,
    ) -> TeacherTarget | None:
        if self.signal is None:
            return None
        with self.timer.part("teacher"):
            steps = chosen_steps(self.distill.steps, batch, lengths, generator)
            signal = self.signal.signal(batch, steps)
            return teacher_target(batch, signal, self.distill, values.temperature)

    def _encode(self, batches: Sequence[StepBatch]) -> NetworkEncoding:
        if self._recorded is not None:
            return self._recorded.encode()
        return self.model.encode_network(self.tables, None if self._all_roads else batches)

    def _counts(self, loaded: Sequence[Loaded]) -> Counts:
        total = torch.zeros(2, device=self.tables.device)
        for item in loaded:
            total[0] += kept_steps(item.batch).sum()
            if item.target is not None:
                total[1] += item.target.informative.sum()
            elif self.heads is not None:
                total[1] += (item.batch.candidate_offset.diff() > 1).sum()
        labelled, informative = self.ranks.add_up(total).clamp(min=1).unbind()
        return Counts(labelled, informative)

    def _loss(
        self, leaves: NetworkEncoding, item: Loaded, values: StepValues, counts: Counts
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return this batch's part of the step's loss, and its sums by name."""
        batch = item.batch
        if self.heads is not None:
            return self_loss(self.model, self.heads, leaves, batch, self.times, self.distill,
                             values.temperature, counts.labelled, counts.informative, self.amp)
        with autocast(self.tables.device, self.amp):
            output = self.forward(leaves, batch)
        said = supervise(self.model.navigator, output, batch, self.times)
        loss = said.road.total / counts.labelled + said.time.total / counts.labelled
        meters = said.sums
        if item.target is not None:
            # A weight of 0 must leave the very same gradients as no teacher: no term at all.
            with torch.set_grad_enabled(values.lambda_kl > 0):
                kl, taught = self._distillation(output, item.target, batch, values)
            meters = meters | {"kl": kl.total, "informative": kl.steps, **taught}
            if values.lambda_kl > 0:
                loss = loss + values.lambda_kl * kl.total / counts.informative
        return loss, meters

    def _distillation(
        self, output: NavigatorOutput, target: TeacherTarget, batch: StepBatch, values: StepValues
    ) -> tuple[Term, dict[str, Float[Tensor, ""]]]:
        log_p = student_log_probability(output.logits, target, values.temperature)
        kl = kl_term(log_p, target, values.temperature, self.distill.tau_squared)
        return kl, distillation_meters(log_p.detach(), target, batch)
