"""The trainings of a study, each a run of the store."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoserkd.commands.context import Context, find_paths, session
from hoserkd.engine.names import is_path
from hoserkd.errors import CheckpointError, StoreError, TeacherError
from hoserkd.store.references import UnknownRunError

if TYPE_CHECKING:
    from hoserkd.engine.city.storage import City
    from hoserkd.engine.config import EngineConfig
    from hoserkd.engine.events import Observer, StopRequested
    from hoserkd.engine.identity import Identity, MadeFrom
    from hoserkd.engine.tasks import Task
    from hoserkd.engine.teacher.signal import TeacherSource
    from hoserkd.engine.train import TrainResult
    from hoserkd.store.recorder import RunRecorder

    Measure = Callable[["Task", "TrainResult", "Observer", "StopRequested"], dict[str, float]]

BEST = "best.safetensors"
RESULT = "study"
"""Label under which a training's figures, and a whole study's answer, are recorded."""


class Trainings:
    """Trains the tasks of a study."""

    def __init__(self, context: Context, town: "City", study: str, *,
                 screen: "Observer | None" = None, measure: "Measure | None" = None) -> None:
        """Get ready.

        Args:
            study: Its name, which the runs bear.
            screen: What shows the trainings' events; None: as every command does.
            measure: What else is asked of a trained student; recorded with the run.
        """
        self.context = context
        self.town = town
        self.study = study
        self._screen = screen or context.observer
        self._measure = measure
        self._parent: str | None = None
        self._teachers: dict[tuple[str, str], Identity] = {}

    def teacher(self, config: "EngineConfig") -> "Identity | None":
        """Return who teaches with these settings: whoever did when it was first asked.

        Raises:
            TeacherError: there is none, or it is damaged.
        """
        if not asks_teacher(config):
            return None
        key = (config.distill.source, config.teacher.name)
        if key not in self._teachers:
            self._teachers[key] = find_teacher(self.context, config, self.town)
        return self._teachers[key]

    @contextmanager
    def recording(
        self, kind: str, teacher: "Identity | None" = None
    ) -> "Iterator[RunRecorder]":
        """Give the run that stands for the whole study, a new one or the one that was stopped.

        Args:
            teacher: Of all its trainings; None: nobody, or different ones.
        """
        made_from = self.context.made_from(self.town, teacher)
        earlier = self.context.store.runs(kind=kind, study=self.study, limit=1)
        if earlier:
            recorder = self.context.resume_run(earlier[0].run_id, made_from)
        else:
            recorder = self.context.start_run(
                kind, self.study, made_from=made_from, study=self.study)
        self._parent = recorder.run_id
        with recorder:
            yield recorder

    def belong_to(self, parent: str) -> None:
        """Have the trainings build on a run that another process records."""
        self._parent = parent

    def train(self, task: "Task", observer: "Observer", stop: "StopRequested",
              started: Callable[[str], None]) -> dict[str, float]:
        """Train one task as a run of the store."""
        from hoserkd.engine.events import Broadcast
        from hoserkd.engine.train import train_student
        from hoserkd.engine.training.checkpoint import LAST

        teacher = self.teacher(task.config)
        sources = None
        if teacher is not None:
            sources = teacher_sources(f"study {self.study}", task.config, self.town, teacher)
        with self._recorder(task, teacher) as recorder:
            started(recorder.run_id)
            listening = Broadcast((self._screen, recorder, observer))
            result = train_student(
                task.config, self.town, directory=recorder.directory, teacher_sources=sources,
                observer=listening, stop=stop, resume=(recorder.directory / LAST).is_file())
            recorder.artifact(result.best, "model",
                              sha256=student_at(result.best, self.town).sha256)
            if self._measure is None:
                return result.metrics
            metrics = result.metrics | self._measure(task, result, self._screen, stop)
            recorder.evaluation(metrics, label=RESULT)
        return metrics

    def _recorder(self, task: "Task", teacher: "Identity | None") -> "RunRecorder":
        made_from = self.context.made_from(self.town, teacher)
        if task.continues is not None:
            # A run of another machine's store, or one that its process has not let go, cannot
            # go on here: the training begins anew.
            with contextlib.suppress(StoreError, UnknownRunError):
                return self.context.resume_run(task.continues, made_from)
        parents = [self._parent] if self._parent else []
        parents += trained_by(self.context, made_from)
        return self.context.start_run(
            "train", task.name, parents, config=task.config,
            made_from=made_from, tags=task.tags, study=self.study)


def asks_teacher(config: "EngineConfig") -> bool:
    """Return whether somebody but the student itself teaches."""
    return config.distill.enabled and config.distill.source != "self"


def trained_by(context: Context, made_from: "MadeFrom") -> list[str]:
    """Return the runs that trained the teacher and the student that a training builds on."""
    return [run.run_id for identity in (made_from.teacher, made_from.student)
            if identity is not None for run in context.store.makers(identity.sha256)[:1]]


def student_at(path: Path, town: "City") -> "Identity":
    """Return which student a file holds.

    Raises:
        CheckpointError: none, or one of another city.
    """
    from hoserkd.engine.identity import student_identity
    from hoserkd.engine.student.storage import load_student

    return student_identity(load_student(path, town), path)


def resumed_teacher(
    context: Context, config: "EngineConfig", town: "City", whose: str, recorded: "Identity",
    given: str | None,
) -> "Identity":
    """Return the teacher that has taught so far, wherever it lies now.

    Args:
        whose: What is resumed, such as `run distilled`; begins the messages.
        recorded: Who has taught so far.
        given: `--teacher`; None: it is looked for where it was, by hash and by name.

    Raises:
        TeacherError: it is not here; tells all that was tried.
        CheckpointError: `given` is another teacher; shows both hashes.
    """
    from hoserkd.engine.identity import check_unchanged
    from hoserkd.engine.places import TEACHERS

    if given is not None:
        teacher = config.teacher.model_copy(update={"name": given})
        found = find_teacher(context, config.model_copy(update={"teacher": teacher}), town)
        check_unchanged(whose, recorded, found, f"leave --teacher out, or name the {recorded.kind} "
                        "of that hash")
        return found
    if recorded.kind == "student":
        return _resumed_hoser(context, config, town, whose, recorded)
    return replace(recorded, place=context.finder(TEACHERS).recorded(recorded, whose))


def _resumed_hoser(
    context: Context, config: "EngineConfig", town: "City", whose: str, recorded: "Identity"
) -> "Identity":
    tried: list[str] = []
    made = [Path(run.directory) / BEST for run in context.store.makers(recorded.sha256)]
    with contextlib.suppress(StoreError):
        made.append(teacher_place(context, config))
    for path in dict.fromkeys([*([recorded.place] if recorded.place else []), *made]):
        try:
            found = student_at(path, town)
        except CheckpointError as error:
            tried.append(error.message)
            continue
        if found == recorded:
            return replace(recorded, place=path)
        tried.append(f"{path} ({found})")
    raise TeacherError(f"{whose} was taught by {recorded}, which is not here: tried "
                       + "; ".join(tried),
                       hint="put the student of that hash back, or begin a new run")


def find_teacher(context: Context, config: "EngineConfig", town: "City") -> "Identity":
    """Return which teacher the settings name now, and where it lies.

    Raises:
        TeacherError: there is none, or it is damaged.
        StoreError: a HOSER that is to teach is no run.
    """
    from hoserkd.engine.build import identify_teacher

    return identify_teacher(config, town, teacher_place(context, config))


def teacher_sources(
    doing: str, config: "EngineConfig", town: "City", teacher: "Identity", **how: Any
) -> "dict[str, TeacherSource]":
    """Return the answers of `teacher` by split; `how` is passed on to `build_teacher_sources`.

    Raises:
        CheckpointError: another teacher lies in its place meanwhile.
    """
    from hoserkd.engine.build import build_teacher_sources
    from hoserkd.engine.identity import check_unchanged

    assert teacher.place is not None
    sources = build_teacher_sources(config, town, teacher.place, **how)
    check_unchanged(doing, teacher, sources["train"].identity,
                    "the teacher was replaced meanwhile: put it back, or begin anew")
    return sources


def teacher_place(context: Context, config: "EngineConfig") -> Path:
    """Return the teacher's folder; with a HOSER as teacher the file of its run, or the file named.

    A bare word is a run first and a file second, as that of a city is a name first.
    """
    name = config.teacher.name
    if config.distill.source == "lmtad":
        return context.teacher_dir(name)
    file = Path(name).expanduser()
    if is_path(name):
        return file
    try:
        return Path(context.store.run(name, kind="train").directory) / BEST
    except UnknownRunError:
        if file.is_file():
            return file
        raise


def full_teacher(reference: str | None) -> str | None:
    """Return a teacher's name as it is, and a folder or file as an absolute path.

    The settings are read again elsewhere: by a tuning study's workers, and when a run is resumed.
    """
    from hoserkd.engine.places import TEACHERS

    if reference is None:
        return None
    named = find_paths(session().options).data_dir / TEACHERS.folder / reference
    path = Path(reference).expanduser()
    if is_path(reference) or (not TEACHERS.holds(named) and (
            TEACHERS.holds(path) or path.is_file())):
        return str(path.absolute())
    return reference
