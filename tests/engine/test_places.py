"""One way to find a city or a teacher: what is tried, in which order, and what an error tells."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from toy_teacher import toy_city, toy_teacher

from hoserkd.engine.identity import Identity
from hoserkd.engine.places import CITIES, TEACHERS, Finder
from hoserkd.errors import DataError, TeacherError


def put_city(directory: Path, content: str, name: str | None = None) -> Path:
    """Make what a finder takes for a prepared city."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "manifest.json").write_text(
        json.dumps({"name": name or directory.name, "sha256": content * 64}))
    return directory


def cities(*data_dirs: Path) -> Finder:
    """Return a finder of cities."""
    return Finder(CITIES, data_dirs)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return an empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_bare_word_is_a_name_first_and_a_folder_second(tmp_path, here):
    folder = put_city(here / "tiny", "1")
    assert cities(tmp_path).named("tiny") == folder
    named = put_city(tmp_path / "cities" / "tiny", "2")
    assert cities(tmp_path).named("tiny") == named
    assert cities(tmp_path).named("./tiny") == folder
    assert cities(tmp_path).named(str(folder)) == folder
    # A name means what lies in the present data folder, never in one that a record mentions.
    assert cities(tmp_path / "other", tmp_path).named("tiny") == folder


def test_a_name_of_the_settings_is_never_a_folder_of_the_working_directory(tmp_path, here):
    put_city(here / "tiny", "1")
    with pytest.raises(DataError, match=r"'tiny': tried .*/cities/tiny; there is"):
        cities(tmp_path).named("tiny", folders=False)


def test_a_folder_without_a_city_is_no_city_though_it_bears_the_name(tmp_path, here):
    (here / "tiny").mkdir()
    put_city(tmp_path / "cities" / "tinny", "1")
    with pytest.raises(DataError) as caught:
        cities(tmp_path).named("tiny")
    assert caught.value.message == (
        f"no prepared city 'tiny': tried {tmp_path}/cities/tiny, {here}/tiny; did you mean "
        "tinny?")
    assert "hoserkd prepare" in caught.value.hint
    with pytest.raises(DataError, match=f"'zzz': tried {tmp_path}/cities/zzz, {here}/zzz; there "
                                        "are: tinny"):
        cities(tmp_path).named("zzz")


def test_a_recorded_city_is_taken_where_it_was_then_by_hash_whatever_its_name(tmp_path):
    was = put_city(tmp_path / "was", "1", "tiny")
    wanted = Identity("city", "tiny", "1" * 64, was)
    renamed = put_city(tmp_path / "cities" / "renamed", "1", "tiny")
    assert cities(tmp_path).recorded(wanted, "run a") == was
    put_city(was, "2", "tiny")
    assert cities(tmp_path).recorded(wanted, "run a") == renamed
    same_name = put_city(tmp_path / "cities" / "tiny", "1")
    assert cities(tmp_path).recorded(wanted, "run a") == same_name
    shutil.rmtree(tmp_path / "cities")
    old_home = put_city(tmp_path / "old" / "cities" / "x", "1", "tiny")
    assert cities(tmp_path, tmp_path / "old").recorded(wanted, "run a") == old_home


def test_another_city_under_the_old_name_is_not_taken_and_the_error_names_all_that_was_tried(
        tmp_path):
    was = put_city(tmp_path / "was", "2", "tiny")
    put_city(tmp_path / "cities" / "tiny", "3")
    (put_city(tmp_path / "cities" / "torn", "1") / "manifest.json").write_text("{")
    with pytest.raises(DataError) as caught:
        cities(tmp_path).recorded(Identity("city", "tiny", "1" * 64, was), "run a")
    assert caught.value.message == (
        "run a was made with city tiny (hash 111111111111), which is not here: tried "
        f"its recorded place {was} (hash 222222222222); "
        f"its hash among 2 in {tmp_path}/cities; "
        f"its name, {tmp_path}/cities/tiny (hash 333333333333)")
    assert "--city NAME|DIR" in caught.value.hint


def test_where_to_write_is_where_it_lies_else_where_a_name_belongs(tmp_path, here):
    assert cities(tmp_path).destination("tiny") == tmp_path / "cities" / "tiny"
    assert cities(tmp_path).destination("./tiny") == here / "tiny"
    put_city(here / "tiny", "1")
    assert cities(tmp_path).destination("tiny") == here / "tiny"


def test_teachers_are_found_in_the_same_way(tmp_path, here, retrain_teacher):
    city = toy_city(tmp_path / "city")
    teacher = toy_teacher(city.network, tmp_path / "teachers" / "demo")
    place = tmp_path / "teachers" / "demo"
    wanted = Identity("teacher", "demo", teacher.sha256, place)
    finder = Finder(TEACHERS, [tmp_path])
    assert finder.named("demo") == place
    assert finder.recorded(wanted, "run a") == place
    shutil.copytree(place, tmp_path / "teachers" / "kept")
    retrain_teacher(place)
    assert finder.recorded(wanted, "run a") == tmp_path / "teachers" / "kept"
    shutil.rmtree(tmp_path / "teachers" / "kept")
    with pytest.raises(TeacherError, match=r"which is not here: .*demo \(hash "):
        Finder(TEACHERS, [tmp_path]).recorded(wanted, "run a")
    with pytest.raises(TeacherError, match="did you mean demo"):
        Finder(TEACHERS, [tmp_path]).named("demi")
    assert replace(wanted, name="x", place=None) == wanted
