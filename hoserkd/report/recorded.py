"""Recorded trips in reports and exports: counted, and taken out of what leaves the machine."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from hoserkd.engine.files import parse_json
from hoserkd.engine.metrics.evaluation import Evaluation
from hoserkd.engine.outputs import file_stems, is_own
from hoserkd.engine.types import TrajectorySet

REAL = "real-"
"""How the `traj_id` of a recorded trip begins in every export."""
FEWEST = 5
"""Visits of fewer recorded trips than this are told of no road: they would tell single trips."""
_COUNT = re.compile(rb'<meta name="recorded-trips" content="\d+">')
_TRIPS = re.compile(rb'(<script id="recorded" type="application/json">).*?(</script>)', re.DOTALL)
_DATA = re.compile(rb'(<script id="data" type="application/json">)(.*?)(</script>)', re.DOTALL)
_NOTE = re.compile(rb'<p class="recorded">.*?</p>', re.DOTALL)
WITHOUT = "This page holds no recorded trip."

Content = Path | bytes


def without_partners(found: Evaluation) -> Evaluation:
    """Return an evaluation whose exports name no recorded trip: no trip has a real partner."""
    return replace(found, rating=replace(found.rating, pairs=np.empty((0, 2), np.int64)))


def few_visited(trips: TrajectorySet, roads: int) -> Int64[np.ndarray, " n"]:
    """Return the roads that some recorded trips visit, but fewer than `FEWEST`."""
    trip = np.repeat(np.arange(len(trips)), np.diff(trips.offset))
    visits = np.unique(trip * roads + np.asarray(trips.road, np.int64)) % roads
    count = np.bincount(visits, minlength=roads)
    return np.flatnonzero((count > 0) & (count < FEWEST))


def only_made(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a page's map shows without trips that no model is known to have made."""
    return {**data, "trips": [
        {**trip, "runs": [line if made else None
                          for line, made in zip(trip["runs"], data["made"], strict=True)]}
        for trip in data["trips"]]}


def script_json(value: Any) -> str:
    """Return JSON that cannot end the script element that holds it."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def unmade_exports(evaluation: Path, ends: Iterable[str]) -> frozenset[str]:
    """Return the names of exports whose trips no model is known to have made.

    Args:
        evaluation: The `evaluation.json` beside them.
        ends: How the names of exports end.

    Raises:
        ValueError: It is none, so that nothing is known of what lies beside it.
    """
    try:
        judged = parse_json(evaluation.read_bytes())["evaluations"]
        names = {str(each["name"]): "trips made by" in each["facts"] or bool(each["run_id"])
                 for each in judged}
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{evaluation}: {error}") from error
    stems = file_stems(list(names))
    return frozenset(f"{stems[name]}{end}" for name, made in names.items() if not made
                     for end in ends)


def without_recorded_trips(path: Path) -> Content | None:
    """Return what a file made by `generate` or `evaluate` holds but for recorded trips.

    Returns:
        The path where the file holds none, bytes where some were taken out, None where the file is
        of a kind that is not known, and so may hold any.
    """
    judge = _JUDGES.get(path.suffix)
    try:
        return None if judge is None else judge(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _page(path: Path) -> Content | None:
    page = before = path.read_bytes()
    if _COUNT.search(page) is None:
        return None
    page = _COUNT.sub(b'<meta name="recorded-trips" content="0">', page, count=1)
    shown = _DATA.search(page)
    if shown is None:
        return None
    data = script_json(only_made(parse_json(shown[2]))).encode()
    page = page[:shown.start(2)] + data + page[shown.end(2):]
    page = _NOTE.sub(b'<p class="recorded">' + WITHOUT.encode() + b"</p>", page, count=1)
    page = _TRIPS.sub(rb"\1[]\2", page, count=1)
    return path if page == before else page


def _own(path: Path) -> Content | None:
    return path if is_own(path) else None


def _features(path: Path) -> Content | None:
    document = parse_json(path.read_bytes())
    features = document["features"]
    ours = document.get("generator") == "hoserkd"
    kept = []
    for feature in features:
        properties = feature["properties"]
        if not ours and not {"traj_id", "source"} <= properties.keys():
            return None
        if "traj_id" in properties and _is_real(properties):
            continue
        kept.append({**feature, "properties": {**properties, **_told(properties)}})
    if kept == features:
        return path
    return json.dumps({**document, "features": kept}, separators=(",", ":")).encode()


def _told(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is not told of a trip without its partner, or of a road."""
    if properties.get("pair") is not None:
        return {"pair": None}
    visits = properties.get("visits_real")
    few = visits is not None and 0 < visits < FEWEST
    return {"visits_real": None, "share_difference": None} if few else {}


def _is_real(row: Mapping[str, Any]) -> bool:
    # Files of earlier versions numbered real trips as they did generated ones.
    return str(row["traj_id"]).startswith(REAL) or row.get("source") == "real"


def _table(path: Path) -> Content | None:
    if not is_own(path):
        return None
    with path.open(newline="", encoding="utf-8") as file:
        records = _records(file)
        header, text = next(records)
        if "traj_id" not in header:
            return path
        kept = [text]
        kept += [text for row, text in records if not _is_real(dict(zip(header, row, strict=True)))]
    return "".join(kept).encode()


def _records(lines: Iterable[str]) -> Iterator[tuple[list[str], str]]:
    """Yield each row of a CSV file with its own text."""
    taken: list[str] = []

    def taking() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    for row in csv.reader(taking()):
        yield row, "".join(taken)
        taken.clear()


def _parquet(path: Path) -> Content | None:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not is_own(path):
        return None
    names = pq.read_schema(path).names
    if "traj_id" not in names:
        return path
    table = pq.read_table(path)
    real = pc.or_(pc.starts_with(table["traj_id"].cast(pa.string()), REAL),
                  pc.equal(table["source"], "real"))
    table = table.filter(pc.invert(real))
    if "pair" in names:
        table = table.set_column(names.index("pair"), "pair", pa.nulls(len(table), pa.int64()))
    metadata = dict(table.schema.metadata or {})
    if b"geo" in metadata:
        geo = parse_json(metadata[b"geo"])
        for column in geo["columns"].values():
            column.pop("bbox", None)  # of all trips, the recorded ones too
        metadata[b"geo"] = json.dumps(geo).encode()
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd")
    return buffer.getvalue()


_JUDGES: Mapping[str, Callable[[Path], Content | None]] = {
    ".html": _page, ".md": _own, ".json": _own, ".geojson": _features, ".csv": _table,
    ".parquet": _parquet, ".geoparquet": _parquet,
}
