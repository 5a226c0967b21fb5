"""Runs out of the store: tables for other tools."""

from collections.abc import Sequence
from pathlib import Path

from hoserkd.errors import StoreError
from hoserkd.store.database import TABLES
from hoserkd.store.runs import RunStore

FORMS = {"csv": "(FORMAT csv, HEADER)", "parquet": "(FORMAT parquet, COMPRESSION zstd)"}


def export_tables(store: RunStore, run_ids: Sequence[str], folder: Path, form: str) -> list[Path]:
    """Write every table's rows on these runs, one file a table, and return the files.

    Args:
        form: `csv` or `parquet`.

    Raises:
        StoreError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made: {error}") from error
    files = []
    with store.reading() as connection:
        for table in TABLES:
            if table == "spool_marks":
                continue
            path = folder / f"{table}.{form}"
            temporary = folder / f".{path.name}.tmp"
            target = str(temporary).replace("'", "''")
            connection.execute(
                f"COPY (SELECT * FROM {table} WHERE run_id IN (SELECT unnest(?::VARCHAR[])) "
                f"ORDER BY ALL) TO '{target}' {FORMS[form]}", [list(run_ids)])
            temporary.replace(path)
            files.append(path)
    return files
