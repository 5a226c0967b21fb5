import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hoserkd.engine.events import (
    CheckpointSaved,
    EpochDone,
    Note,
    Progress,
    Rewound,
    SplitJudged,
    StepDone,
)
from hoserkd.errors import DivergenceError, InterruptedRunError, StoreError, UsageError
from hoserkd.store.database import DATABASE, MIGRATIONS, UnwritableError, migrate
from hoserkd.store.machine import sample_gpu
from hoserkd.store.recorder import RunRecorder
from hoserkd.store.runs import RunStore, UnknownRunError, resolve_reference
from hoserkd.store.sql import QueryError, QueryLimits


def begun(store: RunStore, name: str = "first", **given: object) -> RunRecorder:
    return store.create_run("train", "demo", name, '{"train": {"epochs": 2}}', 7, "cpu",
                            **given)  # type: ignore[arg-type]


def steps(run: RunRecorder, first: int, last: int) -> None:
    for step in range(first, last + 1):
        timings = {"forward": 2.0, "data": 1.0} if step % 5 == 0 else {}
        run.notify(StepDone(step, step // 10, 20, {"loss": 1 / step, "accuracy": 0.5}, timings))


def test_run_keeps_what_it_was_begun_with(store: RunStore) -> None:
    with begun(store, parents=["p"], data_sha256="d", tags=["t"]) as run:
        pass
    record = store.run("first")
    assert (record.run_id, record.kind, record.profile) == (run.run_id, "train", "demo")
    assert (record.seed, record.device, record.parents, record.tags) == (7, "cpu", ("p",), ("t",))
    assert record.data_sha256 == "d"
    assert record.versions["python"].startswith("3.")
    assert json.loads(record.config_json) == {"train": {"epochs": 2}}
    assert record.argv == tuple(sys.argv)
    assert record.pid == os.getpid()
    assert json.loads((run.directory / "settings.json").read_text()) == {"train": {"epochs": 2}}
    assert json.loads((run.directory / "run.json").read_text())["status"] == "finished"


def test_runs_of_one_second_never_share_an_id(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = iter(["aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr("hoserkd.store.folders.secrets.token_hex", lambda n: next(draws))
    monkeypatch.setattr("hoserkd.store.runs.time.time", lambda: 1_800_000_000.0)
    ids = []
    for _ in range(2):
        run = store.create_run("train", "my profile")
        run.finish("finished")
        ids.append((run.run_id, run.name))
    assert ids == [("20270115-080000-aaaa", "train-my-profile-aaaa"),
                   ("20270115-080000-bbbb", "train-my-profile-bbbb")]


def judged(store: RunStore, name: str, kind: str, config: dict[str, object]) -> RunRecorder:
    run = store.create_run(kind, "demo", name, json.dumps(config))
    for epoch, (accuracy, loss) in enumerate(((0.5, 0.51), (0.5, 0.41), (0.4, 0.40))):
        run.notify(EpochDone(epoch, 10 * epoch + 10, {
            "val_accuracy": accuracy, "val_loss": loss, "val_loss_time": 1 - loss}))
    return run


@pytest.mark.parametrize(("criterion", "name", "value", "step"), [
    ("accuracy", "val_accuracy", 0.5, 20), ("loss", "val_loss", 0.41, 20),
    ("loss_time", "val_loss_time", 0.59, 20), (None, "val_accuracy", 0.5, 20)])
def test_best_epoch_is_the_one_whose_weights_were_kept(
        store: RunStore, criterion: str | None, name: str, value: float, step: int) -> None:
    """By the setting that chose them; a tie that another figure broke is theirs too."""
    train = {} if criterion is None else {"best": criterion}
    run = judged(store, "kept", "train", {"train": train})
    for at in (10, 20):
        run.notify(CheckpointSaved(str(run.directory / "best.safetensors"), "best", at))
    record = store.run("kept")
    assert (record.best_name, record.best_value, record.best_step) == (
        name, pytest.approx(value), step)


def test_best_epoch_of_a_run_that_kept_no_weights_is_that_of_the_best_figure(
        store: RunStore) -> None:
    judged(store, "lost", "train", {"train": {"best": "loss"}})
    record = store.run("lost")
    assert (record.best_name, record.best_value, record.best_step) == ("val_loss", 0.40, 30)


def test_odd_name_begins_no_run(store: RunStore) -> None:
    with pytest.raises(UsageError):
        store.create_run("train", "demo", "a/b")
    assert store.runs() == ()


def test_events_come_back_as_records(store: RunStore) -> None:
    run = begun(store)
    steps(run, 1, 20)
    run.notify(EpochDone(0, 10, {"val_accuracy": 0.7}))
    run.notify(EpochDone(1, 20, {"val_accuracy": 0.6, "train_loss": float("nan")}))
    run.notify(Note("careful", "warning"))
    (run.directory / "best.safetensors").write_bytes(b"12345")
    run.notify(CheckpointSaved(str(run.directory / "best.safetensors"), "best", 10))
    run.notify(SplitJudged("test", {"test_accuracy": 0.65}))
    run.notify(Progress("searching", 3, 9, "trips"))
    run.system({"cpu_percent": 40.0})

    loss = store.metrics(run.run_id)["loss"]
    assert np.array_equal(loss.step, np.arange(1, 21))
    assert np.allclose(loss.value, 1 / np.arange(1, 21))
    assert set(store.metrics(run.run_id, ["accuracy"], since_step=15)) == {"accuracy"}
    assert len(store.metrics(run.run_id, since_step=15)["loss"].step) == 5
    assert list(store.timings(run.run_id)["forward"].step) == [5, 10, 15, 20]
    first, second = store.epochs(run.run_id)
    assert (first.epoch, first.step, first.metrics) == (0, 10, {"val_accuracy": 0.7})
    assert math.isnan(second.metrics["train_loss"])
    (judged,) = store.evaluations(run.run_id)
    assert (judged.label, judged.payload) == ("test", {"test_accuracy": 0.65})
    (file,) = store.artifacts(run.run_id)
    assert (file.path, file.kind, file.size, file.step) == (
        "best.safetensors", "checkpoint-best", 5, 10)
    (note,) = store.notes(run.run_id)
    assert (note.level, note.message) == ("warning", "careful")
    assert list(store.system(run.run_id)["cpu_percent"].value) == [40.0]
    record = store.run("first")
    assert (record.status, record.step, record.total_steps, record.epoch) == ("running", 20, 20, 1)
    assert (record.best_name, record.best_value, record.best_step) == ("val_accuracy", 0.7, 10)
    assert (record.job, record.done, record.total) == ("searching", 3, 9)
    assert record.last_metrics == {"loss": 0.05, "accuracy": 0.5}
    run.finish("finished")


@pytest.mark.parametrize(("error", "status", "message"), [
    (None, "finished", ""),
    (InterruptedRunError("asked to stop"), "stopped", "asked to stop"),
    (KeyboardInterrupt(), "stopped", "interrupted"),
    (DivergenceError("loss is nan", hint="x"), "failed", "loss is nan"),
    (ValueError("odd"), "failed", "ValueError('odd')"),
])
def test_ending_is_recorded_as_it_was(
    error: BaseException | None, status: str, message: str, store: RunStore
) -> None:
    def body() -> None:
        with begun(store):
            if error is not None:
                raise error

    if error is None:
        body()
    else:
        with pytest.raises(type(error)):
            body()
    record = store.run("first")
    assert (record.status, record.message) == (status, message)
    assert record.ended_at is not None


def test_sync_again_and_again_doubles_nothing(store: RunStore) -> None:
    run = begun(store)
    for first in range(1, 41, 10):
        steps(run, first, first + 9)
        for _ in range(3):
            store.sync()
            RunStore(store.directory).sync()
    assert store.query("SELECT count(*), count(DISTINCT step) FROM metrics "
                       "WHERE name = 'loss'").rows == [(40, 40)]
    run.finish("finished")


def test_ctrl_c_within_a_query_is_ctrl_c(store: RunStore) -> None:
    begun(store).finish("finished")
    with pytest.raises(KeyboardInterrupt), store.reading():
        raise RuntimeError("Query interrupted")  # what DuckDB makes of it
    with pytest.raises(RuntimeError, match="another"), store.reading():
        raise RuntimeError("another")


def test_rewind_voids_what_came_after(store: RunStore) -> None:
    run = begun(store)
    steps(run, 1, 20)
    run.notify(EpochDone(0, 10, {"val_accuracy": 0.6}))
    run.notify(EpochDone(1, 20, {"val_accuracy": 0.9}))
    store.sync()
    run.notify(Rewound(12))
    steps(run, 13, 14)
    run.notify(Rewound(13))
    run.notify(StepDone(14, 1, 20, {"loss": 42.0}))
    loss = store.metrics(run.run_id)["loss"]
    assert list(loss.step) == list(range(1, 15))
    assert loss.value[-1] == 42.0
    assert [e.epoch for e in store.epochs(run.run_id)] == [0]
    record = store.run("first")
    assert (record.best_value, record.step) == (0.6, 14)
    run.finish("stopped")


@pytest.mark.parametrize("read_between", [True, False])
def test_an_epoch_whose_end_no_checkpoint_saw_is_recorded_once(
        store: RunStore, read_between: bool) -> None:
    run = begun(store)
    steps(run, 1, 20)
    run.notify(EpochDone(0, 10, {"val_accuracy": 0.6}))
    run.notify(EpochDone(1, 20, {"val_accuracy": 0.7}))
    if read_between:
        store.sync()
    run.notify(Rewound(20, judged=10))
    run.notify(EpochDone(1, 20, {"val_accuracy": 0.8}))
    told = [(e.epoch, e.metrics["val_accuracy"]) for e in store.epochs(run.run_id)]
    assert told == [(0, 0.6), (1, 0.8)]
    assert list(store.metrics(run.run_id)["loss"].step) == list(range(1, 21))
    run.finish("finished")


@pytest.mark.parametrize("read_between", [True, False])
def test_a_training_killed_after_its_judgement_is_judged_once(
        store: RunStore, read_between: bool) -> None:
    run = begun(store)
    steps(run, 1, 3)
    run.notify(SplitJudged("test", {"test_accuracy": 0.4}))
    if read_between:
        store.sync()
    run.notify(Rewound(3))
    run.notify(SplitJudged("test", {"test_accuracy": 0.5}))
    assert [e.payload for e in store.evaluations(run.run_id)] == [{"test_accuracy": 0.5}]
    run.finish("finished")


def test_a_database_is_made_whole_or_not_at_all(
        store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(store).finish("finished")
    store.database.unlink()
    half = store.directory / f".{store.database.name}.new"
    half.write_bytes(b"what a killed process left")

    def die(_: object) -> None:
        assert not store.database.exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hoserkd.store.database.migrate", die)
        with pytest.raises(KeyboardInterrupt):
            store.runs()
    assert not store.database.exists()
    assert not half.exists()
    assert [run.name for run in store.runs()] == ["first"]


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_database_that_a_kill_has_damaged_is_made_anew(store: RunStore, damage: str) -> None:
    begun(store).finish("finished")
    whole = store.database.read_bytes()
    store.database.write_bytes(whole[:5000] if damage == "cut" else
                               whole[:12288] + b"\xff" * 4096 + whole[16384:])
    again = RunStore(store.directory)
    begun(again, "second").finish("finished")
    assert {run.name for run in again.runs()} == {"first", "second"}


def test_a_store_that_cannot_be_written_is_read_all_the_same(
        store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise UnwritableError("no space left on device")

    begun(store).finish("finished")
    monkeypatch.setattr(store, "sync", refuse)
    assert [run.name for run in store.runs()] == ["first"]
    store.database.unlink()
    assert [run.status for run in store.runs()] == ["finished"]
    assert not store.database.exists()


def test_resumed_run_goes_on_in_the_same_record(store: RunStore) -> None:
    run = begun(store)
    steps(run, 1, 10)
    run.finish("stopped")
    assert store.run("first").status == "stopped"
    with store.resume_run("first") as again:
        assert again.run_id == run.run_id
        assert store.run("first").status == "running"
        again.notify(Rewound(8))
        steps(again, 9, 12)
    record = store.run("first")
    assert (record.status, record.message, record.step) == ("finished", "", 12)
    assert list(store.metrics(run.run_id)["loss"].step) == list(range(1, 13))


def test_running_run_cannot_be_resumed_or_deleted(store: RunStore) -> None:
    run = begun(store)
    with pytest.raises(StoreError, match="another process"):
        store.resume_run("first")
    with pytest.raises(StoreError, match="is running"):
        store.delete(["first"])
    run.finish("finished")


def test_deleted_run_is_gone_with_its_files(store: RunStore) -> None:
    with begun(store) as run:
        steps(run, 1, 3)
    begun(store, "second").finish("finished")
    store.delete(["first"])
    assert not run.directory.exists()
    assert [r.name for r in store.runs()] == ["second"]
    assert store.query(f"SELECT count(*) FROM metrics WHERE run_id = '{run.run_id}'"
                       ).rows == [(0,)]


def test_file_made_later_is_attached_to_an_ended_run(store: RunStore) -> None:
    run = begun(store)
    with pytest.raises(StoreError, match="another process"):
        store.attach("first", run.directory / "trips.csv", "trips")
    run.finish("finished")
    store.attach("first", run.directory / "trips.csv", "trips")
    assert [(a.path, a.kind) for a in store.artifacts(run.run_id)] == [("trips.csv", "trips")]
    assert store.run("first").status == "finished"


def test_label_changes_name_tags_and_notes_of_a_live_run(store: RunStore) -> None:
    run = begun(store, tags=["old"])
    store.label("first", name="better", add=["a", "b"], remove=["old"], notes="why")
    store.label("better", remove=["a"])
    record = store.run("better")
    assert (record.tags, record.notes, record.status) == (("b",), "why", "running")
    assert [r.name for r in store.runs(tag="b")] == ["better"]
    run.finish("finished")
    assert RunStore(store.directory).run(run.run_id).name == "better"


@pytest.mark.parametrize("name", ["latest", "a b", "", "../x", "-x", "x" * 101])
def test_name_with_odd_characters_is_refused(name: str, store: RunStore) -> None:
    begun(store).finish("finished")
    with pytest.raises(UsageError):
        store.label("first", name=name)


def test_repair_rebuilds_all_from_the_spools(store: RunStore) -> None:
    with begun(store) as run:
        steps(run, 1, 20)
        run.notify(Rewound(15))
        run.notify(EpochDone(0, 10, {"val_accuracy": 0.6}))
        run.evaluation({"jsd": 0.25})
    store.label("first", add=["kept"])
    before, rows = store.run("first"), store.query("SELECT * FROM metrics ORDER BY ALL")
    store.database.write_bytes(b"not a database")
    store.repair()
    assert store.database.with_suffix(".duckdb.old").read_bytes() == b"not a database"
    assert store.run("first") == before
    assert store.query("SELECT * FROM metrics ORDER BY ALL") == rows


def test_damaged_line_costs_that_line_only(store: RunStore) -> None:
    run = begun(store)
    steps(run, 1, 3)
    with (run.directory / "events.jsonl").open("ab") as file:
        file.write(b'{"seq": broken\n\xff\xfe\n')
    steps(run, 4, 6)
    assert list(store.metrics(run.run_id)["loss"].step) == [1, 2, 3, 4, 5, 6]
    run.finish("finished")


def test_reading_a_store_that_nobody_made_does_not_make_it(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "nowhere")
    assert store.runs() == ()
    with pytest.raises(UnknownRunError):
        store.run("latest")
    assert not (tmp_path / "nowhere").exists()


KNOWN = [("20260103-000000-aaaa", "new"), ("20260102-000000-bbbb", "same"),
         ("20260101-000000-cccc", "same")]


@pytest.mark.parametrize(("reference", "run_id"), [
    ("latest", "20260103-000000-aaaa"), ("new", "20260103-000000-aaaa"),
    ("same", "20260102-000000-bbbb"), ("20260101-000000-cccc", "20260101-000000-cccc"),
    ("20260101", "20260101-000000-cccc"),
])
def test_reference_means(reference: str, run_id: str) -> None:
    assert resolve_reference(reference, KNOWN) == run_id


@pytest.mark.parametrize(("reference", "what"), [
    ("nwe", "did you mean new"), ("202601", "start of 3 runs"), ("", "no run"),
])
def test_reference_that_means_nothing_says_so(reference: str, what: str) -> None:
    with pytest.raises(UnknownRunError, match=what):
        resolve_reference(reference, KNOWN)


def test_latest_of_a_kind_passes_over_others(store: RunStore) -> None:
    begun(store).finish("finished")
    store.create_run("evaluate", "demo").finish("finished")
    assert store.run("latest").kind == "evaluate"
    assert store.run("latest", kind="train").name == "first"


@pytest.mark.parametrize("query", [
    "CREATE TABLE t (a INTEGER)", "DELETE FROM runs", "ATTACH '/tmp/x.db'",
    "SELECT * FROM read_csv('/etc/passwd')", "COPY runs TO '/tmp/x.csv'",
    "SET enable_external_access = true", "SELECT 1; DROP TABLE runs", "INSTALL httpfs", "SELEC 1",
    "CREATE TEMP TABLE t (a INTEGER)", "CHECKPOINT", "DETACH hoserkd", "LOAD httpfs", "VACUUM",
    "SELECT * FROM '/etc/passwd'", "SELECT * FROM glob('/*')", "EXPORT DATABASE '/tmp/x'",
    "COPY (SELECT 1) TO '/dev/stdout'", "PRAGMA enable_profiling = 'json'", "",
])
def test_query_that_does_more_than_read_is_refused(query: str, store: RunStore) -> None:
    begun(store).finish("finished")
    with pytest.raises(QueryError, match="runs sql"):
        store.query(query)
    assert len(store.runs()) == 1


@pytest.mark.parametrize("query", [
    "FROM runs", "DESCRIBE runs", "SHOW TABLES", "SUMMARIZE runs", "EXPLAIN SELECT * FROM runs",
    "WITH a AS (SELECT 1 AS x) SELECT x FROM a", "VALUES (1)",
    "PIVOT (SELECT name, step FROM runs) ON name USING first(step)",
])
def test_query_that_reads_is_answered(query: str, store: RunStore) -> None:
    begun(store).finish("finished")
    assert store.query(query).rows


def test_query_with_a_misspelt_column_names_the_nearest(store: RunStore) -> None:
    begun(store).finish("finished")
    with pytest.raises(QueryError, match=r'naem.*Candidate bindings: "name"'):
        store.query("SELECT naem FROM runs")


def test_repair_under_readers_and_writers_loses_nothing(store: RunStore) -> None:
    run = begun(store)
    steps(run, 1, 20)
    others = [spawn(INGESTER, str(store.directory)) for _ in range(2)]
    for other in others:
        assert other.stdout is not None
        other.stdout.readline()
    for last in (30, 40, 50):
        steps(run, last - 9, last)
        assert RunStore(store.directory).repair().runs == 1
    assert [other.poll() for other in others] == [None, None]
    for other in others:
        kill(other)
    assert store.query("SELECT count(*), max(step) FROM metrics WHERE name = 'loss'"
                       ).rows == [(50, 50)]
    assert {path.name for path in store.directory.iterdir()} <= {
        "runs", DATABASE, ".hoserkd.lock", ".hoserkd.gate", f".{DATABASE}.lock",
        "hoserkd.duckdb.old"}
    run.finish("finished")


def test_run_of_another_machine_lives_while_it_is_heard_of(store: RunStore) -> None:
    run = begun(store)
    run.begin("resume", {"pid": 1, "host": "elsewhere", "git_revision": ""})
    run._sampler.close()
    # Over a network that passes no locks on, the writer's own is not seen.
    run._spool.let_go()
    assert store.run("first").status == "running"
    spool = run.directory / "events.jsonl"
    os.utime(spool, (time.time() - 600, time.time() - 600))
    assert store.run("first").status == "dead"


def test_store_of_a_newer_version_is_refused(store: RunStore) -> None:
    import duckdb

    begun(store).finish("finished")
    connection = duckdb.connect(str(store.database))
    connection.execute("INSERT INTO schema_migrations VALUES (999, 'future', now()::TIMESTAMP)")
    connection.close()
    with pytest.raises(StoreError, match="schema 999"):
        RunStore(store.directory).runs()


def test_migrations_are_applied_once_and_in_order() -> None:
    import duckdb

    connection = duckdb.connect()
    migrate(connection)
    migrate(connection)
    applied = connection.execute(
        "SELECT version, name FROM schema_migrations ORDER BY version").fetchall()
    assert applied == [(n, name) for n, (name, _) in enumerate(MIGRATIONS, 1)]


WRITER = """
import sys, time
from pathlib import Path
from hoserkd.engine.events import StepDone
from hoserkd.store.runs import RunStore
run = RunStore(Path(sys.argv[1])).create_run("train", "demo", sys.argv[2])
print(run.run_id, flush=True)
for step in range(1, 10**9):
    run.notify(StepDone(step, 0, 10, {"loss": 1.0, "accuracy": 0.5}))
    time.sleep(0.001)
    if step % 20 == 0:
        print(step, flush=True)
"""
INGESTER = """
import sys
from pathlib import Path
from hoserkd.store.runs import RunStore
while True:
    RunStore(Path(sys.argv[1])).sync(1.0)
    print(".", flush=True)
"""


def spawn(script: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE,
                            text=True)


def kill(process: subprocess.Popen) -> str:
    process.send_signal(signal.SIGKILL)
    assert process.stdout is not None
    rest = process.stdout.read()
    process.wait()
    return rest


def test_killed_writers_and_ingesters_lose_and_double_nothing(store: RunStore) -> None:
    writers = [spawn(WRITER, str(store.directory), f"w{i}") for i in range(2)]
    ids = [writer.stdout.readline().strip() for writer in writers]  # type: ignore[union-attr]
    for _ in range(2):
        ingesters = [spawn(INGESTER, str(store.directory)) for _ in range(2)]
        for ingester in ingesters:
            assert ingester.stdout is not None
            ingester.stdout.readline()
        time.sleep(0.05)
        for ingester in ingesters:
            kill(ingester)
    told = [int(kill(writer).split()[-1]) for writer in writers]
    assert [store.run(run_id).status for run_id in ids] == ["dead", "dead"]
    for run_id, least in zip(ids, told, strict=True):
        rows = store.query("SELECT count(*), count(DISTINCT step), min(step), max(step) "
                           f"FROM metrics WHERE run_id = '{run_id}' AND name = 'loss'").rows
        count, distinct, first, last = rows[0]
        assert count == distinct == last
        assert first == 1
        assert last >= least


def test_database_held_by_another_does_not_stop_a_recorder(store: RunStore) -> None:
    begun(store).finish("finished")
    script = ("import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); print('.', flush=True);"
              "time.sleep(60)")
    holder = spawn(script, str(store.directory / DATABASE))
    assert holder.stdout is not None
    holder.stdout.readline()
    started = time.perf_counter()
    with begun(store, "second") as run:
        steps(run, 1, 50)
        assert store.sync().skipped
    assert time.perf_counter() - started < 5
    kill(holder)
    assert store.run("second").step == 50


def test_recording_a_step_costs_little(store: RunStore) -> None:
    run = begun(store)
    metrics = {f"metric_{i}": i * 0.123456 for i in range(15)}
    times = []
    for step in range(1, 1001):
        started = time.perf_counter()
        run.notify(StepDone(step, 0, 1000, metrics))
        times.append(time.perf_counter() - started)
    run.finish("finished")
    assert sorted(times)[500] < 0.2e-3


def test_machine_is_sampled_while_a_run_lasts(tmp_path: Path) -> None:
    header = {"run_id": "r", "name": "r"}
    with RunRecorder(tmp_path, header, sample_s=0.02) as run:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and b"system" not in (
            tmp_path / "events.jsonl").read_bytes():
            time.sleep(0.02)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    sample = next(e["m"] for e in events if e["type"] == "system")
    assert sample["process_memory_mb"] > 10
    assert 0 <= sample["memory_percent"] <= 100
    assert events[-1]["type"] == "end"
    assert run.failure is None


class Cuda:
    """torch.cuda as a machine without NVML has it."""

    def __init__(self, initialized: bool) -> None:
        self.is_initialized = lambda: initialized
        self.mem_get_info = lambda: (25, 100)
        self.memory_allocated = lambda: 5_000_000

    def utilization(self) -> int:
        raise ModuleNotFoundError("pynvml")


@pytest.mark.parametrize(("torch", "found"), [
    (None, {}),
    (SimpleNamespace(cuda=Cuda(initialized=False)), {}),
    (SimpleNamespace(cuda=Cuda(initialized=True)),
     {"gpu_memory_mb": 5.0, "gpu_memory_percent": 75.0}),
])
def test_gpu_is_sampled_only_where_torch_is_at_work_on_one(
    torch: object, found: dict[str, float]
) -> None:
    assert sample_gpu(torch) == found


def test_a_query_that_asks_for_gigabytes_or_hours_is_refused(store: RunStore) -> None:
    with pytest.raises(QueryError, match="needs more than 512 MiB"):
        store.query("SELECT repeat('x', 4000000000)")
    with pytest.raises(QueryError, match=r"longer than 0\.2 s"):
        store.query("SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range <>"
                    " b.range", QueryLimits(seconds=0.2))
    cut = store.query("SELECT range FROM range(1000000)")
    assert (len(cut.rows), cut.truncated) == (10_000, True)
    long = store.query("SELECT repeat('x', 100000) FROM range(9)", QueryLimits(text_bytes=450_000))
    assert (len(long.rows), long.truncated) == (4, True)
    assert not store.query("SELECT 1").truncated


def test_figures_of_older_runs_are_told_by_their_present_names(store: RunStore) -> None:
    with store.create_run("train", "demo", "old", "{}", 0, "cpu") as recorder:
        recorder.notify(StepDone(1, 0, 2, {"steps_per_s": 3.0, "loss": 1.0}))
        recorder.notify(StepDone(2, 0, 2, {"trip_steps_per_s": 4.0, "loss": 1.0}))
    found = store.metrics(recorder.run_id, ["trip_steps_per_s"])
    assert found["trip_steps_per_s"].value.tolist() == [3.0, 4.0]
    assert "steps_per_s" not in store.metrics(recorder.run_id)
