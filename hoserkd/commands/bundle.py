"""`hoserkd bundle`: pack a run for others, check a bundle, unpack one."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from hoserkd.commands.context import Context, open_console, open_context
from hoserkd.commands.options import Force, RunCity

if TYPE_CHECKING:
    from hoserkd.engine.bundle_archive import Content
    from hoserkd.store.records import RunRecord


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
    members, about = contents(context, record, city, with_city=with_city, licence=data_licence)
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


def contents(context: Context, record: "RunRecord", city: str | None, *,
             with_city: bool = True, licence: str | None = None,
             ) -> "tuple[dict[str, Content], dict[str, Any]]":
    """Return the members of a run's bundle and the facts for its manifest."""
    from hoserkd.engine.bundle_contents import (
        FOLDERS,
        city_members,
        data_terms,
        folder_members,
        json_bytes,
        run_members,
        without_places,
    )
    from hoserkd.engine.city.storage import read_manifest
    from hoserkd.store.recorder import read_header

    directory = Path(record.directory)
    config = context.config_of(record)
    city_dir = context.city_dir(city)
    manifest = read_manifest(city_dir)
    _check_city(record, manifest)
    header = {**read_header(directory), "name": record.name, "tags": list(record.tags),
              "notes": record.notes, "status": record.status}
    settings = config.model_dump(mode="json")
    terms = data_terms(licence, settings)
    members = run_members(directory, settings, header, terms)
    members |= _figures(context, record)
    for child in _children(context, record):
        for folder in FOLDERS:
            inside = folder_members(Path(child.directory) / folder, folder)
            members = inside | _elsewhere(context, child, folder) | members
    members = without_places(members, {"store": context.paths.store, "~": Path.home(),
                                       "data": context.paths.data_dir, "home": context.paths.home})
    if with_city:
        members |= city_members(city_dir, manifest)
    members["MODEL_CARD.md"] = _card(context, record, manifest, terms).encode()
    members["environment.json"] = json_bytes({
        "versions": dict(record.versions), "git_revision": record.git_revision,
        "platform": header.get("platform"), "device": record.device})
    about = {"run_id": record.run_id, "name": record.name, "profile": record.profile,
             "city": {"name": manifest["name"], "sha256": manifest["sha256"],
                      "included": with_city},
             "data_licence": licence}
    return members, about


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


def _elsewhere(context: Context, run: "RunRecord", folder: str) -> "dict[str, Content]":
    """Return what a run wrote to a place of the user's choice."""
    first_words = {"generated": ("generated",), "evaluation": ("evaluation", "report", "geojson")}
    paths = [Path(artifact.path) for artifact in context.store.artifacts(run.run_id)
             if artifact.kind.startswith(first_words[folder])]
    return {f"{folder}/{path.name}": path for path in paths
            if path.is_absolute() and path.is_file()}


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
    runs = [record, *_children(context, record)]
    return [(found.label, found.payload) for run in runs
            for found in context.store.evaluations(run.run_id)
            if found.payload.get("run_id", record.run_id) == record.run_id]


def _card(context: Context, record: "RunRecord", manifest: Mapping[str, Any],
          terms: str) -> str:
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
        test=next((payload for label, payload in judged if label == "test"), {}),
        evaluations=[(label, payload) for label, payload in judged if label != "test"]))
