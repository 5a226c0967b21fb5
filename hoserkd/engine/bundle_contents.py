"""What goes into the bundle of a run: model, settings, figures, city tables, trips, reports."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from hoserkd.engine.bounded_json import finite
from hoserkd.engine.bundle import CITY, MODEL, SETTINGS
from hoserkd.engine.bundle_archive import Content
from hoserkd.engine.files import parse_json
from hoserkd.errors import BundleError
from hoserkd.placeless import placeless_values
from hoserkd.text import markdown_text, no_formula

BEST = "best.safetensors"
FOLDERS = ("generated", "evaluation")
RUN_KEYS = ("run_id", "name", "kind", "profile", "status", "started_at", "ended_at", "seed",
            "device", "tags", "notes", "parents", "study", "git_revision", "versions",
            "config_sha256", "data_sha256", "made_from")
"""Of `run.json`; who ran it where (host, process, command line) stays at home."""

LICENCE_NOTE = """\
# Licences

**The data**: {terms}

The software that made this bundle, hoserkd, is under the MIT licence. The *contents* are not the
software's: the road tables and trips derive from the data of whoever made the bundle, and their
terms go with them. Roads from OpenStreetMap are under the ODbL (© OpenStreetMap contributors):
a derived road table may be passed on under the same licence, with that credit.

**Recorded trips** are often personal data. {recorded} Generated trips answer requests that were
drawn from recorded ones: each begins and ends on the roads, and leaves at the time, of a recorded
trip. The model's weights are learnt from recorded trips. Ask the maker before publishing any of
these.
"""
NO_RECORDED = "This bundle holds none of them."
SOME_RECORDED = "THIS BUNDLE HOLDS SOME OF THEM, in its reports and exports."
NO_TERMS = "their terms were not stated; ask the maker of this bundle."
MADE_UP = "the city and its trips are made up by hoserkd; nobody's terms apply."
TEXTS = (".json", ".md", ".html", ".csv", ".geojson")


def data_terms(said: str | None, settings: Mapping[str, Any]) -> str:
    """Return the terms of the data as the maker states them, or what is known without."""
    if said is not None:
        return said
    return MADE_UP if settings.get("city", {}).get("synthetic") else NO_TERMS


def run_members(directory: Path, settings: Mapping[str, Any], header: Mapping[str, Any],
                terms: str, *, recorded: bool = False) -> dict[str, Content]:
    """Return the members from a run's own folder but for trips and reports.

    Args:
        directory: the run's folder.
        settings: its resolved settings; the path of the source folder is left out.
        header: what `run.json` says.
        terms: those of the data, in words.
        recorded: whether the bundle holds recorded trips.

    Raises:
        BundleError: the run has no model.
    """
    model = directory / BEST
    if not model.is_file():
        raise BundleError(f"{directory}: the run has no {BEST}",
                          hint="bundle a training run that has reached its first validation")
    city = {**settings.get("city", {}), "source": None}
    kept = {key: header[key] for key in RUN_KEYS if key in header}
    note = LICENCE_NOTE.format(terms=markdown_text(terms),
                               recorded=SOME_RECORDED if recorded else NO_RECORDED)
    return {
        MODEL: model,
        SETTINGS: json_bytes(placeless_values({**settings, "city": city})),
        "run.json": json_bytes(placeless_values(kept)),
        "LICENCES.md": note.encode(),
    }


def folder_members(directory: Path, prefix: str) -> dict[str, Content]:
    """Return every plain, visible file under `directory`, named under `prefix`."""
    if not directory.is_dir():
        return {}
    files = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    named = {path.relative_to(directory): path for path in files}
    return {f"{prefix}/{name.as_posix()}": path for name, path in named.items()
            if not any(part.startswith(".") for part in name.parts)}


def without_places(members: Mapping[str, Content],
                   places: Mapping[str, Path]) -> dict[str, Content]:
    """Return the members without folders of this machine in their texts.

    Reports and JSON of this version hold none; those of earlier ones do.

    Args:
        places: What to write instead -> the folder; the deepest folder goes first.
    """
    known = sorted(((str(folder).encode(), name.encode()) for name, folder in places.items()
                    if len(folder.parts) > 1), key=lambda pair: -len(pair[0]))
    return {name: _without(content, known, name) if PurePosixPath(name).suffix in TEXTS else content
            for name, content in members.items()}


def _without(content: Content, known: Sequence[tuple[bytes, bytes]], name: str) -> Content:
    before = content if isinstance(content, bytes) else content.read_bytes()
    after = before
    for folder, word in known:
        after = after.replace(folder, word)
    if name.endswith(".json"):
        said = parse_json(after)
        if (placeless := placeless_values(said)) != said:
            after = json_bytes(placeless)
    return content if after == before else after


def city_members(directory: Path, manifest: Mapping[str, Any]) -> dict[str, Content]:
    """Return the road network's tables of a prepared city, without its trips."""
    content = str(manifest["content"])
    arrays = [name for name in manifest["arrays"] if name.startswith("network/")]
    members: dict[str, Content] = {
        f"{CITY}/{content}/{name}.npy": directory / content / f"{name}.npy" for name in arrays}
    missing = [str(path) for path in members.values() if not Path(str(path)).is_file()]
    if missing:
        raise BundleError(f"{directory}: lacks {', '.join(missing)}",
                          hint="run `hoserkd prepare` again")
    return {f"{CITY}/manifest.json": directory / "manifest.json", **members}


def json_bytes(value: Any) -> bytes:
    """Return `value` as indented JSON with sorted keys."""
    return (json.dumps(finite(value), indent=2, sort_keys=True, ensure_ascii=False, default=str)
            + "\n").encode()


def csv_bytes(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return rows as CSV with a header line; no text of theirs begins a formula."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([no_formula(cell) if isinstance(cell, str) else cell for cell in row]
                     for row in rows)
    return text.getvalue().encode()
