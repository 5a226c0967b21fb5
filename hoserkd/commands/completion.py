"""What the shell offers at Tab: names of profiles, runs, teachers, cities, metrics."""

import json
import os
from collections.abc import Iterable

from hoserkd.commands.places import GlobalOptions, find_paths


def complete_profile(incomplete: str) -> list[str]:
    """Return the profiles that begin so."""
    from hoserkd.settings import list_profiles, profile_folders

    folders = profile_folders(find_paths(GlobalOptions()).home)
    return _starting(list_profiles(folders), incomplete)


def complete_run(incomplete: str) -> list[str]:
    """Return the names and ids of runs that begin so, and `latest`."""
    found = ["latest"]
    for header in _headers():
        found += [str(header.get("name", "")), str(header.get("run_id", ""))]
    return _starting(found, incomplete)


def complete_teacher(incomplete: str) -> list[str]:
    """Return the teachers that begin so."""
    return _starting(_folders("teachers"), incomplete)


def complete_city(incomplete: str) -> list[str]:
    """Return the prepared cities that begin so."""
    return _starting(_folders("cities"), incomplete)


def complete_setting(incomplete: str) -> list[str]:
    """Return the settings that begin so, with the `=` that `--set` wants."""
    from hoserkd.settings import known_keys

    return [f"{key}=" for key in _starting(known_keys(), incomplete)]


def complete_metric(incomplete: str) -> list[str]:
    """Return the metric names that begin so."""
    from hoserkd.store.runs import RunStore

    store = RunStore(find_paths(GlobalOptions()).store)
    return _starting(store.metric_names() if store.database.exists() else (), incomplete)


def _headers() -> Iterable[dict[str, object]]:
    runs = find_paths(GlobalOptions()).store / "runs"
    newest = sorted((entry.name for entry in os.scandir(runs)), reverse=True)[:200] if (
        runs.is_dir()) else []
    for name in newest:
        merged: dict[str, object] = {}
        for file in ("run.json", "labels.json"):
            try:
                merged |= json.loads((runs / name / file).read_bytes())
            except (OSError, ValueError):
                continue
        yield merged


def _folders(kind: str) -> list[str]:
    folder = find_paths(GlobalOptions()).data_dir / kind
    return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def _starting(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in dict.fromkeys(words) if word and word.startswith(incomplete)]
