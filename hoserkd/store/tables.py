"""Rows of the database as frozen records: one function a table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from hoserkd.engine.bounded_json import parse_json
from hoserkd.engine.identity import MadeFrom
from hoserkd.engine.metrics.catalogue import RENAMED, current_name
from hoserkd.store.records import (
    ArtifactRecord,
    EpochRecord,
    EvaluationRecord,
    NoteRecord,
    RunRecord,
    Series,
)

PRESENT = " ".join(["CASE name", *(f"WHEN '{old}' THEN '{new}'" for old, new in RENAMED.items()),
                    "ELSE name END"])
"""What a recorded figure is called now."""
SERIES = {
    "metrics": f"SELECT {PRESENT} AS present, step, epoch_us(recorded_at) / 1e6, "
               "coalesce(value, 'NaN'::DOUBLE) "
               "FROM metrics WHERE run_id = ?1 AND step > ?2 AND (?3::VARCHAR[] IS NULL OR "
               "list_contains(?3::VARCHAR[], present)) ORDER BY present, step, seq",
    "timings": "SELECT part, step, epoch_us(recorded_at) / 1e6, coalesce(ms, 'NaN'::DOUBLE) "
               "FROM timings WHERE run_id = ?1 ORDER BY part, step, seq",
    "system": "SELECT name, 0, epoch_us(recorded_at) / 1e6, coalesce(value, 'NaN'::DOUBLE) "
              "FROM system WHERE run_id = ?1 ORDER BY name, seq",
}
"""Queries for (name, step, seconds since 1970, value), in the order of the names."""
EPOCHS = """
SELECT epoch, max(step), max(recorded_at), list(name), list(coalesce(value, 'NaN'::DOUBLE))
FROM (FROM epochs WHERE run_id = ? ORDER BY seq, name) GROUP BY epoch, seq ORDER BY seq
"""
EVALUATIONS = "SELECT label, recorded_at, payload FROM evaluations WHERE run_id = ? ORDER BY seq"
ARTIFACTS = """
SELECT path, arg_max(kind, seq), max(recorded_at), arg_max(size, seq), arg_max(step, seq),
       arg_max_null(sha256, seq)
FROM artifacts WHERE run_id = ? GROUP BY path ORDER BY max(seq)
"""
NOTES = "SELECT recorded_at, level, message FROM notes WHERE run_id = ? ORDER BY seq"


def read_series(connection: Any, table: str, parameters: Sequence[Any]) -> dict[str, Series]:
    """Return the series of one of `SERIES` by name."""
    import numpy as np

    columns = list(connection.execute(SERIES[table], parameters).fetchnumpy().values())
    names, steps, times, values = (np.ma.getdata(column) for column in columns)
    if not len(names):
        return {}
    bounds = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1), len(names)]
    return {
        str(names[a]): Series(steps[a:b].astype(np.int64), times[a:b].astype(np.float64),
                              values[a:b].astype(np.float64))
        for a, b in pairwise(bounds)
    }


def read_epochs(connection: Any, run_id: str) -> tuple[EpochRecord, ...]:
    """Return the epochs of a run in order."""
    return tuple(EpochRecord(epoch, step, _utc(at), dict(zip(names, values, strict=True)))
                 for epoch, step, at, names, values in _rows(connection, EPOCHS, run_id))


def read_evaluations(connection: Any, run_id: str) -> tuple[EvaluationRecord, ...]:
    """Return the judgements of a run, the oldest first."""
    return tuple(EvaluationRecord(label, _utc(at), parse_json(text, non_finite=True))
                 for label, at, text in _rows(connection, EVALUATIONS, run_id))


def read_artifacts(connection: Any, run_id: str) -> tuple[ArtifactRecord, ...]:
    """Return the files that a run made, each at its last writing."""
    return tuple(ArtifactRecord(path, kind, _utc(at), size, step, sha256)
                 for path, kind, at, size, step, sha256 in _rows(connection, ARTIFACTS, run_id))


def read_notes(connection: Any, run_id: str) -> tuple[NoteRecord, ...]:
    """Return what a run told its user, the oldest first."""
    return tuple(NoteRecord(_utc(at), level, message)
                 for at, level, message in _rows(connection, NOTES, run_id))


def read_metric_names(connection: Any) -> tuple[str, ...]:
    """Return the names of all recorded figures."""
    return tuple(name for name, in connection.execute(
        f"SELECT {PRESENT} FROM metrics UNION SELECT name FROM epochs ORDER BY 1").fetchall())


def read_runs(connection: Any, where: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the rows of the runs that fit, as the fields of a `RunRecord` but its folder."""
    columns = [field.name for field in fields(RunRecord) if field.name != "directory"]
    rows = connection.execute(
        f"SELECT {', '.join(columns)} FROM runs {where}", parameters).fetchall()
    return [_run_fields(dict(zip(columns, row, strict=True))) for row in rows]


def _run_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(row)
    for key in ("started_at", "ended_at", "updated_at"):
        values[key] = _utc(values[key]) if values[key] is not None else None
    for key in ("tags", "parents", "argv"):
        values[key] = tuple(values[key] or ())
    for key in ("last_metrics", "last_epoch"):
        values[key] = {current_name(name): math.nan if value is None else value
                       for name, value in (values[key] or {}).items()}
    values["made_from"] = read_made_from(values["made_from"])
    return values


def read_made_from(text: str | None) -> MadeFrom:
    """Return the artefacts that a run's record names; nothing where it is damaged or old."""
    try:
        return MadeFrom.from_json(None if text is None else parse_json(text))
    except ValueError:
        return MadeFrom()


def _rows(connection: Any, sql: str, run_id: str) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = connection.execute(sql, [run_id]).fetchall()
    return found


def _utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC)
