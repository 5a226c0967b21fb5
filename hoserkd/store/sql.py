"""Questions in SQL from outside: they read this store, and reach nothing else."""

from dataclasses import dataclass
from typing import Any

from hoserkd.errors import UsageError

READING = ("SELECT", "EXPLAIN", "PRAGMA", "MULTI")
"""Kinds of statements that only read. PIVOT counts as several; what it may not do fails later."""
EXAMPLE = 'such as hoserkd runs sql "SELECT name, best_value FROM runs"'


class QueryError(UsageError):
    """A question that is wrong, or that would do more than read the store."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a question found."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


def ask(connection: Any, sql: str) -> Answer:
    """Return the answer of one statement.

    From here on the connection can open no file, load no extension and change no setting.

    Args:
        connection: One that was opened to read only.

    Raises:
        QueryError: it is wrong, is not one statement, writes, or reaches for anything outside.
    """
    import duckdb

    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    try:
        statements = connection.extract_statements(sql)
        if len(statements) != 1:
            raise QueryError("runs sql: expected one statement", hint=EXAMPLE)
        kind = statements[0].type.name
        if kind not in READING:
            raise QueryError(f"runs sql: {kind} is not allowed here: it can only read", EXAMPLE)
        found = connection.execute(statements[0])
        return Answer([column[0] for column in found.description or ()], found.fetchall())
    except duckdb.Error as error:
        raise QueryError(f"runs sql: {_told(str(error))}",
                         hint="docs/store.md lists the tables and their columns") from error


def _told(message: str) -> str:
    """Return DuckDB's message in one line: what is wrong, what it would know, and where."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return "; ".join(line for line in lines if not line.startswith(("LINE ", "^", "*")))
