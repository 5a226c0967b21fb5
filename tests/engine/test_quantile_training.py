"""Training a student with a quantile time head, alone, taught, and by itself."""

import shutil

import numpy as np
import pytest
import torch
from toy_quantiles import CPU, LEVELS, MEDIAN, QUANTILE, a_batch, random_student
from toy_training import (
    STUDENT,
    Listener,
    StopAfter,
    ToyTeacher,
    last_weights,
    same,
    toy_city,
    toy_config,
    weights,
)

from hoserkd.engine.build import build_teacher_sources
from hoserkd.engine.config import DataConfig, DistillConfig
from hoserkd.engine.device import seed_everything
from hoserkd.engine.events import EpochDone, Note, StepDone
from hoserkd.engine.student.storage import load_student, new_student
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.train import train_student
from hoserkd.engine.training.checkpoint import load_checkpoint, save_checkpoint
from hoserkd.engine.training.losses import kl_term, student_log_probability, teacher_target
from hoserkd.engine.training.self_distillation import AuxiliaryHeads, all_heads, self_loss
from hoserkd.engine.training.validation import judge_split
from hoserkd.engine.trips.batches import TripSource, epoch_batches
from hoserkd.engine.types import TeacherSignal
from hoserkd.errors import InterruptedRunError

SELF = DistillConfig(source="self", aux_layers=(0,), weight_soft=0.4, temperature=2.0)


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return toy_city(tmp_path_factory.mktemp("city"))


@pytest.fixture(scope="module")
def trained(city, tmp_path_factory):
    """Return a run's folder, its student and its events."""
    directory, listener = tmp_path_factory.mktemp("trained"), Listener()
    result = train_student(toy_config(student=QUANTILE), city, directory=directory,
                           observer=listener)
    return directory, result, listener


def test_training_lowers_the_pinball_loss_and_reports_the_public_error_beside_it(trained):
    _, result, listener = trained
    for step in listener.of(StepDone):
        m = step.metrics
        assert m["loss"] == pytest.approx(m["loss_road"] + m["loss_pinball"])
        assert m["loss_time"] > 0
    first, last = (listener.of(EpochDone)[i].metrics for i in (0, -1))
    assert last["val_loss_pinball"] < first["val_loss_pinball"]
    assert result.metrics.keys() >= {
        "val_loss_time", "val_loss_pinball", "val_time_coverage", "val_time_coverage_gap",
        "val_crossing_share", "test_loss_pinball", "test_time_coverage"}
    assert result.metrics["test_time_coverage_gap"] == pytest.approx(
        result.metrics["test_time_coverage"] - 0.8)


def test_long_training_covers_what_the_quantiles_promise(city, tmp_path):
    config = toy_config(student=QUANTILE.model_copy(update={"layers": 1}), epochs=40,
                        learning_rate=1e-2, accumulation=1)
    listener = Listener()
    train_student(config, city, directory=tmp_path, observer=listener)
    model = new_student(config.student, city.network)
    model.load_state_dict(last_weights(tmp_path))
    tables = build_network_tables(city.network, "geographic", CPU)
    source = TripSource(city.split("train"), tables, DataConfig(), CPU)
    found = judge_split(model, tables, source, epoch_batches(city.split("train"), 9, 0, 0, False),
                        city.times).metrics
    assert found["time_coverage"] == pytest.approx(0.8, abs=0.12)
    assert abs(found["time_coverage_gap"]) < 0.12


def test_a_resumed_run_keeps_its_head_and_says_so(city, tmp_path):
    with pytest.raises(InterruptedRunError):
        train_student(toy_config(student=QUANTILE), city, directory=tmp_path, stop=StopAfter(3))
    listener = Listener()
    point = toy_config(student=QUANTILE.model_copy(update={"time_head": "point"}))
    result = train_student(point, city, directory=tmp_path, resume=True, observer=listener)
    warnings = [n.message for n in listener.of(Note) if n.level == "warning"]
    assert warnings == ['the resumed run keeps its settings: student.time_head is "quantile", '
                        'not "point"']
    assert load_student(result.best, city).meta.config == QUANTILE


def test_a_checkpoint_that_knows_no_heads_resumes_as_a_point_and_says_so(city, tmp_path):
    with pytest.raises(InterruptedRunError):
        train_student(toy_config(), city, directory=tmp_path, stop=StopAfter(3))
    old = load_checkpoint(tmp_path / "last.ckpt")
    for name in ("time_head", "quantiles"):
        del old.settings["student"][name]
    save_checkpoint(tmp_path / "last.ckpt", old)
    listener = Listener()
    result = train_student(toy_config(student=STUDENT.model_copy(
        update={"time_head": "quantile"})), city, directory=tmp_path, resume=True,
        observer=listener)
    warnings = [n.message for n in listener.of(Note) if n.level == "warning"]
    assert warnings == ['the resumed run keeps its settings: student.time_head is "point", '
                        'not "quantile"']
    assert load_student(result.best, city).meta.config == STUDENT


def test_given_weights_decide_the_head(city, tmp_path, trained):
    _, result, _ = trained
    listener = Listener()
    still = toy_config(max_steps=1, learning_rate=1e-30, weight_decay=0.0)
    train_student(still, city, directory=tmp_path, init_from=result.best, observer=listener)
    assert same(weights(result.best), last_weights(tmp_path))
    said = next(n.message for n in listener.of(Note) if "decides" in n.message)
    assert 'student.time_head is "quantile", not "point"' in said


def test_self_distillation_has_quantile_heads_and_quantile_losses(city):
    tables, batch = a_batch(city)
    seed_everything(1)
    model = new_student(QUANTILE.model_copy(update={"layers": 3}), city.network)
    heads = AuxiliaryHeads(model, (0, 1))
    encoding = model.encode_network(tables)
    labelled = torch.tensor(float(batch.steps))
    choices = (batch.candidate_offset.diff() > 1).sum().float()
    loss, meters = self_loss(model, heads, encoding, batch, city.times, SELF, 2.0, labelled,
                             choices, None)

    last, answers = all_heads(model, heads, encoding, batch)
    target = teacher_target(batch, TeacherSignal(
        torch.arange(batch.steps), batch.candidate_offset, last.logits.detach(), None), SELF, 2.0)
    taken = (batch.candidate_offset[:-1] + batch.label).tolist()
    y = (torch.log1p(batch.travel_time_s) - city.times.log1p_mean) / city.times.log1p_std

    def data_loss(head):
        total = 0.0
        for step, row in enumerate(taken):
            span = slice(batch.candidate_offset[step], batch.candidate_offset[step + 1])
            total -= head.logits[span].log_softmax(0)[batch.label[step]].item()
            for level, guess in zip(LEVELS, head.travel_time_quantiles[row].tolist(), strict=True):
                miss = float(y[step]) - guess
                total += max(level * miss, (level - 1) * miss) / len(LEVELS)
        return total / batch.steps

    def soft_loss(head):
        log_p = student_log_probability(head.logits, target, 2.0)
        distance = 0.0
        for row in taken:
            gaps = (head.travel_time_quantiles[row] - last.travel_time_quantiles[row]).abs()
            distance += sum(g**2 / 2 if g <= 2 else 2 * (g - 1) for g in gaps.tolist()) / 4
        return kl_term(log_p, target, 2.0, False).mean().item() + distance / batch.steps

    hard = [data_loss(head) for head in (last, *answers)]
    soft = [soft_loss(head) for head in answers]
    assert loss.item() == pytest.approx(sum(hard) / 3 + 0.4 * sum(soft) / 2, rel=1e-5)
    assert meters["pinball"].item() > 0


def test_self_distillation_reports_the_loss_that_it_has(city, tmp_path):
    listener = Listener()
    train_student(toy_config(SELF, QUANTILE, epochs=1), city, directory=tmp_path,
                  observer=listener)
    step = listener.of(StepDone)[0].metrics
    hard = [step["loss_gt_head_last"], step["loss_gt_head_0"]]
    assert hard[0] == pytest.approx(step["loss_road"] + step["loss_pinball"])
    assert step["loss"] == pytest.approx(sum(hard) / 2 + 0.4 * step["loss_soft_student_0"])
    judged = listener.of(EpochDone)[0].metrics
    assert judged["val_loss_gt_head_last"] == pytest.approx(
        judged["val_loss_road"] + judged["val_loss_pinball"])


def test_a_distilled_quantile_student_is_taught_its_roads_alone(city, tmp_path, trained):
    _, big, _ = trained
    student = QUANTILE.model_copy(update={"layers": 1})
    config = toy_config(DistillConfig(source="hoser", lambda_kl=0.5), student, epochs=1)
    sources = build_teacher_sources(config, city, big.best)
    _, batch = a_batch(city)
    tables = build_network_tables(city.network, "geographic", CPU)
    said = sources["train"].signal(batch, torch.arange(batch.steps))
    with torch.no_grad():
        expected = load_student(big.best, city).model(tables, batch).logits
    torch.testing.assert_close(said.logits, expected, rtol=1e-4, atol=1e-5)
    for teachers in (sources, dict.fromkeys(("train", "val"), ToyTeacher())):
        listener = Listener()
        train_student(config, city, directory=tmp_path, observer=listener,
                      teacher_sources=teachers)
        m = listener.of(StepDone)[-1].metrics
        assert m["loss"] == pytest.approx(m["loss_road"] + m["loss_pinball"] + 0.5 * m["loss_kl"])


def test_judging_a_split_equals_the_plain_form(city):
    student = random_student(city)
    tables = build_network_tables(city.network, "geographic", CPU)
    trips = city.split("train")
    source = TripSource(trips, tables, DataConfig(candidate_top_k=2), CPU)
    found = judge_split(student.model, tables, source, epoch_batches(trips, 5, 0, 0, False),
                        city.times).metrics
    pinball, covered, crossed, public = [], [], [], []
    for trip in range(len(source)):
        batch = source.batch(np.array([trip]))
        with torch.no_grad():
            output = student.model(tables, batch)
        for step in range(batch.steps):
            if batch.label[step] < 0:
                continue
            taken = int(batch.candidate_offset[step] + batch.label[step])
            row = output.travel_time_quantiles[taken].tolist()
            log1p = float(torch.log1p(batch.travel_time_s[step]))
            y = (log1p - city.times.log1p_mean) / city.times.log1p_std
            pinball.append(np.mean([max(q * (y - g), (q - 1) * (y - g))
                                    for q, g in zip(LEVELS, row, strict=True)]))
            covered.append(min(row[:MEDIAN + 1]) <= y <= max(row[MEDIAN:]))
            crossed.append(row != sorted(row))
            median = row[MEDIAN] * city.times.log1p_std + city.times.log1p_mean
            public.append(abs(median - log1p) / max(log1p, 1))
    expected = {"loss_pinball": np.mean(pinball), "time_coverage": np.mean(covered),
                "time_coverage_gap": np.mean(covered) - 0.8, "crossing_share": np.mean(crossed),
                "loss_time": np.mean(public)}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert 0 < found["crossing_share"] < 1


def test_recomputing_the_encoder_changes_no_bit(city, tmp_path):
    plain = toy_config(student=QUANTILE, epochs=1)
    train_student(plain, city, directory=tmp_path / "plain")
    again = plain.model_copy(update={"train": plain.train.model_copy(update={"recompute": True})})
    train_student(again, city, directory=tmp_path / "again")
    assert same(last_weights(tmp_path / "plain"), last_weights(tmp_path / "again"))


def first_losses(city, directory, **train):
    """Return the pinball losses of the first steps under some settings."""
    listener = Listener()
    train_student(toy_config(student=QUANTILE, max_steps=2, **train), city, directory=directory,
                  observer=listener)
    return [step.metrics["loss_pinball"] for step in listener.of(StepDone)]


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_changes_nothing_beyond_rounding(city, tmp_path, amp):
    exact = first_losses(city, tmp_path / "exact", amp="off")
    assert first_losses(city, tmp_path / amp, amp=amp) == pytest.approx(exact, rel=5e-3)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
@pytest.mark.usefixtures("unchecked")
def test_compiling_changes_nothing_beyond_rounding(city, tmp_path):
    exact = first_losses(city, tmp_path / "exact")
    assert first_losses(city, tmp_path / "compiled", compile=True) == pytest.approx(exact, rel=1e-4)
