"""Profiles: YAML files of settings that may extend one another."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoserkd.errors import ConfigError
from hoserkd.setting_keys import flatten, is_known, merge, near_text, nearest, refuse
from hoserkd.yaml_reader import MAX_BYTES, read_document

SUFFIXES = (".yaml", ".yml")


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


def profile_folders(home: Path) -> tuple[Path, ...]:
    """Return where profiles are looked up by name: the user's own first, then the shipped ones.

    Without HOSERKD_HOME, which means that all is there, the user's settings folder counts too.
    """
    package = Path(__file__).resolve().parent
    shipped = package / "profiles"
    own = [home / "profiles"]
    if not os.environ.get("HOSERKD_HOME"):
        from platformdirs import user_config_dir

        own.append(Path(user_config_dir("hoserkd", appauthor=False)) / "profiles")
    return (*own, shipped if shipped.is_dir() else package.parent / "profiles")


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


def _load(path: Path, folders: Sequence[Path], below: tuple[Path, ...]) -> Profile:
    where = str(path)
    try:
        with path.open("rb") as file:
            # One more than is allowed, so that the reader of the text refuses what is longer.
            text = file.read(MAX_BYTES + 1).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"profile {where}: cannot be read: {error}") from error
    document = read_document(text, where)
    parent = document.values.pop("extends", None)
    description = str(document.values.pop("description", "") or "")
    findings = [
        f"{where}:{_line(document.line, key)}: no setting is called {key}{near_text(key)}"
        for key in flatten(document.values) if not is_known(key)
    ]
    refuse(findings)
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
