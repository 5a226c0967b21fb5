import json
from pathlib import Path

import numpy as np
import pytest
import torch

DATA = Path(__file__).parents[1] / "data"
TINY = ("--set", "teacher.n_layer=1", "--set", "teacher.n_head=2", "--set", "teacher.n_embd=16",
        "--set", "teacher.epochs=1", "--set", "teacher.cell_size_deg=0.01", "--device", "cpu")
BOUNDS = ("--bounds", "39.7,116.1,40.1,116.6")


@pytest.fixture
def prepared(run_cli, home):
    """Return a function that runs a command on a prepared city of 240 roads."""
    answer = run_cli("prepare", "--source", DATA / "hoser" / "city", "--set", "city.name=city")
    assert answer.exit_code == 0, answer.stderr
    return run_cli


def test_teacher_goes_all_the_way(prepared, home):
    trained = prepared("train-teacher", "--name", "tiny", *TINY, "--json")
    assert trained.exit_code == 0, trained.stderr
    payload = json.loads(trained.stdout)
    assert payload["trained"]
    assert payload["val_perplexity"] > 1
    assert Path(payload["directory"]) == home / "teachers" / "tiny"

    again = prepared("train-teacher", "--name", "tiny", *TINY)
    assert again.exit_code == 0
    assert "nothing to do" in again.stdout

    listed = json.loads(prepared("teachers", "list", "--json").stdout)
    assert [t["name"] for t in listed["teachers"]] == ["tiny"]
    shown = json.loads(prepared("teachers", "show", "tiny", "--city", "city", "--json").stdout)
    assert shown["city"]["clamped_share"] == 0
    assert shown["sha256"] == payload["sha256"]
    (epoch,) = [line for line in prepared("teachers", "show", "tiny").stdout.splitlines()
                if "best epoch" in line]
    assert epoch.split() == ["best", "epoch", "1"]

    judged = prepared("teachers", "judge", "tiny", "--city", "city", "--device", "cpu", "--json")
    assert judged.exit_code == 0, judged.stderr
    assert json.loads(judged.stdout)["perplexity"] > 1
    assert json.loads(judged.stdout)["anomalies"] == payload["meta"]["anomalies"]

    stored = prepared("precompute", "--teacher", "tiny", "--window", "2", "--splits", "train,test",
                      "--json")
    assert stored.exit_code == 0, stored.stderr
    splits = json.loads(stored.stdout)["splits"]
    assert [s["split"] for s in splits] == ["train", "test"]
    assert splits[0]["contexts"] < splits[0]["plain_tokens"]
    logits = np.load(Path(splits[0]["directory"]) / "logits.npy")
    assert np.isfinite(logits).all()
    repeated = prepared("precompute", "--teacher", "tiny", "--window", "2", "--splits", "train")
    assert "stored before" in repeated.stdout

    runs = json.loads(prepared("runs", "list", "--json").stdout)["runs"]
    assert [(r["kind"], r["name"], r["status"]) for r in runs] == [
        ("train-teacher", "tiny", "finished")]


def test_public_checkpoint_is_exported_and_measured_on_the_city(prepared, home):
    answer = prepared("export-teacher", DATA / "lmtad" / "plain" / "ckpt.pt", "--output",
                      home / "teachers" / "plain", *BOUNDS, "--city", "city", "--json")
    assert answer.exit_code == 0, answer.stderr
    payload = json.loads(answer.stdout)
    assert payload["tokens"] == {"pad": 108, "eot": 109, "sot": 110}
    assert payload["city"]["roads"] == 240
    assert prepared("teachers", "show", "plain").stdout.startswith("Teacher plain")
    stored = prepared("precompute", "--teacher", "plain", "--splits", "val", "--window", "full")
    assert stored.exit_code == 0, stored.stderr


def test_export_warns_of_a_city_outside_the_grid(prepared, tmp_path):
    answer = prepared("export-teacher", DATA / "lmtad" / "plain" / "ckpt.pt", "--output",
                      tmp_path / "t", "--bounds", "41.0,-8.7,41.1,-8.6", "--city", "city")
    assert answer.exit_code == 0
    assert "cannot teach this city" in answer.stderr
    refused = prepared("precompute", "--teacher", tmp_path / "t")
    assert refused.exit_code == 2
    assert "does not fit city" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(("arguments", "said"), [
    (("export-teacher", DATA / "lmtad" / "plain" / "ckpt.pt", "--output", "out"), "--bounds"),
    (("export-teacher", DATA / "hoser" / "best.pth", "--output", "out"), "no training checkpoint"),
    (("export-teacher", "missing.pt", "--output", "out"), "no teacher 'missing.pt'"),
    (("export-teacher", DATA / "lmtad" / "plain" / "ckpt.pt", "--output", "out", "--bounds",
      "1,2,3"), "--bounds"),
    (("precompute", "--window", "9"), "--window"),
    (("precompute", "--splits", "train,all"), "--splits"),
    (("precompute", "--city", "nowhere"), "hoserkd prepare"),
    (("train-teacher", "--city", "nowhere"), "hoserkd prepare"),
    (("teachers", "show", "nobody"), "no teacher 'nobody'"),
])
def test_mistake_is_one_line_with_exit_code_2(arguments, said, run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = run_cli(*arguments)
    assert answer.exit_code == 2
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not list(tmp_path.iterdir())


def test_missing_teacher_names_the_command_that_makes_one(prepared):
    answer = prepared("precompute", "--teacher", "tini")
    assert answer.exit_code == 2
    assert "hoserkd train-teacher" in answer.stderr


def test_resume_goes_on_in_the_same_run(prepared, home):
    from hoserkd.engine.teacher.stopped import LAST

    assert prepared("train-teacher", "--name", "t", *TINY).exit_code == 0
    last = home / "teachers" / "t" / LAST
    state = torch.load(last, weights_only=True)
    # As if it had been stopped before the end.
    torch.save(state | {"progress": state["progress"] | {"finished": False}}, last)
    refused = prepared("train-teacher", "--name", "t", *TINY)
    assert refused.exit_code == 2
    assert "--resume" in refused.stderr
    resumed = prepared("train-teacher", "--name", "t", *TINY, "--resume", "--json")
    assert resumed.exit_code == 0, resumed.stderr
    runs = json.loads(prepared("runs", "list", "--json").stdout)["runs"]
    assert [r["run_id"] for r in runs] == [json.loads(resumed.stdout)["run_id"]]
