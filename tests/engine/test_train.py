"""Training as a whole: determinism, resumption, the recipes and what is reported."""

import shutil

import numpy as np
import pytest
import torch
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

from hoserkd.engine.config import DataConfig, DistillConfig, TrainConfig
from hoserkd.engine.device import seed_everything
from hoserkd.engine.events import (
    CheckpointSaved,
    EpochDone,
    Note,
    Rewound,
    SplitJudged,
    StepDone,
)
from hoserkd.engine.student.storage import load_student, new_student
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.train import train_student
from hoserkd.engine.training.acceleration import Acceleration
from hoserkd.engine.training.checkpoint import load_checkpoint
from hoserkd.engine.training.distributed import Ranks
from hoserkd.engine.training.learner import Learner, Loaded, chosen_steps
from hoserkd.engine.training.optim import Optimiser
from hoserkd.engine.training.schedule import StepValues
from hoserkd.engine.training.timing import PartTimer
from hoserkd.engine.trips.batches import TripSource
from hoserkd.errors import CheckpointError, DataError, DivergenceError, InterruptedRunError

CPU = torch.device("cpu")
KD = DistillConfig(lambda_kl=0.5, temperature=2.0, temperature_end=3.0, ramp_epochs=1.0, steps=2)


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return toy_city(tmp_path_factory.mktemp("city"))


@pytest.fixture(scope="module")
def undisturbed(city, tmp_path_factory):
    """One distilled run with dropout, and its events."""
    directory, listener = tmp_path_factory.mktemp("undisturbed"), Listener()
    result = train_student(dropout_config(), city, directory=directory, observer=listener,
                           teacher_sources=teachers())
    return directory, result, listener


def dropout_config(distill=KD, **train):
    return toy_config(distill, STUDENT.model_copy(update={"dropout": 0.1}), **train)


def teachers():
    return dict.fromkeys(("train", "val", "test"), ToyTeacher())


def test_two_runs_give_the_same_bits(city, tmp_path, undisturbed):
    directory, result, _ = undisturbed
    again = train_student(dropout_config(), city, directory=tmp_path, teacher_sources=teachers())
    assert same(last_weights(directory), last_weights(tmp_path))
    assert again.metrics == result.metrics


def test_a_start_voids_what_a_process_killed_before_its_first_checkpoint_recorded(undisturbed):
    told = [event for event in undisturbed[2].events if isinstance(event, Rewound | StepDone)]
    assert told[0] == Rewound(0, 0)


def test_a_killed_run_resumes_from_its_last_checkpoint_to_the_same_bits(
        city, tmp_path, undisturbed):
    directory, _, _ = undisturbed
    config = dropout_config(checkpoint_every=3)

    class Killer(Listener):
        def notify(self, event):
            super().notify(event)
            if len(self.of(StepDone)) == 8:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_student(config, city, directory=tmp_path, teacher_sources=teachers(),
                      observer=Killer())
    listener = Listener()
    train_student(config, city, directory=tmp_path, teacher_sources=teachers(), resume=True,
                  observer=listener)
    assert listener.of(Rewound) == [Rewound(6, 5)]
    assert same(last_weights(directory), last_weights(tmp_path))


def test_lambda_zero_is_vanilla_to_the_bit(city, tmp_path):
    silent = DistillConfig(lambda_kl=0.0, steps=2)
    train_student(dropout_config(silent), city, directory=tmp_path / "zero",
                  teacher_sources=teachers())
    train_student(dropout_config(DistillConfig(enabled=False)), city,
                  directory=tmp_path / "vanilla")
    assert same(last_weights(tmp_path / "zero"), last_weights(tmp_path / "vanilla"))


def test_the_teacher_changes_the_weights(city, tmp_path, undisturbed):
    directory, _, _ = undisturbed
    train_student(dropout_config(DistillConfig(enabled=False)), city, directory=tmp_path)
    assert not same(last_weights(directory), last_weights(tmp_path))


def test_a_large_lambda_brings_the_student_to_the_teacher(city, tmp_path):
    listener = Listener()
    strong = DistillConfig(lambda_kl=1000.0, temperature=1.0)
    train_student(toy_config(strong, epochs=35, accumulation=1, learning_rate=1e-2), city,
                  directory=tmp_path, teacher_sources=teachers(), observer=listener)
    first, last = (listener.of(EpochDone)[i].metrics for i in (0, -1))
    assert last["val_loss_kl"] < 0.02 < first["val_loss_kl"]
    # Candidates in one cell tie at the teacher, so that the first of them is no preference.
    assert last["val_agreement"] > 0.85


def test_every_step_is_reported_with_its_figures(undisturbed):
    _, _, listener = undisturbed
    steps = listener.of(StepDone)
    assert [s.step for s in steps] == list(range(1, 16))
    assert [s.epoch for s in steps] == [0] * 5 + [1] * 5 + [2] * 5
    assert {s.total_steps for s in steps} == {15}
    for step in steps:
        assert step.metrics.keys() >= {
            "loss", "loss_road", "loss_time", "loss_kl", "learning_rate", "grad_norm",
            "temperature", "lambda_kl", "accuracy", "trips_per_s", "trip_steps_per_s",
            "optimiser_steps_per_s",
            "informative_share", "collision_share", "teacher_entropy", "student_entropy",
            "agreement", "teacher_accuracy"}
        m = step.metrics
        assert m["loss"] == pytest.approx(
            m["loss_road"] + m["loss_time"] + m["lambda_kl"] * m["loss_kl"])
    assert steps[0].metrics["lambda_kl"] == 0.0
    assert steps[5].metrics["lambda_kl"] == 0.5
    assert steps[-1].metrics["temperature"] == 3.0


def test_parts_are_timed_at_sampled_steps_alone(undisturbed):
    _, _, listener = undisturbed
    for step in listener.of(StepDone):
        if step.step % 2:
            assert step.timings_ms == {}
            continue
        assert step.timings_ms.keys() == {
            "data", "forward", "teacher", "backward", "optimiser", "step"}
        parts = sum(v for k, v in step.timings_ms.items() if k != "step")
        assert 0 < parts <= step.timings_ms["step"]


def test_the_best_weights_are_those_of_the_best_validation_accuracy(city, undisturbed):
    _, result, listener = undisturbed
    epochs = listener.of(EpochDone)
    best = max(range(len(epochs)), key=lambda i: (epochs[i].metrics["val_accuracy"], -i))
    saved = [e for e in listener.of(CheckpointSaved) if e.kind == "best"]
    assert result.best_epoch == best
    assert saved[-1].step == epochs[best].step
    meta = load_student(result.best, city).meta
    assert (meta.epoch, meta.step) == (best, epochs[best].step)
    assert meta.distill["lambda_kl"] == 0.5
    assert meta.metrics["val_accuracy"] == epochs[best].metrics["val_accuracy"]


def test_the_test_split_is_judged_with_the_best_weights(city, undisturbed):
    _, result, listener = undisturbed
    (judged,) = listener.of(SplitJudged)
    assert judged.split == "test"
    assert judged.metrics.keys() >= {
        "test_accuracy", "test_accuracy_kept", "test_loss_road", "test_loss_time",
        "test_time_mae_s", "test_time_mape", "test_ece", "test_loss_kl"}
    assert judged.metrics.items() <= result.metrics.items()


def test_not_a_number_ends_the_run_and_names_the_last_good_checkpoint(city, tmp_path):
    sources = teachers()
    sources["train"] = ToyTeacher()
    sources["train"].broken_from = 12
    with pytest.raises(DivergenceError, match="kl") as caught:
        train_student(toy_config(DistillConfig(), checkpoint_every=2), city, directory=tmp_path,
                      teacher_sources=sources)
    assert "at optimiser step 7" in caught.value.message
    assert f"{tmp_path / 'last.ckpt'} (step 6)" in caught.value.message
    checkpoint = load_checkpoint(tmp_path / "last.ckpt")
    assert checkpoint.state.step == 6
    assert all(value.isfinite().all() for value in checkpoint.model.values())


def test_resumed_distillation_settings_win_with_a_warning(city, tmp_path):
    with pytest.raises(InterruptedRunError):
        train_student(dropout_config(), city, directory=tmp_path, teacher_sources=teachers(),
                      stop=StopAfter(3))
    listener = Listener()
    other = KD.model_copy(update={"lambda_kl": 0.02})
    result = train_student(dropout_config(other), city, directory=tmp_path, resume=True,
                           teacher_sources=teachers(), observer=listener)
    warnings = [n.message for n in listener.of(Note) if n.level == "warning"]
    assert warnings == ["the resumed run keeps its settings: distill.lambda_kl is 0.5, not 0.02"]
    assert load_student(result.best, city).meta.distill["lambda_kl"] == 0.5


def test_resuming_with_other_batches_is_refused(city, tmp_path):
    with pytest.raises(InterruptedRunError):
        train_student(toy_config(), city, directory=tmp_path, stop=StopAfter(1))
    with pytest.raises(CheckpointError, match="batch_size was 4, now 8"):
        train_student(toy_config(batch_size=8), city, directory=tmp_path, resume=True)


def test_max_steps_ends_early_with_a_judged_model_and_can_be_extended(city, tmp_path):
    listener = Listener()
    result = train_student(toy_config(max_steps=3), city, directory=tmp_path, observer=listener)
    assert result.steps == 3
    assert [e.step for e in listener.of(EpochDone)] == [3]
    more = Listener()
    train_student(toy_config(max_steps=7), city, directory=tmp_path, resume=True, observer=more)
    assert [e.step for e in more.of(StepDone)] == [4, 5, 6, 7]
    assert [(e.epoch, e.step) for e in more.of(EpochDone)] == [(0, 5), (1, 7)]


def test_training_starts_from_given_weights(city, tmp_path, undisturbed):
    _, result, _ = undisturbed
    given = weights(result.best)
    still = toy_config(max_steps=1, learning_rate=1e-30, weight_decay=0.0)
    train_student(still, city, directory=tmp_path, init_from=result.best)
    assert same(given, last_weights(tmp_path))


def test_a_city_without_validation_trips_is_refused(tmp_path):
    empty = toy_city(tmp_path / "city", trips=0)
    with pytest.raises(DataError, match="the train split holds no trips"):
        train_student(toy_config(), empty, directory=tmp_path / "run")


def joined_and_split(city, teacher, groups):
    """Return the gradients that each grouping of the same trips leaves."""
    tables = build_network_tables(city.network, "geographic", CPU)
    source = TripSource(city.split("train"), tables, DataConfig(), CPU)
    lengths = np.diff(city.split("train").offset) - 1
    found = []
    for group in groups:
        seed_everything(0)
        model = new_student(STUDENT, city.network)
        learner = Learner(model, tables, city.times, Optimiser(model, TrainConfig(), None),
                          DistillConfig(), teacher, Acceleration(), Ranks(), PartTimer(CPU, 0))
        values = StepValues(1e-3, 2.0, 0.7)
        loaded = learner.load(source.prefetch(group), group, lengths, values, (0,))
        sums = learner.learn(loaded, values)
        found.append((sums, {n: p.grad for n, p in model.named_parameters()
                             if p.grad is not None}))
    return found


def test_accumulated_gradients_are_those_of_one_large_batch(city):
    trips = np.arange(11)
    whole, parts = joined_and_split(city, ToyTeacher(), [
        [trips], [trips[:5], trips[5:6], trips[6:]]])
    torch.testing.assert_close(whole[0], parts[0])
    assert whole[1].keys() == parts[1].keys()
    for name in whole[1]:
        torch.testing.assert_close(whole[1][name], parts[1][name], rtol=1e-4, atol=1e-6)


def test_the_last_incomplete_group_is_a_step_too(undisturbed):
    _, _, listener = undisturbed
    # 36 trips, batches of 4, two a step: 9 batches, 5 steps.
    assert [s.step for s in listener.of(StepDone) if s.epoch == 0] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("choice", "expected"), [
    ("all", [0, 1, 2, 3, 4, 5]), ("last", [2, 3, 5]), (9, [0, 1, 2, 3, 4, 5])])
def test_chosen_steps_follow_the_setting(choice, expected):
    batch = small_batch()
    drawn = chosen_steps(choice, batch, np.array([3, 1, 2]), np.random.default_rng(0))
    assert drawn.tolist() == expected


def test_a_number_of_steps_is_drawn_from_each_trip_evenly():
    batch = small_batch()
    lengths = np.array([3, 1, 2])
    counts = np.zeros(6)
    for seed in range(300):
        drawn = chosen_steps(1, batch, lengths, np.random.default_rng(seed)).numpy()
        assert np.searchsorted([0, 3, 4], drawn, side="right").tolist() == [1, 2, 3]
        counts[drawn] += 1
    assert counts[3] == 300
    assert counts[:3].min() > 70
    assert counts[4:].min() > 110


def test_loaded_batches_are_the_trips_of_the_group(city):
    tables = build_network_tables(city.network, "geographic", CPU)
    source = TripSource(city.split("train"), tables, DataConfig(), CPU)
    model = new_student(STUDENT, city.network)
    learner = Learner(model, tables, city.times, Optimiser(model, TrainConfig(), None),
                      DistillConfig(enabled=False), None, Acceleration(), Ranks(),
                      PartTimer(CPU, 0))
    group = [np.array([3, 9]), np.array([1])]
    lengths = np.diff(city.split("train").offset) - 1
    loaded = learner.load(source.prefetch(group), group, lengths, StepValues(0, 1, 0), (0,))
    assert all(isinstance(item, Loaded) and item.target is None for item in loaded)
    assert [item.batch.steps for item in loaded] == [lengths[3] + lengths[9], lengths[1]]


def small_batch():
    """Return three trips of 3, 1 and 2 steps; only the offsets mean anything."""
    from test_losses import packed_batch

    batch = packed_batch([2] * 6, [0] * 6, [1.0] * 6)
    object.__setattr__(batch, "offset", torch.tensor([0, 3, 4, 6]))
    return batch


def first_losses(city, directory, **train):
    """Return the training losses of the first steps under some settings."""
    listener = Listener()
    train_student(toy_config(DistillConfig(lambda_kl=0.5), max_steps=2, **train), city,
                  directory=directory, teacher_sources=teachers(), observer=listener)
    return [step.metrics["loss"] for step in listener.of(StepDone)]


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
