"""A loss, a gradient or a weight that is not finite replaces no file that is good."""

import math

import pytest
import torch
from toy_training import Listener, StopAfter, toy_city, toy_config

from hoserkd.engine.events import CheckpointSaved, StepDone, never_stop
from hoserkd.engine.teacher import training as teacher_training
from hoserkd.engine.teacher.progress import HeldOut
from hoserkd.engine.teacher.storage import load_teacher
from hoserkd.engine.teacher.training import train_teacher
from hoserkd.engine.train import train_student
from hoserkd.engine.training import loop
from hoserkd.engine.training.finite import not_finite
from hoserkd.engine.training.optim import Optimiser
from hoserkd.errors import DivergenceError, InterruptedRunError

TEACHER = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 9, "epochs": 2,
           "batch_tokens": 60, "cell_size_deg": 0.004, "anomaly_trips": 0}
FILES = ("last.ckpt", "best.safetensors", "teacher.json", "weights.safetensors")


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return toy_city(tmp_path_factory.mktemp("city"), trips=12)


def contents(directory) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in FILES
            if (directory / name).exists()}


class Watch(Listener):
    """Remembers the bytes of a folder's files whenever one has been written."""

    def __init__(self, directory) -> None:
        super().__init__()
        self.directory, self.good = directory, {}

    def notify(self, event) -> None:
        super().notify(event)
        if isinstance(event, CheckpointSaved):
            self.good = contents(self.directory)


@pytest.fixture
def break_step(monkeypatch):
    """Let the n-th update leave a weight that is not a number, as a too large step does."""
    def arrange(number: int) -> None:
        whole, done = Optimiser.step, []

        def step(self, learning_rate):
            norm = whole(self, learning_rate)
            done.append(norm)
            if len(done) == number:
                self.parameters[0].data[0] = math.nan
            return norm

        monkeypatch.setattr(Optimiser, "step", step)

    return arrange


# 12 trips, batches of 4: 3 steps an epoch, 6 in all; a checkpoint every 2 steps.
def train(city, directory, kind, listener, **settings):
    if kind == "student":
        config = toy_config(epochs=2, accumulation=1, checkpoint_every=2)
        return train_student(config, city, directory=directory, observer=listener, **settings)
    config = toy_config(checkpoint_every=2)
    teacher = config.teacher.model_copy(update=TEACHER)
    return train_teacher(config.model_copy(update={"teacher": teacher}), city, directory,
                         listener, settings.pop("stop", never_stop), **settings)


@pytest.mark.parametrize("kind", ["student", "teacher"])
@pytest.mark.parametrize("position", ["at a checkpoint", "at an epoch's end", "at the last step"])
def test_an_update_that_breaks_the_weights_leaves_every_file_as_it_was(
        kind, position, city, tmp_path, break_step):
    plain = Listener()
    train(city, tmp_path / "plain", kind, plain)
    total = plain.of(StepDone)[-1].total_steps
    number = {"at a checkpoint": 2, "at an epoch's end": total // 2,
              "at the last step": total}[position]
    break_step(number)
    watch = Watch(tmp_path / "run")
    with pytest.raises(DivergenceError) as caught:
        train(city, tmp_path / "run", kind, watch)
    assert contents(tmp_path / "run") == watch.good
    if kind == "student" and number == 2:
        assert "there is no checkpoint yet" in caught.value.message
        assert not watch.good
        return
    saved = [e.step for e in watch.of(CheckpointSaved) if e.kind == "last"]
    assert f"last good checkpoint is {tmp_path / 'run' / 'last.ckpt'} (step {saved[-1]})" \
        in caught.value.message
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert not_finite({"model": state["model"], "optimiser": state["optimiser"]}) is None
    if kind == "teacher" and position == "at the last step":
        assert "the best epoch so far (1)" in caught.value.message
        load_teacher(tmp_path / "run")


@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_a_stop_after_a_broken_update_saves_nothing(kind, city, tmp_path, break_step):
    break_step(3)
    watch = Watch(tmp_path)
    with pytest.raises(DivergenceError):
        train(city, tmp_path, kind, watch, stop=StopAfter(2 if kind == "student" else 3))
    assert contents(tmp_path) == watch.good


@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_a_validation_loss_that_is_not_finite_chooses_no_weights(
        kind, city, tmp_path, monkeypatch):
    if kind == "student":
        whole = loop.Training.close_epoch

        def close_epoch(self):
            judge = self._judge
            self._judge = lambda: judge() | {"loss_road": math.inf, "accuracy": 1.0}
            whole(self)

        monkeypatch.setattr(loop.Training, "close_epoch", close_epoch)
    else:
        monkeypatch.setattr(teacher_training, "held_out", lambda *_: HeldOut(math.nan, 1.0))
    with pytest.raises(DivergenceError, match="loss"):
        train(city, tmp_path, kind, Listener())
    assert contents(tmp_path).keys() == {"last.ckpt"}


def test_a_resumed_training_that_diverges_names_the_step_it_was_resumed_from(
        city, tmp_path, break_step):
    with pytest.raises(InterruptedRunError):
        train(city, tmp_path, "student", Listener(), stop=StopAfter(2))
    break_step(1)
    with pytest.raises(DivergenceError, match=r"last\.ckpt \(step 3\)"):
        train(city, tmp_path, "student", Listener(), resume=True)


def test_an_overflowing_optimiser_state_is_not_saved_either(city, tmp_path, monkeypatch):
    whole = Optimiser.step

    def step(self, learning_rate):
        norm = whole(self, learning_rate)
        state = self._adamw.state[self.parameters[0]]
        state["exp_avg_sq"].fill_(math.inf)
        return norm

    monkeypatch.setattr(Optimiser, "step", step)
    with pytest.raises(DivergenceError, match=r"optimiser\.adamw\.state\.0\.exp_avg_sq"):
        train(city, tmp_path, "student", Listener())


def test_not_finite_names_a_few_and_counts_the_others():
    broken = torch.tensor([1.0, math.inf])
    state = {"a": {"w": broken}, "b": [torch.ones(2), broken], "c": torch.arange(3),
             "d": broken, "e": broken, "f": "text", "g": torch.empty(0)}
    assert not_finite(state) == "a.w, b.1, d and 1 more"
    assert not_finite({"c": state["c"], "f": 3.0}) is None
