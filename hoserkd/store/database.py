"""The DuckDB file of the store: opened for moments only, upgraded by ordered migrations.

DuckDB lets one process write or several read, never both, so nobody keeps it open.
"""

import contextlib
import errno
import fcntl
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hoserkd.errors import StoreError, UsageError
from hoserkd.store.spool import lock_within
from hoserkd.text import not_utf8

DATABASE = "hoserkd.duckdb"
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)
GUARD = ".hoserkd.lock"
"""File beside the database; whoever opens that holds a shared lock on this, so that it is put
in the place of another only while nobody has either open."""
GATE = ".hoserkd.gate"
"""Passed on the way to the guard: closed while somebody waits to put a database in place, who
would else wait for ever where readers come and go."""
_DAMAGE = ("corrupt", "not a valid duckdb", "checksum", "could not read enough bytes",
           "replaying wal")
"""What DuckDB says of a file over whose writing a process was killed."""
UNFIT = "?\\"
"""DuckDB takes what follows `?` for options, and a backslash for a slash."""
_INTERRUPTIONS = ("RuntimeError", "InterruptException")
_IN_PROCESS = threading.RLock()
"""One connection a process: DuckDB refuses a second one with other options."""

TABLES = ("runs", "metrics", "timings", "epochs", "evaluations", "artifacts", "notes", "system",
          "trials", "quarantine", "spool_marks")


class BusyError(StoreError):
    """Another process holds the database."""


class DamagedError(StoreError):
    """The file is no sound database; the runs' own records make it anew."""


class UnwritableError(StoreError):
    """The disk is full, or the folder is not ours to write."""


def _first_tables(connection: Any) -> None:
    connection.execute("""
        CREATE TABLE runs (
            run_id VARCHAR, name VARCHAR, kind VARCHAR, profile VARCHAR, status VARCHAR,
            started_at TIMESTAMP, ended_at TIMESTAMP, updated_at TIMESTAMP, message VARCHAR,
            tags VARCHAR[], notes VARCHAR, parents VARCHAR[], study VARCHAR,
            config_json VARCHAR, config_sha256 VARCHAR, data_sha256 VARCHAR,
            git_revision VARCHAR, versions MAP(VARCHAR, VARCHAR), device VARCHAR, seed BIGINT,
            argv VARCHAR[], host VARCHAR, pid BIGINT,
            step BIGINT, total_steps BIGINT, epoch BIGINT,
            job VARCHAR, done BIGINT, total BIGINT,
            best_name VARCHAR, best_value DOUBLE, best_step BIGINT,
            last_metrics MAP(VARCHAR, DOUBLE), last_epoch MAP(VARCHAR, DOUBLE)
        );
        CREATE TABLE metrics (run_id VARCHAR, seq BIGINT, step BIGINT, epoch BIGINT,
                              recorded_at TIMESTAMP, name VARCHAR, value DOUBLE);
        CREATE TABLE timings (run_id VARCHAR, seq BIGINT, step BIGINT,
                              recorded_at TIMESTAMP, part VARCHAR, ms DOUBLE);
        CREATE TABLE epochs (run_id VARCHAR, seq BIGINT, epoch BIGINT, step BIGINT,
                             recorded_at TIMESTAMP, name VARCHAR, value DOUBLE);
        CREATE TABLE evaluations (run_id VARCHAR, seq BIGINT, recorded_at TIMESTAMP, label VARCHAR,
                                  payload JSON);
        CREATE TABLE artifacts (run_id VARCHAR, seq BIGINT, recorded_at TIMESTAMP, path VARCHAR,
                                kind VARCHAR, size BIGINT, step BIGINT);
        CREATE TABLE notes (run_id VARCHAR, seq BIGINT, recorded_at TIMESTAMP, level VARCHAR,
                            message VARCHAR);
        CREATE TABLE system (run_id VARCHAR, seq BIGINT, recorded_at TIMESTAMP, name VARCHAR,
                             value DOUBLE);
        CREATE TABLE spool_marks (run_id VARCHAR PRIMARY KEY, byte_offset BIGINT,
                                  labels_stamp BIGINT);
    """)


def _trials(connection: Any) -> None:
    connection.execute("""
        CREATE TABLE trials (run_id VARCHAR, seq BIGINT, recorded_at TIMESTAMP, number BIGINT,
                             state VARCHAR, epochs BIGINT, params JSON,
                             figures MAP(VARCHAR, DOUBLE), trained VARCHAR, message VARCHAR);
    """)


def _identities(connection: Any) -> None:
    connection.execute("""
        ALTER TABLE runs ADD COLUMN made_from JSON;
        ALTER TABLE artifacts ADD COLUMN sha256 VARCHAR;
    """)


def _quarantine(connection: Any) -> None:
    connection.execute("CREATE TABLE quarantine (run_id VARCHAR, file VARCHAR, lines BIGINT, "
                       "byte BIGINT, reason VARCHAR)")


MIGRATIONS: tuple[tuple[str, Callable[[Any], None]], ...] = (
    ("first tables", _first_tables), ("trials", _trials), ("identities", _identities),
    ("quarantine", _quarantine))
"""Applied in order, each once; new ones are added at the end."""


def migrate(connection: Any) -> None:
    """Bring the database to this version's schema.

    Raises:
        StoreError: it was made by a newer hoserkd.
    """
    connection.execute("CREATE TABLE IF NOT EXISTS schema_migrations "
                       "(version INTEGER, name VARCHAR, applied_at TIMESTAMP)")
    version = _version(connection)
    _refuse_newer(version)
    for number, (name, change) in enumerate(MIGRATIONS[version:], version + 1):
        connection.execute("BEGIN")
        change(connection)
        connection.execute("INSERT INTO schema_migrations VALUES "
                           "(?, ?, now()::TIMESTAMP)", [number, name])
        connection.execute("COMMIT")


def is_current(connection: Any) -> bool:
    """Return whether a database that was opened for reading has this version's schema."""
    return _version(connection) == len(MIGRATIONS)


@contextmanager
def open_database(path: Path, *, read_only: bool, patience_s: float) -> Iterator[Any]:
    """Open the database, waiting at most `patience_s` for others to let it go.

    Raises:
        BusyError: others hold it.
        StoreError: it cannot be read or written, or a newer hoserkd made it.
    """
    import duckdb

    with _IN_PROCESS, _guarded(path, fcntl.LOCK_SH, patience_s), _interruptible():
        if not read_only and not path.exists():
            _make(path)
        connection = _connect(path, read_only, patience_s)
        try:
            if read_only:
                _refuse_newer(_version(connection))
            else:
                migrate(connection)
            yield connection
        except duckdb.Error as error:
            raise _unreadable(path, error) from error
        finally:
            with contextlib.suppress(duckdb.Error):  # its last words on a full disk
                connection.close()


def check_store_path(directory: Path) -> None:
    """Refuse a store's folder whose path DuckDB would take for something else.

    Raises:
        UsageError: it holds `?` or a backslash, or bytes that are not UTF-8.
    """
    path = directory.absolute()
    found = next((repr(c) for c in str(path) if c in UNFIT), None) or not_utf8(path)
    if found:
        raise UsageError(f"{directory}: the path of a run store cannot hold {found}",
                         hint="choose another folder with --store, or another HOSERKD_HOME")


def put_in_place(fresh: Path, path: Path, patience_s: float) -> None:
    """Move a filled and closed database to where others look; what was there is kept as `.old`.

    Raises:
        BusyError: somebody keeps the old one open.
    """
    with _IN_PROCESS, _guarded(path, fcntl.LOCK_EX, patience_s):
        # First the log: beside a database that is not its own it would spoil that one.
        path.with_suffix(".duckdb.wal").unlink(missing_ok=True)
        if path.exists():
            path.replace(path.with_suffix(".duckdb.old"))
        fresh.replace(path)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C be Ctrl-C: DuckDB makes an error of its own out of one that meets a query."""
    try:
        yield
    except Exception as error:
        first = error.__cause__ or error
        if "interrupt" in str(first).lower() and type(first).__name__ in _INTERRUPTIONS:
            raise KeyboardInterrupt from error
        raise


@contextmanager
def empty_database() -> Iterator[Any]:
    """Open a database in memory with the tables and nothing in them."""
    import duckdb

    connection = duckdb.connect(":memory:")
    try:
        migrate(connection)
        yield connection
    finally:
        connection.close()


def _make(path: Path) -> None:
    """Make an empty database, whole or not at all: DuckDB itself may die half-way."""
    import duckdb

    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return  # another process was quicker
        new = path.with_name(f".{path.name}.new")
        log = new.with_name(f"{new.name}.wal")
        new.unlink(missing_ok=True)
        log.unlink(missing_ok=True)
        try:
            connection = _connect(new, False, 0.0)
            try:
                migrate(connection)
            finally:
                connection.close()
            new.replace(path)
        except duckdb.Error as error:
            raise _unreadable(path, error) from error
        finally:
            new.unlink(missing_ok=True)
            log.unlink(missing_ok=True)


@contextmanager
def _guarded(path: Path, kind: int, patience_s: float) -> Iterator[None]:
    with contextlib.ExitStack() as held:
        try:
            gate, guard = (held.enter_context((path.parent / name).open("ab"))
                           for name in (GATE, GUARD))
        except OSError:
            # A store that one may only read: nothing is put in place there either.
            yield
            return
        if not (lock_within(gate.fileno(), kind, patience_s)
                and lock_within(guard.fileno(), kind, patience_s)):
            raise _busy(path)
        if kind == fcntl.LOCK_SH:
            gate.close()
        yield


def _busy(path: Path) -> BusyError:
    return BusyError(f"{path}: another process is working on the run store",
                     hint="try again in a moment")


def _connect(path: Path, read_only: bool, patience_s: float) -> Any:
    import duckdb

    deadline = time.monotonic() + patience_s
    while True:
        try:
            connection = duckdb.connect(
                str(path.absolute()), read_only=read_only,
                config={"threads": 2, "autoinstall_known_extensions": False,
                        "autoload_known_extensions": False})
        except duckdb.IOException as error:
            if "lock" not in str(error).lower():
                raise _unreadable(path, error) from error
            if time.monotonic() >= deadline:
                raise _busy(path) from error
            time.sleep(random.uniform(0.01, 0.06))
        except duckdb.Error as error:
            raise _unreadable(path, error) from error
        else:
            return connection


def _unreadable(path: Path, error: Exception) -> StoreError:
    first_line = str(error).splitlines()[0]
    if any(os.strerror(number) in first_line for number in _REFUSALS):
        return UnwritableError(
            f"{path}: {first_line.rpartition(': ')[2].lower()}",
            hint="nothing is lost: the runs' own records are read in once there is room and "
                 "leave to write")
    damaged = any(word in first_line.lower() for word in _DAMAGE)
    kind = DamagedError if damaged else StoreError
    return kind(f"{path}: the run store cannot be opened: {first_line}",
                hint="`hoserkd runs repair` rebuilds it from the runs' own records")


def _version(connection: Any) -> int:
    known = connection.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'schema_migrations'").fetchone()
    if not known or not known[0]:
        return 0
    row = connection.execute("SELECT coalesce(max(version), 0) FROM schema_migrations").fetchone()
    return int(row[0])


def _refuse_newer(version: int) -> None:
    if version > len(MIGRATIONS):
        raise StoreError(
            f"the run store has schema {version}, this hoserkd knows {len(MIGRATIONS)}",
            hint="a newer hoserkd made it: upgrade, or use another --store",
        )
