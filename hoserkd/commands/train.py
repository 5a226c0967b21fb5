"""`hoserkd train`: one student, vanilla or distilled."""

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hoserkd.commands.context import (
    Context,
    StoredSettings,
    open_context,
    open_store,
    settings_of_run,
)
from hoserkd.commands.model_files import open_model_file
from hoserkd.commands.options import AUTO, YES, City, Device, Profile, Teacher, resume_option
from hoserkd.commands.processes import joined_processes
from hoserkd.commands.trainings import (
    asks_teacher,
    find_teacher,
    full_teacher,
    resumed_teacher,
    student_at,
    teacher_sources,
    trained_by,
)
from hoserkd.errors import ConfigError, InterruptedRunError, StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import RenderableType

    from hoserkd.engine.city.storage import City
    from hoserkd.engine.config import EngineConfig
    from hoserkd.engine.events import Observer
    from hoserkd.engine.identity import Identity
    from hoserkd.engine.teacher.signal import TeacherSource
    from hoserkd.engine.train import TrainResult
    from hoserkd.engine.training.distributed import Ranks
    from hoserkd.store.recorder import RunRecorder
    from hoserkd.store.records import RunRecord

SHOWN = ("accuracy", "accuracy_kept", "loss_road", "loss_time", "loss_pinball", "time_mae_s",
         "time_mape", "time_coverage", "time_coverage_gap", "ece", "loss_kl", "agreement",
         "teacher_accuracy")
"""Figures of the validation and test trips that the terminal shows."""

UNFINISHED = ("stopped", "failed", "dead")


def train(
    profile: str | None = Profile,
    city: str | None = City,
    teacher: str | None = Teacher,
    distill: Annotated[bool | None, typer.Option(
        "--distill/--no-distill", help="With the teacher, or vanilla.")] = None,
    name: Annotated[str | None, typer.Option(
        help="What to call the run; with --resume, which run.")] = None,
    resume: str | None = resume_option("a stopped run: the one named, else the latest"),
    device: str | None = Device,
    max_steps: Annotated[int | None, typer.Option(
        help="Stop after so many optimiser steps.")] = None,
    init_from: Annotated[Path | None, typer.Option(
        metavar="FILE", help="Start from this student: ours, a bundle's, or a public best.pth.")
    ] = None,
    auto: Annotated[bool, typer.Option(
        "--auto", help="Compute the teacher's signal first where it is missing.")] = False,
) -> None:
    """Train a student and judge its best epoch on the test trips.

    Example: hoserkd train --profile beijing --no-distill --name vanilla
    """
    if resume == YES and init_from is not None:
        raise UsageError("--resume and --init-from exclude each other",
                         hint="a resumed run has its weights already; --resume=auto takes both")
    flags = {"distill.enabled": distill, "teacher.name": full_teacher(teacher),
             "device": device, "train.max_steps": max_steps}
    from hoserkd.engine.city.storage import load_city

    started = time.perf_counter()
    if resume == AUTO:
        resumed = run_of_name(name) if name else stopped_alike(
            open_context("train", profile, flags), city, init_from)
    else:
        resumed = find_stopped_run(profile, name) if resume else None
    context = open_context("train", None if resumed else profile, flags,
                           stored=resumed_settings(resumed) if resumed else None)
    if init_from is not None:
        init_from = None if resumed else open_model_file(context.paths, init_from).file
    town = load_city(context.city_dir(city))
    with joined_processes(context.config.device) as ranks:
        job = TrainJob(context, town, Given(city, full_teacher(teacher), init_from, auto), ranks)
        result, run = job.go_on(resumed) if resumed else job.start(name)
    if ranks.first:
        seconds = time.perf_counter() - started
        context.console.result(
            payload(result, run, seconds), lambda: render(context, result, run, seconds))


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line names besides the settings; None: not given."""

    city: str | None
    teacher: str | None
    init_from: Path | None
    auto: bool


@dataclass(frozen=True, slots=True)
class RunPlace:
    """A run as the figures name it."""

    run_id: str
    name: str
    directory: Path


class TrainJob:
    """One training within the run store. Of several processes the first alone records."""

    def __init__(self, context: Context, town: "City", given: Given, ranks: "Ranks") -> None:
        self.context = context
        self.town = town
        self.given = given
        self.init_from = given.init_from
        self.ranks = ranks

    def start(self, name: str | None) -> "tuple[TrainResult, RunPlace]":
        """Train from the beginning, as a new run."""
        from hoserkd.engine.device import resolve_device
        from hoserkd.engine.train import starting_config

        config = self.context.config
        # The student may be what a file decides, and a HOSER teacher has to share its features.
        told = starting_config(config, self.town, self.init_from)
        teacher = find_teacher(self.context, told, self.town) if asks_teacher(told) else None
        sources = self.sources(told, teacher)
        device = resolve_device(config.device).type
        made_from = self.context.made_from(self.town, teacher, self.given_student())

        def begin() -> "RunRecorder":
            return self.context.start_run(
                "train", name, trained_by(self.context, made_from), made_from=made_from,
                device=device, config=told)

        return self.record(begin, config, sources, resume=False)

    def go_on(self, run: "RunRecord") -> "tuple[TrainResult, RunPlace]":
        """Go on with a run; its distillation settings hold, and a warning says where they differ.

        A run that was killed before its first checkpoint starts again, from the same weights.

        Raises:
            CheckpointError: the student that it was to start from is gone, or another one now.
        """
        from hoserkd.engine.identity import check_unchanged
        from hoserkd.engine.train import resumed_config

        begun = resumed_config(self.context.config, self.town, Path(run.directory), self.observer)
        if begun is None and (given := run.made_from.student) is not None:
            self.init_from = given.place
            check_unchanged(f"run {run.name}", given, self.given_student(),
                            "put it back, or start a new run with --init-from")
        config, teacher = begun or self.context.config, None
        if asks_teacher(config):
            recorded = None if begun is None else run.made_from.teacher
            teacher = (find_teacher(self.context, config, self.town) if recorded is None else
                       resumed_teacher(self.context, config, self.town, f"run {run.name}",
                                       recorded, self.given.teacher))
        sources = self.sources(config, teacher)
        made_from = self.context.made_from(self.town, teacher, run.made_from.student)
        return self.record(lambda: self.context.resume_run(run.run_id, made_from), config,
                           sources, resume=begun is not None)

    def record(
        self, begin: "Callable[[], RunRecorder]", config: "EngineConfig",
        sources: "Mapping[str, TeacherSource] | None", *, resume: bool,
    ) -> "tuple[TrainResult, RunPlace]":
        """Train within a run that `begin` opens; the other processes follow the first."""
        if not self.ranks.first:
            place = self.ranks.from_first(None)
            assert place is not None
            return self.train(config, sources, place, self.observer, resume), place
        with begin() as recorder:
            place = RunPlace(recorder.run_id, recorder.name, recorder.directory)
            self.ranks.from_first(place)
            result = self.train(config, sources, place, self.context.observing(recorder), resume)
            recorder.artifact(result.best, "model",
                              sha256=student_at(result.best, self.town).sha256)
        return result, place

    def given_student(self) -> "Identity | None":
        """Return which student the training starts from; None: from fresh weights, or it is gone.

        Raises:
            CheckpointError: the file holds no student, or one of another city.
        """
        if self.init_from is None or not self.init_from.is_file():
            return None
        return student_at(self.init_from, self.town)

    @property
    def observer(self) -> "Observer":
        """Return what shows events: the screen, in the first process."""
        from hoserkd.engine.events import Silent

        return self.context.observer if self.ranks.first else Silent()

    def sources(
        self, config: "EngineConfig", teacher: "Identity | None"
    ) -> "Mapping[str, TeacherSource] | None":
        """Return the teacher's answers, or None for a vanilla run."""
        if teacher is None:
            return None
        return teacher_sources(
            "the training", config, self.town, teacher, auto=self.given.auto,
            command=self.precompute_command(config.teacher.name),
            observer=self.observer, stop=self.context.stop, ranks=self.ranks)

    def train(
        self, config: "EngineConfig", sources: "Mapping[str, TeacherSource] | None",
        place: RunPlace, observer: "Observer", resume: bool,
    ) -> "TrainResult":
        """Train, and say how to go on where it is stopped."""
        from hoserkd.engine.train import train_student

        try:
            return train_student(
                config, self.town, directory=place.directory, teacher_sources=sources,
                observer=observer, stop=self.context.stop, resume=resume,
                init_from=self.init_from, ranks=self.ranks)
        except InterruptedRunError as stopped:
            raise InterruptedRunError(stopped.message, hint=(
                f"`hoserkd train --resume --name {place.run_id}{self.city_option}` goes on "
                "from there")) from stopped

    def precompute_command(self, teacher: str) -> str:
        """Return how `hoserkd precompute` is called for this training."""
        return (f"hoserkd precompute --profile {self.context.profile} --teacher {teacher}"
                + self.city_option)

    @property
    def city_option(self) -> str:
        """Return ` --city CITY` as it was given, or nothing."""
        return "" if self.given.city is None else f" --city {self.given.city}"


def find_stopped_run(profile: str | None, reference: str | None) -> "RunRecord":
    """Return the run to go on with: the one named, else the latest unfinished one of the profile.

    Raises:
        StoreError: there is none, or it is finished or still running.
    """
    store = open_store()
    if reference is not None:
        run = store.run(reference, kind="train")
        if run.status == "running":
            raise StoreError(f"run {run.name} is still running, in process {run.pid}")
        return run
    wanted = None if profile is None else Path(profile).stem
    for run in store.runs(kind="train"):
        if run.status in UNFINISHED and wanted in (None, run.profile):
            return run
    of_profile = "" if wanted is None else f" of profile {wanted}"
    raise StoreError(f"there is no unfinished training{of_profile} to go on with",
                     hint="`hoserkd runs list` shows all; --name says which")


def run_of_name(name: str) -> "RunRecord | None":
    """Return the training of this very name, finished or not; None: there is none yet.

    Raises:
        StoreError: it is still running.
    """
    store = open_store()
    runs = (run for run in store.runs(kind="train") if name in (run.name, run.run_id))
    found = next(runs, None)
    return None if found is None else find_stopped_run(None, found.run_id)


def stopped_alike(
    context: Context, city: str | None, init_from: Path | None = None
) -> "RunRecord | None":
    """Return the latest training of these settings, city, teacher and first weights that stopped.

    None: there is none, or another process is at work on it.
    """
    from hoserkd.engine.city.storage import load_city
    from hoserkd.engine.study import decisive
    from hoserkd.engine.train import starting_config

    town = load_city(context.city_dir(city))
    file = None if init_from is None else open_model_file(context.paths, init_from).file
    started = None if file is None else student_at(file, town)
    config = starting_config(context.config, town, file)
    teacher = find_teacher(context, config, town) if asks_teacher(config) else None
    wanted = decisive(config, teacher)
    for run in context.store.runs(kind="train"):
        alike = run.data_sha256 == town.sha256 and run.made_from.student == started
        if run.status in UNFINISHED and not run.study and alike:
            with suppress(ConfigError):  # of another version
                if decisive(context.config_of(run), run.made_from.teacher) == wanted:
                    return run
    return None


def resumed_settings(run: "RunRecord") -> StoredSettings:
    """Return the settings with which a stopped run was trained last, which `--resume` keeps."""
    from hoserkd.engine.train import last_train_settings

    stored, last = settings_of_run(run), last_train_settings(Path(run.directory))
    return stored if last is None else replace(stored, values={**stored.values, "train": last})


def payload(result: "TrainResult", run: RunPlace, seconds: float) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "run_id": run.run_id,
        "name": run.name,
        "directory": str(run.directory),
        "model": str(result.best),
        "best_epoch": result.best_epoch + 1,
        "best_by": result.best_by,
        "steps": result.steps,
        "metrics": result.metrics,
        "seconds": round(seconds, 3),
    }


def render(
    context: Context, result: "TrainResult", run: RunPlace, seconds: float
) -> "RenderableType":
    """Return the table of the best weights' figures."""
    from rich.console import Group
    from rich.text import Text

    from hoserkd.engine.metrics.catalogue import BY_NAME
    from hoserkd.text import duration_text

    rows = [(BY_NAME[key].title, result.metrics.get(f"val_{key}"),
             result.metrics.get(f"test_{key}")) for key in SHOWN]
    known = [row for row in rows if row[1] is not None or row[2] is not None]
    title = f"Run {run.name}: best epoch {result.best_epoch + 1}"
    return Group(
        context.console.table(title, ("metric", "validation", "test"), known),
        Text(f"best epoch: by validation {result.best_by} (train.best)"),
        Text(f"{result.best}: {result.steps} optimiser steps in {duration_text(seconds)}"),
    )
