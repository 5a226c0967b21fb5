"""The keys that can be set, and settings as nested and as dotted values."""

import difflib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel

from hoserkd.engine.config import EngineConfig
from hoserkd.errors import ConfigError


@cache
def known_keys() -> Mapping[str, str]:
    """Return every dotted key that can be set, with its description."""
    return dict(_walk(EngineConfig, ""))


def is_known(key: str) -> bool:
    """Return whether `key` can be set: a known one, or what lies within one that holds names."""
    parts = key.split(".")
    return any(".".join(parts[:count]) in known_keys() for count in range(1, len(parts) + 1))


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with the values of `above` laid over it, section by section."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted key; a setting that is itself a mapping stays whole."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and prefix + key not in known_keys():
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by dotted key as nested ones."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, last = key.split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return nested


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most like `word`, None if none is."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def _walk(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section is not None:
            yield from _walk(section, f"{prefix}{name}.")
        else:
            yield prefix + name, field.description or ""


def _section(annotation: Any) -> type[BaseModel] | None:
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (
        annotation,)
    for option in options:
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def near_text(key: str) -> str:
    """Return `; did you mean ...?` for a key that does not exist, or nothing."""
    known = known_keys()
    section, _, last = key.rpartition(".")
    inside = {name for name in known if name.startswith(section + ".")} if section else set()
    same = [name for name in known if name.rpartition(".")[2] == last]
    near = nearest(key, inside) or (" or ".join(same) if same else nearest(key, known))
    return f"; did you mean {near}?" if near else ""


def refuse(findings: Sequence[str]) -> None:
    """Raise a ConfigError with all findings, if there are any."""
    if findings:
        raise ConfigError("\n".join(findings), hint="`hoserkd profiles show NAME` lists every key")
