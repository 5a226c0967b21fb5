"""The options that make a training faster or smaller: what `auto` picks, and that results hold."""

import numpy as np
import pytest
import torch
from random_city import random_network, random_walks
from toy_training import (
    Listener,
    StopAfter,
    ToyTeacher,
    last_weights,
    same,
    toy_city,
    toy_config,
)

from hoserkd.engine.config import DataConfig, DistillConfig, StudentConfig, TrainConfig
from hoserkd.engine.events import Note, StepDone
from hoserkd.engine.student.hoser import views_of
from hoserkd.engine.student.network_graph import NetworkPass, RecordedNetwork
from hoserkd.engine.student.storage import new_student
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.train import train_student
from hoserkd.engine.training import acceleration
from hoserkd.engine.training.acceleration import (
    choose_acceleration,
    kept_bytes,
    matrix_precision,
)
from hoserkd.engine.trips.batches import TripSource
from hoserkd.errors import ConfigError, InterruptedRunError

CPU = torch.device("cpu")
STEPS = np.full(1000, 30)
WIDE = StudentConfig(hidden_dim=64, road_id_dim=32, attribute_dim=8, heads=2, layers=2)


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return toy_city(tmp_path_factory.mktemp("city"))


def first_losses(city, directory, device="cpu", **train):
    """Return the losses of the first steps, distilled, under some options."""
    listener = Listener()
    config = toy_config(DistillConfig(lambda_kl=0.5), max_steps=4, **train)
    train_student(config.model_copy(update={"device": device}), city, directory=directory,
                  teacher_sources=dict.fromkeys(("train", "val"), teacher_on(device)),
                  observer=listener)
    return [step.metrics["loss"] for step in listener.of(StepDone)]


def teacher_on(device):
    teacher = ToyTeacher()
    teacher.cell, teacher.preference = teacher.cell.to(device), teacher.preference.to(device)
    return teacher


def test_auto_on_a_cpu_is_plain_float32():
    chosen = choose_acceleration(TrainConfig(), StudentConfig(), STEPS, CPU)
    assert (chosen.amp, chosen.tf32, chosen.compiled, chosen.recompute, chosen.cuda_graphs) == (
        None, False, False, False, False)
    assert chosen.why == "computing in float32"


def test_options_of_a_gpu_do_nothing_on_a_cpu():
    chosen = choose_acceleration(
        TrainConfig(tf32=True, cuda_graphs=True), StudentConfig(), STEPS, CPU)
    assert not chosen.tf32
    assert not chosen.cuda_graphs


def test_compiling_without_a_compiler_is_refused_before_anything_is_done(
    city, tmp_path, monkeypatch
):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"a C\+\+ compiler \(no-such-compiler\)"):
        train_student(toy_config(compile=True), city, directory=tmp_path)
    assert not list(tmp_path.iterdir())
    assert not choose_acceleration(TrainConfig(), StudentConfig(), STEPS, CPU).compiled


def test_recompute_is_chosen_where_the_longest_trips_would_not_fit(monkeypatch):
    steps = np.array([5] * 900 + [400] * 64)
    needed = kept_bytes(TrainConfig(), StudentConfig(), steps, CPU, 4)
    monkeypatch.setattr(acceleration, "available_ram", lambda: int(needed * 1.9))
    assert choose_acceleration(TrainConfig(), StudentConfig(), steps, CPU).recompute
    assert "computed again" in choose_acceleration(
        TrainConfig(), StudentConfig(), steps, CPU).why
    assert not choose_acceleration(
        TrainConfig(recompute=False), StudentConfig(), steps, CPU).recompute
    monkeypatch.setattr(acceleration, "available_ram", lambda: int(needed * 2.1))
    assert not choose_acceleration(TrainConfig(), StudentConfig(), steps, CPU).recompute
    assert choose_acceleration(TrainConfig(recompute=True), StudentConfig(), steps, CPU).recompute


@pytest.mark.parametrize(("amp", "width"), [(None, 4), (torch.bfloat16, 2)])
def test_estimate_of_what_is_kept_is_near_what_autograd_keeps(amp, width):
    network = random_network(roads=60)
    tables = build_network_tables(network, "geographic", CPU)
    trips = random_walks(network, trips=96, seed=1, longest=60)
    steps = np.diff(trips.offset) - 1
    batch = TripSource(trips, tables, DataConfig(), CPU).batch(np.argsort(steps)[-64:])
    model = new_student(WIDE, network)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(value):
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    encoder = model.trajectory_encoder
    with torch.autocast("cpu", dtype=amp, enabled=amp is not None):
        encoding = model.encode_network(tables).leaves()
        spatial = encoding.spatial.index_select(0, batch.road)
        points = encoder.embed_points(spatial, batch.time_of_day)
        views = views_of(encoding, batch, spatial.dtype)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            encoder(points, views)
    estimate = kept_bytes(TrainConfig(), WIDE, steps, CPU, width)
    assert 0.6 < estimate / sum(kept.values()) < 1.5


def test_recomputing_leaves_the_same_bits(city, tmp_path):
    for name, recompute in (("kept", False), ("again", True)):
        train_student(toy_config(recompute=recompute, max_steps=4), city,
                      directory=tmp_path / name)
    assert same(last_weights(tmp_path / "kept"), last_weights(tmp_path / "again"))


def test_embedding_all_roads_changes_nothing_beyond_rounding(city, tmp_path):
    seen = first_losses(city, tmp_path / "seen", all_roads=False)
    assert first_losses(city, tmp_path / "all", all_roads=True) == pytest.approx(seen, rel=1e-5)


def test_what_was_chosen_is_said(city, tmp_path):
    listener = Listener()
    with pytest.raises(InterruptedRunError):
        train_student(toy_config(amp="bf16"), city, directory=tmp_path, observer=listener,
                      stop=StopAfter(0))
    assert "computing in bfloat16" in [note.message for note in listener.of(Note)]


@pytest.mark.parametrize(("tf32", "inside"), [(True, "high"), (False, "highest")])
def test_matrix_precision_is_as_before_afterwards(tf32, inside):
    before = torch.get_float32_matmul_precision()
    with matrix_precision(tf32):
        assert torch.get_float32_matmul_precision() == inside
    assert torch.get_float32_matmul_precision() == before


def test_the_pass_that_is_recorded_is_the_encoding_of_all_roads():
    network = random_network()
    tables = build_network_tables(network, "geographic", CPU)
    model = new_student(WIDE, network)
    expected = model.encode_network(tables).learnt()
    answered = NetworkPass(model, tables)()
    assert len(answered) == len(expected)
    for value, plain in zip(answered, expected.values(), strict=True):
        assert torch.equal(value, plain)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("options", "tolerance"), [
    ({"tf32": True}, 2e-3), ({"all_roads": True}, 1e-4), ({"cuda_graphs": True}, 1e-4),
    ({"recompute": True}, 1e-4), ({"amp": "bf16"}, 1e-2), ({"amp": "fp16"}, 1e-2),
    ({"compile": True}, 1e-3),
    ({"amp": "bf16", "cuda_graphs": True}, 1e-2)])
def test_options_on_a_gpu_change_nothing_beyond_rounding(city, tmp_path, options, tolerance):
    plain = {"amp": "off", "tf32": False}
    exact = first_losses(city, tmp_path / "exact", "cuda", **plain)
    found = first_losses(city, tmp_path / "found", "cuda", **(plain | options))
    assert found == pytest.approx(exact, rel=tolerance)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_recorded_network_gives_the_gradients_of_the_plain_one():
    network, device = random_network(), torch.device("cuda")
    tables = build_network_tables(network, "geographic", device)
    model = new_student(WIDE, network).to(device)
    recorded = RecordedNetwork(model, tables, None)
    found = []
    for encode in (lambda: model.encode_network(tables), recorded.encode, recorded.encode):
        model.zero_grad()
        encoding = encode()
        leaves = encoding.leaves()
        (leaves.spatial.square().sum() + leaves.key.square().sum() + leaves.time.sum()).backward()
        encoding.backward_from(leaves)
        found.append({name: p.grad.clone() for name, p in model.named_parameters()
                      if p.grad is not None and p.grad.any()})
    for again in found[1:]:
        assert again.keys() == found[0].keys()
        for name, gradient in found[0].items():
            torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-5)
