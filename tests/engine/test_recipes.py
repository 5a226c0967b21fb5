"""The other teachers: a HOSER, and the student's own last layer."""

import numpy as np
import pytest
import torch
from toy_training import STUDENT, Listener, toy_city, toy_config, weights

from hoserkd.engine.build import build_teacher_sources
from hoserkd.engine.config import DataConfig, DistillConfig, StudentConfig
from hoserkd.engine.device import seed_everything
from hoserkd.engine.events import EpochDone, Note, StepDone
from hoserkd.engine.student.storage import load_student, new_student
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.train import train_student
from hoserkd.engine.training.losses import (
    kl_term,
    student_log_probability,
    supervised,
    teacher_target,
)
from hoserkd.engine.training.self_distillation import AuxiliaryHeads, all_heads, self_loss
from hoserkd.engine.trips.batches import TripSource
from hoserkd.engine.types import TeacherSignal
from hoserkd.errors import ConfigError, TeacherError

CPU = torch.device("cpu")
BIG = StudentConfig(hidden_dim=24, road_id_dim=16, attribute_dim=2, heads=2, layers=2)
SELF = DistillConfig(source="self", aux_layers=(1, 0, 0), weight_soft=0.4, temperature=2.0)
DEEP = STUDENT.model_copy(update={"layers": 3})


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return toy_city(tmp_path_factory.mktemp("city"))


@pytest.fixture(scope="module")
def big_teacher(city, tmp_path_factory):
    """Return the file of a bigger HOSER that was trained on the city."""
    vanilla = toy_config(student=BIG)
    return train_student(vanilla, city, directory=tmp_path_factory.mktemp("big")).best


def batch_of(city):
    tables = build_network_tables(city.network, "geographic", CPU)
    return tables, TripSource(city.split("train"), tables, DataConfig(), CPU).batch(np.arange(9))


@pytest.mark.parametrize("steps", [None, [0, 3, 4]])
def test_a_hoser_teacher_says_what_the_student_file_says(city, big_teacher, steps):
    config = toy_config(DistillConfig(source="hoser"))
    source = build_teacher_sources(config, city, big_teacher)["train"]
    tables, batch = batch_of(city)
    asked = torch.arange(batch.steps) if steps is None else torch.tensor(steps)
    signal = source.signal(batch, asked)
    with torch.no_grad():
        logits = load_student(big_teacher, city).model(tables, batch).logits
    expected = [logits[batch.candidate_offset[s]:batch.candidate_offset[s + 1]] for s in asked]
    assert signal.cell is None
    assert signal.offset.diff().tolist() == [len(part) for part in expected]
    torch.testing.assert_close(signal.logits, torch.cat(expected), rtol=1e-4, atol=1e-5)


def test_a_large_lambda_brings_the_student_to_a_hoser_teacher(city, big_teacher, tmp_path):
    strong = DistillConfig(source="hoser", lambda_kl=300.0, temperature=1.0)
    config = toy_config(strong, epochs=12, accumulation=1, learning_rate=1e-2)
    listener = Listener()
    train_student(config, city, directory=tmp_path, observer=listener,
                  teacher_sources=build_teacher_sources(config, city, big_teacher))
    first, last = (listener.of(EpochDone)[i].metrics for i in (0, -1))
    assert last["val_loss_kl"] < 0.3 * first["val_loss_kl"]
    assert last["val_agreement"] > 0.9


def test_a_teacher_of_the_students_architecture_is_warned_of(city, big_teacher):
    listener = Listener()
    alike = toy_config(DistillConfig(source="hoser"), BIG)
    build_teacher_sources(alike, city, big_teacher, observer=listener)
    assert [note.level for note in listener.of(Note)] == ["warning"]
    assert "own architecture" in listener.of(Note)[0].message
    listener = Listener()
    build_teacher_sources(toy_config(DistillConfig(source="hoser")), city, big_teacher,
                          observer=listener)
    assert listener.of(Note) == []


def test_a_teacher_of_another_feature_convention_is_refused(city, big_teacher):
    config = toy_config(DistillConfig(source="hoser"),
                        STUDENT.model_copy(update={"features": "aaai2025"}))
    with pytest.raises(TeacherError, match="geographic, the student's aaai2025"):
        build_teacher_sources(config, city, big_teacher)


def test_a_file_to_start_from_is_held_to_the_teachers_feature_convention(
        city, big_teacher, tmp_path):
    """The settings agree with the teacher; the weights that decide do not."""
    other = toy_config(student=STUDENT.model_copy(update={"features": "aaai2025"}), max_steps=1)
    given = train_student(other, city, directory=tmp_path / "given").best
    config = toy_config(DistillConfig(source="hoser"))
    sources = build_teacher_sources(config, city, big_teacher)
    with pytest.raises(TeacherError, match="geographic, the student's aaai2025"):
        train_student(config, city, directory=tmp_path / "run", teacher_sources=sources,
                      init_from=given)


def test_the_last_of_all_heads_is_the_student_itself(city):
    tables, batch = batch_of(city)
    model = new_student(DEEP, city.network)
    heads = AuxiliaryHeads(model, (0, 1))
    last, answers = all_heads(model, heads, model.encode_network(tables), batch)
    plain = model(tables, batch)
    torch.testing.assert_close(last.logits, plain.logits)
    torch.testing.assert_close(last.travel_time, plain.travel_time)
    assert len(answers) == 2
    assert not torch.allclose(answers[0].logits, plain.logits)


def test_self_loss_is_the_weighted_mean_of_heads_and_of_students(city):
    tables, batch = batch_of(city)
    seed_everything(1)
    model = new_student(DEEP, city.network)
    heads = AuxiliaryHeads(model, SELF.aux_layers)
    encoding = model.encode_network(tables)
    labelled = torch.tensor(float(batch.steps))
    choices = (batch.candidate_offset.diff() > 1).sum().float()
    loss, _ = self_loss(model, heads, encoding, batch, city.times, SELF, 2.0, labelled, choices,
                        None)

    last, answers = all_heads(model, heads, encoding, batch)
    target = teacher_target(batch, TeacherSignal(
        torch.arange(batch.steps), batch.candidate_offset, last.logits.detach(), None), SELF, 2.0)
    hard, soft = [], []
    for head in (last, *answers):
        road, time, _ = supervised(head, batch, city.times)
        hard.append(road.mean() + time.mean())
    taken = batch.candidate_offset[:-1] + batch.label
    for head in answers:
        kl = kl_term(student_log_probability(head.logits, target, 2.0), target, 2.0, False).mean()
        gap = (head.travel_time - last.travel_time)[taken].abs()
        huber = torch.where(gap < 2, 0.5 * gap**2, 2 * (gap - 1)).mean()
        soft.append(kl + huber)
    expected = sum(hard) / 3 + 0.4 * sum(soft) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_soft_loss_moves_no_weight_of_the_last_head(city):
    tables, batch = batch_of(city)
    model = new_student(DEEP, city.network)
    heads = AuxiliaryHeads(model, (0,))
    soft = DistillConfig(source="self", weight_gt=0.0, weight_soft=1.0)
    one = torch.ones(())
    loss, _ = self_loss(model, heads, model.encode_network(tables), batch, city.times, soft, 1.0,
                        one, one, None)
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.navigator.parameters())
    assert any(p.grad.any() for p in heads.parameters() if p.grad is not None)


def test_self_distillation_reports_every_head_and_leaves_a_plain_student(city, tmp_path):
    listener = Listener()
    result = train_student(toy_config(SELF, DEEP), city, directory=tmp_path, observer=listener)
    step = listener.of(StepDone)[0].metrics
    assert step.keys() >= {"loss_gt_head_0", "loss_gt_head_1", "loss_gt_head_last",
                           "loss_soft_student_0", "loss_soft_student_1", "temperature"}
    assert "lambda_kl" not in step
    hard = [step[f"loss_gt_head_{head}"] for head in ("last", 0, 1)]
    soft = [step["loss_soft_student_0"], step["loss_soft_student_1"]]
    assert step["loss"] == pytest.approx(sum(hard) / 3 + 0.4 * sum(soft) / 2)
    judged = listener.of(EpochDone)[0].metrics
    assert judged.keys() >= {"val_loss_gt_head_0", "val_loss_soft_student_1"}
    assert judged["val_loss_gt_head_last"] == pytest.approx(
        judged["val_loss_road"] + judged["val_loss_time"])
    model = new_student(DEEP, city.network)
    assert weights(result.best).keys() == model.state_dict().keys()
    assert load_student(result.best, city).meta.distill["source"] == "self"


def test_auxiliary_layers_are_made_unique_and_checked(city):
    model = new_student(DEEP, city.network)
    assert AuxiliaryHeads(model, (1, 0, 1)).layers == (0, 1)
    for wrong in ((2,), (-1,), ()):
        with pytest.raises(ConfigError, match="must name blocks from 0 to 1"):
            AuxiliaryHeads(model, wrong)
