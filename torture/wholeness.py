"""What must hold at any moment, whoever was killed: nothing lost, doubled or half written."""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OPEN_ENDED = {".jsonl", ".log", ".duckdb", ".wal", ".tmp", ".lock", ".txt"}
"""Files that grow in place; what of them counts is checked apart, or is for nobody to read."""


def faults(home: Path) -> list[str]:
    """Return what is wrong under a user's folder: files first, then the run store."""
    return [*_broken_files(home), *_broken_records(home / "store")]


def spools(home: Path) -> dict[str, str]:
    """Return the whole lines of every run's spool, by run: what has been committed."""
    return {path.parent.name: _whole(path).decode() for path in home.glob("store/runs/*/*.jsonl")}


def lost(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return what was committed before and is not there any more."""
    return [f"run {run}: committed events are gone" for run, text in before.items()
            if not after.get(run, "").startswith(text)]


def _broken_files(home: Path) -> Iterator[str]:
    for path in sorted(home.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(home).parts)
        # Hidden names are work in progress, which nobody but its maker looks at.
        if hidden or not path.is_file() or path.suffix in OPEN_ENDED:
            continue
        try:
            _read(path)
        except Exception as error:  # noqa: BLE001 - whatever a reader says, the file is broken
            yield f"{path.relative_to(home)}: {type(error).__name__}: {error}"


def _read(path: Path) -> None:
    if path.suffix in (".json", ".geojson"):
        json.loads(path.read_bytes())
    elif path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        load_file(path)
    elif path.suffix == ".ckpt":
        import torch

        torch.load(path, weights_only=True)
    elif path.suffix == ".npy":
        import numpy as np

        np.load(path)
    elif path.suffix == ".csv":
        text = path.read_text()
        widths = Counter(len(row) for row in csv.reader(text.splitlines()))
        if len(widths) > 1 or not text.endswith("\n"):
            raise ValueError("rows are cut")
    elif path.name.endswith(".tar.zst"):
        from hoserkd.engine.bundle import verify_bundle

        if found := verify_bundle(path).faults:
            raise ValueError("; ".join(found))
    elif path.suffix == ".html" and "</html>" not in path.read_text():
        raise ValueError("cut")


def _broken_records(store: Path) -> Iterator[str]:
    """Hold the database against a plain reading of the spools."""
    from hoserkd.store.runs import RunStore

    if not store.is_dir():
        return
    opened = RunStore(store)
    with opened.reading() as connection:
        rows = connection.execute(
            "SELECT run_id, name, step, count(*) FROM metrics GROUP BY ALL").fetchall()
        yield from _wrong_rows(opened, store, rows)


def _wrong_rows(opened: Any, store: Path, rows: list[tuple[Any, ...]]) -> Iterator[str]:
    kept = {(run, name, step): count for run, name, step, count in rows}
    if doubled := [key for key, count in kept.items() if count > 1]:
        yield f"{len(doubled)} metric rows are doubled, first {doubled[0]}"
    told = set()
    for run in opened.runs():
        events = [json.loads(line) for line in _whole(
            store / "runs" / run.run_id / "events.jsonl").splitlines()]
        numbers = [event["seq"] for event in events]
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"run {run.run_id}: events are numbered {numbers[:20]}..."
        told |= {(run.run_id, name, step) for name, step in _metrics(events)}
        done = [(e.epoch, e.step) for e in opened.epochs(run.run_id)]
        if len(set(done)) != len(done):
            yield f"run {run.run_id}: epochs are doubled: {done}"
        labels = [e.label for e in opened.evaluations(run.run_id)]
        if run.kind.startswith("train") and len(set(labels)) != len(labels):
            yield f"run {run.run_id}: judgements are doubled: {labels}"
    if told != kept.keys():
        yield (f"{len(told - kept.keys())} metric rows are lost and {len(kept.keys() - told)} "
               "come from nowhere")


def _metrics(events: list[dict[str, Any]]) -> set[tuple[str, int]]:
    """Return what the step metrics of a run are, read in the plainest way."""
    rows: set[tuple[str, int]] = set()
    for event in events:
        if event["type"] == "step":
            rows |= {(name, event["step"]) for name in event["m"]}
        elif event["type"] == "rewind":
            rows = {row for row in rows if row[1] <= event["step"]}
    return rows


def _whole(path: Path) -> bytes:
    data = path.read_bytes() if path.exists() else b""
    return data[: data.rfind(b"\n") + 1]
