import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from random_city import random_network
from safetensors import safe_open
from safetensors.torch import save_file

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import StudentConfig
from hoserkd.engine.student.storage import (
    StudentMeta,
    load_student,
    network_sha256,
    new_student,
    save_student,
)
from hoserkd.engine.types import TimeStatistics
from hoserkd.errors import CheckpointError

CONFIG = StudentConfig(hidden_dim=12, road_id_dim=4, attribute_dim=2, heads=2, dropout=0.1)
PUBLIC = Path(__file__).parent.parent / "data" / "hoser" / "best.pth"


def city_of(network) -> City:
    return City(Path("somewhere"), "toy", "0" * 64, network, TimeStatistics(3.0, 0.5), {})


@pytest.fixture
def network():
    return random_network()


@pytest.fixture
def saved(network, tmp_path):
    torch.manual_seed(0)
    model = new_student(CONFIG, network)
    meta = StudentMeta(
        CONFIG, network.roads, len(network.highway_names), network.zones, TimeStatistics(2.5, 0.7),
        city_sha256="ab", run_id="r1", epoch=3, step=99, distill={"lambda_kl": 0.01},
        metrics={"val_accuracy": 0.9}, network_sha256=network_sha256(network),
        candidate_top_k=5, best_by="loss",
    )
    path = tmp_path / "best.safetensors"
    save_student(path, model, meta)
    return path, model, meta


def test_student_that_was_saved_comes_back_with_all_it_says_of_itself(network, saved):
    path, model, meta = saved
    loaded = load_student(path, city_of(network))
    assert loaded.meta == meta
    assert not loaded.model.training
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value), name


@pytest.mark.parametrize("top_k", [0, -3, "64", True, 2.5])
def test_student_file_with_an_impossible_number_of_candidates_is_refused(
        network, saved, tmp_path, top_k):
    _, model, meta = saved
    save_student(tmp_path / "odd.safetensors", model, replace(meta, candidate_top_k=top_k))
    with pytest.raises(CheckpointError, match="candidate_top_k is"):
        load_student(tmp_path / "odd.safetensors", city_of(network))


def test_student_of_a_city_of_another_size_is_refused_with_both_sizes(saved):
    with pytest.raises(CheckpointError, match=r"40 roads.*, the city has 41 roads"):
        load_student(saved[0], city_of(random_network(roads=41)))


def test_student_of_another_network_of_the_same_size_is_refused(saved):
    with pytest.raises(CheckpointError, match="another road network"):
        load_student(saved[0], city_of(random_network(seed=1)))


def test_student_file_that_is_missing_is_refused(network, tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        load_student(tmp_path / "none.safetensors", city_of(network))


def test_student_file_of_another_kind_is_refused(network, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "noise.safetensors").write_bytes(b"noise" * 100)
    for name in ("other.safetensors", "noise.safetensors"):
        with pytest.raises(CheckpointError, match="not a student file"):
            load_student(tmp_path / name, city_of(network))


def test_student_file_that_was_cut_is_refused(network, saved):
    path = saved[0]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a student file"):
        load_student(path, city_of(network))


def test_public_checkpoint_of_another_city_is_refused_with_both_sizes(network):
    with pytest.raises(CheckpointError, match=r"240 roads.*, the city has 40 roads"):
        load_student(PUBLIC, city_of(network))


def test_public_checkpoint_with_code_inside_is_refused_unrun(network, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"road2zone": Evil()}, tmp_path / "best.pth")
    with pytest.raises(CheckpointError, match="not a public student"):
        load_student(tmp_path / "best.pth", city_of(network))
    assert not (tmp_path / "ran").exists()


def test_public_checkpoint_without_a_weight_is_refused_by_name(network, tmp_path):
    weights = torch.load(PUBLIC, weights_only=True)
    del weights["road_network_encoder.zone_id_emb.weight"]
    torch.save(weights, tmp_path / "best.pth")
    with pytest.raises(CheckpointError, match="zone_id_emb"):
        load_student(tmp_path / "best.pth", city_of(network))


def test_saving_over_a_student_leaves_the_old_one_if_it_fails(network, saved, monkeypatch):
    path, model, meta = saved
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_student(path, model, meta)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("changes", [
    {"heads": 0}, {"dropout": "much"}, {"hidden_dim": 13}, {"unknown": 1}, {"features": "odd"}])
def test_student_file_with_a_damaged_header_is_told_in_one_line(saved, network, tmp_path, changes):
    path = tmp_path / "bad.safetensors"
    with safe_open(saved[0], framework="pt") as file:
        header = json.loads(file.metadata()["hoserkd"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header["config"] |= changes
    save_file(weights, path, {"hoserkd": json.dumps(header)})
    with pytest.raises(CheckpointError) as refused:
        load_student(path, city_of(network))
    assert str(path) in refused.value.message
    assert "\n" not in refused.value.message
    assert "pydantic" not in refused.value.message
