"""`hoserkd tune` from the command line."""

import json
import shlex
import subprocess
import sys
import time

import optuna
import pytest

from hoserkd.commands.tune_views import train_command
from hoserkd.engine.config import EngineConfig
from hoserkd.engine.tuning.storage import open_storage
from hoserkd.engine.tuning.workers import workers_of
from hoserkd.tui.reading import StoreSource
from hoserkd.tui.views.page import Wanted

SMALL = ("--set", "city.demo_roads=60", "--set", "city.demo_trips=50")


@pytest.fixture
def ready(run_cli):
    """Prepare the smallest city with a teacher and return what runs a command on them."""
    def run(*arguments):
        return run_cli(*arguments, *SMALL)

    assert run("prepare", "--profile", "smoke", "--demo").exit_code == 0
    assert run("train-teacher", "--profile", "smoke").exit_code == 0
    return run


def test_a_study_runs_baseline_search_and_finals(ready, store):
    answer = ready("tune", "--profile", "smoke", "--study", "s1", "--trials", "2", "--json",
                   "--store", store.directory)
    assert answer.exit_code == 0, answer.stderr
    document = json.loads(answer.stdout)
    assert [trial["number"] for trial in document["trials"]] == [0, 1]
    assert {comparison["metric"] for comparison in document["finals"]} >= {
        "test_accuracy", "val_accuracy"}
    vanilla, leader = (document["trials"][n] for n in (0, document["leader"]))
    assert_one_best(document)
    params = leader["params"]
    run = store.run(leader["run_id"])
    words = shlex.split(train_command("smoke", EngineConfig.model_validate(run.settings()), params,
                                      None))
    assert words[:5] == ["hoserkd", "train", "--profile", "smoke", "--distill"]
    assert f"distill.lambda_kl={params['lambda_kl']}" in words
    # What differs from the profile belongs to the command too.
    assert "city.demo_roads=60" in words
    # The dashboard shows what the study itself records.
    shown = StoreSource(store, store.directory).read(Wanted("tune", None, ())).studies[0]
    assert list(shown.record.summary) == document["summary"]
    assert shown.record.best == (document["best"] and document["best"]["number"])
    assert shown.record.importances == document["importances"].get("accuracy", {})
    searched = {trial.number: trial.value for trial in shown.trials if trial.number is not None}
    assert searched == {n: trial["values"]["accuracy"]
                        for n, trial in enumerate(document["trials"])}
    assert vanilla["params"] == {}
    runs = store.runs(study="s1")
    assert sorted(run.kind for run in runs) == ["train"] * 4 + ["tune"]
    parent = next(run for run in runs if run.kind == "tune")
    assert all(run.parents == (parent.run_id,) for run in runs if run.kind == "train")
    rows = store.query("SELECT number, state, trained, params->>'window' FROM trials "
                       "ORDER BY number").rows
    assert [row[:2] for row in rows] == [(0, "complete"), (1, "complete")]
    assert rows[1][2] == document["trials"][1]["run_id"]
    assert rows[1][3] == str(params["window"])

    again = ready("tune", "--profile", "smoke", "--study", "s1", "--trials", "2",
                  "--store", store.directory)
    assert again.exit_code == 1
    assert "exists already" in again.stderr

    more = ready("tune", "--profile", "smoke", "--study", "s1", "--trials", "3", "--resume",
                 "--store", store.directory, "--set", "tune.keep=best")
    assert more.exit_code == 0, more.stderr
    assert "2 of 2" not in more.stdout
    assert "3 of 3 trials: 3 complete." in more.stdout
    shown = json.loads(ready("tune", "show", "s1", "--json", "--store", store.directory).stdout)
    weights = {trial["number"]: (store.folder(trial["run_id"]) / "best.safetensors").is_file()
               for trial in shown["trials"]}
    assert weights == {n: n in (0, shown["leader"]) for n in range(3)}
    stripped = next(t["run_id"] for t in shown["trials"] if not weights[t["number"]])
    assert "tune.keep" in store.notes(stripped)[-1].message
    assert (store.folder(stripped) / "events.jsonl").is_file()
    newest = ready("tune", "show", "--store", store.directory)
    assert "Study s1: accuracy" in newest.stdout


def assert_one_best(document):
    """Hold `best` to the trials' own figures: the leader if it beats vanilla, else nothing."""
    values = {trial["number"]: trial["values"]["accuracy"] for trial in document["trials"]}
    leader = max((n for n in values if n), key=lambda n: (values[n], -n))
    assert document["leader"] == leader
    best = document["best"]
    assert (best and best["number"]) == (leader if values[leader] > values[0] else None)
    assert ("No trial beats vanilla" in " ".join(document["summary"])) == (best is None)


def test_show_says_which_studies_there_are(ready, store):
    answer = ready("tune", "show", "--store", store.directory)
    assert (answer.exit_code, "holds no study" in answer.stderr) == (1, True)
    with store.create_run("tune", "smoke", study="known"):
        pass
    answer = ready("tune", "show", "unknown", "--store", store.directory)
    assert (answer.exit_code, "known: known" in answer.stderr) == (2, True)


def test_the_command_of_a_choice_names_the_widths_that_go_with_it(monkeypatch):
    config = EngineConfig()
    params = {"lambda_kl": 0.01, "temperature": 2.0, "window": 4, "student.hidden_dim": 64}
    words = shlex.split(train_command("default", config, params, "town"))
    assert words[-2:] == ["--city", "town"]
    sets = [word for word in words if "=" in word]
    assert sets == ["student.hidden_dim=64", "student.road_id_dim=32", "student.attribute_dim=8",
                    "distill.lambda_kl=0.01", "distill.temperature=2.0", "distill.window=4"]


@pytest.mark.torture
@pytest.mark.timeout(900)
def test_a_study_survives_a_killed_worker(ready, store, home):
    """Two processes; one is killed in the middle of a trial, the other ends the study."""
    line = [sys.executable, "-m", "hoserkd", "tune", "--profile", "smoke", "--study", "s2",
            "--trials", "4", "--json", "--store", str(store.directory), "--set", "tune.epochs=60",
            "--set", "tune.min_resource=60", *SMALL]
    first = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: any(r.epoch for r in store.runs(study="s2", tag="search")))
    second = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len({r.pid for r in store.runs(study="s2", tag="search")}) == 2)
    first.kill()
    first.wait()
    answer, told = second.communicate(timeout=600)
    assert second.returncode == 0, told
    assert "was left by a process that is gone" in told
    trials = json.loads(answer)["trials"]
    failed = [trial for trial in trials if trial["error"] == "its process died"]
    later = next(t for t in trials if t["number"] == failed[0]["went_on_as"])
    assert (later["state"], later["run_id"]) in (
        ("complete", failed[0]["run_id"]), ("pruned", failed[0]["run_id"]))
    assert store.run(failed[0]["run_id"]).status in ("finished", "stopped")
    # Who recorded the study is gone: the one that is left records its end.
    study = store.runs(kind="tune", study="s2")[0]
    assert study.status == "finished"
    assert (store.folder(study.run_id) / "tune" / "tune.html").is_file()


@pytest.mark.slow
def test_two_workers_share_a_study(ready, store):
    answer = ready("tune", "--profile", "smoke", "--study", "s3", "--trials", "4", "--json",
                   "--workers", "2", "--store", store.directory,
                   "--set", "tune.objectives=[accuracy,throughput]", "--sampler", "tpe",
                   "--set", "tune.choices.student.layers=[1,2]")
    assert answer.exit_code == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert len(found["trials"]) == 4
    assert {trial["state"] for trial in found["trials"]} == {"complete"}
    assert all(trial["values"]["throughput"] > 0 for trial in found["trials"])
    assert found["front"]
    [journal] = store.directory.rglob("s3.log")
    study = optuna.load_study(study_name="s3", storage=open_storage(str(journal)))
    workers = workers_of(study.user_attrs).values()
    # Whether the second gets a trial depends on how soon it has started.
    assert len({worker.pid for worker in workers}) == 2
    assert all(worker.ended for worker in workers)
    runs = store.runs(study="s3", kind="train")
    assert {run.pid for run in runs} <= {worker.pid for worker in workers}
    assert all(run.parents for run in runs)


def wait_until(holds, patience_s=280.0):
    """Wait until a condition holds."""
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.3)
