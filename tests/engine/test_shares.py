"""Shares of the training trips: nested draws, bit for bit a training on those trips alone."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from toy_training import (
    Listener,
    StopAfter,
    ToyTeacher,
    last_weights,
    same,
    toy_city,
    toy_config,
    weights,
)

from hoserkd.engine.city.storage import save_city
from hoserkd.engine.config import DataConfig, DistillConfig
from hoserkd.engine.events import EpochDone
from hoserkd.engine.metrics.packed import take_trips
from hoserkd.engine.train import train_student
from hoserkd.engine.trips.batches import epoch_batches
from hoserkd.engine.trips.shares import drawn_members, share_size
from hoserkd.engine.types import TeacherSignal
from hoserkd.errors import CheckpointError, InterruptedRunError


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return toy_city(tmp_path_factory.mktemp("city"))


def share(config, part, seed=0):
    data = config.data.model_copy(update={"train_share": part, "share_seed": seed})
    return config.model_copy(update={"data": data})


@pytest.mark.parametrize("seed", range(5))
def test_a_smaller_share_lies_within_a_larger_one(seed):
    drawn = [set(drawn_members(997, DataConfig(train_share=part, share_seed=seed)).tolist())
             for part in (0.001, 0.01, 0.1, 0.5, 0.999)]
    assert [len(ids) for ids in drawn] == [1, 10, 100, 498, 996]
    assert all(small < large for small, large in pairwise(drawn))
    assert drawn[-1] <= set(range(997))


def test_another_seed_draws_other_trips_and_the_same_seed_the_same():
    first, again, other = (drawn_members(1000, DataConfig(train_share=0.1, share_seed=seed))
                           for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.all(np.diff(first) > 0)


def test_a_share_holds_one_trip_at_least_and_all_of_them_is_none():
    assert share_size(30, 0.001) == 1
    assert drawn_members(30, DataConfig()) is None


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_without_a_share_batches_are_the_plain_draw(city, epoch):
    trips = city.split("train")
    length = np.diff(trips.offset)
    order = np.random.default_rng([5, epoch]).permutation(len(trips))
    plain = [sorted(order[k:k + 8], key=lambda trip: length[trip])
             for k in range(0, len(trips), 8)]
    found = epoch_batches(trips, 8, 5, epoch, shuffle=True)
    assert [batch.tolist() for batch in found] == [list(map(int, batch)) for batch in plain]


class StepTeacher(ToyTeacher):
    """Answers by the number of the step in its split, as a stored signal does."""

    def __init__(self, table) -> None:
        super().__init__()
        self.table = table
        self.asked = []

    def signal(self, batch, step):
        """Shift the preferences by what the table says of each step."""
        found = super().signal(batch, step)
        self.asked.append(batch.step_id[step])
        count = found.offset.diff()
        row = torch.repeat_interleave(self.table[batch.step_id[step]], count)
        slot = torch.cat([torch.arange(int(n)) for n in count])
        return TeacherSignal(found.step, found.offset, torch.sin(row * 7 + slot * 3), found.cell)


@pytest.mark.parametrize("distilled", [False, True])
def test_training_on_a_share_is_training_on_a_city_of_those_trips(city, tmp_path, distilled):
    """Only the cut city needs another table: the whole split's serves every share."""
    distill = DistillConfig(lambda_kl=0.7) if distilled else DistillConfig(enabled=False)
    config = share(toy_config(distill), 0.4)
    members = drawn_members(len(city.split("train")), config.data)
    assert 1 < len(members) < len(city.split("train"))
    splits = {name: city.split(name) for name in ("val", "test")}
    cut = save_city(tmp_path / "cut", "toy", city.network,
                    {"train": take_trips(city.split("train"), members), **splits}, city.times)

    first = city.split("train").step_offset()
    steps = np.concatenate([np.arange(first[trip], first[trip + 1]) for trip in members])
    table = torch.linspace(0, 1, int(first[-1]))
    on_share, on_cut = StepTeacher(table), StepTeacher(table[steps])

    def trained(name, config, town, teacher):
        sources = {"train": teacher} if distilled else None
        return train_student(config, town, directory=tmp_path / name, teacher_sources=sources)

    whole = trained("share", config, city, on_share)
    alone = trained("alone", toy_config(distill), cut, on_cut)
    assert same(last_weights(tmp_path / "share"), last_weights(tmp_path / "alone"))
    assert same(weights(whole.best), weights(alone.best))
    assert whole.metrics == alone.metrics
    if distilled:
        assert set(torch.cat(on_share.asked).tolist()) == set(steps.tolist())


def test_a_run_does_not_resume_on_another_share(city, tmp_path):
    config = share(toy_config(), 0.5)
    with pytest.raises(InterruptedRunError):
        train_student(config, city, directory=tmp_path, stop=StopAfter(3))
    for other in (share(toy_config(), 0.25), share(toy_config(), 0.5, seed=1), toy_config()):
        with pytest.raises(CheckpointError, match=r"data\.(train_share|share_seed) was"):
            train_student(other, city, directory=tmp_path, resume=True)


def test_validating_seldom_changes_no_weights_and_closes_the_same_steps(city, tmp_path):
    often, seldom = Listener(), Listener()
    train_student(toy_config(epochs=5), city, directory=tmp_path / "often", observer=often)
    result = train_student(toy_config(epochs=5, validate_every=2), city,
                           directory=tmp_path / "seldom", observer=seldom)
    assert same(last_weights(tmp_path / "often"), last_weights(tmp_path / "seldom"))
    by_epoch = {event.epoch: event.metrics for event in often.of(EpochDone)}
    events = seldom.of(EpochDone)
    assert [event.epoch for event in events] == [1, 3, 4]
    for event in events:
        assert event.metrics["val_accuracy"] == by_epoch[event.epoch]["val_accuracy"]
    best = max(events, key=lambda e: (e.metrics["val_accuracy"], -e.metrics["val_loss"]))
    assert result.best_epoch == best.epoch
    # Both passes since the last validation count: the mean over 2 x 36 trips' steps.
    both = np.mean([by_epoch[epoch]["train_loss"] for epoch in (0, 1)])
    assert events[0].metrics["train_loss"] == pytest.approx(both)


@pytest.mark.parametrize("questions", [0, 4, 5, 6, 9, 10, 11, 14, 24])
def test_a_run_that_validates_seldom_resumes_to_the_same_bits(city, tmp_path, questions):
    config = toy_config(epochs=5, validate_every=2)
    undisturbed, resumed = Listener(), Listener()
    train_student(config, city, directory=tmp_path / "whole", observer=undisturbed)
    with pytest.raises(InterruptedRunError):
        train_student(config, city, directory=tmp_path / "cut", stop=StopAfter(questions))
    train_student(config, city, directory=tmp_path / "cut", resume=True, observer=resumed)
    assert same(last_weights(tmp_path / "whole"), last_weights(tmp_path / "cut"))
    assert same(weights(tmp_path / "whole/best.safetensors"),
                weights(tmp_path / "cut/best.safetensors"))
    expected, got = (events.of(EpochDone)[-1].metrics for events in (undisturbed, resumed))
    assert {k: v for k, v in got.items() if k != "epoch_s"} == {
        k: v for k, v in expected.items() if k != "epoch_s"}
