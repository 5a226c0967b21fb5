import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hoserkd.engine.events import EpochDone, Progress, SplitJudged, StepDone
from hoserkd.errors import StoreError, UsageError
from hoserkd.store.export import export_tensorboard, folder_names, tracked_rows
from hoserkd.store.mirror import Mirror
from hoserkd.store.recorder import RunRecorder
from hoserkd.store.retention import Retention, Waste, clear, find_waste
from hoserkd.store.runs import RunStore
from hoserkd.store.wandb_log import _frames, _records

DAY = timedelta(days=1)


class Notebook:
    """A tracker that remembers what it was given, slowly if asked to."""

    def __init__(self, delay_s: float = 0.0, broken: bool = False) -> None:
        self.rows: list[tuple[dict[str, float], int]] = []
        self.closed = False
        self._delay_s = delay_s
        self._broken = broken

    def scalars(self, values: Mapping[str, float], step: int, at_s: float) -> None:
        if self._broken:
            raise OSError("no route to host")
        time.sleep(self._delay_s)
        self.rows.append((dict(values), step))

    def clocked(self, values: Mapping[str, float], elapsed_s: float, at_s: float) -> None:
        self.rows.append((dict(values), -1))

    def text(self, name: str, text: str) -> None:
        self.rows.append(({name: 0.0}, 0))

    def close(self) -> None:
        self.closed = True


def recorded(store: RunStore, name: str = "r", status: str = "finished", **given: object
             ) -> RunRecorder:
    run = store.create_run("train", "demo", name, '{"a": 1}', **given)  # type: ignore[arg-type]
    for step in (1, 2):
        run.notify(StepDone(step, 0, 2, {"loss": 1 / step, "accuracy": 0.5}, {"forward": 2.0}))
    run.notify(EpochDone(0, 2, {"val_accuracy": 0.7}))
    run.notify(SplitJudged("test", {"test_accuracy": 0.6}))
    run.system({"cpu_percent": 40.0})
    run.finish(status)  # type: ignore[arg-type]
    return run


def test_tracked_rows_hold_every_figure_once(store: RunStore) -> None:
    run = recorded(store)
    rows = [(values, step) for values, step, _ in tracked_rows(store, run.run_id)]
    assert rows == [
        ({"train/accuracy": 0.5, "train/loss": 1.0}, 1),
        ({"train/accuracy": 0.5, "train/loss": 0.5}, 2),
        ({"timings_ms/forward": 2.0}, 1), ({"timings_ms/forward": 2.0}, 2),
        ({"epoch/val_accuracy": 0.7}, 2), ({"test/test_accuracy": 0.6}, 2),
        ({"system/cpu_percent": 40.0}, None)]


def test_exported_folders_of_runs_of_one_name_are_two(store: RunStore) -> None:
    first, second, other = recorded(store), recorded(store), recorded(store, "other")
    names = folder_names(store.runs())
    assert names == {first.run_id: f"r-{first.run_id}", second.run_id: f"r-{second.run_id}",
                     other.run_id: "other"}


def test_tensorboard_reads_back_what_was_exported(store: RunStore, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recorded(store)
    export_tensorboard(store, store.run("r"), tmp_path)
    # Again: the same points must not stand there twice.
    folder = export_tensorboard(store, store.run("r"), tmp_path)
    assert folder == tmp_path / "r"
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 1.0), (2, 0.5)]
    assert events.Scalars("epoch/val_accuracy")[0].value == pytest.approx(0.7)
    assert b'"a": 1' in events.Tensors("settings")[0].tensor_proto.string_val[0]
    started_s = store.run("r").started_at.timestamp()
    assert events.Tensors("settings")[0].wall_time >= started_s


def test_machine_figures_stand_on_the_time_since_the_start_and_not_on_steps(
    store: RunStore, tmp_path: Path
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recorded(store)
    run = store.run("r")
    earlier = replace(run, started_at=run.started_at - timedelta(hours=1))
    events = accumulator.EventAccumulator(str(export_tensorboard(store, earlier, tmp_path)))
    events.Reload()
    [event] = events.Scalars("system/cpu_percent")
    assert 3600 <= event.step < 3660
    assert event.wall_time == pytest.approx(run.started_at.timestamp(), abs=60)


def test_wandb_writes_a_run_without_a_network(store: RunStore, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    from hoserkd.store.export import export_wandb

    run = recorded(store)
    folder = export_wandb(store, store.run("r"), tmp_path, "project")
    assert folder.name.endswith(run.run_id)
    assert (folder / f"run-{run.run_id}.wandb").stat().st_size > 500
    assert export_wandb(store, store.run("r"), tmp_path, "project") == folder
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 1
    assert f"{store.run('r').started_at.astimezone():%Y%m%d_%H%M%S}" in folder.name


def test_wandb_run_keeps_the_start_end_and_command_of_the_run(
    store: RunStore, tmp_path: Path
) -> None:
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    from hoserkd.store.export import export_wandb

    recorded(store)
    run = store.run("r")
    early = replace(run, started_at=run.started_at - timedelta(hours=2), argv=("x", "train"))
    [file] = export_wandb(store, early, tmp_path, "project").glob("*.wandb")
    found: dict[str, Any] = {}
    for data in _records(file.read_bytes(), 7, file):
        record = Record()
        record.ParseFromString(data)
        found.setdefault(record.WhichOneof("record_type"), record)
    started_s = int(early.started_at.timestamp())
    assert found["run"].run.start_time.ToSeconds() == started_s
    assert found["environment"].environment.started_at.ToSeconds() == started_s
    assert list(found["environment"].environment.args) == ["train"]
    assert found["exit"].exit.runtime >= 7200


def test_records_of_any_size_are_framed_so_that_they_are_read_back() -> None:
    sizes = (0, 1, 100, 32_768 - 14 - 1, 5, 3, 32_768, 100_000, 0, 7)
    records = [bytes([number]) * size for number, size in enumerate(sizes)]
    log = b"1234567"
    for data in records:
        for frame in _frames(data, len(log)):
            log += frame
    assert list(_records(log, 7, Path("x"))) == records
    with pytest.raises(StoreError, match="damaged"):
        list(_records(log[:20] + b"?" + log[21:], 7, Path("x")))


def test_missing_tracker_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from hoserkd.store import trackers

    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        trackers.TensorBoardTracker(Path("nowhere"))
    assert "hoserkd[tensorboard]" in (caught.value.hint or "")


def test_mirror_passes_steps_epochs_and_judgements_on() -> None:
    book = Notebook()
    mirror = Mirror(lambda: book, pytest.fail)
    mirror.notify(StepDone(3, 0, 9, {"loss": 1.0}, {"forward": 2.0}))
    mirror.notify(EpochDone(0, 3, {"val_accuracy": 0.5}))
    mirror.notify(SplitJudged("test", {"test_accuracy": 0.4}))
    mirror.close()
    assert book.rows == [({"train/loss": 1.0}, 3), ({"timings_ms/forward": 2.0}, 3),
                         ({"epoch/val_accuracy": 0.5}, 3), ({"test/test_accuracy": 0.4}, 3)]
    assert book.closed


def test_tracker_is_not_opened_for_a_run_that_shows_nothing() -> None:
    mirror = Mirror(pytest.fail, pytest.fail)
    mirror.notify(Progress("reading", 1, 2, "trips"))
    mirror.close()


def test_broken_tracker_ends_the_mirror_and_not_the_run(store: RunStore) -> None:
    told: list[str] = []
    run = store.create_run("train", "demo", "r")
    run.mirror(Mirror(lambda: Notebook(broken=True), told.append))
    for step in range(1, 50):
        run.notify(StepDone(step, 0, 50, {"loss": 1.0}))
        time.sleep(0.001)
    run.finish("finished")
    assert told == ["mirroring to a tracker has ended: no route to host"]
    assert store.run("r").step == 49


def test_tracker_that_cannot_be_opened_costs_one_word(store: RunStore) -> None:
    def refuse() -> Notebook:
        raise RuntimeError("not logged in")

    told: list[str] = []
    run = store.create_run("train", "demo", "r")
    run.mirror(Mirror(refuse, told.append, waiting=2))
    for step in range(1, 9):
        run.notify(StepDone(step, 0, 9, {"loss": 1.0}))
    began = time.perf_counter()
    run.finish("finished")
    assert time.perf_counter() - began < 2
    assert told == ["mirroring to a tracker has ended: not logged in"]


def test_slow_tracker_never_blocks_the_run() -> None:
    told: list[str] = []
    release = threading.Event()

    class Stuck(Notebook):
        def scalars(self, values: Mapping[str, float], step: int, at_s: float) -> None:
            release.wait(10)

    mirror = Mirror(Stuck, told.append, waiting=5)
    started = time.perf_counter()
    for step in range(1, 101):
        mirror.notify(StepDone(step, 0, 100, {"loss": 1.0}))
    assert time.perf_counter() - started < 0.5
    assert mirror.dropped >= 90
    release.set()
    mirror.close()
    assert "were not mirrored" in told[0]


def test_hanging_tracker_neither_holds_the_end_nor_the_record(store: RunStore) -> None:
    told: list[str] = []
    release = threading.Event()

    def hang() -> Notebook:
        release.wait(60)
        return Notebook()

    run = store.create_run("train", "demo", "r")
    run.mirror(Mirror(hang, told.append, waiting=2, close_s=0.2))
    for step in range(1, 9):
        run.notify(StepDone(step, 0, 9, {"loss": 1.0}))
    began = time.perf_counter()
    run.finish("finished")
    assert time.perf_counter() - began < 2
    assert "does not answer" in told[0]
    assert (store.run("r").status, store.run("r").step) == ("finished", 8)
    release.set()


def test_process_ends_though_a_tracker_hangs(tmp_path: Path) -> None:
    code = f"""
import time
from hoserkd.engine.events import StepDone
from hoserkd.store.mirror import Mirror
from hoserkd.store.runs import RunStore

with RunStore(__import__("pathlib").Path({str(tmp_path / "store")!r})).create_run(
        "train", "demo", "r") as run:
    run.mirror(Mirror(lambda: time.sleep(600), print, close_s=0.1))
    run.notify(StepDone(1, 0, 1, {{"loss": 1.0}}))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "does not answer" in ended.stdout


def test_gc_finds_old_runs_that_came_to_nothing(store: RunStore) -> None:
    recorded(store, "good")
    bad = recorded(store, "bad", "failed")
    recorded(store, "tagged", "failed", tags=["keep"])
    parent = recorded(store, "parent", "stopped")
    recorded(store, "child", parents=[parent.run_id])
    live = store.create_run("train", "demo", "live")
    later = datetime.now(UTC) + 31 * DAY
    assert find_waste(store, Retention(), datetime.now(UTC)) == []
    assert [item.run_id for item in find_waste(store, Retention(), later)] == [bad.run_id]
    live.finish("failed")


def test_gc_removes_what_it_found_and_nothing_else(store: RunStore) -> None:
    good, bad = recorded(store, "good"), recorded(store, "bad", "failed")
    (good.directory / "last.ckpt").write_bytes(b"x" * 100)
    leftover = store.runs_directory / ".deleted-x"
    leftover.mkdir()
    for name, age_s in (("20200101-000000-abcd", 7200), ("20200101-000000-just", 0)):
        unborn = store.runs_directory / name
        unborn.mkdir()
        os.utime(unborn, (time.time() - age_s,) * 2)
    waste = find_waste(store, Retention(older_than=0 * DAY, resume_files=True), datetime.now(UTC))
    assert [(item.why, item.run_id) for item in waste] == [
        ("failed run bad", bad.run_id), ("resume file of finished run good", ""),
        ("leftover", ""), ("run killed before it began", "")]
    assert waste[1] == Waste(good.directory / "last.ckpt", 100, waste[1].why)
    clear(store, waste)
    assert [run.name for run in store.runs()] == ["good"]
    assert sorted(path.name for path in good.directory.iterdir()) == [
        "events.jsonl", "run.json", "settings.json"]
    assert not leftover.exists()
    assert sorted(path.name for path in store.runs_directory.iterdir()) == sorted(
        ["20200101-000000-just", good.run_id])
    assert json.loads((good.directory / "run.json").read_text())["name"] == "good"
