"""What the shell offers at Tab: names of profiles, runs, teachers, cities, metrics."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from hoserkd.commands.places import Paths, find_paths
from hoserkd.engine.bounded_json import read_json_object


def complete_profile(incomplete: str) -> list[str]:
    """Return the profiles that begin so."""
    from hoserkd.settings import list_profiles, profile_folders

    folders = profile_folders(_paths().home)
    return _starting(list_profiles(folders), incomplete)


def complete_run(incomplete: str) -> list[str]:
    """Return the names and ids of runs that begin so, and `latest`."""
    found = ["latest"]
    for header in _headers():
        found += [str(header.get("name", "")), str(header.get("run_id", ""))]
    return _starting(found, incomplete)


def complete_teacher(incomplete: str) -> list[str]:
    """Return the teachers that begin so."""
    return _placed("teachers", "teacher.json", incomplete)


def complete_city(incomplete: str) -> list[str]:
    """Return the prepared cities that begin so."""
    return _placed("cities", "manifest.json", incomplete)


def complete_setting(incomplete: str) -> list[str]:
    """Return the settings that begin so, with the `=` that `--set` wants."""
    from hoserkd.settings import known_keys

    return [f"{key}=" for key in _starting(known_keys(), incomplete)]


def complete_tag(incomplete: str) -> list[str]:
    """Return the tags of runs that begin so."""
    found: list[str] = []
    for header in _headers():
        tags = header.get("tags")
        found += [str(tag) for tag in tags] if isinstance(tags, list) else []
    return _starting(sorted(found), incomplete)


def complete_kind(incomplete: str) -> list[str]:
    """Return the kinds of runs that begin so."""
    return _starting(sorted(str(header.get("kind", "")) for header in _headers()), incomplete)


def one_of(*words: str) -> Callable[[str], list[str]]:
    """Return what completes to one of some words."""
    return lambda incomplete: _starting(words, incomplete)


def complete_metric(incomplete: str) -> list[str]:
    """Return the metric names that begin so."""
    from hoserkd.store.runs import RunStore

    store = RunStore(_paths().store)
    return _starting(store.metric_names() if store.database.exists() else (), incomplete)


def _paths() -> Paths:
    """Return the places that the line names so far, else the environment."""
    from hoserkd.commands.context import session

    return find_paths(session().options)


def _headers() -> Iterable[dict[str, object]]:
    runs = _paths().store / "runs"
    newest = sorted((entry.name for entry in os.scandir(runs)), reverse=True)[:200] if (
        runs.is_dir()) else []
    for name in newest:
        merged: dict[str, object] = {}
        for file in ("run.json", "labels.json"):
            try:
                merged |= read_json_object(runs / name / file)
            except (OSError, ValueError):
                continue
        yield merged


def _placed(folder: str, mark: str, incomplete: str) -> list[str]:
    """Return what `NAME|DIR` may become: names in the data folder, folders that hold one."""
    named = sorted(path.parent.name for path in (_paths().data_dir / folder).glob(f"*/{mark}"))
    start, slash, _ = incomplete.rpartition("/")
    under = Path(start + slash).expanduser()
    found = sorted(path.name for path in under.glob("*") if path.is_dir())
    there = [start + slash + name + ("" if (under / name / mark).is_file() else "/")
             for name in found if not name.startswith(".")]
    # Without a slash only what holds one: any folder might be on the way to one.
    return _starting([*named, *(word for word in there if slash or not word.endswith("/"))],
                     incomplete)


def _starting(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in dict.fromkeys(words) if word and word.startswith(incomplete)]
