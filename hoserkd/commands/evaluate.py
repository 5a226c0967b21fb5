"""`hoserkd evaluate`: how near generated trips come to the real ones."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hoserkd.commands.completion import complete_run, complete_teacher
from hoserkd.commands.context import (
    Context,
    StoredSettings,
    open_context,
    open_store,
    session,
)
from hoserkd.commands.exports import EXPORTS, check_exports, export_trips
from hoserkd.commands.judged import (
    SUFFIXES,
    Bench,
    Target,
    find_targets,
    judged_run,
    seed_groups,
    trip_judge,
)
from hoserkd.commands.model_files import open_model_file
from hoserkd.commands.options import City, Device, Profile
from hoserkd.commands.places import find_paths
from hoserkd.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hoserkd.engine.evaluate import TripJudge
    from hoserkd.report.records import Report
    from hoserkd.store.recorder import RunRecorder

MOST_COMPARED = 4
"""With more runs only the first is compared with each other one."""


def evaluate(
    trips: Annotated[list[str] | None, typer.Argument(
        metavar="RUN|FILE...", autocompletion=complete_run,
        help="Runs (name, id or `latest`) and files of generated trips.")] = None,
    model: Annotated[list[Path] | None, typer.Option(
        metavar="FILE", help="Judge this student too: a model file, a public best.pth, or a "
        "bundle; may come several times.")] = None,
    profile: str | None = Profile,
    city: str | None = City,
    od: Annotated[str, typer.Option(
        metavar="train|test", help="The split that the OD pairs are from.")] = "test",
    export: Annotated[list[str] | None, typer.Option(
        metavar="|".join(EXPORTS),
        help="Write the trips for other programs too; may come several times.")] = None,
    teacher: Annotated[str | None, typer.Option(
        metavar="NAME|DIR", autocompletion=complete_teacher,
        help="Ask this teacher how usual the trips are (perplexity).")] = None,
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", metavar="DIR",
        help="Where report and figures go; default: the evaluation's own run folder.")] = None,
    device: str | None = Device,
) -> None:
    """Judge generated trips against the real ones, and write a report.

    A run is judged by its newest generated trips; without any, and for a model file, they are
    generated first. Several are shown side by side and compared on the requests that they share.

    Example: hoserkd evaluate vanilla distilled --od test --export geojson
    """
    if od not in ("train", "test"):
        raise UsageError(f"--od must be train or test, not {od}",
                         hint="trips for a file of ODs are held against test trips")
    if not trips and not model:
        raise UsageError("nothing to judge",
                         hint="name runs or files of generated trips, or a student by --model FILE")
    exports = check_exports(export or ())
    run = _first_run(trips or ())
    context = open_context("evaluate", profile, {"device": device}, run=run,
                           stored=None if run is not None else _first_bundle(model or ()))
    targets = find_targets(context, trips or (), model or ())
    _evaluate(context, targets, city, od, teacher, exports, output)


def _first_run(references: Sequence[str]) -> str | None:
    """Return the first run named, whose settings are the default."""
    for reference in references:
        path = Path(reference).expanduser()
        if path.suffix not in SUFFIXES and not path.is_file():
            return open_store().run(reference, kind="train").run_id
    return None


def _first_bundle(models: Sequence[Path]) -> StoredSettings | None:
    """Return the settings of the first bundle named, which hold where no run is."""
    paths = find_paths(session().options)
    found = (open_model_file(paths, path).stored for path in models)
    return next((stored for stored in found if stored is not None), None)


def _evaluate(
    context: Context, targets: Sequence[Target], city: str | None, od: str, teacher: str | None,
    exports: tuple[str, ...], output: Path | None,
) -> None:
    from hoserkd.engine.city.storage import load_city
    from hoserkd.engine.device import resolve_device

    town = load_city(context.city_dir(city))
    device = resolve_device(context.config.device)
    parents = [target.run.run_id for target in targets if target.run is not None]
    with context.start_run("evaluate", parents=parents, data_sha256=town.sha256,
                           device=device.type) as recorder:
        bench = Bench(context, town, od, device, context.observing(recorder),
                      recorder.directory / "generated")
        judge = (None if teacher is None
                 else trip_judge(context, town, teacher, device, bench.observer))
        report = _judge(context, bench, targets, judge)
        folder = (output or recorder.directory / "evaluation").expanduser().absolute()
        written = _write(report, folder, exports)
        _record(recorder, targets, report, written)
    document = {"run_id": recorder.run_id, "output": folder,
                "report": folder / "report.html", **_document(report)}
    context.console.result(document, lambda: _render(context, report, folder))


def _judge(
    context: Context, bench: Bench, targets: Sequence[Target], judge: "TripJudge | None"
) -> "Report":
    """Return the whole report on the targets."""
    from itertools import combinations

    from hoserkd import __version__
    from hoserkd.engine.evaluate import compare_evaluations, evaluate_runs
    from hoserkd.report.records import Report

    runs, models, files = {}, {}, {}
    for target in targets:
        student = bench.student(target)
        files[target.name], runs[target.name] = bench.trips(target, student)
        judged = bench.judgement(student)
        if judged is not None:
            models[target.name] = judged
    context.stop_at_once()
    found = evaluate_runs(
        runs, bench.city, context.config.evaluate, "train" if bench.od == "train" else "test",
        seed=context.config.seed, models=models, teacher=judge,
        observer=bench.observer)
    names = list(found)
    pairs = (list(combinations(names, 2)) if len(names) <= MOST_COMPARED
             else [(names[0], name) for name in names[1:]])
    return Report(
        title=" and ".join(names) if len(names) <= 2 else f"{len(names)} runs",
        runs=tuple(judged_run(context, t, found[t.name], files[t.name]) for t in targets),
        comparisons=tuple(compare_evaluations(found[a], found[b]) for a, b in pairs),
        groups=tuple(seed_groups(targets, found)),
        commands=(shlex.join(["hoserkd", *sys.argv[1:]]),),
        made=f"Made by hoserkd {__version__} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
    )


def _document(report: "Report") -> dict[str, Any]:
    """Return what evaluation.json holds (docs/metrics.md)."""
    from dataclasses import asdict

    from hoserkd.engine.metrics.evaluation import comparison_json

    return {
        "kind": "evaluation",
        "evaluations": [{**run.evaluation.to_json(), "run_id": run.run_id, "source": run.source,
                         "facts": dict(run.facts)} for run in report.runs],
        "comparisons": [comparison_json(found) for found in report.comparisons],
        "groups": [asdict(group) for group in report.groups],
    }


def _write(report: "Report", folder: Path, exports: tuple[str, ...]) -> dict[str, Path]:
    """Write the report in every form and return the files by kind."""
    from hoserkd.engine.files import replacing, write_json
    from hoserkd.engine.metrics.evaluation import SCHEMA_VERSION
    from hoserkd.report.html import render_html
    from hoserkd.report.markdown import render_markdown
    from hoserkd.text import plain

    written = {"evaluation": folder / "evaluation.json", "report": folder / "report.html",
               "report-markdown": folder / "report.md"}
    document = {"schema_version": SCHEMA_VERSION, **_document(report)}
    write_json(written["evaluation"], plain(document))
    for kind, text in (("report", render_html(report)),
                       ("report-markdown", render_markdown(report))):
        with replacing(written[kind], "w") as file:
            file.write(text)
    for kind in exports:
        written |= export_trips(report, folder, kind)
    return written


def _record(
    recorder: "RunRecorder", targets: Sequence[Target], report: "Report",
    written: Mapping[str, Path],
) -> None:
    """Record one flat judgement a run, and the files."""
    for target, run in zip(targets, report.runs, strict=True):
        found = run.evaluation
        recorder.evaluation(
            {"run_id": run.run_id, "name": target.name, "od": found.od,
             **found.counts,
             **{name: figure.value for name, figure in found.figures.items()
                if figure.value is not None}},
            label=f"{target.name} on {found.od} ODs")
    for kind, path in written.items():
        recorder.artifact(path, kind.split()[0])


def _render(context: Context, report: "Report", folder: Path) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from hoserkd.report.tables import comparison_table, headline_table, seeds_table
    from hoserkd.report.words import summary

    tables = [headline_table(report), *map(comparison_table, report.comparisons),
              *map(seeds_table, report.groups)]
    parts: list[RenderableType] = []
    for table in tables:
        if table.rows:
            parts.append(context.console.table(table.title, table.columns, table.rows))
        if table.caption:
            parts.append(Text(table.caption + "\n", style="dim"))
    for part in summary(report):
        if part.heading:
            parts.append(Text(part.heading, style="bold"))
        parts += [Text(f"- {line}") for line in part.sentences]
    parts.append(Text(f"\nreport: {folder / 'report.html'}"))
    return Group(*parts)
