"""What of the runs' records could not be read: counted line by line, never in the way of the rest.

A line that is no event is counted once, when it is met. What is wrong with a run as a whole (its
header, a spool that may not be read) is looked at anew each time, until it is mended.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hoserkd.store.events import parse_event
from hoserkd.store.recorder import RUN_FILE
from hoserkd.store.records import QuarantineRecord
from hoserkd.store.spool import SPOOL

QUARANTINE = "SELECT run_id, file, lines, byte, reason FROM quarantine ORDER BY run_id, file"


@dataclass(frozen=True, slots=True)
class Slice:
    """Whole lines out of a run's spool."""

    run_id: str
    lines: bytes
    end: int
    """Offset behind them."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that is no event."""

    run_id: str
    byte: int
    """Where it begins."""
    reason: str


def sift(part: Slice) -> tuple[list[dict[str, Any]], list[Fault]]:
    """Return the events of a slice, and what is wrong with its other lines."""
    events, faults = [], []
    at = part.end - len(part.lines)
    for line in part.lines.split(b"\n"):
        try:
            if line:
                events.append(parse_event(line))
        except ValueError as error:
            faults.append(Fault(part.run_id, at, str(error)))
        at += len(line) + 1
    return events, faults


def record_faults(connection: Any, faults: Iterable[Fault]) -> None:
    """Count lines that are no events, and keep where and why of each run's first."""
    first: dict[str, Fault] = {}
    count: dict[str, int] = {}
    for fault in faults:
        first.setdefault(fault.run_id, fault)
        count[fault.run_id] = count.get(fault.run_id, 0) + 1
    for run_id, fault in first.items():
        known = connection.execute(
            "UPDATE quarantine SET lines = lines + ? WHERE run_id = ? AND file = ? AND lines > 0 "
            "RETURNING lines", [count[run_id], run_id, SPOOL]).fetchall()
        if not known:
            connection.execute("INSERT INTO quarantine VALUES (?, ?, ?, ?, ?)",
                               [run_id, SPOOL, count[run_id], fault.byte, fault.reason])


def record_unreadable(connection: Any, unreadable: Mapping[tuple[str, str], str]) -> None:
    """Keep which files cannot be read at all now, by run and file, and forget about others."""
    known = {(run_id, file): reason for run_id, file, reason in connection.execute(
        "SELECT run_id, file, reason FROM quarantine WHERE lines = 0").fetchall()}
    if known == unreadable:
        return
    connection.execute("BEGIN")
    connection.execute("DELETE FROM quarantine WHERE lines = 0")
    for (run_id, file), reason in unreadable.items():
        connection.execute("INSERT INTO quarantine VALUES (?, ?, 0, NULL, ?)",
                           [run_id, file, reason])
    connection.execute("COMMIT")


def read_quarantine(connection: Any) -> tuple[QuarantineRecord, ...]:
    """Return what could not be read, by run."""
    rows: Sequence[tuple[Any, ...]] = connection.execute(QUARANTINE).fetchall()
    return tuple(QuarantineRecord(*row) for row in rows)


def quarantine_text(records: Sequence[QuarantineRecord]) -> str:
    """Return how much could not be read, in one line."""
    hidden = sum(record.file == RUN_FILE for record in records)
    files = sum(not record.lines and record.file != RUN_FILE for record in records)
    lines = sum(record.lines for record in records)
    parts = [f"{count:,} {what if count == 1 else whats}" for count, what, whats in (
        (hidden, "run is not shown", "runs are not shown"),
        (files, "file cannot be read", "files cannot be read"),
        (lines, "damaged line is left out", "damaged lines are left out")) if count]
    return ", ".join(parts)
