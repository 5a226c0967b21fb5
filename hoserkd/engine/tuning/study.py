"""A study that several processes, on one machine or many, work on.

Everything that workers must agree on goes through Optuna's storage, since no lock reaches all the
places where a study may be kept: a trial belongs to whoever moved it from waiting to running, and
who asked for one too many gives it back. What is not searched, the baseline and the final runs, are
trials of a companion study, which are claimed, rescued and counted in the same way.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hoserkd.engine.bounded_json import parse_json
from hoserkd.engine.config import EngineConfig
from hoserkd.engine.identity import MadeFrom
from hoserkd.engine.study import decisive
from hoserkd.engine.tuning.ledger import COMPANION, Ledger, counted
from hoserkd.engine.tuning.objectives import objectives_of
from hoserkd.engine.tuning.space import (
    build_pruner,
    build_sampler,
    check_space,
    parameter_names,
    suggest,
)
from hoserkd.engine.tuning.storage import open_storage, shown, study_place
from hoserkd.engine.tuning.workers import Registration, Worker
from hoserkd.errors import StoreError

MOST_DEATHS = 3
"""A trial whose process died so often is not tried again: the trial may be what kills it."""
JOIN_S = 2.0
"""How long a study that has just been begun is given to name its first worker."""
MADE_FROM, NAME = "made_from", "teacher"
"""Keys of a study's settings: hashes of city and teacher, and what the teacher is called."""
JOB = ("key", "role", "seed", "epochs", "params", "run")
"""What a job of the companion study, or a trial, hands on to the one that goes on with it."""


class Study:
    """A study on its storage."""

    def __init__(self, directory: Path, config: EngineConfig, *, resume: bool, worker: int = 0,
                 made_from: MadeFrom | None = None) -> None:
        """Open or create the study that `tune.study` names.

        A study that others are working on is joined.

        Args:
            directory: Holds the study's journal where `tune.storage` names nothing else.
            config: The settings that every trial starts from.
            resume: Whether nobody need be working on a study that exists.
            worker: Number of this process among those that one command started.
            made_from: The city, and the teacher where one is asked.

        Raises:
            StoreError: the study exists, nobody works on it and `resume` is False; or it was
                begun with settings that decide what a trial comes to, and these differ.
            ConfigError: the choices to search do not make settings.
        """
        check_space(config)
        self.config = config
        self.name = config.tune.study
        self.parameters = parameter_names(config)
        self.worker: Worker | None = None
        self._number = worker
        place = study_place(directory, self.name, config.tune.storage)
        self.place = shown(place)
        storage = open_storage(place)
        self.began, self.ledger = self._open(storage)
        settings = self._settings(made_from or MadeFrom())
        if self.began:
            self.ledger.optuna.set_user_attr("settings", settings)
            return
        if not resume and not self._others_work():
            raise StoreError(f"study {self.name} exists already ({self.place})",
                             hint="--resume goes on with it; --study names another")
        check_settings(self.name, self.ledger.settings(), settings)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Be one of the study's workers while the block runs; may be nested.

        Others join a study only where they find a worker, so be one before anything that lasts.
        """
        if self.worker is not None:
            yield
            return
        joins = not self.began and self._number == 0 and bool(self.ledger.living())
        with Registration(self.ledger.optuna) as registration:
            self.worker = registration.worker
            # A sampler that starts anew must not repeat what it drew, nor what others draw.
            entropy = [self.config.seed, self._number, len(self.ledger.trials())]
            entropy += [int(self.worker.id, 16)] if joins else []
            seed = np.random.SeedSequence(entropy)
            self.ledger.optuna.sampler = build_sampler(
                self.config.tune, int(seed.generate_state(1)[0]))
            try:
                yield
            finally:
                self.worker = None

    def queue(self, jobs: Iterable[Mapping[str, Any]]) -> None:
        """Queue jobs of the companion study whose `key` is not there yet."""
        known = {t.user_attrs.get("key") for t in self.ledger.runs.get_trials(deepcopy=False)}
        for job in jobs:
            if job["key"] not in known:
                self.ledger.runs.enqueue_trial({}, user_attrs=dict(job))

    def take_job(self) -> optuna.Trial | None:
        """Take a job of the companion study; None if none waits."""
        runs = self.ledger.runs
        while runs.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            trial = self._ask(runs)
            key = trial.user_attrs.get("key")
            # Two workers may have queued the same job at the same moment.
            twins = [t for t in originals(counted(runs))
                     if t.user_attrs.get("key") == key and t.number < trial.number]
            if key is None or ("continues" not in trial.user_attrs and twins):
                self._give_back(runs, trial)
                continue
            return trial
        return None

    def take_trial(self) -> optuna.Trial | None:
        """Take a trial to work on; None if there are enough."""
        wanted = self.config.tune.trials - 1
        trials = self.ledger.trials()
        waiting = any(t.state == TrialState.WAITING for t in trials)
        if not waiting and len(originals(trials)) >= wanted:
            return None
        trial = self._ask(self.ledger.optuna)
        if "continues" not in trial.user_attrs:
            earlier = [t for t in originals(self.ledger.trials()) if t.number < trial.number]
            if len(earlier) >= wanted:
                self._give_back(self.ledger.optuna, trial)
                return None
        suggest(trial, self.config)
        # Optuna's tools show it beside their own number, which is one lower.
        trial.set_user_attr("hoserkd_trial", trial.number + 1)
        return trial

    def rescue(self) -> list[int]:
        """Mark what gone processes left as failed, queue it again, return the trials' numbers.

        Numbers are those of the table; jobs of the companion study count as 0.
        """
        rescued = []
        workers = self.ledger.workers()
        for study in (self.ledger.runs, self.ledger.optuna):
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if self.ledger.left(trial, workers) and self.requeue(study, trial, died=True):
                    rescued.append(trial.number + 1 if study is self.ledger.optuna else 0)
        return rescued

    def requeue(self, study: optuna.Study, trial: FrozenTrial, died: bool = False) -> bool:
        """Mark a trial as failed and queue its setting again, to go on where it was.

        Returns:
            False where another worker was quicker, or the trial is given up.
        """
        deaths = int(trial.user_attrs.get("deaths", 0)) + died
        given_up = deaths >= MOST_DEATHS
        why = ("stopped" if not died else
               f"its process died, {deaths} times by now" if deaths > 1 else "its process died")
        if not self.fail(study, trial, why) or given_up:
            return False
        kept = {key: trial.user_attrs[key] for key in JOB if key in trial.user_attrs}
        study.enqueue_trial(dict(trial.params), user_attrs={
            **kept, "continues": trial.number, "deaths": deaths})
        return True

    def fail(self, study: optuna.Study, trial: FrozenTrial | optuna.Trial, error: str) -> bool:
        """Mark a trial as failed; False where another worker has ended it already."""
        try:
            study._storage.set_trial_user_attr(trial._trial_id, "error", error)
            study.tell(trial.number, state=TrialState.FAIL)
        except (UpdateFinishedTrialError, ValueError):
            return False
        return True

    def _ask(self, study: optuna.Study) -> optuna.Trial:
        trial = study.ask()
        if self.worker is not None:
            trial.set_user_attr("worker", self.worker.id)
        return trial

    def _give_back(self, study: optuna.Study, trial: optuna.Trial) -> None:
        trial.set_user_attr("surplus", True)
        study.tell(trial, state=TrialState.FAIL)

    def _open(self, storage: BaseStorage) -> tuple[bool, Ledger]:
        objectives = objectives_of(self.config.tune.objectives)
        try:
            found = optuna.create_study(
                study_name=self.name, storage=storage,
                directions=[each.direction for each in objectives])
            began = True
        except DuplicatedStudyError:
            found, began = optuna.load_study(study_name=self.name, storage=storage), False
        found.pruner = build_pruner(self.config.tune)
        runs = optuna.create_study(
            study_name=COMPANION.format(self.name), storage=storage, direction="maximize",
            load_if_exists=True, sampler=optuna.samplers.RandomSampler(seed=self.config.seed))
        return began, Ledger(self.name, found, runs, objectives, self.config.tune.patience_s)

    def _others_work(self) -> bool:
        deadline = time.monotonic() + JOIN_S
        while not (found := self.ledger.living()):
            # Workers that have all left: nobody is about to begin.
            if self.ledger.workers() or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return bool(found)

    def _settings(self, made_from: MadeFrom) -> dict[str, Any]:
        tune = self.config.tune
        # Whether the settings distil by themselves does not matter: trials do, the baseline not.
        found = decisive(self.config, None) | {
            "distill": self.config.distill.model_dump(
                mode="json", exclude={"enabled", "lambda_kl", "temperature", "window"})}
        found["train"].pop("epochs")
        plain: dict[str, Any] = parse_json(json.dumps({
            **found, NAME: self.config.teacher.name, MADE_FROM: made_from.to_json(),
            "tune": {"objectives": tune.objectives, "epochs": tune.epochs,
                     "choices": tune.choices}}), non_finite=True)
        return plain


def check_settings(name: str, begun: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse settings under which trials would not compare with those that are there.

    Raises:
        StoreError: some differ, or city or teacher is another one; says which.
    """
    before, now = made_from_of(begun), made_from_of(asked)
    for role in ("city", "teacher"):
        recorded, found = getattr(before, role), getattr(now, role)
        if recorded not in (None, found):
            raise StoreError(
                f"study {name} was begun with {recorded}, but this is {found}",
                hint="its trials would not compare: put the first one back, or begin another "
                     "--study")
    wrong = [f"{key} was {json.dumps(value)}, now {json.dumps(now)}"
             for key, value, now in _differences(_compared(begun), asked)]
    if wrong:
        raise StoreError(f"study {name} was begun with other settings: " + "; ".join(wrong),
                         hint="give the settings of its start, or another --study")


def made_from_of(settings: Mapping[str, Any]) -> MadeFrom:
    """Return the city and the teacher with which a study was begun, from its settings."""
    # Before hashes of teachers were recorded, that of the city stood alone.
    city = {"name": "of its start", "sha256": settings.get("city")}
    return MadeFrom.from_json(settings.get(MADE_FROM, {"city": city}))


def _compared(begun: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings to compare; of a study that knows its teacher's hash without the name."""
    knows = MADE_FROM in begun
    return {key: value for key, value in begun.items()
            if key not in (MADE_FROM, "city") and not (knows and key == NAME)}


def originals(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that do not go on with another one."""
    return [t for t in trials if "continues" not in t.user_attrs]


def _differences(begun: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = ""
                 ) -> Iterator[tuple[str, Any, Any]]:
    for key, value in begun.items():
        now = asked.get(key)
        if isinstance(value, Mapping) and isinstance(now, Mapping):
            yield from _differences(value, now, f"{prefix}{key}.")
        elif value != now:
            yield prefix + key, value, now
