"""The stores of a user, beside the one in use."""

import json
from pathlib import Path

from hoserkd.store.elsewhere import MOST_REMEMBERED, REMEMBERED, other_stores, remember_store


def filled(directory: Path, runs: int = 1) -> Path:
    """Make what is taken for a store with runs and return its folder."""
    for number in range(runs):
        folder = directory / "runs" / str(number)
        folder.mkdir(parents=True)
        (folder / "run.json").touch()
    return directory


def test_stores_under_home_and_remembered_ones_are_found_but_not_the_one_in_use(tmp_path: Path):
    home = tmp_path / "home"
    usual, demo = filled(home / "store"), filled(home / "demo" / "store", 2)
    far = filled(tmp_path / "far away" / "store")
    (home / "empty" / "store" / "runs").mkdir(parents=True)
    for place in (usual, demo, far):
        remember_store(home, place)
    assert json.loads((home / REMEMBERED).read_text()) == [str(far)]
    found = {each.directory: each.runs for each in other_stores(home, usual)}
    assert found == {demo: 2, far: 1}
    (far.parent / "cities").mkdir()
    (other,) = [each for each in other_stores(home, usual) if each.directory == far]
    assert other.options == (f"--store '{far}' --data-dir '{far.parent}'")


def test_what_is_remembered_is_bounded_the_newest_first_and_forgets_what_is_gone(tmp_path: Path):
    places = [filled(tmp_path / str(number)) for number in range(MOST_REMEMBERED + 2)]
    for place in places:
        remember_store(tmp_path / "home", place)
    known = json.loads((tmp_path / "home" / REMEMBERED).read_text())
    assert known == [str(place) for place in places[:1:-1]]
    places[-2].rename(tmp_path / "gone")
    remember_store(tmp_path / "home", places[5])
    known = json.loads((tmp_path / "home" / REMEMBERED).read_text())
    assert known[:2] == [str(places[5]), str(places[-1])]
    assert str(places[-2]) not in known


def test_a_damaged_memory_is_no_memory_and_a_home_out_of_reach_no_error(tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir()
    for text in ("{", "{}", "[1, null]"):
        (home / REMEMBERED).write_text(text)
        assert other_stores(home, tmp_path) == ()
    (tmp_path / "file").touch()
    remember_store(tmp_path / "file", tmp_path / "store")
