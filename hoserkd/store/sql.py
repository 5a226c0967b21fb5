"""Questions in SQL from outside: they read this store, and reach nothing else."""

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoserkd.errors import UsageError

READING = ("SELECT", "EXPLAIN", "PRAGMA", "MULTI")
"""Kinds of statements that only read. PIVOT counts as several; what it may not do fails later."""
EXAMPLE = 'such as hoserkd runs sql "SELECT name, best_value FROM runs"'


class QueryError(UsageError):
    """A question that is wrong, or that would do more than read the store."""


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """What a statement may cost."""

    rows: int = 10_000
    text_bytes: int = 256 << 20
    """Of the texts in the answer, about."""
    memory_mb: int = 512
    """Of the database's own working memory."""
    seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a question found."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    truncated: bool = False
    """Whether there are more rows than the limits allowed."""


DEFAULT_LIMITS = QueryLimits()

def ask(connection: Any, sql: str, limits: QueryLimits = DEFAULT_LIMITS) -> Answer:
    """Return the answer of one statement.

    From here on the connection can open no file, load no extension and change no setting.

    Args:
        connection: One that was opened to read only.
        sql: The statement.
        limits: Beyond those of rows and text the answer is cut; beyond the others it fails.

    Raises:
        QueryError: it is wrong, is not one statement, writes, reaches for anything outside, or
            takes too much memory or time.
    """
    import duckdb

    connection.execute("SET enable_external_access = false")
    connection.execute(f"SET memory_limit = '{limits.memory_mb}MiB'")
    connection.execute("SET max_temp_directory_size = '0KiB'")
    connection.execute("SET lock_configuration = true")
    clock = threading.Timer(limits.seconds, connection.interrupt)
    clock.start()
    try:
        with _address_space(2 * limits.memory_mb << 20):
            return _answer(connection, sql, limits)
    except duckdb.InterruptException as error:
        raise QueryError(f"runs sql: the statement took longer than {limits.seconds:g} s",
                         hint="add a WHERE or a LIMIT") from error
    except (duckdb.OutOfMemoryException, MemoryError) as error:
        raise QueryError(f"runs sql: the statement needs more than {limits.memory_mb} MiB",
                         hint="add a WHERE or a LIMIT") from error
    except duckdb.Error as error:
        raise QueryError(f"runs sql: {_told(str(error))}",
                         hint="docs/store.md lists the tables and their columns") from error
    finally:
        clock.cancel()


@contextmanager
def _address_space(more_bytes: int) -> Iterator[None]:
    """Let the process grow by no more than so much while the block runs, where the system can.

    DuckDB's own limit does not count the texts that a statement builds, such as repeat('x', 4e9).
    """
    before = resource.getrlimit(resource.RLIMIT_AS)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        yield
        return
    most = pages * resource.getpagesize() + more_bytes
    if before[0] != resource.RLIM_INFINITY:
        most = min(most, before[0])
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _answer(connection: Any, sql: str, limits: QueryLimits) -> Answer:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise QueryError("runs sql: expected one statement", hint=EXAMPLE)
    kind = statements[0].type.name
    if kind not in READING:
        raise QueryError(f"runs sql: {kind} is not allowed here: it can only read", EXAMPLE)
    found = connection.execute(statements[0])
    rows, truncated = _fetch(found, limits)
    return Answer([column[0] for column in found.description or ()], rows, truncated)


def _fetch(found: Any, limits: QueryLimits) -> tuple[list[tuple[Any, ...]], bool]:
    """Return the rows within the limits, and whether there are more."""
    rows: list[tuple[Any, ...]] = []
    room = limits.text_bytes
    while batch := found.fetchmany(256):
        for row in batch:
            room -= sum(len(cell) for cell in row if isinstance(cell, str | bytes))
            if len(rows) == limits.rows or room < 0:
                return rows, True
            rows.append(row)
    return rows, False


def _told(message: str) -> str:
    """Return DuckDB's message in one line: what is wrong, what it would know, and where."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return "; ".join(line for line in lines if not line.startswith(("LINE ", "^", "*")))
