"""The resolved settings: command line > HOSERKD_* > profile > default, each with its source."""

import difflib
import hashlib
import json
import os
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, SettingsError

from hoserkd.engine.config import EngineConfig
from hoserkd.errors import ConfigError, UsageError
from hoserkd.yaml_reader import read_document, read_value

PREFIX = "HOSERKD_"
OTHER_VARIABLES = ("HOME", "STORE", "DATA_DIR", "PROFILE", "REAL_DATA")
"""HOSERKD_* names that are no settings of the engine: folders, the default profile, test data."""
SUFFIXES = (".yaml", ".yml")


class Environment(EngineConfig, BaseSettings):
    """The engine's settings as pydantic-settings finds them in HOSERKD_SECTION__KEY."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", env_parse_none_str="null", frozen=True,
        extra="forbid",
    )


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile with all that it extends, not yet checked against the engine's limits."""

    name: str
    path: Path
    description: str
    values: Mapping[str, Any]
    """Nested, as in the file."""
    sources: Mapping[str, str]
    """Dotted key -> `profile NAME (FILE:LINE)`."""
    extends: tuple[str, ...] = ()
    """Names of the profiles below it, nearest first."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One resolved value, for `--show-config`."""

    key: str
    value: Any
    source: str
    description: str

    @property
    def text(self) -> str:
        """The value as `--set` would take it."""
        return self.value if isinstance(self.value, str) else json.dumps(self.value)


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a command works with."""

    config: EngineConfig
    profile: str
    sources: Mapping[str, str]
    """Dotted key -> where its value comes from; a key not here has its default."""

    def settings(self) -> tuple[Setting, ...]:
        """Return every setting with its source, in the order of the sections."""
        values = flatten(self.config.model_dump(mode="json"))
        return tuple(
            Setting(key, values[key], self.source(key), description)
            for key, description in known_keys().items()
        )

    def source(self, key: str) -> str:
        """Return where the value of `key` comes from."""
        inside = (s for name, s in self.sources.items() if name.startswith(key + "."))
        return self.sources.get(key) or next(inside, "default")


def config_json(config: EngineConfig) -> str:
    """Return the settings as one canonical JSON text."""
    return json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def config_sha256(config: EngineConfig) -> str:
    """Return the hash of the canonical JSON of the settings, in hex."""
    return hashlib.sha256(config_json(config).encode()).hexdigest()


@cache
def known_keys() -> Mapping[str, str]:
    """Return every dotted key that can be set, with its description."""
    return dict(_walk(EngineConfig, ""))


def is_known(key: str) -> bool:
    """Return whether `key` can be set: a known one, or an entry of one that holds names."""
    return key in known_keys() or key.rpartition(".")[0] in known_keys()


def profile_folders(home: Path) -> tuple[Path, ...]:
    """Return where profiles are looked up by name: the user's own first, then the shipped ones."""
    package = Path(__file__).resolve().parent
    shipped = package / "profiles"
    return (home / "profiles", shipped if shipped.is_dir() else package.parent / "profiles")


def list_profiles(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the profiles found in `folders` by name; an earlier folder hides a later one's."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.y*ml")) if folder.is_dir() else ():
            if path.suffix in SUFFIXES:
                found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def load_profile(reference: str, folders: Sequence[Path]) -> Profile:
    """Return the profile `reference` (a name, or a path to a YAML file) and what it extends.

    Raises:
        ConfigError: no such profile, a circle of `extends`, bad YAML or keys that do not exist;
            all findings of a file at once.
    """
    return _load(find_profile(reference, folders), folders, ())


def find_profile(reference: str, folders: Sequence[Path]) -> Path:
    """Return the file of the profile `reference`."""
    if "/" in reference or reference.endswith(SUFFIXES):
        path = Path(reference).expanduser()
        if not path.is_file():
            raise ConfigError(f"profile {reference}: no such file")
        return path
    profiles = list_profiles(folders)
    if reference in profiles:
        return profiles[reference]
    near = nearest(reference, profiles)
    raise ConfigError(
        f"profile {reference!r} does not exist" + (f"; did you mean {near!r}?" if near else ""),
        hint="`hoserkd profiles list` shows all; a path to a YAML file works too",
    )


def resolve_settings(
    profile: Profile | None,
    *,
    flags: Mapping[str, tuple[str, Any]] | None = None,
    sets: Iterable[str] = (),
    base: tuple[str, Mapping[str, Any]] | None = None,
) -> Resolved:
    """Return the settings by command line > HOSERKD_* > profile > base > default.

    Args:
        profile: The profile chosen, None for the defaults alone.
        flags: Dotted key -> (the option's name, its value), for options that were given.
        sets: `key=value` texts of `--set`; values are YAML.
        base: (name, nested values) of stored settings below the profile: a run's own.

    Raises:
        ConfigError: keys that do not exist or values that do not fit, all at once.
        UsageError: a flag and a `--set` contradict each other.
    """
    layers: list[tuple[Mapping[str, Any], Mapping[str, str]]] = []
    if base is not None:
        layers.append((base[1], dict.fromkeys(flatten(base[1]), base[0])))
    if profile is not None:
        layers.append((profile.values, profile.sources))
    layers.append(environment_layer())
    layers.append(command_line_layer(flags or {}, sets))
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for layer, layer_sources in layers:
        values = merge(values, layer)
        sources |= layer_sources
    config = _validate(values, sources)
    return Resolved(config, profile.name if profile else "default", sources)


def environment_layer() -> tuple[dict[str, Any], dict[str, str]]:
    """Return what HOSERKD_* sets, nested, and the variable behind each key.

    Raises:
        ConfigError: a HOSERKD_ variable that is no setting, or one that cannot be read.
    """
    try:
        values = EnvSettingsSource(Environment)()
    except SettingsError as error:
        raise ConfigError(
            f"environment: {error}", hint="lists are JSON there, such as [1, 2]"
        ) from error
    findings = _unknown_variables()
    sources = {}
    for key in flatten(values):
        variable = PREFIX + key.upper().replace(".", "__")
        sources[key] = f"environment {variable}"
        if not is_known(key):
            findings.append(f"environment {variable}: no setting is called {key}{_near(key)}")
    _raise(findings)
    return values, sources


def command_line_layer(
    flags: Mapping[str, tuple[str, Any]], sets: Iterable[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what flags and `--set` give, nested, and the option behind each key."""
    flat: dict[str, Any] = {}
    sources: dict[str, str] = {}
    findings = []
    for text in sets:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals:
            raise UsageError(f"--set {text}: expected key=value, such as train.epochs=3")
        parsed = read_value(value, f"--set {key}")
        keys = flatten({key: parsed}) if isinstance(parsed, dict) else {key: parsed}
        for name, item in keys.items():
            if not is_known(name):
                findings.append(f"--set {key}: no setting is called {name}{_near(name)}")
            flat[name], sources[name] = item, f"--set {key}"
    _raise(findings)
    for key, (option, value) in flags.items():
        if key in flat and flat[key] != value:
            raise UsageError(f"{option} {value} and --set {key}={flat[key]} contradict each other")
        flat[key], sources[key] = value, option
    return unflatten(flat), sources


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


def _near(key: str) -> str:
    known = known_keys()
    section, _, last = key.rpartition(".")
    inside = {name for name in known if name.startswith(section + ".")} if section else set()
    same = [name for name in known if name.rpartition(".")[2] == last]
    near = nearest(key, inside) or (" or ".join(same) if same else nearest(key, known))
    return f"; did you mean {near}?" if near else ""


def _raise(findings: Sequence[str]) -> None:
    if findings:
        raise ConfigError("\n".join(findings), hint="`hoserkd profiles show NAME` lists every key")


def _unknown_variables() -> list[str]:
    first = set(EngineConfig.model_fields)
    allowed = {*OTHER_VARIABLES, *(name.upper() for name in first)}
    findings = []
    for variable in sorted(os.environ):
        name = variable.upper().removeprefix(PREFIX)
        if not variable.upper().startswith(PREFIX) or name.partition("__")[0] in allowed:
            continue
        near = nearest(name.lower().replace("__", "."), known_keys())
        hint = f"; did you mean {PREFIX}{near.upper().replace('.', '__')}?" if near else ""
        findings.append(f"environment {variable}: there is no such setting{hint}")
    return findings


def _load(path: Path, folders: Sequence[Path], below: tuple[Path, ...]) -> Profile:
    where = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"profile {where}: cannot be read: {error}") from error
    document = read_document(text, where)
    parent = document.values.pop("extends", None)
    description = str(document.values.pop("description", "") or "")
    findings = [
        f"{where}:{_line(document.line, key)}: no setting is called {key}{_near(key)}"
        for key in flatten(document.values) if not is_known(key)
    ]
    _raise(findings)
    sources = {key: f"profile {path.stem} ({path.name}:{_line(document.line, key)})"
               for key in flatten(document.values)}
    if parent is None:
        return Profile(path.stem, path, description, document.values, sources)
    return _extend(path, str(parent), folders, below, description, document.values, sources)


def _extend(
    path: Path, parent: str, folders: Sequence[Path], below: tuple[Path, ...], description: str,
    values: Mapping[str, Any], sources: Mapping[str, str],
) -> Profile:
    beside = path.parent / parent
    found = beside if parent.endswith(SUFFIXES) and beside.is_file() else (
        find_profile(parent, folders))
    chain = (*below, path.resolve())
    if found.resolve() in chain:
        circle = " -> ".join(p.stem for p in (*chain, found))
        raise ConfigError(f"{path}: profiles extend each other in a circle: {circle}")
    base = _load(found, folders, chain)
    return Profile(path.stem, path, description or base.description, merge(base.values, values),
                   {**base.sources, **sources}, (base.name, *base.extends))


def _line(lines: Mapping[str, int], key: str) -> int:
    while key not in lines and "." in key:
        key = key.rpartition(".")[0]
    return lines.get(key, 1)


def _validate(values: Mapping[str, Any], sources: Mapping[str, str]) -> EngineConfig:
    try:
        return EngineConfig.model_validate(values)
    except ValidationError as error:
        findings = list(dict.fromkeys(_finding(item, sources) for item in error.errors()))
    raise ConfigError("\n".join(findings), hint="--show-config shows where each value comes from")


def _finding(item: Any, sources: Mapping[str, str]) -> str:
    known = known_keys()
    parts = [str(part) for part in item["loc"]]
    while len(parts) > 1 and ".".join(parts) not in known and not any(
        name.startswith(".".join(parts) + ".") for name in known
    ):
        parts.pop()
    key = ".".join(parts) or "settings"
    source = sources.get(key)
    message = item["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    found = "" if isinstance(item["input"], dict) else f", found {item['input']!r}"
    return f"{source + ': ' if source else ''}{key}: {message}{found}"


def stored_config(text: str, where: str) -> EngineConfig:
    """Return the settings that were stored as JSON with a run.

    Raises:
        ConfigError: another version of hoserkd wrote them and this one does not know them.
    """
    try:
        return EngineConfig.model_validate_json(text)
    except ValidationError as error:
        findings = "; ".join(_finding(item, {}) for item in error.errors())
        raise ConfigError(f"{where}: its stored settings are not this version's: {findings}",
                          hint="use the version of hoserkd that made it") from error
