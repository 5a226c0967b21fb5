"""What may be cleared away: a plan, made without touching anything, and its doing."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hoserkd.store.folders import DELETED, is_mine
from hoserkd.store.recorder import RUN_FILE
from hoserkd.store.records import RunRecord, Status
from hoserkd.store.runs import RunStore

RESUME_FILES = ("last.ckpt",)
"""Needed to go on with a run, and no more once it has finished."""
MODEL_FILES = ("best.safetensors", *RESUME_FILES)
FORGOTTEN = timedelta(hours=1)
"""A half-made database or run folder this old is not being made any more."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Which runs are no longer wanted."""

    statuses: tuple[Status, ...] = ("dead", "failed", "stopped")
    older_than: timedelta = timedelta(days=30)
    """Counted from the last sign of life."""
    resume_files: bool = False
    """Also remove what only a resume would need from finished runs."""


@dataclass(frozen=True, slots=True)
class Waste:
    """One thing that can go."""

    path: Path
    size: int
    """Bytes."""
    why: str
    run_id: str = ""
    """The whole run goes; empty where only files go."""


def plan_clearing(
    runs: Sequence[RunRecord], retention: Retention, now: datetime
) -> tuple[list[RunRecord], list[RunRecord]]:
    """Return the runs that go, and the finished ones whose resume files go.

    A run stays if it runs, bears a tag, or if one that stays builds on it.
    """
    old = {run.run_id for run in runs
           if run.status in retention.statuses and now - run.updated_at >= retention.older_than
           and not run.tags}
    children = {run.run_id: run.parents for run in runs}
    kept = [run.run_id for run in runs if run.run_id not in old]
    while kept:
        for parent in children.get(kept.pop(), ()):
            if parent in old:
                old.discard(parent)
                kept.append(parent)
    finished = [run for run in runs if retention.resume_files and run.status == "finished"
                and now - run.updated_at >= retention.older_than]
    return [run for run in runs if run.run_id in old], finished


def find_waste(store: RunStore, retention: Retention, now: datetime) -> list[Waste]:
    """Return all that can go: whole runs, resume files, leftovers of removals and repairs.

    What another user owns stays, and links, which lead out of the store.
    """
    going, finished = plan_clearing(store.runs(), retention, now)
    waste = [Waste(store.folder(run.run_id), folder_size(store.folder(run.run_id)),
                   f"{run.status} run {run.name}", run.run_id) for run in going]
    for run in finished:
        waste += [Waste(path, path.stat().st_size, f"resume file of finished run {run.name}")
                  for name in RESUME_FILES
                  if (path := store.folder(run.run_id) / name).is_file()]
    leftovers: Iterable[Path] = (
        *store.runs_directory.glob(f"{DELETED}*"), *store.directory.glob("*.duckdb.old"),
        *(path for path in store.directory.glob("*.new.duckdb*") if _age(path, now) > FORGOTTEN))
    waste += [Waste(path, folder_size(path), "leftover") for path in leftovers]
    waste += [Waste(path, folder_size(path), "run killed before it began")
              for path in store.runs_directory.glob("[!.]*")
              if path.is_dir() and not (path / RUN_FILE).exists() and _age(path, now) > FORGOTTEN]
    return [item for item in waste if not item.path.is_symlink() and is_mine(item.path)]


def _age(path: Path, now: datetime) -> timedelta:
    return now - datetime.fromtimestamp(path.stat().st_mtime, UTC)


def clear(store: RunStore, waste: Sequence[Waste]) -> None:
    """Remove what was found; a run that has come to life again stays, with a StoreError."""
    store.delete([item.run_id for item in waste if item.run_id])
    for item in waste:
        if item.path.is_dir():
            shutil.rmtree(item.path)
        else:
            item.path.unlink(missing_ok=True)


def strip_run(store: RunStore, run_id: str, why: str) -> None:
    """Remove a run's weights and checkpoints, and note it; its records stay.

    A run of another store, one that is being written and one that has none are left alone.
    """
    folder = store.folder(run_id)
    files = [folder / name for name in MODEL_FILES if (folder / name).is_file()]
    if not files or store.is_live(run_id):
        return
    for file in files:
        file.unlink(missing_ok=True)
    store.note(run_id, f"removed {', '.join(file.name for file in files)}: {why}")


def folder_size(path: Path) -> int:
    """Return the bytes of a file, or of all files under a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
