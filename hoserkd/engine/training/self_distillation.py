"""Self-distillation (BYOT): heads on earlier layers learn from the data and from the last head.

    L = weight_gt * mean over heads (road + time)
      + weight_soft * mean over auxiliary heads (KL to the last head + Huber of the times)

The last head is the student's own navigator; inference knows no other. All heads are of its kind:
where it gives quantiles of the time, so do they, time is the pinball loss and the distance is that
between vectors of quantiles.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hoserkd.engine.config import DistillConfig
from hoserkd.engine.device import autocast
from hoserkd.engine.student.hoser import Hoser, NetworkEncoding, views_of
from hoserkd.engine.student.navigator import CandidateRows, Navigator
from hoserkd.engine.training.losses import (
    kl_term,
    segment_ids,
    student_log_probability,
    teacher_target,
)
from hoserkd.engine.training.quantiles import soft_time_term, supervise
from hoserkd.engine.types import NavigatorOutput, StepBatch, TeacherSignal, TimeStatistics
from hoserkd.errors import ConfigError


def checked_layers(layers: Sequence[int], blocks: int) -> tuple[int, ...]:
    """Return the blocks that get a head, each once and in order, of a student with `blocks`.

    Raises:
        ConfigError: a block does not exist, or is the last, whose head is the teacher.
    """
    found = tuple(sorted(set(layers)))
    last = blocks - 1
    wrong = [layer for layer in found if not 0 <= layer < last]
    if wrong or not found:
        raise ConfigError(
            f"distill.aux_layers: {list(layers)} must name blocks from 0 to {last - 1}: the "
            f"student has {last + 1} (student.layers), and the last one's head is the teacher",
            hint="set distill.aux_layers, or student.layers higher")
    return found


class AuxiliaryHeads(nn.Module):
    """Navigators on chosen blocks of a student's trajectory encoder."""

    def __init__(self, model: Hoser, layers: Sequence[int]) -> None:
        """Make fresh heads.

        Args:
            layers: Blocks, 0 for the first; a block named twice gets one head.

        Raises:
            ConfigError: a block does not exist, or is the last, whose head is the teacher.
        """
        super().__init__()
        self.layers = checked_layers(layers, model.config.layers)
        self.heads = nn.ModuleList([
            Navigator(model.config.hidden_dim, model.config.time_quantiles) for _ in self.layers])

    @property
    def names(self) -> tuple[str, ...]:
        """Return what is summed over steps for each head."""
        return tuple(f"{what}_{layer}" for layer in self.layers
                     for what in ("gt_road", "gt_time", "soft_kl", "soft_time"))


def all_heads(
    model: Hoser, heads: AuxiliaryHeads, encoding: NetworkEncoding, batch: StepBatch
) -> tuple[NavigatorOutput, list[NavigatorOutput]]:
    """Return the last head's answers and those of the auxiliary heads."""
    spatial = encoding.spatial[encoding.rows(batch.road)]
    states = list(model.trajectory_encoder.states(
        model.trajectory_encoder.embed_points(spatial, batch.time_of_day),
        views_of(encoding, batch, spatial.dtype)))
    trip = segment_ids(batch.offset, batch.steps)
    zone = encoding.road_zone[batch.destination[trip]]
    rows = CandidateRows(
        step=segment_ids(batch.candidate_offset, len(batch.candidate_road)),
        row=encoding.rows(batch.candidate_road),
        distance=batch.candidate_distance, angle=batch.candidate_angle)
    answers = []
    for layer, head in zip(heads.layers, heads.heads, strict=True):
        assert isinstance(head, Navigator)
        keys = head.project(encoding.road, encoding.zone)
        answers.append(head(states[layer], zone, keys, rows))
    return model.navigate(encoding, batch, states[-1]), answers


def self_loss(
    model: Hoser, heads: AuxiliaryHeads, encoding: NetworkEncoding, batch: StepBatch,
    times: TimeStatistics, distill: DistillConfig, temperature: float,
    labelled: Float[Tensor, ""], informative: Float[Tensor, ""], amp: torch.dtype | None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Return a batch's part of the loss and its sums by name.

    Args:
        labelled: Steps with a kept label in the whole optimiser step.
        informative: Steps with more than one candidate in it.
    """
    with autocast(batch.road.device, amp):
        last, answers = all_heads(model, heads, encoding, batch)
    own = supervise(model.navigator, last, batch, times)
    meters = dict(own.sums)
    signal = TeacherSignal(torch.arange(batch.steps, device=batch.road.device),
                           batch.candidate_offset, last.logits.detach(), None)
    target = teacher_target(batch, signal, distill, temperature)
    meters["informative"] = target.informative.sum(dtype=own.road.total.dtype)
    hard = (own.road.total + own.time.total) / labelled
    soft = torch.zeros_like(hard)
    for layer, answer in zip(heads.layers, answers, strict=True):
        data = supervise(model.navigator, answer, batch, times)
        log_p = student_log_probability(answer.logits, target, temperature)
        kl = kl_term(log_p, target, temperature, distill.tau_squared)
        huber = soft_time_term(answer, last, batch)
        hard = hard + (data.road.total + data.time.total) / labelled
        soft = soft + kl.total / informative + huber.total / labelled
        meters |= {f"gt_road_{layer}": data.road.total, f"gt_time_{layer}": data.time.total,
                   f"soft_kl_{layer}": kl.total, f"soft_time_{layer}": huber.total}
    students = len(heads.layers)
    loss = distill.weight_gt * hard / (students + 1) + distill.weight_soft * soft / students
    return loss, meters
