"""Snapshots from a run store: the database now and then, the spools of live runs always.

The database is opened for moments only, and only when a run appears, ends or is labelled; between
that the spools tell all that changes. No lock is held, so nobody is kept waiting.
"""

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hoserkd.errors import HoserkdError
from hoserkd.settings import load_profile, resolve_settings
from hoserkd.store.database import DATABASE
from hoserkd.store.ingest import Folder, scan_folders
from hoserkd.store.records import RunRecord
from hoserkd.store.runs import RunStore
from hoserkd.store.spool import SPOOL, is_written
from hoserkd.tui.app import Wanted
from hoserkd.tui.following import Following
from hoserkd.tui.snapshot import (
    RunDetail,
    RunRow,
    Snapshot,
    StoreHealth,
    settings_against,
    time_left_s,
)

RECORDS_S = 60.0
"""The database is asked again after so long even if nothing seems to have changed."""


class StoreSource:
    """Reads snapshots of one store."""

    def __init__(self, store: RunStore, profile_folders: tuple[Path, ...] = (),
                 clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._profile_folders = profile_folders
        self._clock = clock
        self._records: tuple[RunRecord, ...] = ()
        self._known: object = None
        self._read_at = 0.0
        self._live: dict[str, bool] = {}
        self._sizes: dict[str, int] = {}
        self._newest: dict[str, Following] = {}
        self._whole: dict[str, Following] = {}
        self._profiles: dict[str, Mapping[str, Any] | None] = {}

    def read(self, wanted: Wanted) -> Snapshot:
        """Return the present state of the store."""
        trouble = self._refresh()
        by_id = {record.run_id: record for record in self._records}
        chosen = [run_id for run_id in dict.fromkeys((wanted.run_id, *wanted.compared))
                  if run_id in by_id]
        rows = tuple(self._row(record) for record in self._records)
        details = {row.run_id: self._detail(by_id[row.run_id], row)
                   for row in rows if row.run_id in chosen}
        self._whole = {run_id: self._whole[run_id] for run_id in details}
        health = self._health(rows) if wanted.page == "store" else None
        return Snapshot(runs=rows, details=details, store=health, trouble=trouble)

    def tag(self, run_id: str, tag: str) -> str:
        """Tag a run, or take the tag away where it starts with a minus."""
        try:
            if tag.startswith("-"):
                self._store.label(run_id, remove=[tag[1:]])
            else:
                self._store.label(run_id, add=[tag])
        except HoserkdError as error:
            return error.message
        self._known = None
        return f"{tag} on {run_id}" if not tag.startswith("-") else f"{tag[1:]} off {run_id}"

    def stop(self, run: RunRow) -> str:
        """Send the run's process what Ctrl-C sends."""
        record = next((r for r in self._records if r.run_id == run.run_id), None)
        if record is None or not self._store.is_live(run.run_id):
            return f"{run.name} is not at work"
        if record.host != socket.gethostname():
            return f"{run.name} works on {record.host}: stop it there"
        try:
            os.kill(record.pid, signal.SIGINT)
        except OSError as error:
            return f"{run.name} cannot be stopped: {error}"
        return f"{run.name} stops at the next safe point"

    def _refresh(self) -> str | None:
        """Read the records anew if runs came, went, ended or were labelled."""
        folders = scan_folders(self._store.runs_directory)
        self._live = {run_id: self._is_live(folder) for run_id, folder in folders.items()}
        self._sizes = {run_id: folder.size for run_id, folder in folders.items()}
        known = ([(folder.run_id, folder.labels_stamp) for folder in folders.values()],
                 [run_id for run_id, live in self._live.items() if live])
        now = self._clock()
        if known == self._known and now - self._read_at < RECORDS_S:
            return None
        if not folders:
            self._records = ()
            return None
        try:
            self._records = self._store.runs()
        except HoserkdError as error:
            return error.message
        self._known, self._read_at = known, now
        return None

    def _is_live(self, folder: Folder) -> bool:
        """Tell whether a run is being written; one that ended is asked again when it grows."""
        ended = self._live.get(folder.run_id) is False
        if ended and self._sizes.get(folder.run_id) == folder.size:
            return False
        return is_written(folder.path / SPOOL)

    def _row(self, record: RunRecord) -> RunRow:
        live = self._live.get(record.run_id, False)
        follows = self._newest.get(record.run_id)
        if follows is None:
            follows = self._newest[record.run_id] = Following(Path(record.directory), whole=False)
            follows.advance()
        elif live:
            follows.advance()
        figures = follows.metrics
        step, total = follows.step, follows.total_steps
        if step is None:
            step, total = record.step or record.done, record.total_steps or record.total
        best = record.best_value if record.best_name == "val_accuracy" else None
        newest = figures.get("val_accuracy")
        speed = follows.steps_per_s
        started = record.started_at.timestamp()
        return RunRow(
            run_id=record.run_id, name=record.name, kind=record.kind, profile=record.profile,
            status=record.status, tags=record.tags, seed=record.seed, device=record.device,
            started_s=started,
            duration_s=float(round(self._clock() - started)) if live else record.duration_s,
            step=step, total_steps=total,
            epoch=follows.epoch if follows.epoch is not None else record.epoch,
            steps_per_s=speed, trips_per_s=figures.get("trips_per_s"),
            val_accuracy=max((v for v in (best, newest) if v is not None), default=None),
            loss=figures.get("loss"), loss_kl=figures.get("loss_kl"),
            eta_s=time_left_s(step, total, speed) if live else None)

    def _detail(self, record: RunRecord, row: RunRow) -> RunDetail:
        follows = self._whole.get(record.run_id)
        if follows is None:
            follows = self._whole[record.run_id] = Following(Path(record.directory), whole=True)
        follows.advance()
        return RunDetail(
            row=row, curves=follows.curves(), timings_ms=follows.timings_ms(),
            settings=settings_against(_config(record), self._profile(record.profile)),
            log=follows.notes(), evaluations=tuple(follows.evaluations))

    def _profile(self, name: str) -> Mapping[str, Any] | None:
        if name not in self._profiles:
            try:
                profile = load_profile(name, self._profile_folders)
                resolved = resolve_settings(profile)
                self._profiles[name] = resolved.config.model_dump(mode="json")
            except HoserkdError:
                # A profile of another machine, or one that has gone: nothing to compare with.
                self._profiles[name] = None
        return self._profiles[name]

    def _health(self, rows: tuple[RunRow, ...]) -> StoreHealth:
        folders = scan_folders(self._store.runs_directory)
        database = self._store.directory / DATABASE
        states: dict[str, int] = {}
        for row in rows:
            states[row.status] = states.get(row.status, 0) + 1
        return StoreHealth(
            directory=str(self._store.directory),
            database_bytes=database.stat().st_size if database.exists() else 0,
            runs_bytes=sum(folder.size for folder in folders.values()),
            schema_version=None, runs_by_status=states, unsynced_bytes=0)


def _config(record: RunRecord) -> Mapping[str, Any]:
    try:
        config = json.loads(record.config_json)
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}
