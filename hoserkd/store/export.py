"""Runs out of the store: tables for other tools, and what other trackers read."""

import shlex
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hoserkd.engine.outputs import file_stems
from hoserkd.errors import StoreError
from hoserkd.store.database import TABLES
from hoserkd.store.records import RunRecord, Series
from hoserkd.store.runs import RunStore
from hoserkd.store.trackers import (
    EVENT_SUFFIX,
    SETTINGS,
    TensorBoardTracker,
    Tracker,
    WandbTracker,
    settings_text,
    wait_for_wandb,
)
from hoserkd.store.wandb_log import set_times
from hoserkd.text import FORMULA_SIGNS, file_stem

EVENT_FILES = f"events.out.tfevents.*{EVENT_SUFFIX}"
FORMS = {"csv": "(FORMAT csv, HEADER)", "parquet": "(FORMAT parquet, COMPRESSION zstd)"}


def table_files(folder: Path, form: str) -> dict[str, Path]:
    """Return the files of `export_tables` by table."""
    return {table: folder / f"{table}.{form}" for table in TABLES if table != "spool_marks"}


def export_tables(store: RunStore, run_ids: Sequence[str], folder: Path, form: str) -> list[Path]:
    """Write every table's rows on these runs, one file a table, and return the files.

    Args:
        form: `csv` or `parquet`. Times are marked as the UTC that they are. In CSV, text that a
            spreadsheet would take for a formula gets a leading quote; Parquet holds it as it is.

    Raises:
        StoreError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made: {error}") from error
    files = []
    with store.reading() as connection:
        for table, path in table_files(folder, form).items():
            temporary = folder / f".{path.name}.tmp"
            target = str(temporary).replace("'", "''")
            cells = _cells(connection, table, form)
            connection.execute(
                f"COPY (SELECT {cells} FROM {table} WHERE run_id IN (SELECT unnest(?::VARCHAR[])) "
                f"ORDER BY ALL) TO '{target}' {FORMS[form]}", [list(run_ids)])
            temporary.replace(path)
            files.append(path)
    return files


def _cells(connection: Any, table: str, form: str) -> str:
    """Return the table's columns: times with their zone, and text that no spreadsheet runs."""
    said = connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE {table})").fetchall()
    return ", ".join(_cell(name, kind, form) for name, kind in said)


def _cell(name: str, kind: str, form: str) -> str:
    if kind == "TIMESTAMP":
        said = (f"strftime({name}, '%Y-%m-%dT%H:%M:%S.%fZ')" if form == "csv"
                else f"({name} AT TIME ZONE 'UTC')")
        return f"{said} AS {name}"
    if kind == "VARCHAR" and form == "csv":
        signs = ", ".join(f"chr({ord(sign)})" for sign in FORMULA_SIGNS)
        return (f"CASE WHEN {name}[1] IN ({signs}) THEN chr(39) || {name} ELSE {name} END "
                f"AS {name}")
    return name


def export_tensorboard(store: RunStore, run: RunRecord, folder: Path, name: str | None = None
                       ) -> Path:
    """Write a run as TensorBoard event files in a folder of its name, and return that folder.

    What an earlier export left there is replaced, as TensorBoard would show every point twice;
    event files of other programs stay.

    Args:
        name: Of the folder; None: the run's.
    """
    place = folder / file_stem(name or run.name)
    earlier = list(place.glob(EVENT_FILES))
    _replay(store, run, TensorBoardTracker(place))
    for file in earlier:
        file.unlink(missing_ok=True)
    return place


def folder_names(runs: Sequence[RunRecord]) -> dict[str, str]:
    """Return a folder's name for each run id: the run's name, with the id where names clash."""
    times = Counter(run.name for run in runs)
    names = {run.run_id: run.name if times[run.name] == 1 else f"{run.name}-{run.run_id}"
             for run in runs}
    stems = file_stems(list(names.values()))
    return {run_id: stems[name] for run_id, name in names.items()}


def export_wandb(store: RunStore, run: RunRecord, folder: Path, project: str) -> Path:
    """Write a run as an offline W&B run under `folder`, and return the folder to `wandb sync`.

    It keeps the run's own start, end and command line. What an earlier export of the same run
    left there is replaced.
    """
    ended = run.ended_at or run.updated_at
    config = run.settings() | {"run": {
        "status": run.status, "started_at": run.started_at.isoformat(),
        "ended_at": None if run.ended_at is None else run.ended_at.isoformat(),
        "command": shlex.join(run.argv)}}
    earlier = set(_wandb_folders(folder, run))
    tracker = WandbTracker(folder, run_id=run.run_id, name=run.name, project=project,
                           config=config, tags=run.tags, argv=run.argv)
    _replay(store, run, tracker)
    wait_for_wandb()
    made = next(place for place in _wandb_folders(folder, run) if place not in earlier)
    for file in made.glob("*.wandb"):
        set_times(file, run.started_at.timestamp(), ended.timestamp())
    for place in earlier:
        shutil.rmtree(place)
    # W&B's tools take the time in the folder's name for the start.
    return made.rename(made.with_name(
        f"offline-run-{run.started_at.astimezone():%Y%m%d_%H%M%S}-{run.run_id}"))


def _wandb_folders(folder: Path, run: RunRecord) -> list[Path]:
    return sorted((folder / "wandb").glob(f"offline-run-*-{run.run_id}"))


def tracked_rows(
    store: RunStore, run_id: str
) -> Iterator[tuple[dict[str, float], int | None, float]]:
    """Yield (figures by name, step, seconds since 1970) of all that a run recorded.

    Steps, timings, epochs, judgements whose figures are plain numbers, and the machine, whose
    figures belong to no step (None).
    """
    yield from _by_step("train/", store.metrics(run_id))
    yield from _by_step("timings_ms/", store.timings(run_id))
    for epoch in store.epochs(run_id):
        values = {f"epoch/{name}": value for name, value in epoch.metrics.items()}
        yield values, epoch.step, epoch.at.timestamp()
    last = max((int(series.step[-1]) for series in store.metrics(run_id).values()), default=0)
    for judged in store.evaluations(run_id):
        values = {f"{judged.label}/{name}": float(value) for name, value in judged.payload.items()
                  if isinstance(value, int | float) and not isinstance(value, bool)}
        if values:
            yield values, last, judged.at.timestamp()
    for name, series in store.system(run_id).items():
        for at_s, value in zip(series.at_s, series.value, strict=True):
            yield {f"system/{name}": float(value)}, None, float(at_s)


def _replay(store: RunStore, run: RunRecord, tracker: Tracker) -> None:
    try:
        with store.reading():
            started_s = run.started_at.timestamp()
            for values, step, at_s in tracked_rows(store, run.run_id):
                if step is None:
                    tracker.clocked(values, max(at_s - started_s, 0.0), at_s)
                else:
                    tracker.scalars(values, step, at_s)
        tracker.text(SETTINGS, settings_text(run.settings()))
    finally:
        tracker.close()


def _by_step(
    prefix: str, found: Mapping[str, Series]
) -> Iterator[tuple[dict[str, float], int, float]]:
    rows: dict[int, tuple[dict[str, float], float]] = {}
    for name, series in found.items():
        for step, at_s, value in zip(series.step.tolist(), series.at_s.tolist(),
                                     series.value.tolist(), strict=True):
            rows.setdefault(step, ({}, at_s))[0][prefix + name] = value
    for step in sorted(rows):
        values, at_s = rows[step]
        yield values, step, at_s
