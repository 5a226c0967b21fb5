"""Which epoch is the best: by accuracy or a loss, with ties broken, for student and teacher."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from toy_training import Listener, same, toy_city, toy_config, weights

from hoserkd.engine.events import CheckpointSaved, EpochDone, never_stop
from hoserkd.engine.student.storage import load_student
from hoserkd.engine.teacher import training as teacher_training
from hoserkd.engine.teacher.lmtad import LMTAD, LMTADDimensions
from hoserkd.engine.teacher.progress import HeldOut, held_out, held_out_loss
from hoserkd.engine.teacher.sequences import cell_trips
from hoserkd.engine.teacher.storage import TeacherCard, load_card
from hoserkd.engine.teacher.training import train_teacher
from hoserkd.engine.train import train_student
from hoserkd.engine.training import loop
from hoserkd.engine.training.selection import STUDENT, TEACHER, is_better

FOUND = ({"accuracy": 0.5, "loss": 0.51, "loss_road": 0.31, "loss_time": 0.20},
         {"accuracy": 0.5, "loss": 0.41, "loss_road": 0.22, "loss_time": 0.19},
         {"accuracy": 0.4, "loss": 0.40, "loss_road": 0.22, "loss_time": 0.18},
         {"accuracy": 0.5, "loss": 0.41, "loss_road": 0.21, "loss_time": 0.25})
"""Validations of four epochs."""


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return toy_city(tmp_path_factory.mktemp("city"), trips=8)


@pytest.mark.parametrize(("criterion", "epoch"), [
    ("accuracy", 1), ("loss", 2), ("loss_road", 3), ("loss_time", 2)])
def test_the_first_figure_that_differs_decides_and_the_earlier_epoch_stays(criterion, epoch):
    best = None
    for number, found in enumerate(FOUND):
        if is_better(found, None if best is None else FOUND[best], STUDENT[criterion]):
            best = number
    assert best == epoch


def test_a_figure_that_an_older_version_did_not_measure_decides_nothing():
    assert not is_better(FOUND[1], {"accuracy": 0.5}, STUDENT["accuracy"])
    assert is_better(FOUND[1], {"accuracy": 0.49}, STUDENT["accuracy"])
    assert is_better({"loss": 1.0, "accuracy": 0.1}, {"loss": 1.1}, TEACHER["loss"])


@pytest.mark.parametrize(("criterion", "epoch"), [("accuracy", 1), ("loss", 2), ("loss_road", 3)])
def test_the_setting_chooses_the_students_weights(criterion, epoch, city, tmp_path, monkeypatch):
    answers = iter(FOUND)
    whole = loop.Training.close_epoch

    def close_epoch(self):
        judge = self._judge
        self._judge = lambda: judge() | next(answers)
        whole(self)
        self._judge = judge

    monkeypatch.setattr(loop.Training, "close_epoch", close_epoch)
    listener = Listener()
    result = train_student(toy_config(epochs=4, best=criterion), city, directory=tmp_path,
                           observer=listener)
    assert result.best_epoch == epoch
    assert result.best_by == {"accuracy": "accuracy, then loss", "loss": "loss, then accuracy",
                              "loss_road": "loss_road, then accuracy"}[criterion]
    assert result.metrics["val_loss"] == FOUND[epoch]["loss"]
    meta = load_student(result.best, city).meta
    assert (meta.epoch, meta.best_by) == (epoch, criterion)
    saved = [e.step for e in listener.of(CheckpointSaved) if e.kind == "best"]
    assert saved[-1] == listener.of(EpochDone)[epoch].step


@pytest.mark.parametrize(("criterion", "epoch"), [("loss", 1), ("accuracy", 2)])
def test_the_setting_chooses_the_teachers_weights(criterion, epoch, city, tmp_path, monkeypatch):
    answers = iter((HeldOut(2.0, 0.3), HeldOut(1.5, 0.3), HeldOut(1.5, 0.31), HeldOut(1.5, 0.31)))
    if criterion == "loss":
        answers = iter((HeldOut(2.0, 0.9), HeldOut(1.5, 0.3), HeldOut(1.5, 0.3), HeldOut(1.6, 1.0)))
    monkeypatch.setattr(teacher_training, "held_out", lambda *_: next(answers))
    base = toy_config()
    teacher = base.teacher.model_copy(update={
        "n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 9, "epochs": 4, "batch_tokens": 200,
        "cell_size_deg": 0.004, "anomaly_trips": 0, "best": criterion})
    listener = Listener()
    result = train_teacher(base.model_copy(update={"teacher": teacher}), city, tmp_path, listener,
                           never_stop)
    assert result.best_epoch == epoch
    meta = load_card(tmp_path).meta
    assert (meta["best_epoch"], meta["best_by"]) == (epoch, criterion)
    assert [e.metrics["val_token_accuracy"] for e in listener.of(EpochDone)][-1] in (0.31, 1.0)


def test_a_process_killed_between_the_checkpoint_and_the_best_weights_loses_neither(
        city, tmp_path):
    """The best student is written after the checkpoint that says so; the resumed run writes it."""
    class Killer(Listener):
        def notify(self, event):
            if isinstance(event, CheckpointSaved) and (event.kind, event.step) == ("last", 1):
                raise KeyboardInterrupt

    config = toy_config(epochs=2, best="loss_time")
    one = train_student(config, city, directory=tmp_path / "one")
    with pytest.raises(KeyboardInterrupt):
        train_student(config, city, directory=tmp_path / "two", observer=Killer())
    assert not (tmp_path / "two" / "best.safetensors").exists()
    two = train_student(config.model_copy(update={"train": config.train.model_copy(
        update={"learning_rate": 1e-30})}), city, directory=tmp_path / "two", resume=True)
    assert two.best_epoch == 0
    first = train_student(toy_config(epochs=2, best="loss_time"), city, directory=tmp_path / "3",
                          observer=(kept := Kept(tmp_path / "3")))
    assert first.metrics == one.metrics
    assert same(weights(two.best), kept.tensors)


class Kept(Listener):
    """Keeps the first best student that is written."""

    def __init__(self, directory) -> None:
        super().__init__()
        self.directory, self.tensors = directory, None

    def notify(self, event) -> None:
        if isinstance(event, CheckpointSaved) and event.kind == "best" and self.tensors is None:
            self.tensors = weights(self.directory / "best.safetensors")


def held_out_trips():
    dimensions = LMTADDimensions(vocab_size=23, block_size=12, n_layer=1, n_head=2, n_embd=16)
    torch.manual_seed(0)
    model = LMTAD(dimensions)
    card = TeacherCard("toy", dimensions, None, sot_id=22, eot_id=21, pad_id=20,
                       weights_sha256="", meta={})
    points = torch.tensor([3, 5, 4, 9]).numpy()
    return model, cell_trips(torch.randint(0, 20, (21,)), points, card)


@pytest.mark.parametrize("measure", [held_out, held_out_loss])
def test_held_out_trips_cost_one_forward_pass_and_nothing_for_gradients(measure):
    model, trips = held_out_trips()
    assert all(parameter.requires_grad for parameter in model.parameters())
    with FlopCounterMode(display=False) as counted:
        measure(model, trips, 1000)
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        hidden = model(trips.batch(torch.arange(4).numpy())[:, :-1])
        model.all_logits(hidden)
    assert counted.get_total_flops() == forward.get_total_flops()


def test_held_out_figures_are_those_of_the_plain_form_and_leave_the_model_in_its_mode():
    model, trips = held_out_trips()
    model.train()
    found = held_out(model, trips, 16)
    assert model.training
    model.eval()
    losses, right = [], []
    for trip in range(4):
        tokens = trips.batch(torch.tensor([trip]).numpy())
        with torch.no_grad():
            logits = model.all_logits(model(tokens[:, :-1]))[0]
        losses.append(torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="none"))
        right.append(logits.argmax(1) == tokens[0, 1:])
    assert found.loss == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)
    assert found.accuracy == pytest.approx(float(torch.cat(right).float().mean()))
