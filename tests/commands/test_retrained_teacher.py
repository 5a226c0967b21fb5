"""A teacher that was retrained under its old name is another teacher, for every command."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from hoserkd.engine.places import CITIES, TEACHERS
from hoserkd.store.runs import RunStore

SMOKE = ("--profile", "smoke", "--set", "city.demo_roads=60", "--set", "city.demo_trips=50",
         "--set", "teacher.anomaly_trips=0")
STUDY = ("study", "--shares", "1", "--seeds", "1", "--steps", "2", "--name", "s", "--json", *SMOKE)


@pytest.fixture(scope="module")
def taught_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with a small city and its teacher `smoke`, and signals of every window."""
    from hoserkd.cli import main

    home = tmp_path_factory.mktemp("taught")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOSERKD_HOME", str(home))
        for line in ("prepare --demo", "train-teacher", "precompute --window every"):
            assert main([*line.split(), *SMOKE, "--quiet"]) == 0
    return home


@pytest.fixture
def home(taught_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of that home, which the test may change."""
    folder = tmp_path / "home"
    shutil.copytree(taught_once, folder)
    monkeypatch.setenv("HOSERKD_HOME", str(folder))
    return folder


@pytest.fixture
def store(home: Path) -> RunStore:
    """Return the store of the home."""
    return RunStore(home / "store")


@pytest.fixture
def retrain(home: Path, retrain_teacher: Callable[[Path], Any]) -> Callable[[], tuple[str, str]]:
    """Return what retrains the teacher `smoke` and returns the starts of both hashes."""
    def run() -> tuple[str, str]:
        place = home / "teachers" / "smoke"
        before = TEACHERS.identify(place)
        assert before is not None
        return before.sha256[:12], retrain_teacher(place).sha256[:12]

    return run


def test_a_study_trains_again_what_another_teacher_taught(
    run_cli: Callable[..., Any], retrain: Callable[[], tuple[str, str]], store: RunStore
) -> None:
    first = run_cli(*STUDY, "--auto")
    assert first.exit_code == 0, first.stderr
    before, now = retrain()
    again = run_cli(*STUDY, "--resume", "--auto")
    assert again.exit_code == 0, again.stderr
    assert "1 of 2 trainings are done already" in again.stderr
    assert f"1 of its trainings were taught by teacher smoke (hash {before})" in again.stderr
    assert f"and this is teacher smoke (hash {now})" in again.stderr
    old, new = (json.loads(answer.stdout)["trainings"] for answer in (first, again))
    assert [a["run_id"] == b["run_id"] for a, b in zip(old, new, strict=True)] == [True, False]
    assert old[1]["metrics"] != new[1]["metrics"]
    taught = [run.made_from.teacher for run in store.runs(kind="train") if run.made_from.teacher]
    assert [teacher.sha256[:12] for teacher in taught] == [now, before]
    documents = [json.loads(answer.stdout)["made_from"] for answer in (first, again)]
    assert [each["teachers"]["distilled"]["sha256"][:12] for each in documents] == [before, now]
    third = run_cli(*STUDY, "--resume")
    assert "2 of 2 trainings are done already" in third.stderr


def test_a_tuning_study_is_not_resumed_with_another_teacher(
    run_cli: Callable[..., Any], retrain: Callable[[], tuple[str, str]], home: Path
) -> None:
    line = ("tune", "--trials", "2", "--study", "t", "--set", "tune.final_seeds=[]", *SMOKE)
    first = run_cli(*line, "--json")
    assert first.exit_code == 0, first.stderr
    # The same teacher in another place, under another name, is the same.
    shutil.copytree(home / "teachers" / "smoke", home / "kept")
    before, now = retrain()
    assert json.loads(first.stdout)["made_from"]["teacher"]["sha256"].startswith(before)
    refused = run_cli(*line, "--resume")
    assert refused.exit_code == 1
    assert (f"study t was begun with teacher smoke (hash {before}), but this is teacher smoke "
            f"(hash {now})") in refused.stderr
    same = run_cli(*line, "--resume", "--teacher", home / "kept")
    assert same.exit_code == 0, same.stderr


def test_precompute_asks_the_retrained_teacher_anew(
    run_cli: Callable[..., Any], retrain: Callable[[], tuple[str, str]], home: Path
) -> None:
    line = ("precompute", "--window", "4", "--json", *SMOKE)
    first = json.loads(run_cli(*line).stdout)
    before, now = retrain()
    again = json.loads(run_cli(*line).stdout)
    assert [each["made_from"]["teacher"]["sha256"][:12] for each in (first, again)] == [
        before, now]
    places = [Path(each["splits"][0]["directory"]).parent.name for each in (first, again)]
    assert [place[:12] for place in places] == [before, now]
    assert not again["splits"][0]["reused"]
    assert first["splits"][0]["quality"] != again["splits"][0]["quality"]
    city = CITIES.identify(home / "cities" / "smoke")
    assert city is not None
    assert city.sha256[:16] in places[0]


def test_a_training_hears_the_teacher_that_its_record_names(
    run_cli: Callable[..., Any], store: RunStore, home: Path
) -> None:
    made = run_cli("train", "--name", "x", "--max-steps", "1", *SMOKE)
    assert made.exit_code == 0, made.stderr
    found = store.run("x").made_from
    assert found.teacher == TEACHERS.identify(home / "teachers" / "smoke")
    assert found.teacher is not None
    assert found.teacher.place == home / "teachers" / "smoke"
    assert found.city == CITIES.identify(home / "cities" / "smoke")
    assert found.data_dir == home


CUT = ("--name", "cut", "--set", "train.epochs=3")


def test_a_resumed_training_refuses_the_teacher_that_took_the_name_of_its_own(
    run_cli: Callable[..., Any], retrain: Callable[[], tuple[str, str]], store: RunStore,
    home: Path
) -> None:
    assert run_cli("train", *CUT, "--max-steps", "2", *SMOKE).exit_code == 0
    shutil.copytree(home / "teachers" / "smoke", home / "kept")
    before, now = retrain()
    line = ("train", "--resume", "--name", "cut", "--max-steps", "4", "--auto", "--json")
    ended = store.run("cut").ended_at
    refused = run_cli(*line)
    assert refused.exit_code == 2
    place = home / "teachers" / "smoke"
    assert f"run cut was made with teacher smoke (hash {before})" in refused.stderr
    assert f"its recorded place {place} (hash {now})" in refused.stderr
    assert "--teacher NAME|DIR" in refused.stderr
    named = run_cli(*line, "--teacher", "smoke")
    assert named.exit_code == 2
    assert f"run cut was begun with teacher smoke (hash {before})" in named.stderr
    assert f"now this one is teacher smoke (hash {now}) in {place}" in named.stderr
    # What was refused has not touched the run.
    assert store.run("cut").ended_at == ended
    kept = run_cli(*line, "--teacher", home / "kept")
    assert kept.exit_code == 0, kept.stderr
    assert store.run("cut").made_from.teacher.place == home / "kept"  # type: ignore[union-attr]
    (home / "kept").rename(home / "teachers" / "older")
    by_hash = run_cli(*line[:-4], "--max-steps", "5", "--json")
    assert by_hash.exit_code == 0, by_hash.stderr
    assert json.loads(by_hash.stdout)["steps"] == 5


def test_a_hoser_that_teaches_is_known_by_its_weights(
    run_cli: Callable[..., Any], store: RunStore, home: Path, tmp_path: Path
) -> None:
    def big(seed: int) -> Any:
        answer = run_cli("train", "--no-distill", "--name", "big", "--max-steps", "1", "--seed",
                         seed, "--set", "student.layers=2", "--json", *SMOKE)
        assert answer.exit_code == 0, answer.stderr
        return json.loads(answer.stdout)

    first = big(1)
    answer = run_cli("train", *CUT, "--set", "distill.source=hoser", "--teacher", "big",
                     "--max-steps", "1", *SMOKE)
    assert answer.exit_code == 0, answer.stderr
    run = store.run("cut")
    assert run.parents == (first["run_id"],)
    assert run.made_from.teacher is not None
    assert (run.made_from.teacher.kind, run.made_from.teacher.name) == ("student", "big")
    # The name means the newer run by now; the resumed one hears the older.
    big(2)
    line = ("train", "--resume", "--name", "cut", "--max-steps", "2")
    resumed = run_cli(*line)
    assert resumed.exit_code == 0, resumed.stderr
    Path(first["model"]).unlink()
    refused = run_cli(*line[:-1], "3")
    assert refused.exit_code == 2
    assert f"run cut was taught by {run.made_from.teacher}, which is not here" in refused.stderr


def test_a_student_file_and_its_card_say_what_it_is_made_from(
    run_cli: Callable[..., Any], store: RunStore, home: Path, tmp_path: Path
) -> None:
    city, teacher = (shelf.identify(home / shelf.folder / "smoke") for shelf in (CITIES, TEACHERS))
    assert run_cli("train", "--name", "a", "--max-steps", "1", *SMOKE).exit_code == 0
    first = Path(store.run("a").directory) / "best.safetensors"
    assert run_cli("train", "--name", "b", "--max-steps", "1", "--init-from", first,
                   *SMOKE).exit_code == 0
    run = store.run("b")
    assert (run.made_from.city, run.made_from.teacher) == (city, teacher)
    (model,) = [each for each in store.artifacts(store.run("a").run_id) if each.kind == "model"]
    assert run.made_from.student is not None
    assert run.made_from.student.sha256 == model.sha256
    trained_teacher = store.run("smoke", kind="train-teacher").run_id
    assert run.parents == (trained_teacher, store.run("a").run_id)
    with safe_open(Path(run.directory) / "best.safetensors", framework="np") as file:
        header = json.loads(file.metadata()["hoserkd"])
    assert header["made_from"] == run.made_from.to_json()
    assert run_cli("bundle", "b", "-o", tmp_path / "b.zip").exit_code == 0
    assert run_cli("bundle", "unpack", tmp_path / "b.zip", tmp_path / "open").exit_code == 0
    record = json.loads((tmp_path / "open" / "run.json").read_text())
    assert record["made_from"] == run.made_from.to_json()
    card = (tmp_path / "open" / "MODEL_CARD.md").read_text()
    assert f"| teacher | smoke, hash {teacher.sha256[:16]} |" in card  # type: ignore[union-attr]
    name = store.run("a").run_id
    assert f"| started from | {name}, hash {model.sha256[:16]} |" in card  # type: ignore[index]


@pytest.mark.parametrize("line", [
    "train --teacher smoki", "precompute --teacher smoki", "tune --teacher smoki",
    "study --teacher smoki", "teachers show smoki", "teachers judge smoki",
    "export-teacher smoki --output out", "train --set teacher.name=smoki"])
def test_an_unknown_teacher_is_told_alike_by_every_command(
    run_cli: Callable[..., Any], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    profile = () if line.startswith(("teachers show", "export")) else SMOKE
    answer = run_cli(*line.split(), *profile)
    assert answer.exit_code == 2
    assert answer.stderr.splitlines()[0] == (
        f"error: no teacher 'smoki': tried {home}/teachers/smoki, {tmp_path}/smoki; did you mean "
        "smoke?")


def test_a_teacher_is_taken_by_name_and_by_folder(
    run_cli: Callable[..., Any], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # A folder of that name which holds no teacher hides none.
    (tmp_path / "smoke").mkdir()
    for teacher in ("smoke", home / "teachers" / "smoke", "copy", "./copy"):
        made = run_cli("train", "--teacher", teacher, "--max-steps", "1", *SMOKE, "--json")
        assert made.exit_code == 0, made.stderr
        if teacher == "smoke":
            exported = run_cli("export-teacher", "smoke", "--output", "copy")
            assert exported.exit_code == 0, exported.stderr
