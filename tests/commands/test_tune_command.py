"""`hoserkd tune` from the command line."""

import json

import pytest

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
    assert document["best"]["command"].startswith(
        "hoserkd train --profile smoke --distill --set distill.lambda_kl=")
    runs = store.runs(study="s1")
    assert sorted(run.kind for run in runs) == ["train"] * 4 + ["tune"]
    parent = next(run for run in runs if run.kind == "tune")
    assert all(run.parents == (parent.run_id,) for run in runs if run.kind == "train")

    again = ready("tune", "--profile", "smoke", "--study", "s1", "--trials", "2",
                  "--store", store.directory)
    assert again.exit_code == 1
    assert "exists already" in again.stderr

    more = ready("tune", "--profile", "smoke", "--study", "s1", "--trials", "3", "--resume",
                 "--store", store.directory)
    assert more.exit_code == 0, more.stderr
    assert "hoserkd train --profile smoke --distill" in more.stdout


@pytest.mark.slow
def test_two_workers_share_a_study(ready, store):
    answer = ready("tune", "--profile", "smoke", "--study", "s2", "--trials", "4", "--json",
                   "--workers", "2", "--store", store.directory)
    assert answer.exit_code == 0, answer.stderr
    trials = json.loads(answer.stdout)["trials"]
    assert len(trials) == 4
    assert {trial["state"] for trial in trials} == {"complete"}
