"""`hoserkd evaluate`: how near generated trips come to the real ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hoserkd.commands.completion import complete_run, complete_teacher
from hoserkd.commands.context import (
    Context,
    StoredSettings,
    open_context,
    open_store,
    session,
)
from hoserkd.commands.exports import EXPORTS, check_exports, export_files
from hoserkd.commands.judged import (
    Bench,
    Target,
    TeacherJudge,
    find_targets,
    is_trip_file,
    judged_run,
    seed_groups,
    tell_other_cities,
    trip_judge,
)
from hoserkd.commands.judgements import (
    Judgement,
    document,
    record,
    render,
    report_files,
    write,
)
from hoserkd.commands.lineage import command_lines
from hoserkd.commands.model_files import open_model_file
from hoserkd.commands.options import Device, Force, Profile, RunCity
from hoserkd.commands.places import find_paths
from hoserkd.engine.outputs import check_outputs
from hoserkd.errors import UsageError

if TYPE_CHECKING:
    from hoserkd.engine.metrics.evaluation import Split
    from hoserkd.report.records import Report

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
    city: str | None = RunCity,
    od: Annotated[str, typer.Option(
        metavar="train|test|both", help="The split that the OD pairs are from; both: each apart, "
        "train's report in a folder of its own.")] = "test",
    export: Annotated[list[str] | None, typer.Option(
        metavar="|".join(EXPORTS),
        help="Write the trips for other programs too; may come several times.")] = None,
    teacher: Annotated[str | None, typer.Option(
        metavar="NAME|DIR", autocompletion=complete_teacher,
        help="Ask this teacher how usual the trips are (perplexity).")] = None,
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", metavar="DIR",
        help="Where report and figures go; default: the evaluation's own run folder.")] = None,
    real_trips: Annotated[bool, typer.Option(
        "--real-trips/--no-real-trips",
        help="Show recorded trips beside generated ones, in the report's map and in exports; "
        "without, both can be handed on.")] = True,
    force: bool = Force,
    device: str | None = Device,
) -> None:
    """Judge generated trips against the real ones, and write a report.

    A run is judged by the trips that it makes with these settings: read where they lie in its
    folder, else generated first. Several are compared on the requests that they share.

    Example: hoserkd evaluate vanilla distilled --od test --export geojson
    """
    if od not in ("train", "test", "both"):
        raise UsageError(f"--od must be train, test or both, not {od}",
                         hint="trips for a file of ODs are held against test trips")
    if not trips and not model:
        raise UsageError("nothing to judge",
                         hint="name runs or files of generated trips, or a student by --model FILE")
    exports = check_exports(export or ())
    run = _first_run(trips or ())
    context = open_context("evaluate", profile, {"device": device}, run=run,
                           stored=None if run is not None else _first_bundle(model or ()))
    targets = find_targets(context, trips or (), model or ())
    if output is not None:
        output = output.expanduser().absolute()
        check_outputs(_files(targets, od, exports, output), force=force,
                      inputs=[path for t in targets for path in (t.file, t.model, t.source)])
    _evaluate(context, targets, city, od, teacher, Wanted(exports, output, real_trips))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an evaluation is to write, and where."""

    exports: tuple[str, ...]
    output: Path | None
    """A folder; None: the evaluation's own."""
    real_trips: bool


def _first_run(references: Sequence[str]) -> str | None:
    """Return the first run named, whose settings are the default."""
    for reference in references:
        if not is_trip_file(Path(reference).expanduser()):
            return open_store().run(reference, kind="train").run_id
    return None


def _first_bundle(models: Sequence[Path]) -> StoredSettings | None:
    """Return the settings of the first bundle named, which hold where no run is."""
    paths = find_paths(session().options)
    found = (open_model_file(paths, path).stored for path in models)
    return next((stored for stored in found if stored is not None), None)


def _evaluate(
    context: Context, targets: Sequence[Target], city: str | None, od: str, teacher: str | None,
    wanted: Wanted,
) -> None:
    from hoserkd.engine.city.storage import load_city
    from hoserkd.engine.device import resolve_device

    town = load_city(context.city_dir(city), context.config.city.timezone)
    tell_other_cities(context, targets, town)
    device = resolve_device(context.config.device)
    parents = [target.run.run_id for target in targets if target.run is not None]
    judge = None if teacher is None else trip_judge(context, town, teacher, device,
                                                    context.observer)
    made_from = context.made_from(town, None if judge is None else judge.identity)
    with context.start_run("evaluate", parents=parents, made_from=made_from,
                           device=device.type) as recorder:
        folder = wanted.output or recorder.directory / "evaluation"
        judgements = []
        for split in _splits(od):
            bench = Bench(context, town, split, device, context.observing(recorder),
                          recorder.directory / "generated")
            report = replace(_judge(context, bench, targets, judge), real_trips=wanted.real_trips)
            _tell_unmade(context, report)
            judgements.append(Judgement(report, _folder(folder, od, split)))
            record(recorder, targets, judgements[-1], write(judgements[-1], wanted.exports))
    payload = {"run_id": recorder.run_id, "output": folder, "report": folder / "report.html",
               **document(judgements)}
    context.console.result(payload, lambda: render(context, judgements))


def _tell_unmade(context: Context, report: "Report") -> None:
    """Say which trips a report without recorded trips leaves out, as they could be such."""
    unmade = [run.name for run in report.runs if not run.made]
    if unmade and not report.real_trips:
        context.console.warn(
            f"{', '.join(unmade)}: no model is known to have made these trips, so that they could "
            "be recorded ones: map and exports leave them out")


def _files(
    targets: Sequence[Target], od: str, exports: tuple[str, ...], folder: Path
) -> list[Path]:
    """Return all files that an evaluation will write into `folder`."""
    names = [target.name for target in targets]
    files: list[Path] = []
    for split in _splits(od):
        place = _folder(folder, od, split)
        files += [*report_files(place).values(), *export_files(names, place, exports).values()]
    return files


def _folder(folder: Path, od: str, split: "Split") -> Path:
    return folder / split if od == "both" and split == "train" else folder


def _splits(od: str) -> "tuple[Split, ...]":
    if od == "both":
        return "test", "train"
    return ("train",) if od == "train" else ("test",)


def _judge(
    context: Context, bench: Bench, targets: Sequence[Target], judge: TeacherJudge | None
) -> "Report":
    """Return the whole report on the targets."""
    from itertools import combinations

    from hoserkd import __version__
    from hoserkd.engine.evaluate import compare_pairs, evaluate_runs
    from hoserkd.engine.identity import city_identity
    from hoserkd.engine.trips.maker import unlike_makers
    from hoserkd.report.records import Report
    from hoserkd.store.provenance import library_versions

    taken, models = {}, {}
    for target in targets:
        student, content = bench.student(target)
        taken[target.name] = bench.trips(target, student, content)
        judged = bench.judgement(student)
        if judged is not None:
            models[target.name] = judged
    context.stop_at_once()
    unlike = unlike_makers({name: each.maker for name, each in taken.items()}, bench.od,
                           city_identity(bench.city))
    for line in unlike:
        context.console.warn(line)
    found = evaluate_runs(
        {name: each.trips for name, each in taken.items()}, bench.city, context.config.evaluate,
        bench.od, seed=context.config.seed, models=models,
        teacher=None if judge is None else judge.score, observer=bench.observer,
        loopless={name for name, each in taken.items() if each.loopless})
    names = list(found)
    pairs = (list(combinations(names, 2)) if len(names) <= MOST_COMPARED
             else [(names[0], name) for name in names[1:]])
    return Report(
        title=" and ".join(names) if len(names) <= 2 else f"{len(names)} runs",
        runs=tuple(judged_run(context, t, found[t.name], taken[t.name], judge) for t in targets),
        comparisons=compare_pairs([(found[a], found[b]) for a, b in pairs]),
        groups=tuple(seed_groups(targets, found)),
        unlike=unlike,
        commands=command_lines(
            context, targets, {name: each.path for name, each in taken.items()}),
        made=f"Made by hoserkd {__version__} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
        versions=library_versions(),
    )
