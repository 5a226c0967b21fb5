"""What is known of a study, read from its storage."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hoserkd.engine.metrics.catalogue import current_name
from hoserkd.engine.tuning.objectives import Objective, objectives_of
from hoserkd.engine.tuning.rows import TrialRow, trial_row
from hoserkd.engine.tuning.workers import Worker, workers_of
from hoserkd.errors import StoreError

COMPANION = "{}/runs"
"""Study of what is not searched: the baseline and the final runs."""
VANILLA = "vanilla"
UNENDED = (TrialState.RUNNING, TrialState.WAITING)


@dataclass(frozen=True, slots=True)
class Ledger:
    """A study and its companion."""

    name: str
    optuna: optuna.Study
    """The trials that are searched; trial n of these is shown as trial n + 1."""
    runs: optuna.Study
    """The baseline and the final runs, by key."""
    objectives: tuple[Objective, ...]
    patience_s: float

    @property
    def leader(self) -> FrozenTrial | None:
        """The complete searched trial with the best first objective: it goes on to the final runs.

        Of the front where there are several objectives.
        """
        return best_of(self.front(), self.objectives[0])

    @property
    def best(self) -> FrozenTrial | None:
        """The leader if it beats vanilla; None where vanilla is not beaten, or not known yet."""
        leader, vanilla, first = self.leader, self.fixed(VANILLA), self.objectives[0]
        if leader is None or vanilla is None or not vanilla.state.is_finished():
            return None
        known = known_metrics(vanilla).get(first.metric)
        return leader if known is None or first.better(leader.values[0], known) else None

    def front(self) -> list[FrozenTrial]:
        """Return the complete searched trials that no other of them beats in every objective.

        With one objective, the best.

        Of trials that came to the same, the oldest.
        """
        if len(self.objectives) > 1:
            return sorted(self.optuna.best_trials, key=lambda t: t.number)
        best = best_of((t for t in self.trials() if t.state == TrialState.COMPLETE),
                       self.objectives[0])
        return [] if best is None else [best]

    def trials(self) -> list[FrozenTrial]:
        """Return the searched trials, the oldest first."""
        return counted(self.optuna)

    def rows(self) -> tuple[TrialRow, ...]:
        """Return the table, the baseline first."""
        workers = self.workers()
        vanilla = self.fixed(VANILLA)
        rows = [] if vanilla is None else [self._row(vanilla, 0, None, workers)]
        trials = self.trials()
        after = {t.user_attrs["continues"]: t.number + 1 for t in trials
                 if "continues" in t.user_attrs}
        rows += [self._row(trial, trial.number + 1, after.get(trial.number), workers)
                 for trial in trials]
        return tuple(rows)

    def fixed(self, key: str) -> FrozenTrial | None:
        """Return the trial of the companion study that has done this job, or is at it, if any."""
        found = [t for t in counted(self.runs) if t.user_attrs.get("key") == key]
        done = [t for t in found if t.state == TrialState.COMPLETE]
        return (done or found[-1:] or [None])[0]

    def metrics(self, key: str) -> dict[str, float] | None:
        """Return the figures of a finished job of the companion study."""
        trial = self.fixed(key)
        if trial is None or trial.state != TrialState.COMPLETE:
            return None
        return known_metrics(trial)

    def workers(self) -> dict[str, Worker]:
        """Return all processes that ever worked on the study, by id."""
        return workers_of(self.optuna.user_attrs)

    def living(self, but: str = "") -> list[Worker]:
        """Return the processes that work on the study, without the worker `but`."""
        now = time.time()
        return [worker for worker in self.workers().values()
                if worker.id != but and worker.lives(now, self.patience_s)]

    def left(self, trial: FrozenTrial, workers: Mapping[str, Worker]) -> bool:
        """Return whether a running trial has nobody any more who works on it."""
        worker = workers.get(trial.user_attrs.get("worker", ""))
        if worker is not None:
            return not worker.lives(time.time(), self.patience_s)
        started = trial.datetime_start
        return started is not None and time.time() - started.timestamp() > self.patience_s

    def unended(self) -> list[FrozenTrial]:
        """Return what still waits or runs, of both studies."""
        return [trial for study in (self.runs, self.optuna)
                for trial in study.get_trials(deepcopy=False, states=UNENDED)]

    def settings(self) -> dict[str, Any]:
        """Return the settings with which the study was begun."""
        found: dict[str, Any] = self.optuna.user_attrs.get("settings", {})
        return found

    def _row(self, trial: FrozenTrial, number: int, later: int | None,
             workers: Mapping[str, Worker]) -> TrialRow:
        worker = workers.get(trial.user_attrs.get("worker", ""))
        row = trial_row(trial, self.objectives, number, later,
                        "" if worker is None else f"{worker.host}:{worker.pid}")
        metrics = known_metrics(trial)
        if number or not metrics:
            return row
        # The companion study knows one objective; the baseline has figures for all.
        return replace(row, values={each.name: float(metrics[each.metric])
                                    for each in self.objectives if each.metric in metrics})


def open_ledger(storage: BaseStorage, name: str, patience_s: float, place: str) -> Ledger:
    """Open a study that exists, to read it.

    Raises:
        StoreError: there is none of this name.
    """
    try:
        found = optuna.load_study(study_name=name, storage=storage)
        runs = optuna.load_study(study_name=COMPANION.format(name), storage=storage)
        names = found.user_attrs["settings"]["tune"]["objectives"]
    except KeyError as error:
        raise StoreError(f"{place} holds no study {name} of hoserkd",
                         hint="`hoserkd tune --study NAME` begins one") from error
    return Ledger(name, found, runs, objectives_of(tuple(names)), patience_s)


def known_metrics(trial: FrozenTrial) -> dict[str, float]:
    """Return a trial's figures by their present names; empty where it has none."""
    return {current_name(name): value
            for name, value in trial.user_attrs.get("metrics", {}).items()}


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials of a study without those that were given back, the oldest first."""
    return [t for t in study.get_trials(deepcopy=False) if not t.user_attrs.get("surplus")]


def best_of(trials: Iterable[FrozenTrial], objective: Objective) -> FrozenTrial | None:
    """Return the best of complete trials by the first objective, the oldest of equals."""
    best: FrozenTrial | None = None
    for trial in trials:
        if best is None or objective.better(trial.values[0], best.values[0]):
            best = trial
    return best
