"""The one rule for files and folders that the user names for output.

- An output is never one of the files that the command reads.
- A file that is there already is replaced only if hoserkd made it, or the user says so (`--force`).

Both are checked before any work is done. hoserkd knows its own files by what they hold, so the
rule needs no record of earlier runs and holds for files that were moved or copied.
"""

import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from hoserkd.errors import BundleError, UsageError
from hoserkd.text import file_stem

HTML_MARK = '<meta name="generator" content="hoserkd">'
SVG_MARK = "<!-- hoserkd -->"
PNG_MARK = b"Software\0hoserkd"
_PNG_HEADER = 33
"""Bytes of a PNG's signature and header, after which a text may stand."""
TEXT_MARK = "Made by hoserkd "
"""Ends the first paragraph of reports in Markdown."""
_HEAD = 1 << 16
"""Bytes in which a mark must stand."""
_MOST_NAMED = 3
_TABLES = tuple(header.encode() for header in (
    "origin,destination,departure,rid_list,time_list,log_prob,reached,reason",
    "origin,destination,origin_away_m,destination_away_m",
    '"traj_id","source","datetime","lng","lat","road_id"',
    "run_id,seq,", "run_id,name,kind,", "run_id,file,lines,byte,", "split,row,cause,detail"))
"""First lines of the CSV files that hoserkd writes."""
_PUBLIC = (b"origin_road_id,destination_road_id,source_origin_time,gene_trace_road_id",
           "-public.csv")
"""First line in the public columns, which other programs write too, and the end of our names."""
_COLUMNS = (("rid_list", "time_list", "log_prob", "reached", "reason"),
            ("traj_id", "source", "datetime", "lng", "lat", "road_id"),
            ("traj_id", "source", "pair", "geometry"), ("run_id", "seq"),
            ("run_id", "kind", "config_json"), ("run_id", "file", "lines", "byte"))
"""Columns of the Parquet files that hoserkd writes; there may be more."""
_JSON = re.compile(
    rb'\{\s*"schema_version":\s*\d+,\s*"(kind|study|run_id)":|\{\s*"format":\s*\d+,\s*"name":')
"""How reports and prepared cities begin."""
_GEOJSON = re.compile(rb'\{\s*"type":\s*"FeatureCollection",\s*"generator":\s*"hoserkd')


def check_outputs(
    outputs: Iterable[Path], *, inputs: Iterable[Path | None] = (), force: bool = False
) -> None:
    """Check that a command may write these files.

    Args:
        outputs: Files that the command will write; they need not exist.
        inputs: Files and folders that it reads; None stands for an input that was not given.
        force: Replace files that hoserkd did not make; an input is never replaced.

    Raises:
        UsageError: One of them is an input, is named twice, cannot be a file, or would replace a
            file of the user's.
    """
    wanted = list(outputs)
    read = [path for path in inputs if path is not None]
    foreign = []
    for number, path in enumerate(wanted):
        _check_place(path)
        if any(_same(path, other) for other in read):
            raise UsageError(f"{path}: is an input of this command, which would be lost",
                             hint="name another output")
        if any(_same(path, other) for other in wanted[:number]):
            raise UsageError(f"{path}: two outputs would be this one file",
                             hint="give the inputs different names")
        if path.exists() and not (force or is_own(path)):
            foreign.append(str(path))
    if foreign:
        more = f" and {len(foreign) - _MOST_NAMED} more" if len(foreign) > _MOST_NAMED else ""
        raise UsageError(
            f"{', '.join(foreign[:_MOST_NAMED])}{more}: there already, and not made by hoserkd",
            hint="name another output, or replace it with --force")


def is_own(path: Path) -> bool:
    """Return whether hoserkd made this file; weights for other programs do not tell."""
    judge = _JUDGES.get(path.suffix)
    try:
        return judge is not None and judge(path)
    except OSError:
        return False


def file_stems(names: Sequence[str]) -> dict[str, str]:
    """Return how the files of each name begin: no two alike, whatever the file system.

    Args:
        names: What runs and files of trips are called; each once, such as `vanilla` or
            `a/trips.csv`.
    """
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        plain = name.removesuffix(Path(name).suffix) if "/" in name else name
        stem = file_stem(plain)
        number, found = 1, stem
        while found.casefold() in taken:
            number += 1
            found = f"{stem}-{number}"
        taken.add(found.casefold())
        stems[name] = found
    return stems


def marked_svg(svg: str) -> str:
    """Return a drawing with the mark by which `is_own` knows it."""
    return svg.replace("<svg", f"{SVG_MARK}\n<svg", 1)


def marked_png(png: bytes) -> bytes:
    """Return a picture with the mark by which `is_own` knows it, as a text of its own."""
    content = b"tEXt" + PNG_MARK
    chunk = struct.pack(">I", len(PNG_MARK)) + content + struct.pack(">I", zlib.crc32(content))
    return png[:_PNG_HEADER] + chunk + png[_PNG_HEADER:]


def _check_place(path: Path) -> None:
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no plain file"
        raise UsageError(f"{path}: cannot be written: it is {kind}", hint="name another output")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise UsageError(f"{path}: cannot be written: {above} is a file",
                         hint="name another output")


def _same(path: Path, other: Path) -> bool:
    try:
        return path.resolve() == other.resolve() or path.samefile(other)
    except OSError:  # one of them is not there, or a circle of links
        return False


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _is_table(path: Path) -> bool:
    from hoserkd.engine.trips.maker import read_note

    header, end = _PUBLIC
    head = _head(path)
    if head.startswith(_TABLES) or (head.startswith(header) and path.name.endswith(end)):
        return True
    note = read_note(path)
    return note is not None and note.is_beside(path)


def _is_parquet(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = set(pq.read_schema(path).names)
    except (pa.ArrowException, ValueError):
        return False
    return any(names.issuperset(columns) for columns in _COLUMNS)


def _is_bundle(path: Path) -> bool:
    from hoserkd.engine.bundle_archive import (
        BROKEN,
        DEFAULT_LIMITS,
        Guard,
        entries,
        is_archive,
    )

    if not is_archive(path):
        return False
    try:
        with path.open("rb") as file:
            guard = Guard(DEFAULT_LIMITS, path.stat().st_size)
            for entry in entries(file, guard):
                return entry.name == "manifest.json" and any(
                    b'"hoserkd bundle"' in chunk for chunk in entry.chunks)
    except (BundleError, *BROKEN):
        pass
    return False


def _is_program(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/hoserkd.json") for name in archive.namelist())


def _marked(mark: bytes) -> Callable[[Path], bool]:
    return lambda path: mark in _head(path)


def _matching(pattern: re.Pattern[bytes]) -> Callable[[Path], bool]:
    return lambda path: pattern.match(_head(path)) is not None


_JUDGES: Mapping[str, Callable[[Path], bool]] = {
    ".csv": _is_table, ".parquet": _is_parquet, ".geoparquet": _is_parquet,
    ".zip": _is_bundle, ".zst": _is_bundle, ".pt2": _is_program,
    ".html": _marked(HTML_MARK.encode()), ".svg": _marked(SVG_MARK.encode()),
    ".md": _marked(TEXT_MARK.encode()), ".png": _marked(PNG_MARK),
    ".json": _matching(_JSON), ".geojson": _matching(_GEOJSON),
}
