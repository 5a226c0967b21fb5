"""Names are for people, hashes for the program."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_teacher import toy_city, toy_teacher

from hoserkd.engine.identity import (
    Identity,
    MadeFrom,
    check_unchanged,
    city_identity,
    student_identity,
    student_sha256,
    weights_sha256,
)
from hoserkd.engine.student.storage import LoadedStudent, load_student, save_student
from hoserkd.engine.teacher.storage import load_teacher
from hoserkd.errors import CheckpointError

ONE = Identity("teacher", "demo", "1" * 64)
OTHER = Identity("teacher", "demo", "2" * 64, Path("/somewhere/demo"))


def test_identities_are_equal_by_hash_whatever_they_are_called_and_wherever_they_lie():
    assert Identity("city", "a", "f" * 64, Path("/here")) == Identity("city", "b", "f" * 64)
    assert ONE != OTHER
    assert Identity("city", "a", "f" * 64) != Identity("teacher", "a", "f" * 64)


def test_places_leave_the_machine_only_where_asked_for():
    made = MadeFrom(teacher=OTHER, data_dir=Path("/data"))
    assert made.to_json() == {"teacher": {"name": "demo", "sha256": "2" * 64}}
    whole = MadeFrom.from_json(made.to_json(places=True))
    assert (whole, whole.teacher.place) == (made, OTHER.place)


def test_a_hoser_teacher_stays_a_student_when_read_back():
    made = MadeFrom(teacher=Identity("student", "big", "3" * 64))
    assert MadeFrom.from_json(made.to_json()) == made


@pytest.mark.parametrize("value", [
    None, [], "x", {"city": "tiny"}, {"city": {"name": "tiny"}}, {"city": {"sha256": 3}},
    {"teacher": {"sha256": None, "kind": []}}, {"data_dir": 7}])
def test_a_damaged_record_says_nothing(value):
    assert MadeFrom.from_json(value) == MadeFrom()


def test_a_student_is_its_weights_and_settings_not_its_file(
        two_way_city, new_tiny_student, tmp_path):
    student = new_tiny_student(two_way_city)
    for name, run in (("best.safetensors", "first"), ("b.safetensors", "second")):
        save_student(tmp_path / name, student.model, replace(student.meta, run_id=run))
    files = [tmp_path / name for name in ("best.safetensors", "b.safetensors")]
    assert files[0].read_bytes() != files[1].read_bytes()
    found = [student_identity(load_student(path, two_way_city), path) for path in files]
    assert found[0] == found[1]
    assert found[0].sha256 == student_sha256(student)
    assert [identity.name for identity in found] == ["first", "b"]
    assert city_identity(two_way_city).sha256 == two_way_city.sha256


def test_another_weight_time_scale_or_convention_is_another_student(
        two_way_city, new_tiny_student):
    student = new_tiny_student(two_way_city)
    first = student_sha256(student)
    meta = student.meta
    others = [replace(meta, times=replace(meta.times, log1p_std=9.0)),
              replace(meta, config=meta.config.model_copy(update={"features": "aaai2025"}))]
    assert first not in [student_sha256(LoadedStudent(student.model, other)) for other in others]
    with torch.no_grad():
        next(student.model.parameters()).view(-1)[0] += 1e-6
    assert student_sha256(student) != first


def test_weights_hash_sees_bits_shapes_and_types():
    plain = {"a": torch.zeros(4), "b": torch.tensor(1.0, dtype=torch.bfloat16)}
    variants = [plain | {"a": torch.zeros(2, 2)}, plain | {"a": torch.zeros(4).int()},
                plain | {"a": -torch.zeros(4)}, plain | {"c": torch.zeros(0)}]
    assert len({weights_sha256(each) for each in [plain, *variants]}) == 5
    assert weights_sha256(plain) == weights_sha256(dict(reversed(plain.items())))


def test_an_artefact_that_changed_is_an_error_with_both_hashes_and_the_way_out():
    check_unchanged("the run", None, OTHER)
    check_unchanged("the run", OTHER, replace(OTHER, name="renamed", place=None))
    with pytest.raises(CheckpointError) as caught:
        check_unchanged("the run", ONE, OTHER)
    assert "teacher demo (hash 111111111111)" in caught.value.message
    assert "teacher demo (hash 222222222222) in /somewhere/demo" in caught.value.message
    assert "begin anew" in caught.value.hint
    with pytest.raises(CheckpointError, match="now there is none"):
        check_unchanged("the run", ONE, None)


def test_the_fixture_of_a_retrained_teacher_makes_the_opposite_one(tmp_path, retrain_teacher):
    city = toy_city(tmp_path / "city")
    teacher = toy_teacher(city.network, tmp_path / "demo")
    tokens = torch.tensor([[teacher.sot_id, 1, 2]])
    before = teacher.model.all_logits(teacher.model(tokens))
    card = retrain_teacher(tmp_path / "demo")
    after = load_teacher(tmp_path / "demo")
    assert torch.equal(after.model.all_logits(after.model(tokens)), -before)
    assert (card.name, card.sha256) == ("demo", after.sha256)
    assert card.sha256 != teacher.sha256
