"""Trips are judged only where they are those that the model makes now."""

import json
from pathlib import Path

import pytest

QUICK = ("--set", "evaluate.bootstrap=0", "--set", "evaluate.model_trips=0", "--json")


@pytest.fixture
def city(two_way_city):
    return ("--city", two_way_city.directory)


@pytest.fixture
def train(two_way_city, new_tiny_student, home):
    """A function (name, seed) that gives a run of that name new weights, as training on would."""
    from hoserkd.engine.config import EngineConfig
    from hoserkd.engine.student.storage import save_student
    from hoserkd.settings import config_json
    from hoserkd.store.runs import RunStore

    folders = {}

    def make(name, seed):
        if name not in folders:
            store = RunStore(home / "store")
            with store.create_run("train", "default", name,
                                  config_json(EngineConfig())) as recorder:
                folders[name] = recorder.directory
        student = new_tiny_student(two_way_city, seed)
        save_student(folders[name] / "best.safetensors", student.model, student.meta)
        return folders[name] / "generated"

    return make


def judged(answer):
    assert answer.exit_code == 0, answer.stderr
    return json.loads(answer.stdout)["evaluations"]


def test_trips_are_read_again_only_where_they_are_those_made_now(run_cli, train, city):
    folder = train("first", 1)
    assert run_cli("generate", "--run", "first", *city).exit_code == 0
    plain = folder / "test-astar.csv"
    [one] = judged(answer := run_cli("evaluate", "first", *city, *QUICK))
    assert (Path(one["source"]).name, one["counts"]["queries"]) == (plain.name, 36)
    assert "generating" not in answer.stderr
    train("first", 2)
    train("second", 1)
    trained, second = judged(answer := run_cli("evaluate", "first", "second", *city, *QUICK))
    assert second["facts"]["trips sha256"] == one["facts"]["trips sha256"]
    assert json.loads(answer.stdout)["unlike"] == []
    assert "first: test-astar.csv holds other trips (weights: " in answer.stderr
    assert trained["facts"]["trips sha256"] != one["facts"]["trips sha256"]
    assert trained["source"] != one["source"]
    [other] = judged(answer := run_cli("evaluate", "first", *city, *QUICK, "--seed", 7, "--set",
                                       "generate.max_steps=9"))
    for word in ("generate.max_steps: 5000 and 9", "seed: 0 and 7", "requests: "):
        assert word in answer.stderr
    assert other["source"] not in (one["source"], trained["source"])
    shown = json.loads(run_cli("runs", "show", "first", "--json").stdout)["evaluations"]
    assert [found["label"] for found in shown] == [
        "first on test ODs, earlier weights", "first on test ODs", "first on test ODs"]


def test_file_changed_since_is_not_taken_for_a_runs_trips(run_cli, train, city):
    folder = train("first", 1)
    assert run_cli("generate", "--run", "first", *city).exit_code == 0
    plain = folder / "test-astar.csv"
    text = plain.read_text()
    plain.write_text(text.replace("2024-03-06", "2024-03-07"))
    [one, changed] = judged(answer := run_cli("evaluate", "first", plain, *city, *QUICK))
    assert ("first: test-astar.csv holds other trips (they were changed since they were generated)"
            ": generating 36 by astar") in answer.stderr
    assert "test-astar.csv: its trips were changed since they were generated" in answer.stderr
    assert one["facts"]["seed of the trips"] == "0"
    assert "seed of the trips" not in changed["facts"]
    assert plain.read_text() != text


def test_a_few_trips_to_look_at_leave_the_runs_trips_alone(run_cli, train, city):
    folder = train("first", 1)
    assert run_cli("generate", "--run", "first", *city).exit_code == 0
    before = (folder / "test-astar.csv").read_bytes()
    answer = run_cli("generate", "--run", "first", *city, "--num", 3, "--show", 0, "--json")
    output = Path(json.loads(answer.stdout)["output"])
    assert "it stays, these go to test-astar-" in answer.stderr
    assert "36 requests of test and 3 requests of test" in answer.stderr
    assert output.parent == folder
    assert len(output.read_text().splitlines()) == 4
    assert (folder / "test-astar.csv").read_bytes() == before
    answer = run_cli("generate", "--run", "first", *city, "--json")
    assert Path(json.loads(answer.stdout)["output"]) == folder / "test-astar.csv"
    assert "holds other trips" not in answer.stderr


def test_replacing_a_file_of_other_trips_that_was_named_is_said(run_cli, train, city, tmp_path):
    train("first", 1)
    output = tmp_path / "mine.parquet"
    command = ("generate", "--run", "first", *city, "--output", output)
    assert "replaced" not in run_cli(*command).stderr
    assert "replaced" not in run_cli(*command).stderr
    answer = run_cli(*command, "--num", 3)
    assert answer.exit_code == 0, answer.stderr
    assert ("mine.parquet holds other trips (requests: 36 requests of test and 3 requests of test)"
            ": they are replaced") in answer.stderr


def test_a_table_of_sets_made_unlike_says_so(run_cli, train, city, tmp_path):
    train("first", 1)
    for name, words in (("a.csv", ()), ("b.parquet", ("--num", 9, "--search", "sample"))):
        assert run_cli("generate", "--run", "first", *city, "-o", tmp_path / name,
                       *words).exit_code == 0
    answer = run_cli("evaluate", tmp_path / "a.csv", tmp_path / "b.parquet", *city, *QUICK,
                     "-o", tmp_path / "out")
    document = json.loads(answer.stdout)
    [told] = document["unlike"]
    assert told in answer.stderr
    assert "36 requests of test and 9 requests of test" in told
    assert "search: astar and sample" in told
    for page in ("report.html", "report.md", "evaluation.json"):
        assert "were not made alike" in (tmp_path / "out" / page).read_text("utf-8")


def test_a_bundle_holds_no_trips_and_figures_of_earlier_weights(run_cli, train, city, tmp_path):
    train("first", 1)
    assert run_cli("generate", "--run", "first", *city).exit_code == 0
    assert run_cli("evaluate", "first", *city, *QUICK).exit_code == 0
    train("first", 2)
    assert run_cli("generate", "--run", "first", *city, "--num", 4).exit_code == 0
    answer = run_cli("bundle", "first", *city, "--output", tmp_path / "first.zip", "--json")
    assert answer.exit_code == 0, answer.stderr
    assert ("left out, as other weights made them: generated/test-astar.csv, "
            "generated/test-astar.csv.json") in answer.stderr
    names = json.loads(answer.stdout)["files"].keys()
    trips = [name for name in names if name.startswith("generated/")]
    assert len(trips) == 2
    assert not [name for name in names if name.startswith("evaluation/")]
    assert run_cli("bundle", "unpack", tmp_path / "first.zip", tmp_path / "open").exit_code == 0
    judged = json.loads((tmp_path / "open/metrics/evaluations.json").read_text())
    assert [found["label"] for found in judged] == ["generated"]
    for name in trips:
        assert "test-astar-" in name
