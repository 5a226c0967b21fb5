import numpy as np
import pytest
import torch
from public_city import RECORDED, expected, public_city
from torch.nn import functional

from hoserkd.engine.config import DataConfig
from hoserkd.engine.student.storage import load_student
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.trips.batches import TripSource
from hoserkd.errors import CheckpointError

CPU = torch.device("cpu")
NO_EFFECT = "relative_position_emb_k.bias"
"""Its gradient is rounding noise in the public code and nothing here."""


@pytest.fixture(scope="module")
def student():
    return load_student(RECORDED / "best.pth", public_city())


@pytest.fixture(scope="module")
def tables():
    return build_network_tables(public_city().network, "aaai2025", CPU)


@pytest.fixture(scope="module")
def batch(tables):
    source = TripSource(public_city().split("test"), tables, DataConfig(), CPU)
    return source.batch(np.arange(24))


def losses(output, batch, times):
    """The losses of ENGINE.md section 3, step by step."""
    road, time = [], []
    for step, (start, end) in enumerate(
        zip(batch.candidate_offset[:-1], batch.candidate_offset[1:], strict=True)
    ):
        label = batch.label[step]
        road.append(functional.cross_entropy(output.logits[start:end], label))
        predicted = output.travel_time[start + label] * times.log1p_std + times.log1p_mean
        actual = torch.log1p(batch.travel_time_s[step])
        time.append((predicted - actual).abs() / actual.clamp(min=1))
    return torch.stack(road).mean(), torch.stack(time).mean()


def test_public_checkpoint_tells_its_dimensions(student):
    config = student.meta.config
    assert (config.hidden_dim, config.road_id_dim, config.attribute_dim) == (32, 16, 4)
    assert (config.heads, config.layers, config.features) == (2, 2, "aaai2025")
    assert student.meta.times == public_city().times


def test_embeddings_of_public_weights_equal_the_recorded_ones(student, tables):
    with torch.no_grad():
        encoding = student.model.encode_network(tables)
    np.testing.assert_allclose(encoding.road, expected()["road_embedding"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(encoding.zone, expected()["zone_embedding"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("seen_only", [False, True])
def test_answers_of_public_weights_equal_the_recorded_ones(student, tables, batch, seen_only):
    with torch.no_grad():
        encoding = student.model.encode_network(tables, [batch] if seen_only else None)
        output = student.model.forward_encoded(encoding, batch)
    np.testing.assert_allclose(output.logits, expected()["logits"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(
        output.travel_time, expected()["time_standardised"], rtol=0, atol=1e-4
    )
    best = [
        int(output.logits[start:end].argmax())
        for start, end in zip(batch.candidate_offset[:-1], batch.candidate_offset[1:], strict=True)
    ]
    assert int((torch.tensor(best) == batch.label).sum()) == expected()["correct"]


def test_losses_and_gradients_of_public_weights_equal_the_recorded_ones(student, tables, batch):
    model, recorded = student.model, expected()
    model.zero_grad()
    road, time = losses(model(tables, batch), batch, student.meta.times)
    assert road.item() == pytest.approx(recorded["loss_road"], rel=1e-4)
    assert time.item() == pytest.approx(recorded["loss_time"], rel=1e-4)
    (road + time).backward()
    parameters = dict(model.named_parameters())
    assert set(parameters) == set(recorded["grad_names"].tolist())
    for name, norm in zip(recorded["grad_names"], recorded["grad_norms"], strict=True):
        if name.endswith(NO_EFFECT):
            assert norm < 1e-8
            assert parameters[name].grad is None
        else:
            assert parameters[name].grad.norm().item() == pytest.approx(norm, rel=1e-3), name


def test_public_weights_are_refused_where_zones_differ(tmp_path):
    weights = torch.load(RECORDED / "best.pth", weights_only=True)
    weights["road2zone"] = (weights["road2zone"] + 1) % 6
    torch.save(weights, tmp_path / "best.pth")
    with pytest.raises(CheckpointError, match="240 of the 240 roads have other zones"):
        load_student(tmp_path / "best.pth", public_city())
