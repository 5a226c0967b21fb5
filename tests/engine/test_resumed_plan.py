"""What a resumed training says where its optimisation settings differ, and what then holds."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from toy_training import STUDENT, Listener, StopAfter, ToyTeacher, toy_city, toy_config

from hoserkd.engine.city.storage import save_city
from hoserkd.engine.config import DistillConfig
from hoserkd.engine.events import EpochDone, Note, SplitJudged, StepDone
from hoserkd.engine.train import last_train_settings, resumed_config, train_student
from hoserkd.engine.training.checkpoint import load_checkpoint, save_checkpoint
from hoserkd.engine.training.distributed import Ranks
from hoserkd.engine.training.journal import Journal, StepRecord
from hoserkd.engine.training.meters import DISTILLED, SUPERVISED, loss_metrics
from hoserkd.engine.training.schedule import Plan, StepValues
from hoserkd.engine.training.timing import PartTimer
from hoserkd.errors import CheckpointError, ConfigError, InterruptedRunError

BASE = {"epochs": 3, "accumulation": 1, "learning_rate": 1e-3}  # 3 steps an epoch
TAUGHT = DistillConfig(lambda_kl=0.5, temperature=2.0, temperature_end=4.0)


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return toy_city(tmp_path_factory.mktemp("city"), trips=12)


def warnings(listener) -> list[str]:
    return [note.message for note in listener.of(Note) if note.level == "warning"]


def resume(city, directory, config, **sources) -> Listener:
    listener = Listener()
    train_student(config, city, directory=directory, resume=True, observer=listener, **sources)
    return listener


def test_a_run_cut_by_max_steps_and_resumed_for_longer_shows_both_plans(city, tmp_path):
    train_student(toy_config(**BASE, max_steps=4), city, directory=tmp_path)
    longer = toy_config(**BASE, max_steps=8)
    listener = resume(city, tmp_path, longer)
    old, new = (Plan(toy_config(**BASE, max_steps=most).train, longer.distill, 3)
                for most in (4, 8))
    told = warnings(listener)
    assert told[0] == "from step 5 on: train.max_steps was 4, is now 8"
    assert told[1] == (
        "the plan changes after step 4. "
        f"Old plan: 4 steps, learning_rate {old.at(3).learning_rate:.3g} at step 4. "
        f"New plan: 8 steps, learning_rate {new.at(3).learning_rate:.3g} at step 4, "
        f"{new.at(4).learning_rate:.3g} at step 5, {new.at(7).learning_rate:.3g} at step 8.")
    rates = [step.metrics["learning_rate"] for step in listener.of(StepDone)]
    assert rates == [new.at(step).learning_rate for step in range(4, 8)]
    assert load_checkpoint(tmp_path / "last.ckpt").settings["train"]["max_steps"] == 8
    # Resumed with the settings that it was last resumed with, it has nothing to tell.
    assert last_train_settings(tmp_path)["max_steps"] == 8
    assert warnings(resume(city, tmp_path, longer)) == []


def test_a_schedule_of_the_temperature_is_part_of_the_plans(city, tmp_path):
    teachers = {"teacher_sources": dict.fromkeys(("train", "val", "test"), ToyTeacher())}
    train_student(toy_config(TAUGHT, **BASE, max_steps=3), city, directory=tmp_path, **teachers)
    listener = resume(city, tmp_path, toy_config(TAUGHT, **BASE, max_steps=6), **teachers)
    assert "temperature 4 at step 3. New plan" in warnings(listener)[1]
    assert warnings(listener)[1].endswith("4 at step 6.")


def test_settings_that_change_no_plan_are_told_and_hold(city, tmp_path):
    with pytest.raises(InterruptedRunError):
        train_student(toy_config(**BASE), city, directory=tmp_path, stop=StopAfter(1))
    other = toy_config(**BASE, clip=0.5, weight_decay=0.03, checkpoint_every=7)
    assert warnings(resume(city, tmp_path, other)) == [
        "from step 3 on: train.weight_decay was 0.1, is now 0.03; train.clip was 1.0, is now 0.5"]
    groups = load_checkpoint(tmp_path / "last.ckpt").optimiser["adamw"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.03, 0.0]


def test_fewer_steps_than_are_done_are_refused(city, tmp_path):
    train_student(toy_config(**BASE, max_steps=4), city, directory=tmp_path)
    with pytest.raises(ConfigError, match=r"has done 4 optimiser steps.* it would have 2"):
        resume(city, tmp_path, toy_config(**BASE, max_steps=2))
    assert resume(city, tmp_path, toy_config(**BASE, max_steps=4)).of(StepDone) == []


def test_a_run_that_now_ends_where_no_validation_was_due_is_validated_there(city, tmp_path):
    seldom = {**BASE, "epochs": 4, "validate_every": 2}
    with pytest.raises(InterruptedRunError):
        train_student(toy_config(**seldom), city, directory=tmp_path, stop=StopAfter(3))
    state = load_checkpoint(tmp_path / "last.ckpt")
    assert (state.state.step, state.state.judged) == (4, 3)
    shutil.copytree(tmp_path, tmp_path / "first")
    # As a checkpoint has it that was written between two epochs.
    state.state.step = 3
    save_checkpoint(tmp_path / "first" / "last.ckpt", state)
    listener = resume(city, tmp_path / "first", toy_config(**seldom, max_steps=3))
    assert listener.of(StepDone) == []
    assert [(e.epoch, e.step) for e in listener.of(EpochDone)] == [(0, 3)]


def test_the_time_before_a_stop_counts_for_the_epoch(city, tmp_path, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr("hoserkd.engine.training.loop.time", SimpleNamespace(
        perf_counter=lambda: float(next(clock))))
    with pytest.raises(InterruptedRunError):
        train_student(toy_config(**BASE), city, directory=tmp_path, stop=StopAfter(1))
    before = load_checkpoint(tmp_path / "last.ckpt").state.epoch_s
    listener = resume(city, tmp_path, toy_config(**BASE))
    # One look at the clock when the training is made, and one at the epoch's end.
    assert listener.of(EpochDone)[0].metrics["epoch_s"] == before + 1 > 1


def test_a_checkpoint_of_an_older_version_resumes_without_a_word(city, tmp_path):
    train_student(toy_config(**BASE, max_steps=4), city, directory=tmp_path)
    old = load_checkpoint(tmp_path / "last.ckpt")
    del old.settings["train"], old.settings["outputs"]
    save_checkpoint(tmp_path / "last.ckpt", old)
    assert last_train_settings(tmp_path) is None
    assert warnings(resume(city, tmp_path, toy_config(**BASE, max_steps=5))) == []


@pytest.mark.parametrize("section", ["distill", "student", "train"])
def test_damaged_settings_of_a_checkpoint_are_one_clear_error(section, city, tmp_path):
    with pytest.raises(InterruptedRunError):
        train_student(toy_config(**BASE), city, directory=tmp_path, stop=StopAfter(0))
    broken = load_checkpoint(tmp_path / "last.ckpt")
    broken.settings[section] = {"unheard": "of"}
    save_checkpoint(tmp_path / "last.ckpt", broken)
    with pytest.raises(CheckpointError, match=f"settings of {section} that are not"):
        resume(city, tmp_path, toy_config(**BASE))


def test_a_resumed_run_knows_the_candidates_it_was_trained_with(city, tmp_path):
    config = toy_config(**BASE)
    narrow = config.model_copy(update={"data": config.data.model_copy(
        update={"candidate_top_k": 2})})
    with pytest.raises(InterruptedRunError):
        train_student(narrow, city, directory=tmp_path, stop=StopAfter(0))
    listener = Listener()
    found = resumed_config(config, city, tmp_path, listener)
    assert found.data.candidate_top_k == 2
    assert warnings(listener) == [
        "the resumed run keeps its settings: data.candidate_top_k is 2, not 64"]


def test_validation_and_test_have_their_kl_at_the_same_temperature(city, tmp_path):
    """The test split is the validation split here: the same figures must come out."""
    splits = {"train": city.split("train"), "val": city.split("val"), "test": city.split("val")}
    twin = save_city(tmp_path / "city", "twin", city.network, splits, city.times)
    listener = Listener()
    config = toy_config(TAUGHT, STUDENT, **BASE)
    train_student(config, twin, directory=tmp_path / "run", observer=listener,
                  teacher_sources=dict.fromkeys(("train", "val", "test"), ToyTeacher()))
    (test,) = listener.of(SplitJudged)
    result = max(listener.of(EpochDone), key=lambda e: (
        e.metrics["val_accuracy"], -e.metrics["val_loss"]))
    for name in ("loss_kl", "teacher_entropy", "student_entropy", "agreement", "loss"):
        assert test.metrics[f"test_{name}"] == result.metrics[f"val_{name}"], name
    entropies = {e.metrics["val_teacher_entropy"] for e in listener.of(EpochDone)}
    assert len(entropies) == 1, "the teacher's own entropy depends on the temperature alone"


def test_an_epochs_loss_weighs_the_kl_of_each_step_as_it_was_weighed():
    names = (*SUPERVISED, *DISTILLED)
    journal = Journal(names, loss_metrics, 2, PartTimer(torch.device("cpu"), 0), Listener(),
                      Ranks(), False)
    rows = {"road": 30.0, "time": 10.0, "labelled": 10.0, "correct": 4.0, "steps": 10.0,
            "kl": 6.0, "informative": 5.0, "asked": 10.0}
    sums = torch.tensor([rows.get(name, 0.0) for name in names])
    for step, weight in enumerate((0.0, 2.0)):
        journal.add(StepRecord(step + 1, 0, sums, torch.tensor(1.0),
                               StepValues(1e-3, 1.0, weight), 4))
    total: dict[str, float] = {}
    journal.flush(total)
    # Twice 3 + 1 for the data; the KL of 1.2 once with weight 0 and once with 2.
    assert loss_metrics(total)["loss"] == pytest.approx(4.0 + 1.2)
    assert loss_metrics(total)["loss_kl"] == pytest.approx(1.2)
