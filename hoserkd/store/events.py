"""The forms of what a run writes down: its events, its header, its labels.

Files of a run may be damaged, or written by anybody; what is not of these forms is set aside.
"""

import math
from collections.abc import Mapping
from typing import Any

from hoserkd.engine.bounded_json import JsonLimits, parse_json
from hoserkd.store.records import settings_of

EVENT = {
    "seq": "BIGINT", "t": "DOUBLE", "type": "VARCHAR", "step": "BIGINT", "epoch": "BIGINT",
    "total": "BIGINT", "m": "MAP(VARCHAR,DOUBLE)", "ms": "MAP(VARCHAR,DOUBLE)",
    "label": "VARCHAR", "payload": "JSON", "path": "VARCHAR", "kind": "VARCHAR", "size": "BIGINT",
    "level": "VARCHAR", "message": "VARCHAR", "job": "VARCHAR", "done": "BIGINT", "all": "BIGINT",
    "status": "VARCHAR", "pid": "BIGINT", "host": "VARCHAR", "number": "BIGINT",
    "state": "VARCHAR", "judged": "BIGINT", "sha256": "VARCHAR",
}
"""Fields of an event, as columns of DuckDB."""
HEADER = {
    "run_id": "VARCHAR", "name": "VARCHAR", "kind": "VARCHAR", "profile": "VARCHAR",
    "started_at": "DOUBLE", "tags": "VARCHAR[]", "notes": "VARCHAR", "parents": "VARCHAR[]",
    "study": "VARCHAR", "config_json": "VARCHAR", "config_sha256": "VARCHAR",
    "data_sha256": "VARCHAR", "git_revision": "VARCHAR", "versions": "MAP(VARCHAR,VARCHAR)",
    "device": "VARCHAR", "seed": "BIGINT", "argv": "VARCHAR[]", "host": "VARCHAR",
    "pid": "BIGINT", "made_from": "JSON",
}
"""Fields of a run's header, as columns of DuckDB."""
NEEDED = {"step": ("step",), "epoch": ("step", "epoch"), "rewind": ("step",),
          "trial": ("number",), "artifact": ("path",)}
"""Fields without which an event of a type says nothing."""
LAST_S = 250_000_000_000.0
"""In the year 9892: Python shows no time behind 9999, in whatever zone."""
LINE = JsonLimits(size=1 << 24)
_EMPTY: dict[str, Any] = {
    "VARCHAR": "", "VARCHAR[]": [], "MAP(VARCHAR,VARCHAR)": {}, "BIGINT": None, "DOUBLE": None,
    "JSON": None}


def parse_event(line: bytes) -> dict[str, Any]:
    """Return the event in a line of a spool.

    Raises:
        ValueError: it is none; says why.
    """
    event = parse_json(line, LINE)
    if not isinstance(event, dict):
        raise ValueError("it is no object")
    for key, value in event.items():
        if value is not None and key in EVENT and not _is_of(value, EVENT[key]):
            raise ValueError(f"its {key} is {_shown(value)}")
    if not isinstance(event.get("seq"), int) or event["seq"] < 1:
        raise ValueError("it has no number")
    if not isinstance(event.get("type"), str):
        raise ValueError("it has no type")
    if event.get("t") is None or not _is_time(event["t"]):
        raise ValueError("its time is none")
    for key in NEEDED.get(event["type"], ()):
        if event.get(key) is None:
            raise ValueError(f"it is a {event['type']} without {key}")
    if event["type"] == "evaluation" and not isinstance(event.get("payload"), dict):
        raise ValueError("it is an evaluation without figures")
    return event


def check_header(header: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    """Return the fields of a run's header, with empty ones for those that it lacks.

    Args:
        header: What `run.json` holds.
        run_id: Name of the folder that it lies in.

    Raises:
        ValueError: a field is wrong; says which.
    """
    if header.get("run_id") != run_id:
        raise ValueError(f"it is of the run {str(header.get('run_id'))[:40]!r}, its folder is "
                         "not")
    for key in ("name", "kind", "started_at", "config_json"):
        if not header.get(key):
            raise ValueError(f"it has no {key}")
    for key, kind in HEADER.items():
        value = header.get(key)
        if value is not None and not _is_of(value, kind):
            raise ValueError(f"its {key} is {_shown(value)}")
    if not _is_time(header["started_at"]):
        raise ValueError("its time of start is none")
    try:
        settings_of(header["config_json"])
    except ValueError as error:
        raise ValueError(f"its settings: {error}") from None
    return {**header, **{key: _EMPTY[kind] for key, kind in HEADER.items()
                         if header.get(key) is None}}


def check_labels(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return the name, tags and notes among `labels`.

    Raises:
        ValueError: one of them is of the wrong kind.
    """
    found = {key: labels[key] for key in ("name", "tags", "notes") if labels.get(key) is not None}
    for key, value in found.items():
        if not _is_of(value, HEADER[key]):
            raise ValueError(f"its {key} is {_shown(value)}")
    return found


def _is_of(value: Any, kind: str) -> bool:
    """Tell whether a value fits a column."""
    if kind == "VARCHAR":
        return isinstance(value, str)
    if kind == "BIGINT":
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if kind == "DOUBLE":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "VARCHAR[]":
        return isinstance(value, list) and all(_is_of(item, "VARCHAR") for item in value)
    if kind.startswith("MAP"):
        inner = kind[:-1].partition(",")[2]
        return isinstance(value, dict) and all(
            item is None or _is_of(item, inner) for item in value.values())
    return True


def _is_time(value: float) -> bool:
    return math.isfinite(value) and 0 <= value <= LAST_S


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

