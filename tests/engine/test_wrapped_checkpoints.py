"""Checkpoints as training programs and wrappers of modules leave them, and torch's old form."""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from test_export import PLAIN, checkpoint
from test_student_storage import PUBLIC, city_of

from hoserkd.engine.city.storage import load_city
from hoserkd.engine.student.storage import load_student
from hoserkd.engine.teacher.export import export_checkpoint
from hoserkd.engine.teacher.pickles import read_archive
from hoserkd.engine.teacher.storage import load_teacher
from hoserkd.errors import CheckpointError, TeacherError

STUDENTS = "road_network_encoder.zone_id_emb.weight"


def prefixed(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return OrderedDict((prefix + name, value) for name, value in state.items())


WRAPPED = {
    "ddp": lambda s: prefixed("module.", s),
    "compiled": lambda s: prefixed("_orig_mod.", s),
    "both": lambda s: prefixed("module._orig_mod.", s),
    "lightning": lambda s: {"epoch": 3, "state_dict": prefixed("model.", s), "callbacks": {}},
    "state_dict": lambda s: {"state_dict": s},
    "model_state_dict": lambda s: {"epoch": 3, "model_state_dict": s, "best": torch.tensor(0.5)},
    "model": lambda s: {"model": prefixed("module.", s), "optimizer": {"state": {}, "lr": 0.1}},
    "nested": lambda s: {"checkpoint": {"net": {"weights": prefixed("student.", s)}}},
    "averaged": lambda s: {"model": s, "ema": prefixed("module.", s), "n_averaged": 7},
    "part compiled": lambda s: OrderedDict(
        (name.replace("navigator.", "navigator._orig_mod.").replace(
            "transformer.h.", "transformer.h._fsdp_wrapped_module."), value)
        for name, value in s.items()),
}


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from source_folder import prepared

    folder = tmp_path_factory.mktemp("city")
    prepared(PUBLIC.parent / "city", folder)
    return load_city(folder)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old form"])
@pytest.mark.parametrize("kind", WRAPPED)
def test_a_wrapped_student_is_taken(city: Any, tmp_path: Path, kind: str, zipped: bool) -> None:
    state = torch.load(PUBLIC, weights_only=True)
    path = tmp_path / "latest.ckpt"
    torch.save(WRAPPED[kind](state), path, _use_new_zipfile_serialization=zipped)
    plain, found = load_student(PUBLIC, city), load_student(path, city)
    assert found.meta == plain.meta
    for name, value in plain.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value), name


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old form"])
@pytest.mark.parametrize("kind", WRAPPED)
def test_a_wrapped_teacher_is_taken(tmp_path: Path, kind: str, zipped: bool) -> None:
    content = torch.load(checkpoint(tmp_path / "plain.pt"), weights_only=True)
    wrapped = WRAPPED[kind](content.pop("model"))
    torch.save({**content, **wrapped}, tmp_path / "c.pt", _use_new_zipfile_serialization=zipped)
    expected = export_checkpoint(tmp_path / "plain.pt", tmp_path / "a", PLAIN)
    found = export_checkpoint(tmp_path / "c.pt", tmp_path / "b", PLAIN)
    assert found.weights_sha256 == expected.weights_sha256
    assert load_teacher(tmp_path / "b").card.dimensions == expected.dimensions


def test_what_cannot_be_taken_is_named(city: Any, tmp_path: Path) -> None:
    state = torch.load(PUBLIC, weights_only=True)
    cases = {
        "a": ({**prefixed("student.", state), **prefixed("best.", state)},
              r"several models, at the file itself with the prefix 'student\.', the file itself "
              r"with the prefix 'best\.'"),
        "b": ({"first": state, "second": prefixed("module.", state)}, r"several models, at "),
        "c": ({"epoch": 3, "optimizer": {}, "scheduler": None},
              r"zone_id_emb.weight; it holds 'epoch', 'optimizer', 'scheduler'"),
        "d": ([state], "it holds a list, not a dict of tensors"),
        "e": ({**state, f"module.{STUDENTS}": state[STUDENTS]}, "two of its names"),
        "f": ({"format": 1, "model": state, "optimiser": {}, "settings": {}, "rng": {}},
              "the checkpoint of a training"),
    }
    cases["b"][0]["second"] = {name: value.clone() for name, value in
                               cases["b"][0]["second"].items()}
    for name, (content, said) in cases.items():
        torch.save(content, tmp_path / f"{name}.pth")
        with pytest.raises(CheckpointError, match=said):
            load_student(tmp_path / f"{name}.pth", city)


def test_other_pickles_are_told_from_torchs(city: Any, tmp_path: Path) -> None:
    path = tmp_path / "state.pkl"
    path.write_bytes(pickle.dumps({STUDENTS: [1.0]}, protocol=4))
    with pytest.raises(TeacherError, match="a pickle of another program"):
        read_archive(path)
    with pytest.raises(CheckpointError, match="not a student file"):
        load_student(path, city_of(city.network))


def old_form(path: Path) -> bytes:
    torch.save({"w": torch.arange(6.0), "v": torch.arange(3)}, path,
               _use_new_zipfile_serialization=False)
    return path.read_bytes()


def all_tensors(path: Path) -> dict[str, torch.Tensor]:
    archive = read_archive(path)
    return archive.tensors(archive.root)


def test_the_old_form_reads_views_and_types_as_torch_saved_them(tmp_path: Path) -> None:
    base = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    tensors = {"plain": base, "view": base[1:5, 1:3], "turned": base.T, "half": base.half(),
               "brain": base.bfloat16(), "number": torch.tensor(7), "empty": torch.empty(0, 3),
               "bool": base > 0, "parameter": torch.nn.Parameter(base)}
    path = tmp_path / "t.pt"
    torch.save({"model": OrderedDict(tensors)}, path, _use_new_zipfile_serialization=False)
    archive = read_archive(path)
    for name, tensor in tensors.items():
        found = archive.tensor(archive.root["model"][name])
        assert found.dtype == tensor.dtype, name
        assert torch.equal(found, tensor.detach()), name


@pytest.mark.parametrize("cut", [20, 60, 200, -1, -9, -30])
def test_an_old_file_that_was_cut_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "t.pt"
    path.write_bytes(old_form(path)[:cut])
    with pytest.raises(TeacherError, match=r"t\.pt: "):
        all_tensors(path)


def test_an_old_file_whose_sizes_lie_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "t.pt"
    content = old_form(path)
    place = content.rindex((6).to_bytes(8, "little"))
    for count in (1 << 40, -1, 5, 7):
        lie = count.to_bytes(8, "little", signed=True)
        path.write_bytes(content[:place] + lie + content[place + 8:])
        with pytest.raises(TeacherError, match=r"t\.pt: "):
            all_tensors(path)


def test_an_old_file_with_code_inside_is_refused_unrun(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    torch.save({STUDENTS: Evil()}, tmp_path / "t.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(TeacherError, match="refused, because its pickle holds the name"):
        read_archive(tmp_path / "t.pt")
    assert not (tmp_path / "ran").exists()
