"""`hoserkd study`: is distillation worth it, and at how much data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hoserkd.commands.context import Context, open_context
from hoserkd.commands.options import City, Device, Force, Profile, Teacher, resume_option
from hoserkd.commands.study_bench import Bench
from hoserkd.commands.trainings import RESULT, full_teacher
from hoserkd.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hoserkd.engine.config import EngineConfig
    from hoserkd.report.study import StudyReport

FILES = ("study.md", "study.json", "study.svg")


def study(
    profile: str | None = Profile,
    name: Annotated[str | None, typer.Option(
        "--name", metavar="NAME", help="What to call the study.")] = None,
    shares: Annotated[str | None, typer.Option(
        metavar="SHARE,...", help="Shares of the training trips, such as 1,0.1,0.01.")] = None,
    seeds: Annotated[str | None, typer.Option(
        metavar="N,...", help="Seeds of the trainings, such as 42,43,44.")] = None,
    steps: Annotated[int | None, typer.Option(
        help="Optimiser steps of a training, at most.")] = None,
    resume: str | None = resume_option(
        "the study: what is trained stays, also with more seeds, shares or arms"),
    city: str | None = City,
    teacher: str | None = Teacher,
    device: str | None = Device,
    auto: Annotated[bool, typer.Option(
        "--auto", help="Compute the teacher's signal first where it is missing.")] = False,
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", metavar="DIR",
        help="Where table and plot go; default: the study's own run folder.")] = None,
    force: bool = Force,
) -> None:
    """Compare distilled with vanilla students over seeds and shares of the training trips.

    Example: hoserkd study --profile beijing --shares 1,0.1,0.01 --seeds 42,43,44 --steps 2000
    """
    context = open_context("study", profile, {
        "study.name": name, "study.shares": parse_numbers("--shares", shares, float),
        "study.seeds": parse_numbers("--seeds", seeds, int), "study.steps": steps,
        "teacher.name": full_teacher(teacher), "device": device})
    from hoserkd.engine.city.storage import load_city
    from hoserkd.engine.outputs import check_outputs

    if output is not None:
        output = output.expanduser().absolute()
        check_outputs([output / name for name in FILES], force=force)
    bench = Bench(context, load_city(context.city_dir(city)), city)
    bench.check(resume is not None)
    bench.prepare_teachers(auto)
    with bench.trainings.recording("study") as recorder:
        report = bench.work(recorder)
        folder = output or recorder.directory / "study"
        document = {"run_id": recorder.run_id, "made_from": bench.made_from(),
                    **payload(report, context.config, folder)}
        for path in write(report, document, folder):
            recorder.artifact(path, "study")
        recorder.evaluation(document, label=RESULT)
    context.console.result(document, lambda: render(context, report, folder))


def parse_numbers(
    option: str, text: str | None, kind: type[int] | type[float]
) -> tuple[float, ...] | None:
    """Return the numbers of a list with commas.

    Raises:
        UsageError: one is none.
    """
    if text is None:
        return None
    try:
        return tuple(kind(part) for part in text.strip("[]").split(","))
    except ValueError as error:
        raise UsageError(f"{option}: expected numbers with commas between, found {text!r}"
                         ) from error


def payload(report: "StudyReport", config: "EngineConfig", folder: Path) -> dict[str, Any]:
    """Return what `--json` prints and `study.json` holds."""
    from dataclasses import asdict

    from hoserkd.report.study import summary

    return {
        "study": report.name,
        "city": report.city,
        "output": folder,
        "summary": summary(report),
        "arms": {"vanilla": None, **config.study.arms},
        "seeds": list(report.seeds),
        "shares": [{**asdict(plan), "test": {
            part: asdict(size) for part, size in report.sizes[plan.share].items()}}
            for plan in report.shares],
        "teachers": [asdict(word) for word in report.teachers],
        "comparisons": [each.to_json() for each in report.comparisons],
        "trainings": [{"run_id": t.run, "arm": t.arm, "share": t.share, "seed": t.seed,
                       "metrics": t.metrics} for t in report.trained],
    }


def write(report: "StudyReport", document: dict[str, Any], folder: Path) -> list[Path]:
    """Write page, plot and figures, and return the files."""
    from hoserkd.console import SCHEMA_VERSION
    from hoserkd.engine.files import replacing, write_json
    from hoserkd.placeless import placeless_values
    from hoserkd.report.study import render_study
    from hoserkd.report.study_plot import render_plot
    from hoserkd.text import plain

    texts = {"study.svg": render_plot(report), "study.md": render_study(report, "study.svg")}
    for name, text in texts.items():
        with replacing(folder / name, "w") as file:
            file.write(text)
    write_json(folder / "study.json", placeless_values(plain(
        {"schema_version": SCHEMA_VERSION, **document})))
    return [folder / name for name in FILES]


def render(context: Context, report: "StudyReport", folder: Path) -> "RenderableType":
    """Return the answer and the table; with `-v` also the parts and the budget."""
    from rich.console import Group
    from rich.text import Text

    from hoserkd.report.study import budget_table, headline_table, parts_table, summary

    answer, *more = summary(report)
    parts: list[RenderableType] = [Text(answer, style="bold"), *(Text(f"- {x}") for x in more)]
    tables = [headline_table(report)]
    if context.options.verbosity:
        tables += [parts_table(report), budget_table(report)]
    for table in tables:
        parts.append(context.console.table(table.title, table.columns, table.rows))
        parts.append(Text(table.caption + "\n", style="dim"))
    parts.append(Text(f"plot: {folder / 'study.svg'}\nall figures: {folder / 'study.md'}"))
    return Group(*parts)
