"""The loss of ENGINE.md section 3 against its plain form, its laws and its worked examples."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hoserkd.engine.config import DistillConfig
from hoserkd.engine.training.losses import (
    Term,
    cell_mates,
    distillation_meters,
    kl_term,
    road_term,
    segment_argmax,
    segment_ids,
    segment_log_softmax,
    student_log_probability,
    supervised,
    teacher_target,
)
from hoserkd.engine.types import NavigatorOutput, StepBatch, TeacherSignal, TimeStatistics

RECORDED = Path(__file__).parents[1] / "data" / "hoser" / "expected.npz"
TIMES = TimeStatistics(log1p_mean=2.5, log1p_std=0.8)


def packed_batch(counts: list[int], labels: list[int], seconds: list[float]) -> StepBatch:
    """Return one trip of `len(counts)` steps of which only the loss's fields mean anything."""
    steps, size = len(counts), sum(counts)
    offset = torch.tensor([0, *np.cumsum(counts)])
    return StepBatch(
        offset=torch.tensor([0, steps]), step_id=torch.arange(steps), road=torch.arange(steps),
        time_of_day=torch.zeros(steps), elapsed_min=torch.zeros(steps),
        destination=torch.zeros(1, dtype=torch.long), label=torch.tensor(labels),
        travel_time_s=torch.tensor(seconds), candidate_offset=offset,
        candidate_road=torch.arange(size), candidate_slot=torch.zeros(size, dtype=torch.long),
        candidate_distance=torch.zeros(size), candidate_angle=torch.zeros(size),
    )


def random_case(seed: int, steps: int = 9) -> tuple[StepBatch, Tensor, TeacherSignal]:
    """Return a batch, student logits and a teacher's signal for every step."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 6, steps).tolist()
    labels = [int(rng.integers(0, n)) if rng.random() > 0.2 else -100 for n in counts]
    batch = packed_batch(counts, labels, rng.uniform(0, 90, steps).tolist())
    size = sum(counts)
    cell = torch.tensor(rng.integers(0, 4, size))
    teacher = torch.tensor(rng.normal(0, 3, 4), dtype=torch.float32)[cell]
    logits = torch.tensor(rng.normal(0, 2, size), dtype=torch.float32)
    return batch, logits, TeacherSignal(
        step=torch.arange(steps), offset=batch.candidate_offset, logits=teacher, cell=cell)


@dataclass
class Distilled:
    kl: Term
    meters: dict[str, Tensor]


def distilled(logits, batch, signal, distill, temperature) -> Distilled:
    """Return the KL term and the meters, as the training loop computes them."""
    target = teacher_target(batch, signal, distill, temperature)
    log_p = student_log_probability(logits, target, temperature)
    return Distilled(kl_term(log_p, target, temperature, distill.tau_squared),
                     distillation_meters(log_p, target, batch))


def plain_kl(batch: StepBatch, logits: Tensor, signal: TeacherSignal, temperature: float,
             share: bool) -> tuple[float, int]:
    """Return the mean KL over informative steps and their number, one step at a time."""
    values = []
    for row, step in enumerate(signal.step.tolist()):
        a, b = signal.offset[row], signal.offset[row + 1]
        c = slice(batch.candidate_offset[step], batch.candidate_offset[step + 1])
        cells = signal.cell[a:b].tolist()
        if b - a < 2 or len(set(cells)) == 1:
            continue
        distinct = sorted(set(cells))
        mass = {x: torch.exp(signal.logits[a:b][cells.index(x)].double() / temperature)
                for x in distinct}
        q = torch.stack([mass[x] / (cells.count(x) if share else 1) for x in cells])
        q = q / q.sum()
        p = torch.softmax(logits[c].double() / temperature, 0)
        values.append(float((q * (q / p).log()).sum()))
    return float(np.mean(values)) if values else 0.0, len(values)


@pytest.mark.parametrize(("temperature", "expected_q", "expected_p", "expected_kl"), [
    (1.0, [0.0200, 0.9669, 0.0113, 0.0019], [0.5400, 0.4000, 0.0401, 0.0199], 0.7687),
    (2.0, [0.1110, 0.7718, 0.0832, 0.0340], [0.4301, 0.3702, 0.1172, 0.0826], 0.3581),
])
def test_kl_of_the_worked_example_has_four_right_digits(
        temperature, expected_q, expected_p, expected_kl):
    teacher = torch.tensor([0.0032, 0.1547, 0.0018, 0.0003]).log()
    student = torch.tensor([2.1, 1.8, -0.5, -1.2])
    one = torch.zeros(4, dtype=torch.long)
    q = segment_log_softmax(teacher / temperature, one, 1).exp()
    p = segment_log_softmax(student / temperature, one, 1).exp()
    assert q.tolist() == pytest.approx(expected_q, abs=6e-5)
    assert p.tolist() == pytest.approx(expected_p, abs=6e-5)
    batch = packed_batch([4], [1], [10.0])
    signal = TeacherSignal(torch.tensor([0]), torch.tensor([0, 4]), teacher, torch.arange(4))
    kl = distilled(student, batch, signal, DistillConfig(), temperature).kl.mean()
    assert float(kl) == pytest.approx(expected_kl, abs=6e-5)


def test_cross_entropy_of_the_worked_example_is_0_9163():
    batch = packed_batch([4], [1], [10.0])
    log_p = segment_log_softmax(torch.tensor([2.1, 1.8, -0.5, -1.2]),
                                torch.zeros(4, dtype=torch.long), 1)
    assert float(road_term(log_p, batch).mean()) == pytest.approx(0.9163, abs=6e-5)


def test_kl_of_given_probabilities_is_0_1838():
    batch = packed_batch([3], [0], [1.0])
    signal = TeacherSignal(torch.tensor([0]), torch.tensor([0, 3]),
                           torch.tensor([0.7, 0.2, 0.1]).log(), None)
    student = torch.tensor([0.4, 0.4, 0.2]).log()
    kl = distilled(student, batch, signal, DistillConfig(), 1.0).kl.mean()
    assert float(kl) == pytest.approx(0.1838, abs=6e-5)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("collisions", ["duplicate", "share"])
@pytest.mark.parametrize("temperature", [0.7, 3.0])
def test_kl_equals_the_plain_form(seed, collisions, temperature):
    batch, logits, signal = random_case(seed)
    expected, informative = plain_kl(batch, logits, signal, temperature, collisions == "share")
    got = distilled(logits, batch, signal, DistillConfig(collisions=collisions), temperature)
    assert float(got.kl.steps) == informative
    assert float(got.kl.mean()) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert float(got.kl.total) >= 0


@pytest.mark.parametrize("seed", range(4))
def test_kl_is_zero_with_zero_gradient_where_the_student_equals_the_teacher(seed):
    batch, _, signal = random_case(seed)
    student = (signal.logits + 3.5).requires_grad_()
    kl = distilled(student, batch, signal, DistillConfig(), 1.7).kl.total
    kl.backward()
    assert float(kl.detach()) == pytest.approx(0, abs=1e-6)
    assert student.grad.abs().max() < 1e-6


def test_kl_of_some_steps_equals_the_plain_form_of_those():
    batch, logits, signal = random_case(3)
    chosen = [1, 4, 8]
    pieces = [slice(batch.candidate_offset[s], batch.candidate_offset[s + 1]) for s in chosen]
    sizes = [p.stop - p.start for p in pieces]
    part = TeacherSignal(torch.tensor(chosen), torch.tensor([0, *np.cumsum(sizes)]),
                         torch.cat([signal.logits[p] for p in pieces]),
                         torch.cat([signal.cell[p] for p in pieces]))
    expected, _ = plain_kl(batch, logits, part, 2.0, False)
    got = distilled(logits, batch, part, DistillConfig(), 2.0)
    assert float(got.kl.mean()) == pytest.approx(expected, rel=1e-5)
    assert float(got.meters["asked"]) == 3


def test_tau_squared_multiplies_the_kl_by_the_squared_temperature():
    batch, logits, signal = random_case(0)
    plain = distilled(logits, batch, signal, DistillConfig(), 3.0).kl.total
    scaled = distilled(logits, batch, signal, DistillConfig(tau_squared=True), 3.0).kl.total
    assert float(scaled) == pytest.approx(9 * float(plain), rel=1e-6)


def test_a_candidate_the_teacher_masks_gets_no_mass_and_adds_no_loss():
    batch = packed_batch([3], [0], [1.0])
    student = torch.tensor([0.3, -0.2, 1.0], requires_grad=True)
    signal = TeacherSignal(torch.tensor([0]), torch.tensor([0, 3]),
                           torch.tensor([1.0, 0.0, -torch.inf]), torch.arange(3))
    kl = distilled(student, batch, signal, DistillConfig(), 1.0).kl.total
    kl.backward()
    q = torch.softmax(torch.tensor([1.0, 0.0]), 0)
    p = torch.softmax(student.detach(), 0)
    assert kl.item() == pytest.approx(float((q * (q / p[:2]).log()).sum()), rel=1e-6)
    assert student.grad.isfinite().all()
    assert student.grad.tolist() == pytest.approx((p - torch.cat([q, torch.zeros(1)])).tolist())


def test_a_masked_student_logit_has_no_mass_and_no_gradient():
    logits = torch.tensor([0.5, -torch.inf, 1.5], requires_grad=True)
    log_p = segment_log_softmax(logits, torch.zeros(3, dtype=torch.long), 1)
    (log_p[0] + log_p[2]).backward()
    assert log_p[1].exp() == 0
    assert logits.grad[1] == 0
    assert logits.grad.isfinite().all()


def test_a_teacher_that_forbids_every_candidate_says_nothing():
    batch = packed_batch([2, 2], [0, 1], [1.0, 2.0])
    student = torch.tensor([0.1, 0.2, 0.3, 0.4], requires_grad=True)
    signal = TeacherSignal(torch.arange(2), torch.tensor([0, 2, 4]),
                           torch.tensor([-torch.inf, -torch.inf, 1.0, 0.0]), torch.arange(4))
    got = distilled(student, batch, signal, DistillConfig(), 1.0)
    got.kl.total.backward()
    assert float(got.kl.steps) == 1
    assert student.grad[:2].tolist() == [0, 0]
    assert student.grad.isfinite().all()


def test_an_indifferent_teacher_pulls_towards_uniform():
    batch = packed_batch([2], [0], [1.0])
    signal = TeacherSignal(torch.tensor([0]), torch.tensor([0, 2]), torch.zeros(2),
                           torch.arange(2))
    student = torch.tensor([1.0, 0.0], requires_grad=True)
    distilled(student, batch, signal, DistillConfig(), 1.0).kl.total.backward()
    p = torch.softmax(student.detach(), 0)
    assert student.grad.tolist() == pytest.approx((p - 0.5).tolist())


def test_steps_without_choice_or_in_one_cell_are_not_averaged_in():
    batch = packed_batch([1, 2, 2], [0, 0, 0], [1.0] * 3)
    signal = TeacherSignal(torch.arange(3), batch.candidate_offset,
                           torch.tensor([0.0, 1.0, 1.0, 2.0, 0.0]), torch.tensor([5, 6, 6, 7, 8]))
    student = torch.tensor([0.0, 3.0, -3.0, 0.0, 0.0], requires_grad=True)
    got = distilled(student, batch, signal, DistillConfig(), 1.0)
    got.kl.mean().backward()
    assert float(got.kl.steps) == 1
    assert float(got.meters["collided"]) == 1
    assert student.grad[:3].tolist() == [0, 0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_meters_equal_the_plain_form(seed):
    batch, logits, signal = random_case(seed, steps=14)
    got = distilled(logits, batch, signal, DistillConfig(), 2.0).meters
    entropies, agreed, right, collided = [], 0, 0, 0
    for step in range(batch.steps):
        c = slice(batch.candidate_offset[step], batch.candidate_offset[step + 1])
        distinct = len(set(signal.cell[c].tolist()))
        collided += distinct < c.stop - c.start
        if distinct == 1:
            continue
        q = torch.softmax(signal.logits[c] / 2, 0)
        entropies.append(float(-(q * q.log()).sum()))
        agreed += int(q.argmax() == logits[c].argmax())
        right += int(q.argmax() == batch.label[step])
    assert float(got["teacher_entropy"]) == pytest.approx(sum(entropies), rel=1e-5)
    assert [float(got[k]) for k in ("agreed", "teacher_correct", "collided")] == [
        agreed, right, collided]


def test_cell_mates_counts_within_the_step_alone():
    cell = torch.tensor([4, 4, 9, 4, 9, 9, 9])
    segment = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    assert cell_mates(cell, segment).tolist() == [2, 2, 1, 1, 3, 3, 3]


def test_packing_order_of_trips_changes_nothing():
    batch, logits, _ = random_case(5)
    time = torch.linspace(-1, 1, len(logits))
    road, duration, correct = supervised(NavigatorOutput(logits, time), batch, TIMES)
    order = np.random.default_rng(1).permutation(batch.steps)
    pieces = [np.arange(batch.candidate_offset[s], batch.candidate_offset[s + 1]) for s in order]
    index = torch.tensor(np.concatenate(pieces))
    moved = replace(
        packed_batch([len(p) for p in pieces], batch.label[order].tolist(),
                     batch.travel_time_s[order].tolist()))
    road_moved, duration_moved, correct_moved = supervised(
        NavigatorOutput(logits[index], time[index]), moved, TIMES)
    assert float(road_moved.total) == pytest.approx(float(road.total), rel=1e-6)
    assert float(duration_moved.total) == pytest.approx(float(duration.total), rel=1e-6)
    assert float(correct_moved) == float(correct)


@pytest.mark.parametrize("seed", range(4))
def test_supervised_terms_equal_the_padded_form(seed):
    batch, logits, _ = random_case(seed)
    counts = batch.candidate_offset.diff()
    padded = torch.full((batch.steps, 7), -torch.inf)
    time = torch.randn(len(logits), generator=torch.Generator().manual_seed(seed))
    padded_time = torch.zeros(batch.steps, 7)
    mask = torch.arange(7) < counts[:, None]
    padded[mask], padded_time[mask] = logits, time
    road, duration, correct = supervised(NavigatorOutput(logits, time), batch, TIMES)
    kept = batch.label >= 0
    y = torch.log1p(batch.travel_time_s)[kept]
    head = padded_time[kept, batch.label[kept]] * TIMES.log1p_std + TIMES.log1p_mean
    assert float(road.mean()) == pytest.approx(
        float(torch.nn.functional.cross_entropy(padded, batch.label)), rel=1e-5)
    assert float(duration.mean()) == pytest.approx(
        float(((head - y).abs() / y.clamp(min=1)).mean()), rel=1e-5)
    assert float(correct) == int((padded.argmax(1) == batch.label).sum())


def test_a_lost_label_is_wrong_and_has_no_gradient():
    batch = packed_batch([2, 2], [-100, 1], [1.0, 2.0])
    logits = torch.tensor([1.0, 0.0, 0.0, 1.0], requires_grad=True)
    road, _, correct = supervised(NavigatorOutput(logits, logits.detach()), batch, TIMES)
    road.mean().backward()
    assert float(correct) == 1
    assert float(road.steps) == 1
    assert logits.grad[:2].tolist() == [0, 0]


def test_loss_is_zero_where_no_label_was_kept():
    batch = packed_batch([2], [-100], [1.0])
    road, duration, _ = supervised(NavigatorOutput(torch.zeros(2), torch.zeros(2)), batch, TIMES)
    assert float(road.mean()) == 0
    assert float(duration.mean()) == 0


def test_argmax_of_equal_values_is_the_first():
    offset = torch.tensor([0, 3, 5])
    segment = segment_ids(offset, 5)
    values = torch.tensor([1.0, 2.0, 2.0, 0.0, 0.0])
    assert segment_argmax(values, segment, offset).tolist() == [1, 0]


def test_gradients_in_float64_equal_finite_differences():
    batch, logits, _ = random_case(2, steps=4)
    segment = segment_ids(batch.candidate_offset, len(logits))
    assert torch.autograd.gradcheck(
        lambda x: segment_log_softmax(x, segment, 4), logits.double().requires_grad_())


def test_losses_of_the_public_model_are_reproduced():
    recorded = np.load(RECORDED)
    batch = packed_batch(recorded["candidate_len"].tolist(), recorded["label"].tolist(),
                         recorded["travel_time_s"].tolist())
    output = NavigatorOutput(torch.tensor(recorded["logits"]),
                             torch.tensor(recorded["time_standardised"]))
    times = TimeStatistics(float(recorded["log1p_mean"]), float(recorded["log1p_std"]))
    road, duration, correct = supervised(output, batch, times)
    assert float(road.mean()) == pytest.approx(float(recorded["loss_road"]), rel=1e-5)
    assert float(duration.mean()) == pytest.approx(float(recorded["loss_time"]), rel=1e-5)
    assert float(correct) == int(recorded["correct"])
