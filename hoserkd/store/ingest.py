"""Spools into DuckDB, exactly once: rows and the byte mark change in the same transaction."""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hoserkd.engine.bounded_json import parse_json
from hoserkd.errors import PASSING, reason_of
from hoserkd.store.database import open_database, put_in_place
from hoserkd.store.events import EVENT, HEADER, LAST_S, NEEDED
from hoserkd.store.folders import LABELS_FILE, Folder, read_labels, scan_folders
from hoserkd.store.quarantine import Fault, Slice, record_faults, record_unreadable, sift
from hoserkd.store.recorder import RUN_FILE, read_header
from hoserkd.store.records import SyncReport
from hoserkd.store.spool import SPOOL, read_lines

BATCH_BYTES = 1 << 24
"""Of all spools together in one transaction."""

BEST = (("val_accuracy", 1), ("val_perplexity", -1), ("val_loss", -1), ("val_loss_road", -1),
        ("val_loss_time", -1), ("val_token_accuracy", 1))
"""Which epoch metric says how good a run is, and whether more is better: the one by which its
settings choose the best weights, else the first that it has."""

# Line by line: parsing all lines as one JSON array costs seven times as much.
LOAD = f"""
CREATE OR REPLACE TEMP TABLE incoming AS
SELECT *, CASE WHEN t BETWEEN 0 AND {LAST_S} THEN make_timestamp((t * 1e6)::BIGINT) END
       AS recorded_at
FROM (
    SELECT run_id, unnest(from_json(line, ?3))
    FROM (
        SELECT run_id, unnest(string_split(lines, chr(10))) AS line
        FROM (SELECT unnest(?1::VARCHAR[]) AS run_id, unnest(?2::VARCHAR[]) AS lines)
    ) WHERE line <> ''
)
"""
DAMAGED = f"""
SELECT count(*) FROM incoming
WHERE seq IS NULL OR seq < 1 OR type IS NULL OR recorded_at IS NULL
   OR {" OR ".join(f"type = '{kind}' AND ({' OR '.join(f'{key} IS NULL' for key in keys)})"
                   for kind, keys in (*NEEDED.items(), ('evaluation', ('payload',))))}
"""
REWIND = """
CREATE OR REPLACE TEMP TABLE rewinds AS
    SELECT run_id, seq, step, coalesce(judged, step) AS judged FROM incoming WHERE type = 'rewind';
DELETE FROM incoming USING rewinds AS r
    WHERE incoming.run_id = r.run_id AND incoming.seq < r.seq
      AND (incoming.type = 'step' AND incoming.step > r.step
           OR incoming.type = 'epoch' AND incoming.step > r.judged);
-- Judgements come at a training's end, which is still ahead: they will be made again.
DELETE FROM incoming USING rewinds AS r
    WHERE incoming.run_id = r.run_id AND incoming.seq < r.seq AND incoming.type = 'evaluation';
DELETE FROM evaluations USING rewinds AS r
    WHERE evaluations.run_id = r.run_id AND evaluations.seq < r.seq;
DELETE FROM metrics USING rewinds AS r
    WHERE metrics.run_id = r.run_id AND metrics.step > r.step AND metrics.seq < r.seq;
DELETE FROM timings USING rewinds AS r
    WHERE timings.run_id = r.run_id AND timings.step > r.step AND timings.seq < r.seq;
DELETE FROM epochs USING rewinds AS r
    WHERE epochs.run_id = r.run_id AND epochs.step > r.judged AND epochs.seq < r.seq;
"""
INSERT = """
INSERT INTO metrics SELECT run_id, seq, step, epoch, recorded_at, e.key, e.value
    FROM (SELECT *, unnest(map_entries(m)) AS e FROM incoming WHERE type = 'step');
INSERT INTO timings SELECT run_id, seq, step, recorded_at, e.key, e.value
    FROM (SELECT *, unnest(map_entries(ms)) AS e FROM incoming WHERE type = 'step');
INSERT INTO epochs SELECT run_id, seq, epoch, step, recorded_at, e.key, e.value
    FROM (SELECT *, unnest(map_entries(m)) AS e FROM incoming WHERE type = 'epoch');
INSERT INTO system SELECT run_id, seq, recorded_at, e.key, e.value
    FROM (SELECT *, unnest(map_entries(m)) AS e FROM incoming WHERE type = 'system');
INSERT INTO evaluations SELECT run_id, seq, recorded_at, label, payload
    FROM incoming WHERE type = 'evaluation';
INSERT INTO artifacts SELECT run_id, seq, recorded_at, path, kind, size, step, sha256
    FROM incoming WHERE type = 'artifact';
INSERT INTO notes SELECT run_id, seq, recorded_at, level, message FROM incoming WHERE type = 'note';
DELETE FROM trials USING incoming AS i
    WHERE i.type = 'trial' AND trials.run_id = i.run_id AND trials.number = i.number;
INSERT INTO trials SELECT run_id, seq, recorded_at, number, state, epoch, payload, m, path, message
    FROM incoming WHERE type = 'trial'
    QUALIFY row_number() OVER (PARTITION BY run_id, number ORDER BY seq DESC) = 1;
"""
ADVANCE = """
UPDATE runs SET
    updated_at = greatest(n.recorded_at, runs.updated_at),
    step = coalesce(n.step, runs.step),
    epoch = coalesce(n.epoch, runs.epoch),
    total_steps = coalesce(n.total_steps, runs.total_steps),
    job = coalesce(n.job, runs.job),
    done = CASE WHEN n.job IS NULL THEN runs.done ELSE n.done END,
    total = CASE WHEN n.job IS NULL THEN runs.total ELSE n.total END,
    last_metrics = coalesce(n.last_metrics, runs.last_metrics),
    last_epoch = coalesce(n.last_epoch, runs.last_epoch),
    pid = coalesce(n.pid, runs.pid),
    host = coalesce(n.host, runs.host),
    made_from = coalesce(n.made_from, runs.made_from),
    status = CASE n.phase WHEN 'end' THEN n.status WHEN 'start' THEN 'running'
                          WHEN 'resume' THEN 'running' ELSE runs.status END,
    message = CASE n.phase WHEN 'end' THEN n.message WHEN 'resume' THEN ''
                           ELSE runs.message END,
    -- A clock may be set back: a run does not end before it began, nor before its last event.
    ended_at = CASE n.phase WHEN 'end' THEN greatest(n.ended_at, n.recorded_at, runs.updated_at)
                            WHEN 'resume' THEN NULL ELSE runs.ended_at END
FROM (
    SELECT run_id, max(recorded_at) AS recorded_at,
        arg_max(step, seq) FILTER (type IN ('step', 'epoch', 'rewind')) AS step,
        arg_max(epoch, seq) FILTER (type IN ('step', 'epoch')) AS epoch,
        arg_max(total, seq) FILTER (type = 'step') AS total_steps,
        arg_max(job, seq) FILTER (type = 'progress') AS job,
        arg_max(done, seq) FILTER (type = 'progress') AS done,
        arg_max_null("all", seq) FILTER (type = 'progress') AS total,
        arg_max(m, seq) FILTER (type = 'step') AS last_metrics,
        arg_max(m, seq) FILTER (type = 'epoch') AS last_epoch,
        arg_max(pid, seq) FILTER (type = 'resume') AS pid,
        arg_max(host, seq) FILTER (type = 'resume') AS host,
        arg_max(payload, seq) FILTER (type = 'resume') AS made_from,
        arg_max(type, seq) FILTER (type IN ('start', 'resume', 'end')) AS phase,
        arg_max(status, seq) FILTER (type = 'end') AS status,
        arg_max(message, seq) FILTER (type = 'end') AS message,
        arg_max(recorded_at, seq) FILTER (type = 'end') AS ended_at
    FROM incoming GROUP BY run_id
) AS n WHERE runs.run_id = n.run_id
"""
# The best epoch is the one whose weights were kept; only where none were, the best figure's.
JUDGE = """
UPDATE runs SET best_name = coalesce(b.name, ''), best_value = b.value, best_step = b.step
FROM (
    SELECT t.run_id, min_by(s.name, s.rank) AS name, min_by(s.value, s.rank) AS value,
           min_by(s.step, s.rank) AS step
    FROM (SELECT DISTINCT run_id FROM incoming WHERE type IN ('epoch', 'rewind')
              OR type = 'artifact' AND kind = 'checkpoint-best') AS t
    LEFT JOIN (
        SELECT e.run_id, e.name, CASE WHEN e.name = c.name THEN -1 ELSE w.rank END AS rank,
               coalesce(max(e.value) FILTER (e.step = k.step),
                        arg_max(e.value, e.value * w.sign)) AS value,
               coalesce(max(e.step) FILTER (e.step = k.step),
                        arg_max(e.step, e.value * w.sign)) AS step
        FROM epochs AS e JOIN (VALUES {best}) AS w(name, sign, rank) ON e.name = w.name
        LEFT JOIN (
            SELECT run_id, CASE
                WHEN kind = 'train' THEN 'val_' || (config_json ->> '$.train.best')
                WHEN kind = 'train-teacher' AND (config_json ->> '$.teacher.best') = 'accuracy'
                    THEN 'val_token_accuracy' END AS name
            FROM runs WHERE json_valid(config_json)
        ) AS c ON c.run_id = e.run_id
        LEFT JOIN (
            SELECT run_id, arg_max(step, seq) AS step FROM artifacts
            WHERE kind = 'checkpoint-best' GROUP BY run_id
        ) AS k ON k.run_id = e.run_id
        WHERE e.value IS NOT NULL GROUP BY e.run_id, e.name, w.rank, c.name
    ) AS s ON s.run_id = t.run_id
    GROUP BY t.run_id
) AS b WHERE runs.run_id = b.run_id
"""


def ingest(connection: Any, runs: Path) -> SyncReport:
    """Bring all that the spools hold and the database lacks into the database."""
    folders = scan_folders(runs)
    marks = {row[0]: (row[1], row[2]) for row in connection.execute(
        "SELECT run_id, byte_offset, labels_stamp FROM spool_marks").fetchall()}
    if runs.is_dir():
        forget_runs(connection, [run_id for run_id in marks if run_id not in folders])
    unreadable = _add_runs(connection, [f for run_id, f in folders.items() if run_id not in marks])
    sound = [f for f in folders.values() if (f.run_id, RUN_FILE) not in unreadable]
    offsets = {run_id: mark[0] for run_id, mark in marks.items()}
    changed = [f for f in sound if f.labels_stamp != marks.get(f.run_id, (0, 0))[1]]
    _apply_labels(connection, changed)
    waiting = [f for f in sound if f.size > offsets.get(f.run_id, 0)]
    events = 0
    for batch in _batches(waiting, offsets, unreadable):
        events += _ingest_batch(connection, batch)
    record_unreadable(connection, unreadable)
    return SyncReport(len(waiting), events, skipped=False)


def rebuild(database: Path, runs: Path, patience_s: float) -> SyncReport:
    """Fill a new database from all spools and put it in the place of `database`.

    Raises:
        BusyError: somebody keeps the old one open.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    fresh = database.with_name(f"{secrets.token_hex(4)}.new.duckdb")
    try:
        with open_database(fresh, read_only=False, patience_s=patience_s) as connection:
            report = ingest(connection, runs)
        put_in_place(fresh, database, patience_s)
    finally:
        for left in database.parent.glob(f"*{fresh.name}*"):
            left.unlink()
    return report


def forget_runs(connection: Any, run_ids: Sequence[str]) -> None:
    """Remove every row of these runs."""
    from hoserkd.store.database import TABLES

    if not run_ids:
        return
    connection.execute("BEGIN")
    for table in TABLES:
        connection.execute(f"DELETE FROM {table} WHERE run_id IN "
                           "(SELECT unnest(?::VARCHAR[]))", [list(run_ids)])
    connection.execute("COMMIT")


Unreadable = dict[tuple[str, str], str]
"""Reason by run and file."""


def _add_runs(connection: Any, folders: Sequence[Folder]) -> Unreadable:
    headers = []
    unreadable: Unreadable = {}
    for folder in folders:
        try:
            headers.append(read_header(folder.path))
        except FileNotFoundError:
            continue  # deleted since the folders were listed
        except (OSError, ValueError) as error:
            unreadable[folder.run_id, RUN_FILE] = _reason(error)
    if headers:
        _insert_runs(connection, headers)
    return unreadable


def _insert_runs(connection: Any, headers: Sequence[Mapping[str, Any]]) -> None:
    connection.execute("BEGIN")
    connection.execute("""
        INSERT INTO runs BY NAME
        SELECT h.* EXCLUDE (started_at), make_timestamp((h.started_at * 1e6)::BIGINT) AS started_at,
               make_timestamp((h.started_at * 1e6)::BIGINT) AS updated_at, 'running' AS status,
               '' AS message, 0 AS step, '' AS job, '' AS best_name,
               MAP {}::MAP(VARCHAR, DOUBLE) AS last_metrics,
               MAP {}::MAP(VARCHAR, DOUBLE) AS last_epoch
        FROM (SELECT unnest(u) FROM (SELECT unnest(from_json(?::JSON, ?)) AS u)) AS h
    """, [json.dumps(headers), json.dumps([HEADER])])
    connection.execute(
        "INSERT INTO spool_marks SELECT unnest(?::VARCHAR[]), 0, 0",
        [[header["run_id"] for header in headers]])
    connection.execute("COMMIT")


def _reason(error: Exception) -> str:
    """Return why a file cannot be read.

    Raises:
        OSError: that is no fault of the file's.
    """
    if isinstance(error, OSError) and error.errno in PASSING:
        raise error
    return reason_of(error)


def _apply_labels(connection: Any, folders: Sequence[Folder]) -> None:
    if not folders:
        return
    labels = []
    for folder in folders:
        found = _labels(connection, folder)
        labels.append({"run_id": folder.run_id, "stamp": folder.labels_stamp,
                       **{key: found.get(key) for key in ("name", "tags", "notes")}})
    connection.execute("BEGIN")
    connection.execute("""
        CREATE OR REPLACE TEMP TABLE relabelled AS
        SELECT unnest(u) FROM (SELECT unnest(from_json(?::JSON, ?)) AS u)
    """, [json.dumps(labels), json.dumps([{
        "run_id": "VARCHAR", "stamp": "BIGINT", "name": "VARCHAR", "tags": "VARCHAR[]",
        "notes": "VARCHAR"}])])
    connection.execute("""
        UPDATE runs SET name = coalesce(l.name, runs.name), tags = coalesce(l.tags, runs.tags),
                        notes = coalesce(l.notes, runs.notes)
        FROM relabelled AS l WHERE runs.run_id = l.run_id
    """)
    connection.execute("UPDATE spool_marks SET labels_stamp = l.stamp FROM relabelled AS l "
                       "WHERE spool_marks.run_id = l.run_id")
    connection.execute("COMMIT")


def _labels(connection: Any, folder: Folder) -> Mapping[str, Any]:
    """Return a run's labels; damaged ones count as none, and are told of."""
    connection.execute("DELETE FROM quarantine WHERE run_id = ? AND file = ?",
                       [folder.run_id, LABELS_FILE])
    try:
        return read_labels(folder.path)
    except ValueError as error:
        connection.execute("INSERT INTO quarantine VALUES (?, ?, 1, 0, ?)",
                           [folder.run_id, LABELS_FILE, str(error)])
        return {}


def _batches(
    folders: Sequence[Folder], offsets: Mapping[str, int], unreadable: Unreadable
) -> Iterator[Sequence[Slice]]:
    """Yield what the spools hold behind `offsets`; spools that cannot be read join `unreadable`."""
    batch: list[Slice] = []
    held = 0
    for folder in folders:
        offset = offsets.get(folder.run_id, 0)
        while offset < folder.size:
            try:
                lines, end = read_lines(folder.path / SPOOL, offset, BATCH_BYTES)
            except OSError as error:
                unreadable[folder.run_id, SPOOL] = _reason(error)
                break
            if end == offset:
                break
            offset, held = end, held + len(lines)
            batch.append(Slice(folder.run_id, lines, end))
            if held >= BATCH_BYTES:
                yield batch
                batch, held = [], 0
    if batch:
        yield batch


def _ingest_batch(connection: Any, batch: Sequence[Slice]) -> int:
    """Bring a batch in and return the number of its events; damaged lines are set aside."""
    import duckdb

    try:
        return _commit_batch(connection, batch, ())
    except (duckdb.DataError, duckdb.ProgrammingError, _DamagedLinesError, UnicodeError):
        connection.execute("ROLLBACK")
    sifted = [(part, *sift(part)) for part in batch]
    faults = [fault for _, _, found in sifted for fault in found]
    sound = [replace(part, lines=b"".join(json.dumps(event).encode() + b"\n" for event in events))
             for part, events, _ in sifted]
    try:
        return _commit_batch(connection, sound, faults)
    except (duckdb.DataError, duckdb.ProgrammingError, _DamagedLinesError) as error:
        connection.execute("ROLLBACK")
        refusal = str(error).splitlines()[0]
    # What passes our own checks and not the database's: find out whose it is.
    if len(batch) > 1:
        return sum(_ingest_batch(connection, [part]) for part in batch)
    part = batch[0]
    return _commit_batch(connection, [replace(part, lines=b"")], [
        Fault(part.run_id, part.end - len(part.lines), refusal)])


class _DamagedLinesError(Exception):
    """Some line is no event, though the database could read it."""


def _commit_batch(connection: Any, batch: Sequence[Slice], faults: Sequence[Fault]) -> int:
    best = ", ".join(f"('{name}', {sign}, {rank})" for rank, (name, sign) in enumerate(BEST))
    connection.execute("BEGIN")
    connection.execute(LOAD, [
        [part.run_id for part in batch],
        [part.lines.decode() for part in batch], json.dumps(EVENT)])
    _check_loaded(connection)
    connection.execute(REWIND)
    connection.execute(INSERT)
    connection.execute(ADVANCE)
    connection.execute(JUDGE.format(best=best))
    ends = {part.run_id: part.end for part in batch}
    connection.execute("""
        UPDATE spool_marks SET byte_offset = m.e
        FROM (SELECT unnest(?::VARCHAR[]) AS r, unnest(?::BIGINT[]) AS e) AS m
        WHERE spool_marks.run_id = m.r
    """, [list(ends), list(ends.values())])
    record_faults(connection, faults)
    count = connection.execute("SELECT count(*) FROM incoming").fetchone()
    connection.execute("DROP TABLE incoming; DROP TABLE rewinds")
    connection.execute("COMMIT")
    return int(count[0])


def _check_loaded(connection: Any) -> None:
    """Refuse what the database reads as null, or would hand to readers that it breaks.

    Raises:
        _DamagedLinesError: some line is no event.
    """
    damaged = connection.execute(DAMAGED).fetchone()
    if damaged[0]:
        raise _DamagedLinesError("it is no event")
    for (payload,) in connection.execute(
            "SELECT payload FROM incoming WHERE payload IS NOT NULL").fetchall():
        try:
            parse_json(payload)
        except ValueError as error:
            raise _DamagedLinesError(str(error)) from error
