import numpy as np
import pytest
import torch
from random_city import random_network, random_walks

from hoserkd.engine.config import DataConfig
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.trips import residency
from hoserkd.engine.trips.batches import (
    GROUP_PAIRS,
    TripSource,
    cut_groups,
    epoch_batches,
)
from hoserkd.engine.trips.residency import choose_residency
from hoserkd.engine.types import TrajectorySet

CPU = torch.device("cpu")
FIELDS = ("offset", "step_id", "road", "time_of_day", "elapsed_min", "destination", "label",
          "travel_time_s", "candidate_offset", "candidate_road", "candidate_slot",
          "candidate_distance", "candidate_angle")


@pytest.fixture(scope="module")
def network():
    return random_network()


@pytest.fixture(scope="module")
def trips(network):
    return random_walks(network, trips=40)


@pytest.fixture(scope="module")
def tables(network):
    return build_network_tables(network, "geographic", CPU)


def mapped(trips: TrajectorySet, folder) -> TrajectorySet:
    for name in ("offset", "road", "entered_at_s"):
        np.save(folder / f"{name}.npy", getattr(trips, name))
    return TrajectorySet(
        *(np.load(folder / f"{n}.npy", mmap_mode="r") for n in ("offset", "road", "entered_at_s"))
    )


def test_batch_of_trips_in_any_order_holds_their_steps(trips, tables):
    batch = TripSource(trips, tables, DataConfig(), CPU).batch(np.array([7, 2, 31]))
    assert batch.trips == 3
    for row, trip in enumerate([7, 2, 31]):
        start, end = trips.offset[trip : trip + 2]
        steps = slice(batch.offset[row], batch.offset[row + 1])
        np.testing.assert_array_equal(batch.road[steps], trips.road[start : end - 1])
        assert batch.destination[row] == trips.road[end - 1]
        np.testing.assert_array_equal(
            batch.travel_time_s[steps], np.diff(trips.entered_at_s[start:end])
        )
        np.testing.assert_array_equal(
            batch.step_id[steps], np.arange(start - trip, end - 1 - trip)
        )
        np.testing.assert_allclose(
            batch.elapsed_min[steps],
            (trips.entered_at_s[start : end - 1] - trips.entered_at_s[start]) / 60, rtol=1e-6,
        )
        taken = batch.candidate_road[batch.candidate_offset[:-1] + batch.label][steps]
        np.testing.assert_array_equal(taken, trips.road[start + 1 : end])
    assert batch.longest_trip == int(batch.offset.diff().max())


@pytest.mark.parametrize("where", ["device", "ram", "stream"])
def test_batches_are_the_same_wherever_the_split_lives(trips, tables, tmp_path, where):
    plain = TripSource(trips, tables, DataConfig(), CPU, "ram")
    source = TripSource(mapped(trips, tmp_path), tables, DataConfig(), CPU, where)
    assert source.residency == where
    ids = epoch_batches(mapped(trips, tmp_path), 6, seed=1, epoch=2, shuffle=True)
    expected = epoch_batches(trips, 6, seed=1, epoch=2, shuffle=True)
    for got, members in zip(source.prefetch(ids), expected, strict=True):
        for field in FIELDS:
            want = getattr(plain.batch(members), field)
            np.testing.assert_array_equal(getattr(got, field), want, err_msg=field)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_epoch_holds_every_trip_once_and_fills_its_batches(trips, shuffle, batch_size):
    batches = epoch_batches(trips, batch_size, seed=0, epoch=0, shuffle=shuffle)
    assert sorted(np.concatenate(batches)) == list(range(len(trips)))
    assert len(batches) == -(-len(trips) // batch_size)
    assert max(map(len, batches)) <= batch_size


def test_epoch_order_depends_on_seed_and_epoch_alone(trips):
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(epoch_batches(trips, 4, seed, epoch, shuffle=True)).tolist()

    assert order(3, 5) == order(3, 5)
    assert order(3, 5) != order(3, 6)
    assert order(3, 5) != order(4, 5)


def test_groups_of_a_random_batch_waste_little_padding():
    length = np.random.default_rng(0).integers(2, 60, 3000)
    trips = TrajectorySet(
        np.concatenate([[0], np.cumsum(length)]), np.zeros(0, np.int32), np.zeros(0, np.int64)
    )
    batches = epoch_batches(trips, 64, seed=0, epoch=0, shuffle=True)
    groups = [group for batch in batches for group in cut_groups(length[batch] - 1, 16)]
    assert sum(group.trips for group in groups) == 3000
    real = sum(group.steps for group in groups)
    assert real == length.sum() - 3000
    assert real / sum(group.trips * group.longest for group in groups) > 0.75
    assert real / sum((length[batch] - 1).max() * len(batch) for batch in batches) < 0.6


@pytest.mark.parametrize("steps", [
    [3, 5, 900], [4999] * 20, [10] * 15 + [4999], [1, 2000, 2000, 3, 4999, 1], [7] * 40, [600_000],
])
def test_a_group_never_compares_more_pairs_than_allowed_unless_one_trip_does(steps):
    groups = cut_groups(np.array(steps), 16)
    assert [group.trips for group in groups] == [min(len(steps), 16)] or len(groups) > 1
    first = 0
    for group in groups:
        part = steps[first:first + group.trips]
        assert (group.steps, group.longest) == (sum(part), max(part))
        assert group.trips <= 16
        assert group.trips == 1 or group.trips * group.longest**2 <= GROUP_PAIRS
        first += group.trips
        # None ends earlier than it has to.
        if first < len(steps) and group.trips < 16:
            assert (group.trips + 1) * max(*part, steps[first]) ** 2 > GROUP_PAIRS
    assert first == len(steps)


def test_random_batches_are_alike_in_length():
    length = np.sort(np.random.default_rng(0).integers(2, 60, 6400))
    trips = TrajectorySet(
        np.concatenate([[0], np.cumsum(length)]), np.zeros(0, np.int32), np.zeros(0, np.int64)
    )
    means = [length[batch].mean() for batch in epoch_batches(trips, 64, 0, 0, shuffle=True)]
    assert np.std(means) < 2 * np.std(length) / 8


def test_residency_auto_without_a_gpu_takes_ram_while_it_fits(trips, monkeypatch):
    assert choose_residency(trips, CPU, "auto").residency == "ram"
    monkeypatch.setattr(residency, "available_ram", lambda: trips.road.nbytes)
    choice = choose_residency(trips, CPU, "auto")
    assert choice.residency == "stream"
    assert "more than" in choice.why


def test_residency_that_was_asked_for_is_kept(trips):
    choice = choose_residency(trips, CPU, "stream")
    assert (choice.residency, "as asked" in choice.why) == ("stream", True)
