"""`hoserkd tune`: search the distillation settings, then check the best one over seeds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from hoserkd.commands.context import open_console, open_context, open_store
from hoserkd.commands.options import City, Force, Profile, Teacher, resume_option
from hoserkd.commands.trainings import full_teacher
from hoserkd.errors import StoreError, UsageError

if TYPE_CHECKING:
    from hoserkd.commands.tune_bench import Bench
    from hoserkd.engine.tuning.rows import TuneOutcome
    from hoserkd.store.recorder import RunRecorder


class TuneGroup(TyperGroup):
    """Takes `tune` with options for `tune search`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Put `search` before what is no subcommand."""
        if not args or args[0] not in self.commands:
            args = ["search", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=TuneGroup, help="Search lambda, temperature and window; `hoserkd tune show` "
                                      "shows how far a study is.")


@app.command("search")
def search(
    profile: str | None = Profile,
    study: Annotated[str | None, typer.Option(help="What to call the study.")] = None,
    trials: Annotated[int | None, typer.Option(
        help="Trials altogether, the vanilla baseline among them.")] = None,
    sampler: Annotated[str | None, typer.Option(
        metavar="cmaes|tpe|gp|random", help="How settings are drawn.")] = None,
    objectives: Annotated[str | None, typer.Option(
        metavar="NAME,...", help="Some of accuracy, calibration, throughput; several give a "
        "Pareto front.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that work together.")] = 1,
    storage: Annotated[str | None, typer.Option(
        metavar="FILE|URL", help="Where the study is kept: a journal file or an Optuna URL; "
        "beside the run store if not given.")] = None,
    resume: str | None = resume_option("the study"),
    city: str | None = City,
    teacher: str | None = Teacher,
    worker: Annotated[int, typer.Option(hidden=True, min=0)] = 0,
    parent: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Search lambda, temperature and window, then compare the best with vanilla over seeds.

    The same line on another machine or in another terminal joins a study that is being worked on.
    `hoserkd tune show [STUDY]` shows how far one is, what mattered, and the best command line.

    Example: hoserkd tune --profile beijing --trials 12 --workers 2
    """
    context = open_context("tune", profile, {
        "tune.study": study, "tune.trials": trials, "tune.sampler": sampler,
        "tune.storage": full_storage(storage),
        "tune.objectives": None if objectives is None else tuple(objectives.split(",")),
        "teacher.name": full_teacher(teacher)})
    from hoserkd.commands.tune_bench import Bench, Team
    from hoserkd.commands.tune_views import render
    from hoserkd.engine.city.storage import load_city

    bench = Bench(context, load_city(context.city_dir(city)), resume=resume is not None,
                  worker=worker, city=city)
    if worker:
        bench.help_out(parent)
        return
    team = Team(context, workers, profile, city)
    with bench.study.at_work(), bench.recording() as recorder, team.gathered(recorder):
        found = bench.work(team)
        document = keep(bench, found, recorder)
    if recorder is None and bench.is_orphaned():
        with bench.recording() as recorder:
            document = keep(bench, found, recorder)
    context.console.result(document, lambda: render(context.console, found, document))


def keep(bench: "Bench", found: "TuneOutcome", recorder: "RunRecorder | None"
         ) -> dict[str, Any]:
    """Return a study's document; write it and the page where this process records the study."""
    from hoserkd.commands.tune_views import write_report

    folder = None if recorder is None else recorder.directory / "tune"
    document = bench.document(found, folder)
    if recorder is not None and folder is not None:
        for path in write_report(found, document, folder):
            recorder.artifact(path, "tune")
        recorder.evaluation(document, label="study")
    return document


@app.command("show")
def show(
    study: Annotated[str | None, typer.Argument(
        metavar="[STUDY]", help="Its name; the newest of the store if not given.")] = None,
    profile: str | None = Profile,
    storage: Annotated[str | None, typer.Option(
        metavar="FILE|URL", help="Where the study is kept, if not where its run says.")] = None,
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", metavar="DIR", help="Write the page with the plots, and the figures.")
    ] = None,
    force: bool = Force,
) -> None:
    """Show a study: its trials, what mattered, best against vanilla, the best command line.

    Example: hoserkd tune show first
    """
    from hoserkd.commands.tune_views import (
        FILES,
        city_option,
        payload,
        read_outcome,
        render,
        write_report,
    )
    from hoserkd.engine.outputs import check_outputs

    folder = None if output is None else output.expanduser().absolute()
    if folder is not None:
        check_outputs([folder / name for name in FILES], force=force)
    console, store = open_console(), open_store()
    known = store.runs(kind="tune", study=study, limit=1)
    if not known and study is None:
        raise StoreError(f"{store.directory} holds no study", hint="`hoserkd tune` begins one")
    if not known and storage is None and profile is None:
        names = sorted({run.study for run in store.runs(kind="tune")})
        raise UsageError(f"there is no study {study}",
                         hint=f"known: {', '.join(names)}" if names else
                         "--storage names one that is kept elsewhere")
    run = known[0] if known else None
    context = open_context("tune show", profile, {
        "tune.study": study, "tune.storage": full_storage(storage)},
        run=run.run_id if run else None)
    found = read_outcome(store.studies_directory, context.config)
    document = payload(found, run.profile if run else context.profile, context.config,
                       None if run is None else city_option(context, run), folder)
    if folder is not None:
        write_report(found, document, folder)
    console.result(document, lambda: render(console, found, document))


def full_storage(storage: str | None) -> str | None:
    """Return a URL as it is, and a file as an absolute path, for workers that start elsewhere."""
    if storage is None or "://" in storage:
        return storage
    return str(Path(storage).expanduser().absolute())
