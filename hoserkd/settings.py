"""The resolved settings: command line > HOSERKD_* > profile > default, each with its source."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, SettingsError

from hoserkd.engine.config import EngineConfig
from hoserkd.errors import ConfigError, UsageError
from hoserkd.profile_files import Profile as Profile
from hoserkd.profile_files import list_profiles as list_profiles
from hoserkd.profile_files import load_profile as load_profile
from hoserkd.profile_files import profile_folders as profile_folders
from hoserkd.setting_keys import flatten as flatten
from hoserkd.setting_keys import is_known, merge, near_text, refuse, unflatten
from hoserkd.setting_keys import known_keys as known_keys
from hoserkd.setting_keys import nearest as nearest
from hoserkd.yaml_reader import read_value

PREFIX = "HOSERKD_"
OTHER_VARIABLES = ("HOME", "STORE", "DATA_DIR", "PROFILE", "REAL_DATA")
"""HOSERKD_* names that are no settings of the engine: folders, the default profile, test data."""


class Environment(EngineConfig, BaseSettings):
    """The engine's settings as pydantic-settings finds them in HOSERKD_SECTION__KEY."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", env_parse_none_str="null", frozen=True,
        extra="forbid",
    )


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
            findings.append(f"environment {variable}: no setting is called {key}{near_text(key)}")
    refuse(findings)
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
                findings.append(f"--set {key}: no setting is called {name}{near_text(name)}")
            flat[name], sources[name] = item, f"--set {key}"
    refuse(findings)
    for key, (option, value) in flags.items():
        if key in flat and flat[key] != value:
            raise UsageError(f"{option} {value} and --set {key}={flat[key]} contradict each other")
        flat[key], sources[key] = value, option
    return unflatten(flat), sources


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


def _validate(values: Mapping[str, Any], sources: Mapping[str, str]) -> EngineConfig:
    try:
        return EngineConfig.model_validate(values)
    except ValidationError as error:
        findings = _findings(error, sources)
    raise ConfigError("\n".join(findings), hint="--show-config shows where each value comes from")


def _findings(error: ValidationError, sources: Mapping[str, str]) -> list[str]:
    """Return one line per value that is wrong.

    A setting that may be a word or a number fails once per form; its forms share a line.
    """
    told: dict[tuple[str, str], list[str]] = {}
    for item in error.errors():
        key = _key_of(item["loc"])
        found = "" if isinstance(item["input"], dict) else f", found {item['input']!r}"
        message = item["msg"].removeprefix("Value error, ")
        told.setdefault((key, found), []).append(message[:1].lower() + message[1:])
    lines = []
    for (key, found), messages in told.items():
        source = f"{sources[key]}: " if key in sources else ""
        alternatives = " or ".join(dict.fromkeys(messages)).replace(" or input should be ", " or ")
        lines.append(f"{source}{key}: {alternatives}{found}")
    return lines


def _key_of(location: Sequence[int | str]) -> str:
    """Return the dotted setting that pydantic's location lies in, without its list indices."""
    known = known_keys()
    parts = [str(part) for part in location]
    while len(parts) > 1 and ".".join(parts) not in known and not any(
        name.startswith(".".join(parts) + ".") for name in known
    ):
        parts.pop()
    return ".".join(parts) or "settings"


def stored_config(text: str, where: str) -> EngineConfig:
    """Return the settings that were stored as JSON with a run.

    Raises:
        ConfigError: another version of hoserkd wrote them and this one does not know them.
    """
    try:
        return EngineConfig.model_validate_json(text)
    except ValidationError as error:
        findings = "; ".join(_findings(error, {}))
        raise ConfigError(f"{where}: its stored settings are not this version's: {findings}",
                          hint="use the version of hoserkd that made it") from error
