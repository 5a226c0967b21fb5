import csv
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from hoserkd.commands.runs import confirm
from hoserkd.engine.events import EpochDone, SplitJudged, StepDone
from hoserkd.errors import UsageError
from hoserkd.settings import config_json, resolve_settings
from hoserkd.store.database import TABLES
from hoserkd.store.runs import RunStore


@pytest.fixture
def two_runs(home) -> RunStore:  # type: ignore[no-untyped-def]
    store = RunStore(home / "store")
    for name, lambda_kl in (("vanilla", 0.0), ("distilled", 0.03)):
        sets = [f"distill.lambda_kl={lambda_kl}"]
        settings = config_json(resolve_settings(None, sets=sets).config)
        with store.create_run("train", "demo", name, settings, 1, "cpu") as run:
            run.notify(StepDone(1, 0, 1, {"loss": 0.5}, {"forward": 2.0}))
            run.notify(EpochDone(0, 1, {"val_accuracy": 0.5 + lambda_kl}))
            run.notify(SplitJudged("test", {"test_accuracy": 0.4 + lambda_kl}))
        with store.create_run("evaluate", "demo", parents=[run.run_id]) as judge:
            judge.evaluation({"jsd": {"distance": 0.1}, "od": "test"})
            judge.evaluation({"run_id": "another", "jsd": {"distance": 0.9}})
    return store


def test_list_of_an_empty_store_is_empty(run_cli: Callable) -> None:
    answer = run_cli("runs", "list", "--json")
    assert answer.exit_code == 0
    assert json.loads(answer.stdout) == {"schema_version": 1, "runs": [], "total": 0}


def test_list_shows_the_newest_first(run_cli: Callable, two_runs: RunStore) -> None:
    answer = run_cli("runs", "list", "--kind", "train")
    lines = [line.split()[0] for line in answer.stdout.splitlines() if line.strip()]
    assert lines[0] == "run"
    assert lines[2:] == ["distilled", "vanilla"]
    assert "val_accuracy 0.5300" in answer.stdout
    assert answer.stderr == ""


def test_list_says_how_many_it_left_out(run_cli: Callable, two_runs: RunStore) -> None:
    answer = run_cli("runs", "list", "--limit", "1", "--json")
    assert len(json.loads(answer.stdout)["runs"]) == 1
    assert "3 older runs are not shown" in answer.stderr


def test_show_as_json_holds_all_that_is_known(run_cli: Callable, two_runs: RunStore) -> None:
    document = json.loads(run_cli("runs", "show", "distilled", "--json").stdout)
    assert document["run"]["name"] == "distilled"
    assert document["settings"]["distill"]["lambda_kl"] == 0.03
    assert document["metrics"]["loss"] == {
        "last": 0.5, "mean": 0.5, "min": 0.5, "max": 0.5, "count": 1}
    assert document["timings_ms"]["forward"]["mean"] == 2.0
    assert document["epochs"][0]["metrics"] == {"val_accuracy": 0.53}
    assert [e["label"] for e in document["evaluations"]] == ["test", "evaluation"]


def test_show_as_tables_names_the_judgement_of_a_child(
    run_cli: Callable, two_runs: RunStore
) -> None:
    out = run_cli("runs", "show", "distilled").stdout
    for part in ("Run distilled", "Epochs", "Judged: evaluation", "jsd.distance", "Milliseconds"):
        assert part in out


def test_metrics_shows_the_newest_lines_and_json_all(
    run_cli: Callable, two_runs: RunStore
) -> None:
    with two_runs.create_run("train", "demo", "long") as run:
        for step in range(1, 31):
            run.notify(StepDone(step, 0, 30, {"loss": 1 / step}))
        run.notify(EpochDone(0, 30, {"val_accuracy": 0.75}))
    document = json.loads(run_cli("runs", "metrics", "long", "--json").stdout)
    assert document["metrics"]["loss"]["step"] == list(range(1, 31))
    assert document["metrics"]["val_accuracy"] == {"step": [30], "value": [0.75]}
    answer = run_cli("runs", "metrics", "long", "loss", "val_accuracy", "--last", "1")
    assert [line.split() for line in answer.stdout.splitlines() if "0.75" in line] == [
        ["30", "0.03333", "0.7500"]]
    assert "29 earlier lines are not shown" in answer.stderr


def test_metrics_of_an_unknown_figure_names_the_nearest(
    run_cli: Callable, two_runs: RunStore
) -> None:
    answer = run_cli("runs", "metrics", "distilled", "los")
    assert answer.exit_code == 2
    assert "did you mean loss?" in answer.stderr


def test_list_of_an_unknown_status_names_the_nearest(run_cli: Callable) -> None:
    answer = run_cli("runs", "list", "--status", "finnished")
    assert answer.exit_code == 2
    assert "did you mean finished?" in answer.stderr


def test_compare_shows_only_settings_that_differ(run_cli: Callable, two_runs: RunStore) -> None:
    document = json.loads(run_cli("runs", "compare", "vanilla", "distilled", "--json").stdout)
    assert document["settings"] == {"distill.lambda_kl": [0.0, 0.03]}
    assert document["metrics"]["best val_accuracy"] == [0.5, 0.53]
    assert document["metrics"]["test: test_accuracy"] == pytest.approx([0.4, 0.43])
    assert "hoserkd study" in document["caution"]
    assert "distill.lambda_kl" in run_cli("runs", "compare", "vanilla", "distilled").stdout


def test_tag_renames_and_tags(run_cli: Callable, two_runs: RunStore) -> None:
    answer = run_cli("runs", "tag", "vanilla", "paper", "--name", "base", "--notes", "table 2")
    assert answer.exit_code == 0
    run = two_runs.run("base")
    assert (run.tags, run.notes) == (("paper",), "table 2")
    run_cli("runs", "tag", "base", "--remove", "paper")
    assert two_runs.run("base").tags == ()


def test_delete_without_a_terminal_wants_yes(run_cli: Callable, two_runs: RunStore) -> None:
    refused = run_cli("runs", "delete", "vanilla")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--yes" in refused.stderr
    assert run_cli("runs", "delete", "vanilla", "--yes").exit_code == 0
    assert run_cli("runs", "show", "vanilla").exit_code == 2


def test_unknown_run_names_the_nearest(run_cli: Callable, two_runs: RunStore) -> None:
    answer = run_cli("runs", "show", "distiled")
    assert answer.exit_code == 2
    assert "did you mean distilled?" in answer.stderr


def test_sql_answers_as_json(run_cli: Callable, two_runs: RunStore) -> None:
    answer = run_cli("runs", "sql", "SELECT name FROM runs WHERE kind = 'train' ORDER BY name",
                     "--json")
    assert json.loads(answer.stdout)["rows"] == [["distilled"], ["vanilla"]]


def test_sql_answers_of_every_type_are_json(run_cli: Callable, two_runs: RunStore) -> None:
    answer = run_cli("runs", "sql", "SELECT 1.5, DATE '2026-01-02', INTERVAL 3 DAY, 'a'::BLOB, "
                     "TIME '10:00', 1e400::DOUBLE, [1.5], {'a': 2.5}, TRUE, NULL", "--json")
    assert json.loads(answer.stdout)["rows"] == [[
        1.5, "2026-01-02", "3 days, 0:00:00", "b'a'", "10:00:00", None, [1.5], {"a": 2.5}, True,
        None]]


@pytest.mark.parametrize("sql", ["DROP TABLE runs", "SELECT 1; DROP TABLE runs", ""])
def test_sql_other_than_one_query_fails_in_one_line(
    run_cli: Callable, two_runs: RunStore, sql: str
) -> None:
    answer = run_cli("runs", "sql", sql)
    assert answer.exit_code == 2
    assert answer.stderr.startswith("error: runs sql: ")
    assert "Traceback" not in answer.stderr


def test_repair_counts_what_it_read(run_cli: Callable, two_runs: RunStore) -> None:
    document = json.loads(run_cli("runs", "repair", "--json").stdout)
    assert document["runs"] == 4


def test_export_writes_every_table(run_cli: Callable, two_runs: RunStore, tmp_path) -> None:  # type: ignore[no-untyped-def]
    import pyarrow.parquet

    words = ("runs", "export", "distilled", "--csv", tmp_path / "c", "--parquet", tmp_path / "p")
    answer = run_cli(*words, "--json")
    assert run_cli(*words).exit_code == 0, "its own files are replaced"
    assert len(json.loads(answer.stdout)["files"]) == 2 * (len(TABLES) - 1)
    assert (tmp_path / "c" / "metrics.csv").read_text().splitlines()[1].endswith(",loss,0.5")
    runs = pyarrow.parquet.read_table(tmp_path / "p" / "runs.parquet")
    assert runs["name"].to_pylist() == ["distilled"]
    started = two_runs.run("distilled").started_at
    assert runs["started_at"].type.tz == "UTC"
    assert runs["started_at"].cast("int64").to_pylist() == [round(started.timestamp() * 1e6)]
    with (tmp_path / "c" / "runs.csv").open() as file:
        [row] = csv.DictReader(file)
    assert datetime.fromisoformat(row["started_at"]) == started


def test_export_to_nothing_says_what_is_missing(run_cli: Callable, two_runs: RunStore) -> None:
    assert run_cli("runs", "export", "distilled").exit_code == 2


def test_export_by_format_writes_what_the_option_writes(
    run_cli: Callable, two_runs: RunStore, tmp_path: Path
) -> None:
    target = str(tmp_path / "a")
    answer = run_cli("runs", "export", "distilled", "--format", "csv", "--output", target)
    assert answer.exit_code == 0, answer.stderr
    assert run_cli("runs", "export", "distilled", "--csv", str(tmp_path / "b")).exit_code == 0
    for name in ("runs.csv", "metrics.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("options", [("--format", "hosser"), ("--output", "x", "--csv", "y")])
def test_export_of_an_unknown_form_names_the_known_ones(
    run_cli: Callable, two_runs: RunStore, options: tuple[str, ...]
) -> None:
    answer = run_cli("runs", "export", "distilled", *options)
    assert answer.exit_code == 2
    assert "hoser" in answer.stderr


def test_confirm_passes_with_yes() -> None:
    confirm("x", yes=True)
    with pytest.raises(UsageError):
        confirm("x", yes=False)


def test_gc_shows_before_it_removes(run_cli: Callable, two_runs: RunStore) -> None:
    with two_runs.create_run("train", "demo", "failure") as run:
        run.finish("failed", "by design")
    line = ("runs", "gc", "--older-than", "0", "--json")
    shown = run_cli(*line)
    assert [item["why"] for item in json.loads(shown.stdout)["items"]] == ["failed run failure"]
    assert "--yes removes these" in shown.stderr
    assert len(two_runs.runs()) == 5
    assert json.loads(run_cli(*line, "--yes").stdout)["removed"] is True
    assert len(two_runs.runs()) == 4


def test_gc_of_running_runs_is_refused(run_cli: Callable) -> None:
    answer = run_cli("runs", "gc", "--status", "running")
    assert answer.exit_code == 2
    assert "expected some of dead, failed, stopped, finished" in answer.stderr
