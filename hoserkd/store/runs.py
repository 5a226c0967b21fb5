"""The run store: where runs are begun, found and read."""

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hoserkd.engine.files import write_json
from hoserkd.engine.identity import MadeFrom
from hoserkd.errors import StoreError, reason_of
from hoserkd.store import tables
from hoserkd.store.database import (
    DATABASE,
    BusyError,
    DamagedError,
    UnwritableError,
    check_store_path,
    empty_database,
    is_current,
    open_database,
)
from hoserkd.store.events import check_header
from hoserkd.store.folders import (
    check_removable,
    default_name,
    is_written_somewhere,
    lag_s,
    make_folder,
    read_labels,
    remove_folder,
    scan_folders,
    stamp_of,
    write_labels,
)
from hoserkd.store.ingest import ingest, rebuild
from hoserkd.store.provenance import provenance
from hoserkd.store.quarantine import read_quarantine
from hoserkd.store.recorder import (
    RUN_FILE,
    SETTINGS_FILE,
    RunRecorder,
    artifact_fields,
    read_header,
)
from hoserkd.store.records import (
    ArtifactRecord,
    EpochRecord,
    EvaluationRecord,
    NoteRecord,
    QuarantineRecord,
    RunRecord,
    Series,
    SyncReport,
    settings_of,
)
from hoserkd.store.references import UnknownRunError as UnknownRunError
from hoserkd.store.references import check_name, resolve_reference
from hoserkd.store.spool import SPOOL, append_to, is_at_work, tail_events
from hoserkd.store.sql import DEFAULT_LIMITS, Answer, QueryLimits, ask
from hoserkd.text import utf8_values

READ_PATIENCE_S = 10.0
"""A reader waits at most so long for the database; those who write hold it for moments."""
SYNC_PATIENCE_S = 0.2
STALE_S = 1.0
"""News older than this are worth waiting for; else a reader takes the database as it is."""
FRESH_BYTES = 64 << 20
"""Up to so many bytes of spools are read in memory where the database cannot be brought up to date;
that takes under two seconds."""
STALE_PATIENCE_S = 2.0


class RunStore:
    """All runs under one folder. Reads give frozen records; nothing is kept open between calls.

    Any number of processes may record, sync and read at the same time. A run being recorded is
    never kept waiting: what it writes goes to its own spool. Every reading method first brings
    the spools' news into the database if nobody else is at it.
    """

    def __init__(self, directory: Path) -> None:
        """Name a store, which need not exist yet.

        Raises:
            UsageError: its path holds a character that DuckDB misreads.
        """
        check_store_path(directory)
        self.directory = directory
        self.runs_directory = directory / "runs"
        self.database = directory / DATABASE
        self.studies_directory = directory / "studies"
        self._synced: str | None = None
        self._held = threading.local()

    def create_run(
        self,
        kind: str,
        profile: str,
        name: str | None = None,
        config_json: str = "{}",
        seed: int | None = None,
        device: str = "",
        parents: Sequence[str] = (),
        data_sha256: str = "",
        *,
        made_from: MadeFrom | None = None,
        tags: Sequence[str] = (),
        study: str = "",
        on_failure: Callable[[str], None] | None = None,
    ) -> RunRecorder:
        """Begin a run and return what records it.

        Args:
            name: What people call it; None makes `kind-profile-xxxx`. Names may come again:
                a name means the newest run that bears it.
            data_sha256: Hash of the city; not needed where `made_from` names one.
            on_failure: Told once, in words, if something cannot be recorded.

        Raises:
            UsageError: the name holds odd characters.
            StoreError: the store's folder cannot be written.
        """
        now = time.time()
        if name is not None:
            check_name(name)
        try:
            folder = make_folder(self.runs_directory, now)
            header = utf8_values({
                "run_id": folder.name, "kind": kind,
                "name": name or default_name(kind, profile, folder),
                "profile": profile, "started_at": now, "tags": list(tags),
                "notes": "", "parents": list(parents), "study": study, "config_json": config_json,
                "config_sha256": hashlib.sha256(config_json.encode()).hexdigest(),
                "data_sha256": data_sha256 or _city_sha256(made_from), "device": device,
                "seed": seed, "made_from": (made_from or MadeFrom()).to_json(places=True),
                **provenance(),
            })
            check_header(header, folder.name)
            # The spool's lock comes before the header: a run without a lock would look dead.
            recorder = RunRecorder(folder, header, on_failure=on_failure, on_finish=self._try_sync)
            write_json(folder / SETTINGS_FILE, settings_of(config_json))
            write_json(folder / RUN_FILE, header)
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.directory}: a run cannot be begun: {reason_of(error)}",
                             hint="choose another folder with --store") from error
        recorder.begin("start", {})
        return recorder

    def resume_run(
        self, reference: str, on_failure: Callable[[str], None] | None = None, *,
        made_from: MadeFrom | None = None,
    ) -> RunRecorder:
        """Continue to record a run that has stopped, failed or died.

        Args:
            made_from: Its artefacts where they are found now; None: as recorded.

        Raises:
            StoreError: no such run, or another process is writing it.
        """
        folder = self.folder(self.run(reference).run_id)
        header = self._header(folder)
        found = None if made_from is None else made_from.to_json(places=True)
        if found:
            header["made_from"] = found
        recorder = RunRecorder(folder, header, on_failure=on_failure, on_finish=self._try_sync)
        here = provenance()
        recorder.begin("resume", {"pid": here["pid"], "host": here["host"],
                                  "git_revision": here["git_revision"],
                                  **({"payload": found} if found else {})})
        return recorder

    @staticmethod
    def _header(folder: Path) -> dict[str, Any]:
        try:
            labels = read_labels(folder)
            return read_header(folder) | {key: labels[key] for key in ("name",) if key in labels}
        except (OSError, ValueError) as error:
            raise StoreError(f"{folder}: damaged: {reason_of(error)}") from error

    def attach(self, reference: str, path: Path, kind: str, sha256: str | None = None) -> None:
        """Record a file with a run that has ended, made from it later.

        Raises:
            StoreError: no such run, or it is still being written.
        """
        folder = self.folder(self.run(reference).run_id)
        append_to(folder / SPOOL, "artifact",
                  artifact_fields(path, kind, folder, sha256=sha256))

    def note(self, run_id: str, message: str) -> None:
        """Write a note to a run that has ended.

        Raises:
            StoreError: it is still being written.
        """
        append_to(self.folder(run_id) / SPOOL, "note", {"level": "info", "message": message})

    def folder(self, run_id: str) -> Path:
        """Return the folder of a run."""
        return self.runs_directory / run_id

    def run(self, reference: str, kind: str | None = None) -> RunRecord:
        """Return the run that `reference` means: an id, the start of one, a name, or `latest`.

        Args:
            kind: Only look among runs of this kind.

        Raises:
            UnknownRunError: there is none; names the nearest.
        """
        with self.reading() as connection:
            known = connection.execute(
                "SELECT run_id, name FROM runs WHERE ? IS NULL OR kind = ? "
                "ORDER BY started_at DESC, run_id DESC", [kind, kind]).fetchall()
            run_id = resolve_reference(reference, known, kind)
            return self._records(connection, "WHERE run_id = ?", [run_id])[0]

    def runs(
        self,
        *,
        kind: str | None = None,
        status: str | None = None,
        tag: str | None = None,
        study: str | None = None,
        limit: int | None = None,
    ) -> tuple[RunRecord, ...]:
        """Return the runs that fit, the newest first."""
        with self.reading() as connection:
            found = self._records(
                connection,
                "WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR list_contains(tags, ?2)) "
                "AND (?3 IS NULL OR study = ?3) ORDER BY started_at DESC, run_id DESC",
                [kind, tag, study])
        kept = tuple(run for run in found if status is None or run.status == status)
        return kept[:limit]

    def metrics(
        self, run_id: str, names: Sequence[str] | None = None, since_step: int = -1
    ) -> dict[str, Series]:
        """Return the step metrics of a run by name, after `since_step`."""
        with self.reading() as connection:
            return tables.read_series(connection, "metrics", [
                run_id, since_step, list(names) if names is not None else None])

    def timings(self, run_id: str) -> dict[str, Series]:
        """Return milliseconds a part over the sampled steps of a run, by part."""
        with self.reading() as connection:
            return tables.read_series(connection, "timings", [run_id])

    def system(self, run_id: str) -> dict[str, Series]:
        """Return what the machine was busy with during a run, by figure; the step is 0."""
        with self.reading() as connection:
            return tables.read_series(connection, "system", [run_id])

    def epochs(self, run_id: str) -> tuple[EpochRecord, ...]:
        """Return the epochs of a run in order."""
        with self.reading() as connection:
            return tables.read_epochs(connection, run_id)

    def evaluations(self, run_id: str) -> tuple[EvaluationRecord, ...]:
        """Return the judgements of a run, the oldest first."""
        with self.reading() as connection:
            return tables.read_evaluations(connection, run_id)

    def artifacts(self, run_id: str) -> tuple[ArtifactRecord, ...]:
        """Return the files that a run made, each at its last writing."""
        with self.reading() as connection:
            return tables.read_artifacts(connection, run_id)

    def makers(self, sha256: str) -> tuple[RunRecord, ...]:
        """Return the runs that recorded making a file with this content hash, the newest first."""
        with self.reading() as connection:
            return tuple(self._records(
                connection, "WHERE run_id IN (SELECT run_id FROM artifacts WHERE sha256 = ?) "
                "ORDER BY started_at DESC, run_id DESC", [sha256]))

    def notes(self, run_id: str) -> tuple[NoteRecord, ...]:
        """Return what a run told its user, the oldest first."""
        with self.reading() as connection:
            return tables.read_notes(connection, run_id)

    def tail(self, run_id: str, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Return a run's raw events from byte `offset` of its spool, and where to go on.

        For watching a live run without touching the database; see `docs/store.md` for the events.
        """
        return tail_events(self.folder(run_id) / SPOOL, offset)

    def is_live(self, run_id: str) -> bool:
        """Return whether a process is writing this run, here or on another machine."""
        return is_written_somewhere(self.folder(run_id))

    def stamp(self) -> str:
        """Return a text that changes when any run gains an event or a label; costs no database."""
        return stamp_of(scan_folders(self.runs_directory).values())

    def lag_s(self) -> float:
        """Return by how many seconds the database is behind the newest event of any run."""
        return lag_s(scan_folders(self.runs_directory).values(), self.database)

    def label(
        self,
        reference: str,
        *,
        name: str | None = None,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        notes: str | None = None,
    ) -> RunRecord:
        """Rename a run, tag it, or write notes to it; works while it runs."""
        run = self.run(reference)
        folder = self.folder(run.run_id)
        write_labels(folder, run, name=name, add=add, remove=remove, notes=notes)
        self._synced = None
        return self.run(run.run_id)

    def delete(self, references: Sequence[str]) -> tuple[RunRecord, ...]:
        """Remove runs with all their files.

        Raises:
            StoreError: one of them is being written or is another user's; then nothing is
                removed.
        """
        runs = [self.run(reference) for reference in references]
        for run in runs:
            if run.status == "running":
                raise StoreError(f"run {run.name} ({run.run_id}) is running",
                                 hint="stop it first: Ctrl-C in its terminal")
        # All are checked before the first is touched.
        for run in runs:
            check_removable(self.folder(run.run_id))
        for run in runs:
            remove_folder(self.folder(run.run_id))
        self._synced = None
        self.sync()
        return tuple(runs)

    def sync(self, patience_s: float = SYNC_PATIENCE_S) -> SyncReport:
        """Bring the spools' news into the database, unless others keep it busy."""
        stamp = self.stamp()
        if stamp == self._synced and self.database.exists() and not self._left_open:
            return SyncReport(0, 0, skipped=False)
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            with open_database(self.database, read_only=False, patience_s=patience_s) as connection:
                report = ingest(connection, self.runs_directory)
        except BusyError:
            return SyncReport(0, 0, skipped=True)
        except DamagedError:
            # A process was killed over it. It holds nothing that the runs' records do not.
            return self.repair()
        self._synced = stamp
        return report

    def query(self, sql: str, limits: QueryLimits = DEFAULT_LIMITS) -> Answer:
        """Return the answer to a question in SQL that can only read this store.

        Raises:
            QueryError: the query is wrong, writes, reaches for anything outside, or costs too much.
        """
        with self.reading() as connection:
            return ask(connection, sql, limits)

    def repair(self) -> SyncReport:
        """Build the database anew from the runs' own records; the old file is kept as `.old`.

        Others go on meanwhile: with the old database, and with the new one when it is complete.

        Raises:
            BusyError: somebody keeps the old database open.
        """
        report = rebuild(self.database, self.runs_directory, READ_PATIENCE_S)
        self._synced = None
        return report

    @property
    def _left_open(self) -> bool:
        """Whether a process writes the database, or was killed over it.

        Who writes next puts it in order; who only reads it then may find blocks missing.
        """
        return self.database.with_suffix(".duckdb.wal").exists()

    def _try_sync(self) -> None:
        # At the end of a run: whoever reads next will sync if this fails.
        with contextlib.suppress(StoreError, OSError):
            self.sync()

    def quarantine(self) -> tuple[QuarantineRecord, ...]:
        """Return which files of runs cannot be read, wholly or in part."""
        with self.reading() as connection:
            return read_quarantine(connection)

    def metric_names(self) -> tuple[str, ...]:
        """Return the names of all recorded metrics."""
        with self.reading() as connection:
            return tables.read_metric_names(connection)

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """Open the database for reading, with the spools' news in it, for all reads inside.

        Be quick: nobody can write to it meanwhile.
        """
        held = getattr(self._held, "connection", None)
        if held is not None:
            yield held
            return
        with self._opened() as connection:
            self._held.connection = connection
            try:
                yield connection
            finally:
                self._held.connection = None

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        if not (self.runs_directory.is_dir() or self.database.exists()):
            # Looking into a store that nobody has made yet must not make it.
            with empty_database() as connection:
                yield connection
            return
        try:
            # Many readers at once: one brings the news in, the others do not queue up for it.
            wait = self._left_open or self.lag_s() > STALE_S
            late = self.sync(STALE_PATIENCE_S if wait else 0.0).skipped and self._is_behind()
        except UnwritableError:
            # A full disk or another's folder can be read all the same.
            if not self.database.exists():
                with empty_database() as connection:
                    ingest(connection, self.runs_directory)
                    yield connection
                return
            late = False
        if late and self._spool_bytes() <= FRESH_BYTES:
            # Somebody keeps the database open; the runs' own records hold all that it lacks.
            with empty_database() as connection:
                ingest(connection, self.runs_directory)
                yield connection
            return
        if not self.database.exists():
            raise BusyError(f"{self.database}: another process is making the run store",
                            hint="try again in a moment")
        with open_database(self.database, read_only=True,
                           patience_s=READ_PATIENCE_S) as connection:
            if is_current(connection):
                if late:
                    self._refuse_missing(connection)
                yield connection
                return
        # Made by an older version, and not ours to bring up to date.
        with empty_database() as connection:
            ingest(connection, self.runs_directory)
            yield connection

    def _is_behind(self) -> bool:
        """Return whether there are news, and the database has not been filled for a while."""
        if not self.database.exists():
            return True
        return self.lag_s() > 0 and time.time() - self.database.stat().st_mtime > STALE_S

    def _spool_bytes(self) -> int:
        return sum(folder.size for folder in scan_folders(self.runs_directory).values())

    def _refuse_missing(self, connection: Any) -> None:
        """Refuse to answer from a database that lacks whole runs: the newest ones.

        Raises:
            BusyError: somebody kept it open all the while, so they could not be read in.
        """
        known = {row[0] for row in connection.execute(
            "SELECT run_id FROM runs UNION SELECT run_id FROM quarantine").fetchall()}
        missing = scan_folders(self.runs_directory).keys() - known
        if missing:
            raise BusyError(
                f"{self.database}: another program keeps it open, and {len(missing)} "
                f"run{'s are' if len(missing) > 1 else ' is'} not in it yet",
                hint="close that program, or try again when it is done")

    def _records(self, connection: Any, where: str, parameters: Sequence[Any]) -> list[RunRecord]:
        return [self._record(row) for row in tables.read_runs(connection, where, parameters)]

    def _record(self, row: Mapping[str, Any]) -> RunRecord:
        values = dict(row)
        folder = self.folder(values["run_id"])
        if values["status"] == "running" and not is_at_work(folder / SPOOL, values["host"]):
            values["status"] = "dead"
        return RunRecord(**values, directory=str(folder))


def _city_sha256(made_from: MadeFrom | None) -> str:
    return made_from.city.sha256 if made_from and made_from.city else ""
