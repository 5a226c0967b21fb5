"""A study at work within the run store: what is trained, what is known, what it comes to."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hoserkd.commands.context import Context
from hoserkd.commands.trainings import RESULT, Trainings, asks_teacher, teacher_sources
from hoserkd.errors import DataError, InterruptedRunError, StoreError
from hoserkd.placeless import placeless_command
from hoserkd.store.artefacts import recorded_city

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

    from hoserkd.engine.city.storage import City
    from hoserkd.engine.config import EngineConfig
    from hoserkd.engine.events import Event, Observer, StopRequested
    from hoserkd.engine.identity import Identity
    from hoserkd.engine.study import Entry
    from hoserkd.engine.tasks import Task
    from hoserkd.engine.train import TrainResult
    from hoserkd.report.study import StudyReport, TeacherWord
    from hoserkd.store.recorder import RunRecorder
    from hoserkd.store.records import RunRecord

SYNC_S = 10.0
"""How long to wait for the store's news, lest a finished training be done again."""


class Bench:
    """A study at work within the run store."""

    def __init__(self, context: Context, town: "City", city: str | None) -> None:
        from hoserkd.engine.study import plan_study, study_name

        self.context = context
        self.town = town
        self.city = city
        self.name = study_name(context.config)
        for split in ("train", "val", "test"):
            if len(town.split(split)) == 0:
                raise DataError(f"{town.directory}: the {split} split holds no trips",
                                hint="a study needs training, validation and test trips")
        self.planned = plan_study(context.config, len(town.split("train")))
        self.trainings = Trainings(context, town, self.name, screen=Quieter(context),
                                   measure=self.measure)
        self._parts: dict[tuple[float, int], dict[str, np.ndarray]] = {}

    def check(self, resume: bool) -> None:
        """Refuse to begin a study that exists.

        Raises:
            StoreError: it exists and `resume` is False.
        """
        self.context.store.sync(SYNC_S)
        if not resume and self.context.store.runs(kind="study", study=self.name, limit=1):
            raise StoreError(f"study {self.name} exists already",
                             hint="--resume goes on with it; --name names another")

    def prepare_teachers(self, auto: bool) -> None:
        """See that the teachers fit and that their signals are stored; with `auto` compute them.

        Raises:
            TeacherError: one is missing or of another place.
            ConfigError: an arm that teaches itself names blocks that the student lacks.
        """
        from hoserkd.engine.build import compute_shared_windows
        from hoserkd.engine.training.self_distillation import checked_layers

        for each in self.planned:
            distill = each.task.config.distill
            if distill.enabled and distill.source == "self":
                checked_layers(distill.aux_layers, each.task.config.student.layers)
        observer, stop = self.context.observer, self.context.stop
        taught = [(teacher, config) for config in self.taught()
                  if (teacher := self.trainings.teacher(config)) is not None]
        for teacher in dict.fromkeys(teacher for teacher, _ in taught
                                     if auto and teacher.kind == "teacher"):
            configs = [config for other, config in taught if other == teacher]
            assert teacher.place is not None
            compute_shared_windows(configs, self.town, teacher.place, observer=observer,
                                   stop=stop)
        for teacher, config in taught:
            teacher_sources(f"study {self.name}", config, self.town, teacher, auto=auto,
                            observer=observer, stop=stop,
                            command=self.precompute_command(config.teacher.name))

    def taught(self) -> "list[EngineConfig]":
        """Return the settings of one training of each arm that asks a teacher."""
        arms = {each.arm: each.task.config for each in self.planned}
        return [config for config in arms.values() if asks_teacher(config)]

    def work(self, recorder: "RunRecorder") -> "StudyReport":
        """Train what is left, and compare.

        Raises:
            InterruptedRunError: the user asked to stop; `--resume` goes on.
        """
        from hoserkd import __version__
        from hoserkd.engine.study import compare_arms, run_study
        from hoserkd.engine.study_parts import part_sizes
        from hoserkd.report.study import StudyReport

        config, ledger = self.context.config, self.ledger()
        for told in ledger.of_others([each.task for each in self.planned]):
            self.context.console.warn(f"study {self.name}: {told}")
        try:
            trained = run_study(self.planned, self.trainings.train, ledger,
                                self.context.observing(recorder), self.context.stop)
        except InterruptedRunError as stopped:
            raise InterruptedRunError(f"study {self.name}: {stopped.message}", hint=(
                "the same command with --resume goes on from there")) from stopped
        plans = tuple(dict.fromkeys(each.plan for each in self.planned))
        configs = {each.plan.share: each.task.config for each in self.planned}
        sizes = {share: part_sizes(self.town, self.parts(each)) for share, each in configs.items()}
        return StudyReport(
            name=self.name, city=self.town.name, shares=plans, sizes=sizes, trained=trained,
            comparisons=compare_arms(trained, sizes), teachers=tuple(self.teachers()),
            commands=(placeless_command(["hoserkd", *sys.argv[1:]]),),
            made=f"Seed of the shares: {config.data.share_seed}. Made by hoserkd {__version__} on "
                 f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC.")

    def made_from(self) -> dict[str, Any]:
        """Return the hashes of the city, and of each arm's teacher."""
        arms = {each.arm: each.task.config for each in self.planned}
        teachers = {arm: self.trainings.teacher(config) for arm, config in arms.items()}
        return {**self.context.made_from(self.town).to_json(), "teachers": {
            arm: None if teacher is None else teacher.to_json()
            for arm, teacher in teachers.items()}}

    def ledger(self) -> "StoredTrainings":
        """Return what the store knows of this study's trainings."""
        runs = self.context.store.runs(kind="train", study=self.name)
        # A tuning study of the same name has trainings of its own.
        own = {run.run_id for run in self.context.store.runs(kind="study", study=self.name)}
        return StoredTrainings(self.context, self.town, self.trainings.teacher,
                               [run for run in runs if own & set(run.parents)])

    def measure(self, task: "Task", result: "TrainResult", observer: "Observer",
                stop: "StopRequested") -> dict[str, float]:
        """Return a trained student's figures on parts of the test trips."""
        from hoserkd.engine.study_parts import judge_parts

        return judge_parts(task.config, self.town, result.best, self.parts(task.config), observer,
                           stop)

    def parts(self, config: "EngineConfig") -> "dict[str, np.ndarray]":
        """Return the parts of the test trips for one share."""
        from hoserkd.engine.study_parts import trip_parts

        key = (config.data.train_share, config.data.share_seed)
        if key not in self._parts:
            self._parts[key] = trip_parts(self.town, config.data)
        return self._parts[key]

    def teachers(self) -> "Iterator[TeacherWord]":
        """Yield how often each arm's teacher is right, where its signal is stored."""
        from hoserkd.engine.teacher.storage import load_card
        from hoserkd.engine.teacher.stored_quality import stored_qualities
        from hoserkd.report.study import TeacherWord

        arms = {each.arm: each.task.config for each in self.planned}
        for arm, config in arms.items():
            if not asks_teacher(config) or config.distill.source != "lmtad":
                continue
            teacher = self.trainings.teacher(config)
            assert teacher is not None
            assert teacher.place is not None
            card = load_card(teacher.place)
            for split, quality in stored_qualities(config, self.town, card):
                yield TeacherWord(arm, split, quality.accuracy, quality.chance)

    def precompute_command(self, teacher: str) -> str:
        """Return how `hoserkd precompute` is called for this study."""
        profile = ("" if self.context.profile == "default"
                   else f" --profile {self.context.profile}")
        return (f"hoserkd precompute{profile} --teacher {teacher}"
                + ("" if self.city is None else f" --city {self.city}"))


class StoredTrainings:
    """The trainings of a study as the store remembers them, found by settings and teacher."""

    def __init__(
        self, context: Context, town: "City",
        teacher: "Callable[[EngineConfig], Identity | None]", runs: "Sequence[RunRecord]",
    ) -> None:
        """Read the runs, given the newest first; a finished one stands before a stopped one.

        Args:
            teacher: Who teaches now with given settings.
        """
        from hoserkd.engine.identity import city_identity

        self._city = city_identity(town)
        self._teacher = teacher
        self._entries: dict[str, Entry] = {}
        self._others: dict[str, Counter[tuple[Identity | None, Identity | None]]] = {}
        """How many trainings with given settings there are of each city and teacher."""
        for run in runs:
            config, city, taught_by = (context.config_of(run), recorded_city(run),
                                       run.made_from.teacher)
            self._others.setdefault(settings_key(config, None), Counter())[city, taught_by] += 1
            if city != self._city:
                continue
            key, entry = settings_key(config, taught_by), self._entry(context, run)
            known = self._entries.get(key)
            if known is None or (known.metrics is None and entry.metrics is not None):
                self._entries[key] = entry

    def find(self, task: "Task") -> "Entry | None":
        """Return the training with the task's settings by the teacher that there is now."""
        return self._entries.get(settings_key(task.config, self._teacher(task.config)))

    def of_others(self, tasks: "Sequence[Task]") -> list[str]:
        """Return, in words, how many trainings of these tasks were of another city or teacher."""
        told: Counter[str] = Counter()
        for task in tasks:
            now = self._teacher(task.config)
            known = self._others.get(settings_key(task.config, None), Counter())
            for (city, taught_by), count in known.items():
                if city != self._city:
                    told[f"were made on {city}, and this is {self._city}"] += count
                elif taught_by != now:
                    told[f"were taught by {taught_by or 'a teacher without a hash'}, and this is "
                         f"{now}"] += count
        return [f"{count} of its trainings {words}: they are trained again, and the old ones do "
                "not count" for words, count in told.items()]

    @staticmethod
    def _entry(context: Context, run: "RunRecord") -> "Entry":
        from hoserkd.engine.study import Entry

        judged = [e.payload for e in context.store.evaluations(run.run_id) if e.label == RESULT]
        return Entry(run.run_id, {name: float(value) for name, value in judged[-1].items()
                                  if value is not None} if judged else None)


def settings_key(config: "EngineConfig", teacher: "Identity | None") -> str:
    """Return a text that is the same for trainings of a city that come to the same."""
    from hoserkd.engine.study import decisive

    return json.dumps(decisive(config, teacher), sort_keys=True)


class Quieter:
    """Shows a training's progress and warnings; what it says of itself only with `-v`."""

    def __init__(self, context: Context) -> None:
        self._observer = context.observer
        self._all = context.options.verbosity > 0

    def notify(self, event: "Event") -> None:
        """Show `event` if it matters to who watches many trainings."""
        from hoserkd.engine.events import EpochDone, Note, SplitJudged

        said = isinstance(event, EpochDone | SplitJudged) or (
            isinstance(event, Note) and event.level != "warning")
        if self._all or not said:
            self._observer.notify(event)
