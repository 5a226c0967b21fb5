"""One damaged line or file of a run costs that line or that run, never the store."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hoserkd.engine.events import EpochDone, SplitJudged, StepDone
from hoserkd.store.recorder import RunRecorder
from hoserkd.store.runs import RunStore
from hoserkd.store.spool import LINE, read_lines
from hoserkd.tui.reading import StoreSource
from hoserkd.tui.views.page import Wanted

if TYPE_CHECKING:
    from conftest import Answer

DEEP = b'{"a":' * 100_000
LINES = {
    "no JSON": (b'{"seq": broken', "Expecting"),
    "not UTF-8": (b'{"seq":9,"t":1,"type":"note","message":"\xff\xfe"}', "UTF-8"),
    "a path that is not UTF-8": (rb'{"seq":9,"t":1,"type":"artifact","path":"\udcff"}',
                                 "surrogate"),
    "a time beyond all clocks": (b'{"seq":9,"t":1e300,"type":"note"}', "time"),
    "a time before all clocks": (b'{"seq":9,"t":-1e300,"type":"note"}', "time"),
    "no time": (b'{"seq":9,"type":"note"}', "time"),
    "deep": (DEEP, "deeper"),
    "deep and whole": (DEEP + b"1" + b"}" * 100_000, "deeper"),
    "a deep judgement": (b'{"seq":9,"t":1,"type":"evaluation","label":"x","payload":{"a":'
                         + b"[" * 1000 + b"]" * 1000 + b"}}", "deeper"),
    "a judgement without figures": (b'{"seq":9,"t":1,"type":"evaluation"}', "figures"),
    "a list": (b"[1, 2]", "no object"),
    "null": (b"null", "no object"),
    "a step that is a word": (b'{"seq":9,"t":1,"type":"step","step":"x","m":{"loss":1}}', "step"),
    "a huge step": (b'{"seq":9,"t":1,"type":"step","step":1e30,"m":{"loss":1}}', "step"),
    "a number over 64 bits": (b'{"seq":99999999999999999999999,"t":1,"type":"note"}', "64 bits"),
    "no number": (b'{"t":1,"type":"note","message":"x"}', "number"),
    "no type": (b'{"seq":9,"t":1}', "type"),
}


def begun(store: RunStore, name: str = "first") -> RunRecorder:
    return store.create_run("train", "demo", name, '{"train": {"epochs": 2}}')


def copies(store: RunStore, number: int) -> list[Path]:
    """Return the folders of finished runs of one step each."""
    run = begun(store)
    step(run, 1)
    run.finish("finished")
    header, spool = (run.directory / name for name in ("run.json", "events.jsonl"))
    folders = [run.directory]
    for index in range(1, number):
        folder = run.directory.with_name(f"{run.run_id}-{index}")
        folder.mkdir()
        (folder / "run.json").write_text(header.read_text().replace(run.run_id, folder.name))
        (folder / "events.jsonl").write_bytes(spool.read_bytes())
        folders.append(folder)
    return folders


def step(run: RunRecorder, number: int) -> None:
    run.notify(StepDone(number, 0, 10, {"loss": 1 / number}))


def steps_of(store: RunStore, run_id: str) -> list[int]:
    return [int(number) for number in store.metrics(run_id)["loss"].step]


def read_all_pages(store: RunStore, run_ids: list[str], data_dir: Path) -> Any:
    """Look at all pages of the dashboard, and return what its page of the store says."""
    source = StoreSource(store, data_dir)
    for page in ("runs", "run", "compare", "tune", "evaluation", "map"):
        for run_id in run_ids:
            source.read(Wanted(page, run_id, tuple(run_ids)))
    return source.read(Wanted("store", None, ())).store


@pytest.mark.parametrize("alone", [True, False])
def test_a_damaged_line_costs_that_line(alone: bool, store: RunStore, tmp_path: Path) -> None:
    """Met by itself, or with all that waits."""
    folders = dict(zip(LINES, copies(store, len(LINES)), strict=True))
    store.sync(10.0)
    at = {}
    for kind, folder in folders.items():
        spool = folder / "events.jsonl"
        at[kind] = spool.stat().st_size
        with spool.open("ab") as file:
            file.write(LINES[kind][0] + b'\n{"seq":9,"t":2e9,"type":"step","step":2,'
                       b'"m":{"loss":0.5}}\n')
        if alone:
            assert not store.sync(10.0).skipped, kind
    for again in range(2):
        with store.reading():
            found = {record.run_id: record for record in store.quarantine()}
            assert {record.status for record in store.runs()} == {"finished"}
            for kind, folder in folders.items():
                assert steps_of(store, folder.name) == [1, 2], kind
                record = found.pop(folder.name, None)
                assert record is not None, kind
                assert (record.file, record.lines, record.byte) == (
                    "events.jsonl", 1, at[kind]), kind
                assert LINES[kind][1] in record.reason, kind
            assert found == {}
        if alone and not again:
            store.repair()
    if not alone:
        health = read_all_pages(store, [folder.name for folder in folders.values()], tmp_path)
        assert len(health.quarantine) == len(LINES)


def test_many_damaged_lines_are_counted_and_cost_little(store: RunStore) -> None:
    run = begun(store)
    with (run.directory / "events.jsonl").open("ab") as file:
        file.write(b"x\n" * 50_000)
    step(run, 1)
    run.finish("finished")
    began = time.perf_counter()
    assert [found.lines for found in store.quarantine()] == [50_000]
    assert steps_of(store, run.run_id) == [1]
    assert time.perf_counter() - began < 5


def test_a_line_longer_than_any_event_is_not_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with path.open("wb") as file:
        file.write(b"a\n")
        file.seek(3 * LINE.size)
        file.write(b"\nb\n")
    data, end = read_lines(path, 0, 1 << 20)
    assert (data, end) == (b"a\n", 2)
    data, end = read_lines(path, end, 1 << 20)
    assert len(data) < 2000
    assert data.endswith(b"\n")
    assert end == 3 * LINE.size + 1
    assert read_lines(path, end, 1 << 20) == (b"b\n", end + 2)
    with path.open("wb") as file:
        file.truncate(2 * LINE.size)
    assert read_lines(path, 0, 1 << 20) == (b"", 0)


HEADERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no JSON": lambda header: b"{",
    "empty": lambda header: b"",
    "deep": lambda header: DEEP,
    "a list": lambda header: b"[]",
    "another run's": lambda header: {**header, "run_id": "20200101-000000-aaaa"},
    "no id": lambda header: {**header, "run_id": None},
    "a name that is a number": lambda header: {**header, "name": 5},
    "no name": lambda header: {**header, "name": None},
    "a time beyond all clocks": lambda header: {**header, "started_at": 1e300},
    "tags that are words": lambda header: {**header, "tags": "abc"},
    "versions that are lists": lambda header: {**header, "versions": ["a"]},
    "deep settings": lambda header: {**header, "config_json": DEEP.decode()},
    "settings that are a list": lambda header: {**header, "config_json": "[]"},
    "a seed over 64 bits": lambda header: {**header, "seed": 2**63},
}


def test_a_damaged_header_costs_that_run_until_it_is_mended(
    store: RunStore, tmp_path: Path
) -> None:
    whole = {}
    for kind, folder in zip(HEADERS, copies(store, len(HEADERS)), strict=True):
        path = folder / "run.json"
        whole[path] = path.read_bytes()
        content = HEADERS[kind](json.loads(whole[path]))
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    begun(store, "other").finish("finished")
    store.database.unlink()
    for _ in range(2):
        fresh = RunStore(store.directory)
        assert [found.name for found in fresh.runs()] == ["other"]
        found = fresh.quarantine()
        assert {record.run_id for record in found} == {path.parent.name for path in whole}
        assert {(record.file, record.lines) for record in found} == {("run.json", 0)}
        fresh.repair()
    assert read_all_pages(fresh, [folder.name], tmp_path).quarantine == found
    for path, content in whole.items():
        path.write_bytes(content)
    mended = RunStore(store.directory)
    with mended.reading():
        assert len(mended.runs()) == len(HEADERS) + 1
        assert mended.quarantine() == ()
        for path in whole:
            assert steps_of(mended, path.parent.name) == [1]


LABELS = (b"{", DEEP, b"[]", b'{"name": 5}', b'{"tags": "abc"}', b'{"notes": {"a": 1}}')


def test_damaged_labels_cost_the_labels(store: RunStore, tmp_path: Path) -> None:
    folders = copies(store, len(LABELS))
    for folder, content in zip(folders, LABELS, strict=True):
        (folder / "labels.json").write_bytes(content)
    assert len(store.runs()) == len(LABELS)
    assert {(found.run_id, found.file, found.lines) for found in store.quarantine()} == {
        (folder.name, "labels.json", 1) for folder in folders}
    read_all_pages(store, [folder.name for folder in folders], tmp_path)
    for folder in folders:
        (folder / "labels.json").unlink()
    store.label(folder.name, name="again")
    assert store.quarantine() == ()
    assert "again" in {found.name for found in store.runs()}


def test_a_pipe_in_the_place_of_a_record_keeps_nobody_waiting(
    store: RunStore, tmp_path: Path
) -> None:
    for name, file in (("first", "events.jsonl"), ("second", "run.json"), ("third", "labels.json")):
        run = begun(store, name)
        run.finish("finished")
        (run.directory / file).unlink(missing_ok=True)
        os.mkfifo(run.directory / file)
    store.database.unlink()
    assert {found.name for found in store.runs()} <= {"first", "third"}
    read_all_pages(store, [run.run_id], tmp_path)


def test_what_is_not_unicode_is_recorded_readably(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arguments and paths are bytes; Python hands them on as text that no JSON can hold."""
    monkeypatch.setattr(sys, "argv", ["hoserkd", os.fsdecode(b"\xff.csv")])
    with begun(store) as run:
        run.artifact(os.fsdecode(b"/data/\xff.csv"), "trips")
        run.notify(SplitJudged(os.fsdecode(b"\xfe"), {"a": float("nan")}))
        run.notify(EpochDone(0, 1, {"loss": 1.0}))
    assert store.run("first").argv == ("hoserkd", "\\udcff.csv")
    assert [found.path for found in store.artifacts(run.run_id)] == ["/data/\\udcff.csv"]
    assert [found.label for found in store.evaluations(run.run_id)] == ["\\udcfe"]
    assert store.quarantine() == ()


def test_damage_is_told_by_list_and_repair(
    store: RunStore, run_cli: "Callable[..., Answer]"
) -> None:
    run, hidden = begun(store), begun(store, "hidden")
    for recorder in (run, hidden):
        recorder.finish("finished")
    with (run.directory / "events.jsonl").open("ab") as file:
        file.write(b"x\ny\n")
    (hidden.directory / "run.json").write_bytes(DEEP)
    store.database.unlink()
    listed = run_cli("runs", "list", "--store", store.directory)
    assert listed.exit_code == 0
    assert "first" in listed.stdout
    assert "1 run is not shown, 2 damaged lines are left out" in " ".join(listed.stderr.split())
    for command in (["runs", "show", "first"], ["runs", "gc"], ["runs", "sql", "FROM quarantine"]):
        assert run_cli(*command, "--store", store.directory).exit_code == 0
    repaired = run_cli("runs", "repair", "--json", "--store", store.directory)
    assert repaired.exit_code == 0
    assert {(found["run_id"], found["file"], found["lines"])
            for found in json.loads(repaired.stdout)["quarantine"]} == {
        (run.run_id, "events.jsonl", 2), (hidden.run_id, "run.json", 0)}
    table = run_cli("runs", "repair", "--store", store.directory).stdout
    assert "deeper than 64" in " ".join(table.split())


def test_a_clock_set_back_gives_no_run_that_ends_before_it_starts(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(store)
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() - 3600)
    step(run, 1)
    run.finish("finished")
    record = store.run("first")
    assert record.ended_at is not None
    assert record.started_at <= record.updated_at <= record.ended_at
    assert 0 <= record.duration_s < 60
    header = json.loads((run.directory / "run.json").read_text())
    assert header["ended_at"] >= header["started_at"]
