"""`hoserkd train` from the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TINY = ("--set", "student.hidden_dim=16", "--set", "student.road_id_dim=8",
        "--set", "student.attribute_dim=2")
SMALL = ("--set", "city.demo_roads=60", "--set", "city.demo_trips=50")


@pytest.fixture
def prepared(run_cli):
    """Prepare the smallest demo city and return what runs a command on it."""
    def run(*arguments):
        return run_cli(*arguments, *SMALL)

    assert run("prepare", "--profile", "smoke", "--demo").exit_code == 0
    return run


def test_a_vanilla_run_prints_its_figures_and_leaves_a_model(prepared, home):
    answer = prepared("train", "--profile", "smoke", "--no-distill", "--name", "plain")
    assert answer.exit_code == 0, answer.stderr
    assert "Run plain: best epoch" in answer.stdout
    assert "best epoch: by validation accuracy, then loss (train.best)" in answer.stdout
    assert "Next-step accuracy" in answer.stdout
    assert len(list(home.glob("store/runs/*/best.safetensors"))) == 1


def test_json_holds_run_model_and_metrics(prepared):
    answer = prepared("train", "--profile", "smoke", "--no-distill", "--json")
    document = json.loads(answer.stdout)
    assert document["steps"] == 6
    assert document["metrics"].keys() >= {"val_accuracy", "test_accuracy", "test_time_mae_s"}
    assert document["model"].endswith("best.safetensors")


def test_a_missing_signal_is_named_with_the_command_that_makes_it(prepared):
    assert prepared("train-teacher", "--profile", "smoke").exit_code == 0
    answer = prepared("train", "--profile", "smoke", "--distill")
    assert answer.exit_code == 2
    assert "has not been computed for the train and val trips" in answer.stderr
    hint = answer.stderr.partition("run `")[2].partition("`")[0]
    assert hint == ("hoserkd precompute --profile smoke --teacher smoke --window 4 "
                    "--splits train,val")
    assert prepared(*hint.split()[1:]).exit_code == 0
    again = prepared("train", "--profile", "smoke", "--distill", "--max-steps", "2")
    assert again.exit_code == 0, again.stderr
    assert "KL to the teacher" in again.stdout


def test_auto_makes_the_missing_signal(prepared):
    assert prepared("train-teacher", "--profile", "smoke").exit_code == 0
    answer = prepared("train", "--profile", "smoke", "--auto", "--max-steps", "1", "--json")
    assert answer.exit_code == 0, answer.stderr
    assert "val_loss_kl" in json.loads(answer.stdout)["metrics"]


def test_online_needs_no_stored_signal(prepared):
    assert prepared("train-teacher", "--profile", "smoke").exit_code == 0
    answer = prepared("train", "--profile", "smoke", "--set", "distill.mode=online",
                      "--max-steps", "1", "--json")
    assert answer.exit_code == 0, answer.stderr
    assert "val_loss_kl" in json.loads(answer.stdout)["metrics"]


def test_an_unknown_teacher_names_those_that_there_are(prepared):
    assert prepared("train-teacher", "--profile", "smoke").exit_code == 0
    answer = prepared("train", "--profile", "smoke", "--teacher", "smok")
    assert answer.exit_code == 2
    assert "did you mean smoke?" in answer.stderr


def test_resume_goes_on_with_a_run_and_keeps_its_settings(prepared):
    first = prepared("train", "--profile", "smoke", "--no-distill", "--name", "cut",
                     "--max-steps", "2", "--set", "train.epochs=3", "--json")
    run_id = json.loads(first.stdout)["run_id"]
    answer = prepared("train", "--resume", "--name", "cut", "--max-steps", "8", "--json")
    assert answer.exit_code == 0, answer.stderr
    document = json.loads(answer.stdout)
    assert (document["run_id"], document["steps"]) == (run_id, 8)
    assert "going on from step 2" in answer.stderr
    assert "Old plan: 2 steps" in answer.stderr
    assert "New plan: 8 steps" in answer.stderr
    noted = prepared("runs", "show", "cut", "--json")
    assert any("Old plan: 2 steps" in note["message"]
               for note in json.loads(noted.stdout)["notes"])
    again = prepared("train", "--resume", "--name", "cut", "--json")
    assert json.loads(again.stdout)["steps"] == 8, "without --max-steps the last plan holds"
    assert "Old plan" not in again.stderr
    fewer = prepared("train", "--resume", "--name", "cut", "--max-steps", "3")
    assert fewer.exit_code == 2
    assert "has done 8 optimiser steps" in fewer.stderr
    shown = json.loads(prepared("runs", "show", "cut", "--json").stdout)
    assert shown["run"]["status"] == "finished", "a mistyped command does not change the run"


def test_resume_without_an_unfinished_run_says_so(prepared):
    answer = prepared("train", "--profile", "smoke", "--resume")
    assert answer.exit_code == 1
    assert "no unfinished training of profile smoke" in answer.stderr


def test_resume_and_init_from_exclude_each_other(run_cli):
    answer = run_cli("train", "--resume", "--init-from", "best.pth")
    assert answer.exit_code == 2
    assert "exclude each other" in answer.stderr


def test_an_unprepared_city_is_named_with_the_command_that_makes_it(run_cli):
    answer = run_cli("train", "--profile", "smoke")
    assert answer.exit_code == 2
    assert "hoserkd prepare" in answer.stderr


def test_init_from_starts_from_a_model_file(prepared, home):
    prepared("train", "--profile", "smoke", "--no-distill", "--max-steps", "2")
    (model,) = home.glob("store/runs/*/best.safetensors")
    answer = prepared("train", "--profile", "smoke", "--no-distill", "--init-from", model,
                      "--max-steps", "1", "--json")
    assert answer.exit_code == 0, answer.stderr


def test_init_from_a_bundle_starts_from_its_student(prepared, tmp_path, store):
    places = ["--store", store.directory]
    prepared("train", "--profile", "smoke", "--no-distill", "--max-steps", "2", "--name", "first",
             "--set", "data.candidate_top_k=3", *places)
    made = prepared("bundle", "first", "--output", tmp_path / "first.zip", *places)
    assert made.exit_code == 0, made.stderr
    answer = prepared("train", "--profile", "smoke", "--no-distill", "--init-from",
                      tmp_path / "first.zip", "--name", "second", "--max-steps", "1",
                      "--set", "train.best=loss", *places)
    assert answer.exit_code == 0, answer.stderr
    assert "by validation loss, then accuracy" in answer.stdout
    assert "decides: data.candidate_top_k is 3, not 64" in answer.stderr
    record = store.run("second")
    assert json.loads(record.config_json)["data"]["candidate_top_k"] == 3
    assert record.best_name == "val_loss"


def test_a_run_killed_before_its_first_checkpoint_starts_again_from_the_given_weights(
        prepared, store, monkeypatch, tmp_path):
    from safetensors.torch import load_file

    words = ["--profile", "smoke", "--no-distill", "--store", store.directory]
    assert prepared("train", *words, "--name", "first", "--max-steps", "1").exit_code == 0
    given = tmp_path / "given.safetensors"
    given.write_bytes((Path(store.run("first").directory) / "best.safetensors").read_bytes())
    words += ["--init-from", given, "--max-steps", "2"]
    assert prepared("train", *words, "--name", "straight").exit_code == 0
    with monkeypatch.context() as patched:
        patched.setattr("hoserkd.engine.training.loop.Training.close_step", interrupt)
        assert prepared("train", *words, "--name", "killed").exit_code == 130
    assert not (Path(store.run("killed").directory) / "last.ckpt").exists()
    resume = ["train", "--resume", "--name", "killed", "--store", store.directory]
    given.rename(tmp_path / "away")
    gone = prepared(*resume)
    assert gone.exit_code == 2
    assert "run killed was begun with student given" in gone.stderr
    (tmp_path / "away").rename(given)
    answer = prepared(*resume)
    assert answer.exit_code == 0, answer.stderr
    one, two = (load_file(Path(store.run(name).directory) / "best.safetensors")
                for name in ("straight", "killed"))
    assert all((one[name] == two[name]).all() for name in one)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_init_from_a_public_checkpoint_is_told_as_what_it_is(run_cli, store, tmp_path):
    recorded = Path(__file__).parent.parent / "data" / "hoser"
    places = ["--store", store.directory, "--city", tmp_path / "city"]
    assert run_cli("prepare", "--source", recorded / "city", *places[2:]).exit_code == 0
    trained = run_cli("train", "--no-distill", "--init-from", recorded / "best.pth", "--name",
                      "public", "--max-steps", "1", *places)
    assert trained.exit_code == 0, trained.stderr
    assert "decides: student.hidden_dim" in trained.stderr
    student = json.loads(store.run("public").config_json)["student"]
    assert student["features"] == "aaai2025"
    geographic = run_cli("train", "--no-distill", "--name", "geo", "--max-steps", "1", *places,
                         *TINY)
    assert geographic.exit_code == 0, geographic.stderr
    mixed = run_cli("train", "--init-from", recorded / "best.pth", "--max-steps", "1", *places,
                    "--set", "distill.source=hoser", "--teacher", "geo")
    assert mixed.exit_code == 2
    assert "the teacher's features are geographic, the student's aaai2025" in mixed.stderr
    exported = run_cli("runs", "export", "public", "--hoser", tmp_path / "again.pth", *places)
    assert exported.exit_code == 0, exported.stderr
    assert "right angles" not in exported.stderr
    folder = run_cli("runs", "export", "public", "--hoser", tmp_path / "public", "--max-len", "99",
                     *places)
    assert folder.exit_code == 0, folder.stderr
    assert "max_len 99: the public settings must say so too" in folder.stderr
    assert "python gene.py --dataset city" in folder.stderr
    assert "max_len: 99" in (tmp_path / "public" / "config" / "city.yaml").read_text()
    refused = run_cli("runs", "export", "public", "--hoser", tmp_path / "again.pth",
                      "--with-real-trips", *places)
    assert refused.exit_code == 2


def epoch_losses(store, name):
    """Return what each epoch of a run came to, but for its seconds."""
    return [{key: value for key, value in epoch.metrics.items() if key != "epoch_s"}
            for epoch in store.epochs(store.run(name).run_id)]


def test_two_processes_follow_the_curve_of_one(prepared, store, home):
    assert prepared("train-teacher", "--profile", "smoke").exit_code == 0
    assert prepared("precompute", "--profile", "smoke").exit_code == 0
    words = ["train", "--profile", "smoke", "--store", str(store.directory), *SMALL]
    assert prepared(*words, "--name", "one").exit_code == 0
    launched = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "hoserkd", *words, "--name", "two", "--json"],
        capture_output=True, text=True, timeout=240, check=False)
    assert launched.returncode == 0, launched.stderr
    document = json.loads(launched.stdout)
    assert document["name"] == "two"
    assert len(store.runs(kind="train")) == 2
    one, two = epoch_losses(store, "one"), epoch_losses(store, "two")
    assert len(one) == len(two) == 2
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-3, abs=1e-4)


def test_a_run_teaches_another_and_a_student_teaches_itself(prepared):
    assert prepared("train", "--profile", "smoke", "--no-distill", "--name", "big",
                    "--set", "student.layers=2", "--max-steps", "2").exit_code == 0
    taught = prepared("train", "--profile", "smoke", "--set", "distill.source=hoser",
                      "--teacher", "big", "--max-steps", "1", "--json")
    assert taught.exit_code == 0, taught.stderr
    assert "val_loss_kl" in json.loads(taught.stdout)["metrics"]
    alone = prepared("train", "--profile", "smoke", "--set", "distill.source=self",
                     "--set", "student.layers=2", "--max-steps", "1", "--json")
    assert alone.exit_code == 0, alone.stderr


def test_a_run_finds_the_city_it_was_trained_in_again(prepared, home, tmp_path):
    (home / "cities" / "smoke").rename(home / "cities" / "elsewhere")
    trained = prepared("train", "--profile", "smoke", "--no-distill", "--city", "elsewhere",
                       "--name", "there", "--max-steps", "1")
    assert trained.exit_code == 0, trained.stderr
    made = prepared("generate", "--run", "there", "--num", "3")
    assert made.exit_code == 0, made.stderr
    exported = prepared("runs", "export", "there", "--format", "hoser",
                        "--output", tmp_path / "best.pth")
    assert exported.exit_code == 0, exported.stderr
    named = prepared("generate", "--run", "there", "--num", "3", "--set", "city.name=smoke")
    assert named.exit_code == 2
    assert "cities/smoke" in named.stderr
