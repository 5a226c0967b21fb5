"""Snapshots from a run store: the database now and then, the spools of live runs always.

The database is opened for moments only, and only when a run appears, ends or is labelled; between
that the spools tell all that changes. No lock is held, so nobody is kept waiting. What only some
pages need is imported when they are first seen: the dashboard's start is short.
"""

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoserkd.errors import HoserkdError
from hoserkd.store.elsewhere import OtherStore, other_stores
from hoserkd.store.folders import Folder, scan_folders
from hoserkd.store.records import RunRecord
from hoserkd.store.references import check_name
from hoserkd.store.runs import RunStore
from hoserkd.store.spool import SPOOL, is_at_work
from hoserkd.tui.following import Following
from hoserkd.tui.launching import PREPARE, Launch, Starter, launch_words
from hoserkd.tui.shelf import Shelf
from hoserkd.tui.snapshot import (
    RunDetail,
    RunRow,
    Setting,
    Snapshot,
    settings_against,
    time_left_s,
)
from hoserkd.tui.views.page import Wanted

if TYPE_CHECKING:
    from hoserkd.tui.studies import Study

RECORDS_S = 60.0
"""The database is asked again after so long even if nothing seems to have changed."""


class StoreSource:
    """Reads snapshots of one store."""

    def __init__(self, store: RunStore, data_dir: Path, home: Path | None = None,
                 clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._shelf = Shelf(store, data_dir)
        self._starter = Starter(store.directory, data_dir)
        self._data_dir = data_dir
        self._home = home or data_dir
        """Where the user's own profiles are looked for."""
        self._clock = clock
        self._records: tuple[RunRecord, ...] = ()
        self._known: object = None
        self._read_at = 0.0
        self._live: dict[str, bool] = {}
        self._host = socket.gethostname()
        self._hosts: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        self._following: dict[str, Following] = {}
        self._ended_rows: dict[str, RunRow] = {}
        self._whole: dict[str, Following] = {}
        self._profiles: dict[str, Mapping[str, Any] | None] = {}
        self._configs: dict[str, Mapping[str, Any]] = {}

    def read(self, wanted: Wanted) -> Snapshot:
        """Return the present state of the store."""
        trouble = self._refresh()
        by_id = {record.run_id: record for record in self._records}
        chosen = {wanted.run_id, *wanted.compared}
        rows = tuple(self._row(record) for record in self._records)
        details = {row.run_id: self._detail(by_id[row.run_id], row)
                   for row in rows if row.run_id in chosen and wanted.page in ("run", "compare")}
        self._whole = {run_id: follows for run_id, follows in self._whole.items()
                       if run_id in chosen}
        shelf, page = self._shelf, wanted.page
        city_map, missing = shelf.map(by_id, wanted.run_id) if page == "map" else (None, "")
        return Snapshot(
            runs=rows, details=details,
            studies=self._studies(rows) if page == "tune" else (),
            judgements=shelf.judgements(self._records) if page == "evaluation" else (),
            map=city_map, map_missing=missing,
            other_stores=() if rows or trouble else other_stores(
                self._home, self._store.directory),
            store=shelf.health(rows, self._clock()) if page == "store" else None,
            news=tuple(self._starter.failures()), trouble=trouble)

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
        if record.host != self._host:
            return f"{run.name} works on {record.host}: stop it there"
        try:
            os.kill(record.pid, signal.SIGINT)
        except OSError as error:
            return f"{run.name} cannot be stopped: {error}"
        return f"{run.name} stops at the next safe point"

    def profiles(self) -> Sequence[str]:
        """Return the names of all profiles."""
        from hoserkd.settings import list_profiles, profile_folders

        return list(list_profiles(profile_folders(self._home)))

    def refusal(self, launch: Launch) -> str | None:
        """Return what is wrong with the name or the settings of a run to be started."""
        from hoserkd.settings import load_profile, profile_folders, resolve_settings

        try:
            words = launch_words(launch)
            if launch.name:
                check_name(launch.name)
            sets = [value for key, value in pairwise(words) if key == "--set"]
            profile = load_profile(launch.profile, profile_folders(self._home))
            city = resolve_settings(profile, sets=sets).config.city.name
        except HoserkdError as error:
            return error.message
        except ValueError as error:
            return str(error)
        return None if launch.command == PREPARE else self._no_city(city)

    def _no_city(self, name: str) -> str | None:
        from hoserkd.engine.places import CITIES, Finder

        try:
            Finder(CITIES, [self._data_dir]).named(name, folders=False)
        except HoserkdError as error:
            return f"{error.message}: {PREPARE} first"
        return None

    def launch(self, launch: Launch) -> str:
        """Start a run in a process of its own."""
        words = launch_words(launch)
        try:
            log = self._starter.start(words)
        except OSError as error:
            return f"{' '.join(words)} cannot be started: {error}"
        return f"started: {' '.join(words)}\nit prints to {log}"

    def opened(self, store: OtherStore) -> "StoreSource":
        """Return what reads another store, with the data folder beside it if there is one."""
        return StoreSource(RunStore(store.directory), store.data_dir or self._data_dir, self._home,
                           self._clock)

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
        try:
            self._records = self._store.runs() if folders else ()
        except HoserkdError as error:
            return error.message
        self._hosts = {record.run_id: record.host for record in self._records}
        self._ended_rows.clear()
        self._known, self._read_at = known, now
        return None

    def _is_live(self, folder: Folder) -> bool:
        """Tell whether a run is being written; one that ended is asked again when it grows."""
        ended = self._live.get(folder.run_id) is False
        if ended and self._sizes.get(folder.run_id) == folder.size:
            return False
        return is_at_work(folder.path / SPOOL, self._hosts.get(folder.run_id, self._host))

    def _row(self, record: RunRecord) -> RunRow:
        if self._live.get(record.run_id, False):
            return self._live_row(record)
        row = self._ended_rows.get(record.run_id)
        if row is None:
            row = self._ended_rows[record.run_id] = row_of(record, record.last_metrics)
        return row

    def _live_row(self, record: RunRecord) -> RunRow:
        follows = self._following.get(record.run_id)
        if follows is None:
            follows = self._following[record.run_id] = Following(Path(record.directory), False)
        follows.advance()
        return row_of(record, {**record.last_metrics, **follows.metrics}, follows, self._clock())

    def _detail(self, record: RunRecord, row: RunRow) -> RunDetail:
        follows = self._whole.get(record.run_id)
        if follows is None:
            follows = self._whole[record.run_id] = Following(Path(record.directory), whole=True)
        follows.advance()
        return RunDetail(
            row=row, curves=follows.curves(), timings_ms=follows.timings_ms(),
            settings=(*settings_against(self._config(record), self._profile(record.profile)),
                      *(Setting(key, value, None)
                        for key, value in record.made_from.told().items())),
            log=follows.notes(), evaluations=tuple(follows.evaluations))

    def _studies(self, rows: Sequence[RunRow]) -> "tuple[Study, ...]":
        from hoserkd.tui.studies import studies_of

        of_study = {record.run_id: record.study for record in self._records if record.study}
        return studies_of(rows, of_study, self._shelf.studies(self._records))

    def _config(self, record: RunRecord) -> Mapping[str, Any]:
        if record.run_id not in self._configs:
            self._configs[record.run_id] = record.settings()
        return self._configs[record.run_id]

    def _profile(self, name: str) -> Mapping[str, Any] | None:
        from hoserkd.settings import load_profile, profile_folders, resolve_settings

        if name not in self._profiles:
            try:
                profile = load_profile(name, profile_folders(self._home))
                resolved = resolve_settings(profile)
                self._profiles[name] = resolved.config.model_dump(mode="json")
            except HoserkdError:
                # A profile of another machine, or one that has gone: nothing to compare with.
                self._profiles[name] = None
        return self._profiles[name]


def row_of(record: RunRecord, figures: Mapping[str, float], follows: Following | None = None,
           now: float | None = None) -> RunRow:
    """Return the table's line of a run.

    Args:
        figures: its newest figures.
        follows: what its spool tells beyond the record, for a run at work.
        now: seconds since 1970, for a run at work.
    """
    step, total, epoch, pace = record.step, record.total_steps, record.epoch, None
    if not total:
        step, total = record.done or record.step, record.total
    if follows is not None and follows.step is not None:
        step, total, pace = follows.step, follows.total_steps, follows.pace_per_s
        epoch = follows.epoch if follows.epoch is not None else epoch
    best = record.best_value if record.best_name == "val_accuracy" else None
    accuracies = [value for value in (best, figures.get("val_accuracy")) if value is not None]
    started = record.started_at.timestamp()
    return RunRow(
        run_id=record.run_id, name=record.name, kind=record.kind, profile=record.profile,
        status=record.status, tags=record.tags, seed=record.seed, device=record.device,
        started_s=started,
        duration_s=record.duration_s if now is None else float(round(now - started)),
        step=step, total_steps=total, epoch=epoch,
        optimiser_steps_per_s=figures.get("optimiser_steps_per_s"),
        trips_per_s=figures.get("trips_per_s"), val_accuracy=max(accuracies, default=None),
        loss=figures.get("loss"), loss_kl=figures.get("loss_kl"),
        eta_s=None if now is None else time_left_s(step, total, pace))
