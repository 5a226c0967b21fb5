import math
import shutil
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from test_resume import equal
from torch.nn import functional as F
from toy_teacher import toy_city, toy_config, toy_model

from hoserkd.engine.config import ProfilingConfig, TeacherConfig, TrainConfig
from hoserkd.engine.config_base import MAX_RATE, MAX_WEIGHT
from hoserkd.engine.events import (
    CheckpointSaved,
    EpochDone,
    Rewound,
    Silent,
    SplitJudged,
    StepDone,
    never_stop,
)
from hoserkd.engine.teacher import perplexity
from hoserkd.engine.teacher.export import export_checkpoint
from hoserkd.engine.teacher.perplexity import (
    next_token_loss,
    score_tokens,
    score_trips,
    trip_log_perplexity,
)
from hoserkd.engine.teacher.sequences import token_batches, token_trips
from hoserkd.engine.teacher.storage import load_teacher
from hoserkd.engine.teacher.training import train_teacher
from hoserkd.engine.types import TrajectorySet
from hoserkd.errors import DivergenceError, InterruptedRunError, TeacherError

SMALL = TeacherConfig(n_layer=1, n_head=2, n_embd=16, dropout=0.1, block_size=9, epochs=2,
                      batch_tokens=60, learning_rate=1e-2, cell_size_deg=0.004)


def config(teacher: TeacherConfig = SMALL, **sections: object):
    return toy_config(teacher=teacher, profiling=ProfilingConfig(interval=3), **sections)


class Listener:
    def __init__(self):
        self.events = []

    def notify(self, event):
        self.events.append(event)

    def of(self, kind):
        return [e for e in self.events if isinstance(e, kind)]


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return toy_city(tmp_path_factory.mktemp("city"))


@pytest.fixture(scope="module")
def trained(city, tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained") / "small"
    listener = Listener()
    result = train_teacher(config(), city, directory, listener, never_stop)
    return result, listener


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_teacher(directory).model.state_dict()


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


def plain_log_perplexity(model, tokens: list[int]) -> float:
    hidden = model(torch.tensor([tokens[:-1]]))[0]
    return float(F.cross_entropy(model.all_logits(hidden), torch.tensor(tokens[1:])))


def test_sequences_are_sot_cells_eot_and_pad(city, trained):
    card = trained[0].card
    cells = card.grid.tokens(city.network.centroid_lonlat)
    trips = city.split("train")
    tokens = token_trips(trips, cells, card, torch.device("cpu"))
    batch = tokens.batch(np.arange(len(trips)))
    assert batch.shape[1] == 9
    for trip, row in enumerate(batch.tolist()):
        roads = trips.road[trips.offset[trip]:trips.offset[trip + 1]]
        whole = [card.sot_id, *cells[roads].tolist(), card.eot_id][:9]
        assert row == whole + [card.pad_id] * (9 - len(whole))
        assert tokens.length[trip] == len(whole)


@pytest.mark.parametrize("epoch", [0, 1])
def test_batches_hold_each_trip_once_within_the_budget(epoch):
    length = np.random.default_rng(0).integers(3, 40, 500)
    batches = token_batches(length, 200, (7, epoch))
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(500))
    assert all(len(b) * length[b].max() <= 200 for b in batches)
    assert sum(len(b) * length[b].max() for b in batches) < 1.05 * length.sum()


def test_epochs_have_batches_of_the_same_shapes_in_other_orders():
    length = np.random.default_rng(0).integers(3, 40, 500)
    first, second = (token_batches(length, 200, (7, epoch)) for epoch in (0, 1))
    shapes = [sorted((len(b), length[b].max()) for b in batches) for batches in (first, second)]
    assert shapes[0] == shapes[1]
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    again = token_batches(length, 200, (7, 0))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_sequence_longer_than_the_budget_is_a_batch_of_its_own():
    batches = token_batches(np.array([5, 90, 5]), 20, (0, 0))
    assert sorted(sorted(b.tolist()) for b in batches) == [[0, 2], [1]]


@pytest.mark.parametrize("pieces", [1, 5])
def test_head_loss_and_its_gradients_equal_autograds(pieces, monkeypatch):
    tokens = torch.randint(0, 30, (4, 9), generator=torch.Generator().manual_seed(0))
    tokens[1, 5:] = 30
    monkeypatch.setattr(perplexity, "LOGITS_AT_ONCE", 33 * 32 // pieces)
    grads, losses = [], []
    for plain in (True, False):
        model = toy_model(33).requires_grad_(True)
        if plain:
            logits = model.all_logits(model(tokens[:, :-1]))
            loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=30,
                                   reduction="sum")
        else:
            loss = next_token_loss(model, tokens, 30)
        (loss * 0.25).backward()
        losses.append(loss.detach())
        grads.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(losses[1], losses[0])
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-4, rtol=1e-4)


def test_training_learns_and_reports(city, trained):
    result, listener = trained
    epochs = listener.of(EpochDone)
    assert [e.epoch for e in epochs] == [0, 1]
    assert epochs[1].metrics["val_perplexity"] < epochs[0].metrics["val_perplexity"]
    assert result.val_perplexity == pytest.approx(epochs[1].metrics["val_perplexity"])
    assert epochs[1].metrics["val_perplexity"] < result.card.vocab_size
    steps = listener.of(StepDone)
    assert {"loss", "learning_rate", "grad_norm", "tokens_per_s",
            "optimiser_steps_per_s"} == set(steps[0].metrics)
    assert steps[-1].step == steps[-1].total_steps == epochs[-1].step
    assert {e.kind for e in listener.of(CheckpointSaved)} == {"best", "last"}


def test_export_is_usable_and_its_perplexity_is_the_reported_one(city, trained):
    result, _ = trained
    teacher = load_teacher(result.directory)
    trips = city.split("val")
    scores = trip_log_perplexity(teacher, city.network, trips)
    counts = np.minimum(np.diff(trips.offset) + 2, 9) - 1
    assert math.exp((scores * counts).sum() / counts.sum()) == pytest.approx(
        result.val_perplexity, rel=1e-5)
    assert teacher.card.meta["val_perplexity"] == pytest.approx(result.val_perplexity)
    assert teacher.grid.clamped_share(city.network.centroid_lonlat) == 0


def test_trained_teacher_has_been_judged_at_finding_outliers(trained):
    result, listener = trained
    kinds = [a["kind"] for a in load_teacher(result.directory).card.meta["anomalies"]]
    assert kinds == ["route_switch", "detour"] * 3
    judged = listener.of(SplitJudged)
    assert [e.split for e in judged] == ["anomalies"]
    assert 0 <= judged[0].metrics["detour_level5_p0.1_roc_auc"] <= 1


def test_trip_log_perplexity_equals_the_trips_one_by_one(city, trained):
    teacher = load_teacher(trained[0].directory)
    trips = city.split("test")
    cells = teacher.grid.tokens(city.network.centroid_lonlat)
    scores = trip_log_perplexity(teacher, city.network, trips)
    for trip, score in enumerate(scores):
        roads = trips.road[trips.offset[trip]:trips.offset[trip + 1]]
        tokens = [teacher.sot_id, *cells[roads].tolist(), teacher.eot_id][:9]
        assert score == pytest.approx(plain_log_perplexity(teacher.model, tokens), abs=1e-5)


def test_generated_trip_without_a_road_has_no_perplexity(city, trained):
    teacher = load_teacher(trained[0].directory)
    trips = TrajectorySet(np.array([0, 0, 2]), np.array([3, 4], np.int32), np.zeros(2, np.int64))
    scores = trip_log_perplexity(teacher, city.network, trips)
    assert np.isnan(scores[0])
    assert np.isfinite(scores[1])
    found = score_trips(teacher, city.network, trips)
    assert (found.surprise[0], found.tokens.tolist()) == (0.0, [0, 3])


def test_small_batches_give_the_same_scores(city, trained):
    teacher = load_teacher(trained[0].directory)
    cells = teacher.grid.tokens(city.network.centroid_lonlat)
    tokens = token_trips(city.split("test"), cells, teacher.card, torch.device("cpu"))
    small, whole = (score_tokens(teacher.model, tokens, batch_tokens=n) for n in (13, 1 << 14))
    np.testing.assert_allclose(small.surprise, whole.surprise, atol=1e-4)
    np.testing.assert_array_equal(small.tokens, whole.tokens)
    assert whole.perplexity == pytest.approx(
        math.exp(whole.surprise.sum() / whole.tokens.sum()))


def test_same_seed_gives_the_same_weights_and_another_seed_others(city, trained, tmp_path):
    result, _ = trained
    train_teacher(config(), city, tmp_path / "again", Silent(), never_stop)
    assert same(weights(result.directory), weights(tmp_path / "again"))
    train_teacher(config(seed=5), city, tmp_path / "other", Silent(), never_stop)
    assert not same(weights(result.directory), weights(tmp_path / "other"))


@pytest.mark.parametrize("stops", [(0,), (1,), (5,), (2, 0, 3)])
def test_stopped_training_goes_on_to_the_same_bits(stops, city, trained, tmp_path):
    result, listener = trained
    done = 0
    for number, steps in enumerate(stops):
        asked = iter(range(10_000))
        with pytest.raises(InterruptedRunError, match="state is saved"):
            train_teacher(config(), city, tmp_path / "t", Silent(),
                          lambda n=steps, asked=asked: next(asked) == n, resume=bool(number))
        done += steps
    with pytest.raises(TeacherError, match="was stopped"):
        train_teacher(config(), city, tmp_path / "t", Silent(), never_stop)
    resumed = Listener()
    train_teacher(config(), city, tmp_path / "t", resumed, never_stop, resume=True)
    assert resumed.of(Rewound)[0].step == done
    assert same(weights(result.directory), weights(tmp_path / "t"))
    one, two = (torch.load(each / "last.ckpt", weights_only=True)
                for each in (result.directory, tmp_path / "t"))
    equal(*({k: v for k, v in each.items() if k != "card"} for each in (one, two)))
    # Also what a report and an epoch tell of the steps on both sides of the stop.
    told = {e.step: e.metrics["loss"] for e in listener.of(StepDone) if e.step > done}
    assert {e.step: e.metrics["loss"] for e in resumed.of(StepDone)} == told
    assert (resumed.of(EpochDone)[-1].metrics["train_loss"]
            == listener.of(EpochDone)[-1].metrics["train_loss"])


def test_killed_training_goes_on_to_the_same_bits(city, trained, tmp_path):
    settings = config(train=TrainConfig(checkpoint_every=2))
    last = tmp_path / "t" / "last.ckpt"
    job = get_context("fork").Process(target=train_teacher, args=(
        settings, city, tmp_path / "t", Silent(), lambda: time.sleep(0.05)))
    job.start()
    deadline = time.monotonic() + 60
    while not last.exists() and job.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.07)
    job.kill()
    job.join()
    assert last.exists()
    train_teacher(settings, city, tmp_path / "t", Silent(), never_stop, resume=True)
    assert same(weights(trained[0].directory), weights(tmp_path / "t"))


def test_finished_training_is_not_repeated(city, trained):
    result, _ = trained
    before = (result.directory / "last.ckpt").stat().st_mtime_ns
    again = train_teacher(config(), city, result.directory, Silent(), never_stop)
    assert not again.trained
    assert again.val_perplexity == result.val_perplexity
    assert (result.directory / "last.ckpt").stat().st_mtime_ns == before


def test_other_settings_do_not_overwrite_a_teacher(city, trained):
    result, _ = trained
    wider = config(SMALL.model_copy(update={"n_embd": 32}))
    with pytest.raises(TeacherError, match="n_embd was 16, is now 32"):
        train_teacher(wider, city, result.directory, Silent(), never_stop)
    with pytest.raises(TeacherError, match=r"no last\.ckpt"):
        train_teacher(config(), city, result.directory.parent / "none", Silent(), never_stop,
                      resume=True)


def test_foreign_export_is_not_overwritten(city, trained, tmp_path):
    export_checkpoint(trained[0].directory, tmp_path / "copy")
    with pytest.raises(TeacherError, match="not trained here"):
        train_teacher(config(), city, tmp_path / "copy", Silent(), never_stop)
    train_teacher(config(), city, tmp_path / "copy", Silent(), never_stop, force=True)


def test_our_checkpoint_is_exported_like_a_public_one(city, trained, tmp_path):
    result, _ = trained
    card = export_checkpoint(result.directory / "last.ckpt", tmp_path / "last")
    assert card.grid == result.card.grid
    assert card.sot_id == result.card.sot_id
    last = torch.load(result.directory / "last.ckpt", weights_only=True)["model"]
    assert same(last, weights(tmp_path / "last"))


def test_damaged_checkpoint_is_a_clear_error(city, trained, tmp_path):
    (tmp_path / "t").mkdir()
    content = (trained[0].directory / "last.ckpt").read_bytes()
    (tmp_path / "t" / "last.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(TeacherError, match="damaged checkpoint"):
        train_teacher(config(), city, tmp_path / "t", Silent(), never_stop, resume=True)


@pytest.mark.parametrize("damage", [{"progress": {"unheard": 1}}, {"rng": None}])
def test_checkpoint_of_another_version_is_a_clear_error(city, trained, tmp_path, damage):
    content = torch.load(trained[0].directory / "last.ckpt", weights_only=True)
    (tmp_path / "t").mkdir()
    torch.save(content | damage, tmp_path / "t" / "last.ckpt")
    with pytest.raises(TeacherError, match="a checkpoint of another version"):
        train_teacher(config(), city, tmp_path / "t", Silent(), never_stop, resume=True)


def test_teacher_whose_checkpoint_knows_no_criterion_counts_as_trained_by_the_loss(
        city, trained, tmp_path):
    content = torch.load(trained[0].directory / "last.ckpt", weights_only=True)
    for name in ("best_metrics", "epoch_s"):
        del content["progress"][name]
    del content["settings"]["best"]
    shutil.copytree(trained[0].directory, tmp_path / "t")
    torch.save(content, tmp_path / "t" / "last.ckpt")
    assert not train_teacher(config(), city, tmp_path / "t", Silent(), never_stop).trained
    other = config(SMALL.model_copy(update={"best": "accuracy"}))
    with pytest.raises(TeacherError, match="best was 'loss', is now 'accuracy'"):
        train_teacher(other, city, tmp_path / "t", Silent(), never_stop)


def test_largest_learning_rate_ends_with_a_clear_error(city, tmp_path):
    wild = config(SMALL.model_copy(update={
        "learning_rate": MAX_RATE, "clip": MAX_WEIGHT, "weight_decay": MAX_RATE}))
    with pytest.raises(DivergenceError, match="the teacher diverged by step"):
        train_teacher(wild, city, tmp_path / "t", Silent(), never_stop)
