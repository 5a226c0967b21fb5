"""`hoserkd train-teacher`: LM-TAD on the city's own trips."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hoserkd.commands.context import Context, open_context, option_name
from hoserkd.commands.options import AUTO, YES, City, Device, Profile, resume_option
from hoserkd.engine.names import is_path
from hoserkd.errors import ConfigError, InterruptedRunError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hoserkd.engine.city.storage import City as PreparedCity
    from hoserkd.engine.teacher.training import TeacherResult
    from hoserkd.store.recorder import RunRecorder

KIND = "train-teacher"
LAST = "last.ckpt"


def train_teacher(
    profile: str | None = Profile,
    city: str | None = City,
    name: str | None = typer.Option(None, "--name", metavar="NAME|DIR",
                                    help="What to call the teacher, or where to put it."),
    resume: str | None = resume_option("a training that stopped"),
    force: bool = typer.Option(False, "--force", help="Train anew over what is there."),
    device: str | None = Device,
) -> None:
    """Train a teacher on the training trips; it can be used at once.

    Example: hoserkd train-teacher --profile san_francisco --name small
    """
    context = open_context("train-teacher", profile, {"teacher.name": name, "device": device})
    from hoserkd.engine.city.storage import load_city
    from hoserkd.engine.places import TEACHERS
    from hoserkd.engine.teacher.stopped import training_state

    town = load_city(context.city_dir(city))
    directory = context.finder(TEACHERS).destination(_destination(context))
    again = resume == YES or (resume == AUTO and (directory / LAST).is_file())
    state = training_state(context.config, town, directory, resume=again, force=force)
    if state == "finished":
        _show(context, _train(context, town, directory, [], resume=False, force=False), None)
        return
    with _recorder(context, town, directory, again=state == "stopped") as recorder:
        try:
            result = _train(context, town, directory, [recorder], resume=again, force=force)
        except InterruptedRunError as stopped:
            # Its settings decide what fits its checkpoint, so they have to be given again.
            raise InterruptedRunError(
                stopped.message,
                hint="the same command with --resume goes on from there") from stopped
        recorder.artifact(result.directory / TEACHERS.mark, "teacher", sha256=result.card.sha256)
    _show(context, result, recorder)


def _destination(context: Context) -> str:
    """Return the name or folder to train under; a folder only where the command line names it.

    Raises:
        ConfigError: a profile, which may be another's, names a folder.
    """
    wanted, source = context.config.teacher.name, context.resolved.source("teacher.name")
    if is_path(wanted) and source != option_name("teacher.name"):
        raise ConfigError(f"{source}: teacher.name: a teacher is trained under a name, found "
                          f"{wanted!r}", hint="--name DIR trains one elsewhere")
    return wanted


def _train(context: Context, town: "PreparedCity", directory: Path,
           recorders: "list[RunRecorder]", *, resume: bool, force: bool) -> "TeacherResult":
    from hoserkd.engine.teacher.training import train_teacher as train

    return train(context.config, town, directory, context.observing(*recorders), context.stop,
                 resume=resume, force=force)


def _recorder(context: Context, town: "PreparedCity", directory: Path, *, again: bool
              ) -> "AbstractContextManager[RunRecorder]":
    """Return the record of the stopped training where there is one, else a new one.

    Teachers of one name may be trained in several folders, so the record tells which is which.
    """
    name = directory.name
    made_from = context.made_from(town)
    if again:
        for run in context.store.runs(kind=KIND):
            wrote = [Path(run.directory) / found.path
                     for found in context.store.artifacts(run.run_id)]
            if run.name == name and directory / LAST in wrote and run.status != "running":
                return context.resume_run(run.run_id, made_from)
        # Recorded in another store, or deleted.
    return context.start_run(KIND, name, made_from=made_from)


def _show(context: Context, result: "TeacherResult", recorder: "RunRecorder | None") -> None:
    payload = {
        "teacher": result.card.name, "directory": str(result.directory),
        "run_id": recorder.run_id if recorder else None, "trained": result.trained,
        "best_epoch": result.best_epoch + 1, "best_by": result.best_by,
        "val_perplexity": result.val_perplexity,
        "seconds": round(result.seconds, 3), "sha256": result.card.sha256,
        "meta": dict(result.card.meta),
    }
    context.console.result(payload, lambda: _render(context, result))


def _render(context: Context, result: "TeacherResult") -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from hoserkd.commands.teachers import anomaly_table, card_rows
    from hoserkd.text import duration_text

    done = (f"trained in {duration_text(result.seconds)}" if result.trained
            else "finished with these settings before: nothing to do (--force trains anew)")
    rows: list[tuple[str, Any]] = [*card_rows(result.card),
                                   ("validation perplexity", result.val_perplexity),
                                   ("best epoch", result.best_epoch + 1),
                                   ("chosen by validation", result.best_by)]
    parts: list[RenderableType] = [
        context.console.table(f"Teacher {result.card.name}", ("what", "value"), rows)]
    if anomalies := result.card.meta.get("anomalies"):
        parts.append(anomaly_table(context.console, anomalies))
    return Group(*parts, Text(f"{result.directory}: {done}"))
