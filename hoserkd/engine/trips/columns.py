"""Which files hold trips or requests, and which of their columns is which."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hoserkd.engine.city.source import check_width
from hoserkd.errors import DataError

PARQUET = ".parquet"
ENDINGS = (".csv", ".csv.gz", ".csv.zst", PARQUET)
"""How a file of trips or of requests may end, in any case."""
LISTS = ("rid_list", "time_list")
PUBLIC_NAMES = MappingProxyType({
    "gene_trace_road_id": "rid_list", "gene_trace_datetime": "time_list",
    "origin_road_id": "origin", "destination_road_id": "destination",
    "source_origin_time": "departure",
})
"""Columns of the public generators, and ours of the same meaning."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a file."""

    name: str
    """As the file calls it."""
    place: int


def ending_of(path: Path) -> str | None:
    """Return which of `ENDINGS` the file's name has, or None."""
    name = path.name.lower()
    return next((ending for ending in reversed(ENDINGS) if name.endswith(ending)), None)


def stem_of(path: Path) -> str:
    """Return the name of a file of trips without its ending."""
    ending = ending_of(path)
    return path.stem if ending is None else path.name[:-len(ending)]


def find_columns(
    path: Path, header: Sequence[str], needed: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, Column]:
    """Return the columns of a file by our names, those that are absent left out.

    Raises:
        DataError: a needed column is missing, or two columns hold the same thing.
    """
    check_width(path, header)
    names = [name.strip() for name in header]
    found: dict[str, Column] = {}
    for place, name in enumerate(names):
        ours = PUBLIC_NAMES.get(name, name)
        if ours not in (*needed, *optional):
            continue
        if ours in found:
            raise DataError(f"{path}:1: {_both(found[ours].name, name)}",
                            hint="keep the one that is meant, and delete or rename the other")
        found[ours] = Column(name, place)
    missing = [name for name in needed if name not in found]
    if missing:
        raise DataError(
            f"{path}:1: no column {' or '.join(missing)}; found "
            f"{', '.join(names)[:300] or 'nothing'}",
            hint=f"the first line must name the columns; needed are {_needed(needed)}")
    return found


def _both(first: str, second: str) -> str:
    if first == second:
        return f"column {first} is there twice"
    return f"columns {first} and {second} are both there, and hold the same thing"


def _needed(needed: Sequence[str]) -> str:
    """Return the needed columns, with the public names where all have one."""
    public = {ours: theirs for theirs, ours in PUBLIC_NAMES.items()}
    said = " and ".join(needed)
    if all(name in public for name in needed):
        said += f", or {' and '.join(public[name] for name in needed)}"
    return said
