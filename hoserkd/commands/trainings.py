"""The trainings of a study, each a run of the store."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoserkd.commands.context import Context
from hoserkd.errors import StoreError
from hoserkd.store.references import UnknownRunError

if TYPE_CHECKING:
    from hoserkd.engine.city.storage import City
    from hoserkd.engine.config import EngineConfig
    from hoserkd.engine.events import Observer, StopRequested
    from hoserkd.engine.identity import Identity
    from hoserkd.engine.tasks import Task
    from hoserkd.engine.teacher.signal import TeacherSource
    from hoserkd.engine.train import TrainResult
    from hoserkd.store.recorder import RunRecorder

    Measure = Callable[["Task", "TrainResult", "Observer", "StopRequested"], dict[str, float]]

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
    def recording(self, kind: str) -> "Iterator[RunRecorder]":
        """Give the run that stands for the whole study, a new one or the one that was stopped."""
        earlier = self.context.store.runs(kind=kind, study=self.study, limit=1)
        if earlier:
            recorder = self.context.resume_run(
                earlier[0].run_id, self.context.made_from(self.town))
        else:
            recorder = self.context.start_run(
                kind, self.study, made_from=self.context.made_from(self.town), study=self.study)
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
            recorder.artifact(result.best, "model")
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
        return self.context.start_run(
            "train", task.name, [self._parent] if self._parent else [], config=task.config,
            made_from=made_from, tags=task.tags, study=self.study)


def asks_teacher(config: "EngineConfig") -> bool:
    """Return whether somebody but the student itself teaches."""
    return config.distill.enabled and config.distill.source != "self"


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
    """Return the teacher's folder; with a HOSER as teacher its file, or that of its run."""
    name = config.teacher.name
    if config.distill.source == "lmtad":
        return context.teacher_dir(name)
    file = Path(name).expanduser()
    if file.is_file():
        return file
    return Path(context.store.run(name, kind="train").directory) / "best.safetensors"
