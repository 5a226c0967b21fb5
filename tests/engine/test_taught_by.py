"""A training that is resumed hears the teacher that has taught it so far, or says so."""

import json

import pytest
import torch
from safetensors import safe_open
from toy_training import Listener, StopAfter, ToyTeacher, last_weights, same, toy_city, toy_config

from hoserkd.engine.config import DistillConfig
from hoserkd.engine.events import Note
from hoserkd.engine.identity import Identity, city_identity
from hoserkd.engine.train import train_student
from hoserkd.errors import CheckpointError, InterruptedRunError

DISTILLED = toy_config(DistillConfig(lambda_kl=0.7))


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """Return the toy city."""
    return toy_city(tmp_path_factory.mktemp("city"))


@pytest.fixture
def cut(city, tmp_path):
    """Return the folder of a distilled training that was stopped."""
    with pytest.raises(InterruptedRunError):
        train_student(DISTILLED, city, directory=tmp_path, stop=StopAfter(4),
                      teacher_sources={"train": ToyTeacher()})
    return tmp_path


def opposite() -> ToyTeacher:
    """Return a teacher of the same name whose preferences are the other way round."""
    teacher = ToyTeacher(scale=-2.0)
    assert teacher.identity.name == ToyTeacher().identity.name
    return teacher


def settings(directory):
    """Return what the checkpoint remembers."""
    return torch.load(directory / "last.ckpt", weights_only=True)["settings"]


def test_the_checkpoint_and_the_student_remember_city_and_teacher_without_places(city, cut):
    teacher = ToyTeacher().identity
    made_from = {"city": city_identity(city).to_json(), "teacher": teacher.to_json()}
    assert settings(cut)["made_from"] == made_from
    assert settings(cut)["signal"] == "toy"
    result = train_student(DISTILLED, city, directory=cut, resume=True,
                           teacher_sources={"train": ToyTeacher()})
    with safe_open(result.best, framework="np") as file:
        header = json.loads(file.metadata()["hoserkd"])
    assert header["made_from"] == made_from
    assert str(city.directory) not in json.dumps(header)


def test_the_opposite_teacher_of_the_same_name_is_refused_with_both_hashes(city, cut):
    before = last_weights(cut)
    with pytest.raises(CheckpointError) as caught:
        train_student(DISTILLED, city, directory=cut, resume=True,
                      teacher_sources={"train": opposite()})
    for teacher in (ToyTeacher(), opposite()):
        assert str(teacher.identity) in caught.value.message
    assert same(last_weights(cut), before)
    with pytest.raises(CheckpointError, match="now there is none"):
        train_student(DISTILLED, city, directory=cut, resume=True)


def test_the_same_teacher_under_another_name_continues_to_the_same_bits(city, cut, tmp_path):
    renamed = ToyTeacher()
    renamed.identity = Identity("teacher", "renamed", renamed.identity.sha256)
    train_student(DISTILLED, city, directory=cut, resume=True, teacher_sources={"train": renamed})
    whole = tmp_path / "whole"
    train_student(DISTILLED, city, directory=whole, teacher_sources={"train": ToyTeacher()})
    assert same(last_weights(cut), last_weights(whole))


def test_another_form_of_the_signal_is_told_and_so_is_a_teacher_that_nobody_recorded(city, cut):
    content = torch.load(cut / "last.ckpt", weights_only=True)
    content["settings"]["signal"] = "window-4-float32"
    del content["settings"]["made_from"]
    torch.save(content, cut / "last.ckpt")
    listener = Listener()
    train_student(DISTILLED, city, directory=cut, resume=True, observer=listener,
                  teacher_sources={"train": ToyTeacher()})
    told = [note.message for note in listener.of(Note) if note.level == "warning"]
    assert any("signal was window-4-float32, is now toy" in words for words in told)
    assert any("does not say which teacher taught" in words for words in told)


def test_another_city_is_refused_by_its_hash(city, cut, tmp_path):
    other = toy_city(tmp_path / "other", trips=30)
    with pytest.raises(CheckpointError) as caught:
        train_student(DISTILLED, other, directory=cut, resume=True,
                      teacher_sources={"train": ToyTeacher()})
    assert str(city_identity(city)) in caught.value.message
    assert str(city_identity(other)) in caught.value.message
