"""`hoserkd bundle`: pack a run for others, check a bundle, unpack one."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from hoserkd.commands.context import Context, open_console, open_context
from hoserkd.commands.options import Force, RunCity

if TYPE_CHECKING:
    from hoserkd.engine.bundle_archive import Content
    from hoserkd.store.records import EvaluationRecord, RunRecord


class BundleGroup(TyperGroup):
    """Takes `bundle RUN` for `bundle create RUN`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Put `create` before what is no subcommand."""
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["create", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=BundleGroup, no_args_is_help=True,
                  help="Pack a run with all that is needed to use or re-check it elsewhere: "
                       "`hoserkd bundle RUN`. Check and unpack such bundles.")


@app.command("create")
def create(
    run: str = typer.Argument(..., metavar="RUN", help="Id, name or `latest`."),
    output: Path = typer.Option(None, "--output", "-o", metavar="FILE",
                                help="A .tar.zst or .zip; default: the run's name here."),
    city: str | None = RunCity,
    with_city: bool = typer.Option(True, "--with-city/--without-city",
                                   help="Include the road tables, or name the city by hash only."),
    data_licence: str = typer.Option(
        None, metavar="TEXT", help="Terms of the data, for LICENCES.md and the model card."),
    with_real_trips: bool = typer.Option(
        False, "--with-real-trips",
        help="Keep the recorded trips in reports and exports, which else go without."),
    force: bool = Force,
) -> None:
    """Pack a run: model, settings, figures, road tables, generated trips, reports, model card.

    Example: hoserkd bundle distilled --output distilled.tar.zst
    """
    from hoserkd.engine.bundle import write_bundle
    from hoserkd.engine.outputs import check_outputs
    from hoserkd.text import file_stem, size_text

    context = open_context("bundle", run=run)
    record = context.store.run(run, kind="train")
    path = output or Path(f"{file_stem(record.name)}.tar.zst")
    check_outputs([path], force=force)
    packing = Packing(city, with_city, with_real_trips, data_licence)
    members, about = contents(context, record, packing)
    check_outputs([path], inputs=[m for m in members.values() if isinstance(m, Path)], force=True)
    manifest = write_bundle(path, members, about)
    payload = {"bundle": path, "run_id": record.run_id, "bytes": path.stat().st_size,
               "files": {name: fact.sha256 for name, fact in manifest.files.items()}}
    context.console.result(payload, lambda: (
        f"{path}: {len(manifest.files)} files, {size_text(path.stat().st_size)}"))


@app.command("verify")
def verify(file: Path = typer.Argument(..., metavar="FILE")) -> None:
    """Check every byte of a bundle and list all faults; exit code 1 if there are any.

    Example: hoserkd bundle verify distilled.tar.zst
    """
    from hoserkd.engine.bundle import verify_bundle

    console = open_console()
    verification = verify_bundle(file)
    count = len(verification.manifest.files) if verification.manifest else 0
    payload = {"bundle": file, "sound": verification.sound, "files": count,
               "faults": verification.faults}
    console.result(payload, lambda: (
        f"{file}: sound, {count} files" if verification.sound
        else console.table(f"{file}: faults found", ("fault",),
                           [(fault,) for fault in verification.faults])))
    if not verification.sound:
        raise typer.Exit(1)


@app.command("unpack")
def unpack(
    file: Path = typer.Argument(..., metavar="FILE"),
    directory: Path = typer.Argument(..., metavar="DIR", help="A folder that does not exist yet."),
) -> None:
    """Unpack a sound bundle into a new folder, whole or not at all.

    Example: hoserkd bundle unpack distilled.tar.zst distilled
    """
    from hoserkd.engine.bundle import unpack_bundle

    console = open_console()
    manifest = unpack_bundle(file, directory)
    console.result({"directory": directory, "files": sorted(manifest.files)},
                   lambda: f"{directory}: {len(manifest.files)} files")


@dataclass(frozen=True, slots=True)
class Packing:
    """What is wanted in a bundle."""

    city: str | None = None
    """Name or folder of the prepared city; None: the run's."""
    with_city: bool = True
    real_trips: bool = False
    """Whether reports and exports keep their recorded trips."""
    licence: str | None = None
    """Terms of the data, as the maker states them."""


def contents(context: Context, record: "RunRecord", packing: Packing,
             ) -> "tuple[dict[str, Content], dict[str, Any]]":
    """Return the members of a run's bundle and the facts for its manifest."""
    from hoserkd.engine.bundle_contents import (
        city_members,
        data_terms,
        json_bytes,
        run_members,
        without_places,
    )
    from hoserkd.engine.city.storage import read_manifest
    from hoserkd.store.recorder import read_header

    directory = Path(record.directory)
    city_dir = context.city_dir(packing.city)
    manifest = read_manifest(city_dir)
    _check_city(record, manifest)
    header = {**read_header(directory), "made_from": record.made_from.to_json(),
              "name": record.name, "tags": list(record.tags),
              "notes": record.notes, "status": record.status}
    settings = context.config_of(record).model_dump(mode="json")
    terms = data_terms(packing.licence, settings)
    members = run_members(directory, settings, header, terms, recorded=packing.real_trips)
    members |= _figures(context, record)
    members |= _results(context, record, real_trips=packing.real_trips)
    members["MODEL_CARD.md"] = _card(
        context, record, manifest, terms, real_trips=packing.real_trips).encode()
    members["environment.json"] = json_bytes({
        "versions": dict(record.versions), "git_revision": record.git_revision,
        "platform": header.get("platform"), "device": record.device})
    members = without_places(members, {"store": context.paths.store, "~": Path.home(),
                                       "data": context.paths.data_dir, "home": context.paths.home})
    if packing.with_city:
        members |= city_members(city_dir, manifest)
    about = {"run_id": record.run_id, "name": record.name, "profile": record.profile,
             "city": {"name": manifest["name"], "sha256": manifest["sha256"],
                      "included": packing.with_city},
             "recorded_trips": packing.real_trips,
             "data_licence": packing.licence}
    return members, about


def _results(context: Context, record: "RunRecord", *, real_trips: bool) -> "dict[str, Content]":
    """Return what was generated and evaluated with a run, the newest of each name.

    Without `real_trips` no file comes in that could hold a recorded trip.
    """
    from hoserkd.engine.bundle_contents import FOLDERS, folder_members

    found: dict[str, Content] = {}
    for run in (record, *_current_children(context, record)):
        for folder in FOLDERS:
            inside = folder_members(Path(run.directory) / folder, folder)
            found = inside | _elsewhere(context, run, folder) | found
    found = _of_these_weights(context, record, found)
    if real_trips:
        return found
    kept: dict[str, Content] = {}
    left_out = []
    for name, path in found.items():
        content = _shared(name, Path(str(path)))
        if content is None:
            left_out.append(name)
        else:
            kept[name] = content
    if left_out:
        context.console.warn(
            f"left out, as they could hold recorded trips: {', '.join(sorted(left_out))} "
            "(evaluate again to have them without, or pack them by --with-real-trips)")
    return kept


def _of_these_weights(
    context: Context, record: "RunRecord", members: "Mapping[str, Content]"
) -> "dict[str, Content]":
    """Return the members without trips that say that other weights made them."""
    from hoserkd.engine.bundle_contents import BEST
    from hoserkd.engine.student.storage import stored_student_sha256
    from hoserkd.engine.trips.maker import note_path, read_note

    student = stored_student_sha256(Path(record.directory) / BEST)
    earlier: set[str] = set()
    for name, path in members.items():
        note = read_note(path) if isinstance(path, Path) else None
        if note is not None and note.maker.student.sha256 != student:
            earlier |= {name, str(note_path(Path(name)))}
    if earlier:
        context.console.warn(f"left out, as other weights made them: {', '.join(sorted(earlier))}")
    return {name: path for name, path in members.items() if name not in earlier}


def _check_city(record: "RunRecord", manifest: Mapping[str, Any]) -> None:
    """Refuse to pack the roads of another city than the run's under the run's name."""
    from hoserkd.engine.identity import Identity
    from hoserkd.errors import BundleError
    from hoserkd.store.artefacts import recorded_city

    found = Identity("city", str(manifest["name"]), str(manifest["sha256"]))
    wanted = recorded_city(record)
    if wanted not in (None, found):
        raise BundleError(f"run {record.name} was made with {wanted}, not with {found}",
                          hint="leave --city out, or name the city of that hash")


def _shared(name: str, path: Path) -> "Content | None":
    """Return a member without recorded trips; None where it is not known to be without them."""
    from hoserkd.commands.exports import ENDS
    from hoserkd.report.recorded import unmade_exports, without_recorded_trips

    ends = [end for export in ENDS.values() for end in export.values()]
    if name.startswith("evaluation/") and name.endswith(tuple(ends)):
        try:
            unmade = unmade_exports(path.with_name("evaluation.json"), ends)
        except ValueError:
            return None
        if path.name in unmade:
            return None
    return without_recorded_trips(path)


def _elsewhere(context: Context, run: "RunRecord", folder: str) -> "dict[str, Content]":
    """Return what a run wrote to a place of the user's choice, and is still there."""
    from hoserkd.commands.exports import ENDS

    exports = (kind for ends in ENDS.values() for kind in ends)
    kinds = {"generated": ("generated",),
             "evaluation": ("evaluation", "report", "report-markdown", *exports)}[folder]
    paths = [Path(artifact.path) for artifact in context.store.artifacts(run.run_id)
             if artifact.kind in kinds and Path(artifact.path).is_absolute()
             and _size(Path(artifact.path)) == artifact.size]
    if folder == "evaluation" and paths:
        # All lie in one folder; those of the train split in a folder within it.
        shared = Path(os.path.commonpath([path.parent for path in paths]))
        return {f"{folder}/{path.relative_to(shared).as_posix()}": path for path in paths}
    return {f"{folder}/{path.name}": path for path in paths}


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _children(context: Context, record: "RunRecord") -> "list[RunRecord]":
    """Return the runs that used or judged this one's model, the newest first.

    Students that it taught build on it too, but their trips and figures are not its own.
    """
    return [run for run in context.store.runs()
            if record.run_id in run.parents and run.kind in ("generate", "evaluate")]


def _figures(context: Context, record: "RunRecord") -> "dict[str, Content]":
    from hoserkd.engine.bundle_contents import csv_bytes, json_bytes
    from hoserkd.text import plain

    store = context.store
    steps = [(int(step), name, float(value))
             for name, series in store.metrics(record.run_id).items()
             for step, value in zip(series.step, series.value, strict=True)]
    epochs = [(epoch.epoch, epoch.step, name, value) for epoch in store.epochs(record.run_id)
              for name, value in epoch.metrics.items()]
    judged = [{"label": label, **payload} for label, payload in _evaluations(context, record)]
    return {"metrics/steps.csv": csv_bytes(("step", "name", "value"), sorted(steps)),
            "metrics/epochs.csv": csv_bytes(("epoch", "step", "name", "value"), epochs),
            "metrics/evaluations.json": json_bytes(plain(judged))}


def _evaluations(context: Context,
                 record: "RunRecord") -> list[tuple[str, Mapping[str, Any]]]:
    """Return what was judged of a run, not what was judged beside it."""
    runs = [record, *_current_children(context, record)]
    return [(found.label, found.payload) for run in runs
            for found in _judgements(context, run, record)]


def _judgements(
    context: Context, run: "RunRecord", record: "RunRecord"
) -> "list[EvaluationRecord]":
    """Return what `run` judged of `record`."""
    return [found for found in context.store.evaluations(run.run_id)
            if found.payload.get("run_id", record.run_id) == record.run_id]


def _current_children(context: Context, record: "RunRecord") -> "list[RunRecord]":
    """Return the children that worked with the weights that the run has now, or do not say."""
    from hoserkd.commands.run_views import MODEL_HASH
    from hoserkd.engine.bundle_contents import BEST
    from hoserkd.engine.files import file_sha256

    model = Path(record.directory) / BEST
    current = file_sha256(model) if model.is_file() else None
    kept = []
    for run in _children(context, record):
        models = {found.payload.get(MODEL_HASH) for found in _judgements(context, run, record)}
        if models <= {None, current}:
            kept.append(run)
    return kept


def _card(context: Context, record: "RunRecord", manifest: Mapping[str, Any],
          terms: str, *, real_trips: bool) -> str:
    from hoserkd.engine.bundle_contents import BEST
    from hoserkd.engine.model_card import CardFacts, count_parameters, model_card
    from hoserkd.text import duration_text

    judged = _evaluations(context, record)
    return model_card(CardFacts(
        name=record.name, run_id=record.run_id, profile=record.profile,
        config=context.config_of(record),
        parameters=count_parameters(Path(record.directory) / BEST),
        started=record.started_at.strftime("%Y-%m-%d %H:%M UTC"),
        duration=duration_text(record.duration_s), device=record.device,
        versions=record.versions, git_revision=record.git_revision, city=manifest, terms=terms,
        made_from=record.made_from, recorded_trips=real_trips,
        test=next((payload for label, payload in judged if label == "test"), {}),
        evaluations=[(label, payload) for label, payload in judged if label != "test"]))
