"""`hoserkd study` from the command line."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

CITY = ("--set", "city.demo_roads=60", "--set", "city.demo_trips=50", "--profile", "smoke")
SMALL = ("--shares", "1,0.3", "--seeds", "1,2", "--steps", "3")


@pytest.fixture
def ready(run_cli):
    """Prepare the smallest city with a teacher and return what runs a command on them."""
    def run(*arguments):
        return run_cli(*arguments, *CITY)

    assert run("prepare", "--demo").exit_code == 0
    assert run("train-teacher").exit_code == 0
    return run


def trainings(store, name):
    """Return the study's training runs, the oldest first."""
    return [run for run in reversed(store.runs(study=name)) if run.kind == "train"]


def test_a_study_trains_every_arm_and_answers(ready, store, tmp_path):
    missing = ready("study", *SMALL, "--store", store.directory)
    assert missing.exit_code == 2
    assert "has not been computed for the train and val trips" in missing.stderr
    assert "hoserkd precompute --profile smoke --teacher smoke --window 4" in missing.stderr
    assert not store.runs(kind="study")

    answer = ready("study", *SMALL, "--name", "s1", "--auto", "--json", "--store",
                   store.directory, "--output", tmp_path / "answer")
    assert answer.exit_code == 0, answer.stderr
    document = json.loads(answer.stdout)
    runs = trainings(store, "s1")
    (parent,) = store.runs(kind="study")
    assert [(run.tags, run.seed) for run in runs] == [
        ((arm, f"share-{share}"), seed) for share in ("1", "0.3") for seed in (1, 2)
        for arm in ("vanilla", "distilled")]
    assert all(run.parents == (parent.run_id,) and run.status == "finished" for run in runs)
    assert [t["run_id"] for t in document["trainings"]] == [run.run_id for run in runs]
    judged = {e.label: e.payload for e in store.evaluations(runs[1].run_id)}
    assert judged["study"] == document["trainings"][1]["metrics"]
    assert {"test_short_accuracy", "test_unseen_ece", "val_accuracy"} <= judged["study"].keys()
    assert {c["verdict"] for c in document["comparisons"]} <= {
        "better", "worse", "no difference"}
    assert document["shares"][1]["trips"] == round(0.3 * document["shares"][0]["trips"])
    assert [word["split"] for word in document["teachers"]] == ["val"]
    files = {path.name for path in (tmp_path / "answer").iterdir()}
    assert files == {"study.md", "study.json", "study.svg"}
    written = json.loads((tmp_path / "answer" / "study.json").read_text())
    assert written == {**document, "output": "answer"}
    assert document["summary"][0] in (tmp_path / "answer" / "study.md").read_text()

    again = ready("study", *SMALL, "--name", "s1", "--store", store.directory)
    assert again.exit_code == 1
    assert "study s1 exists already" in again.stderr

    more = ready("study", "--shares", "1,0.3", "--seeds", "1,2,3", "--steps", "3", "--name", "s1",
                 "--resume", "--store", store.directory)
    assert more.exit_code == 0, more.stderr
    assert more.stdout.startswith(("No difference", "distilled: "))
    assert [run.seed for run in trainings(store, "s1")[8:]] == [3] * 4
    assert "8 of 12 trainings are done already" in more.stderr
    assert len(store.runs(kind="study")) == 1


def test_several_arms_share_one_signal_for_every_window(ready, store, home):
    answer = ready(
        "study", "--shares", "1", "--seeds", "1", "--steps", "1", "--auto", "--json", "--store",
        store.directory, "--set", "study.arms.weak.lambda_kl=0.001", "--set", "student.layers=2",
        "--set", 'study.arms.long={"window": 6}', "--set", "study.arms.own.source=self")
    assert answer.exit_code == 0, answer.stderr
    document = json.loads(answer.stdout)
    assert document["arms"] == {"vanilla": None, "weak": {"lambda_kl": 0.001},
                                "long": {"window": 6}, "own": {"source": "self"}}
    assert document["summary"][0].startswith("One seed: no verdict on weak")
    signals = [path.name for path in (home / "cities" / "smoke" / "signals").iterdir()]
    assert len(signals) == 1
    assert "windows-1-8" in signals[0]


def test_an_arm_with_an_unknown_setting_is_refused_in_one_line(run_cli):
    answer = run_cli("study", "--set", 'study.arms={"a": {"lamda_kl": 1}}')
    assert answer.exit_code == 2
    assert answer.stderr.splitlines()[0] == (
        'error: --set study.arms: study.arms: arm a: distill has no setting lamda_kl for an arm; '
        "did you mean lambda_kl?")


def test_an_arm_that_cannot_teach_itself_is_refused_before_anything_is_trained(ready, store):
    answer = ready("study", *SMALL, "--auto", "--store", store.directory,
                   "--set", "study.arms.own.source=self")
    assert answer.exit_code == 2
    assert "distill.aux_layers: [0] must name blocks" in answer.stderr
    assert not store.runs(kind="study")


@pytest.mark.parametrize("option", ["--shares", "--seeds"])
def test_a_list_of_no_numbers_is_refused(run_cli, option):
    answer = run_cli("study", option, "1,x")
    assert answer.exit_code == 2
    assert f"{option}: expected numbers with commas between" in answer.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_study_stopped_or_killed_goes_on_and_keeps_what_is_done(ready, store, run_cli, number):
    """The second training is cut short; the first is kept, the second goes on in its own run."""
    assert ready("precompute").exit_code == 0
    line = ("study", "--shares", "1", "--seeds", "1,2", "--steps", "60", "--name", "cut",
            *CITY, "--set", "train.checkpoint_every=2", "--store", str(store.directory))
    process = subprocess.Popen([sys.executable, "-m", "hoserkd", *line], env=dict(os.environ),
                               stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        begun = sorted(store.runs_directory.glob("*/last.ckpt"))
        if len(begun) == 2:
            break
        time.sleep(0.02)
    process.send_signal(number)
    _, told = process.communicate(timeout=120)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    if number == signal.SIGINT:
        assert "the same command with --resume goes on from there" in told
    first, second = trainings(store, "cut")
    assert (first.status, second.status) == (
        "finished", "stopped" if number == signal.SIGINT else "dead")

    answer = run_cli(*line, "--resume", "--json")
    assert answer.exit_code == 0, answer.stderr
    assert "1 of 4 trainings are done already" in answer.stderr
    assert "going on from step" in answer.stderr
    runs = trainings(store, "cut")
    assert [run.run_id for run in runs[:2]] == [first.run_id, second.run_id]
    assert len(runs) == 4
    assert {run.status for run in runs} == {"finished"}
    assert [t["run_id"] for t in json.loads(answer.stdout)["trainings"]] == [
        run.run_id for run in runs]
