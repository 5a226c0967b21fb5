"""The two-phase study: a vanilla baseline, a search, then final runs over seeds.

The baseline is trial 0. It has no distillation settings, which the samplers cannot express, so it
lives beside the study's own trials, of which number n is shown as trial n + 1.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from hoserkd.engine.config import EngineConfig
from hoserkd.engine.events import EpochDone, Event, Note, Observer, Progress, Silent, StopRequested
from hoserkd.engine.seeds import Comparison, corrected, paired
from hoserkd.engine.tasks import Task, Train
from hoserkd.engine.tuning.ledger import VANILLA, Ledger
from hoserkd.engine.tuning.objectives import Objective, values_of
from hoserkd.engine.tuning.rows import TuneOutcome, front_of, importances
from hoserkd.engine.tuning.space import with_setting
from hoserkd.engine.tuning.study import Study, made_from_of
from hoserkd.errors import DivergenceError, InterruptedRunError

COMPARED = ("test_accuracy", "val_accuracy", "test_loss_road", "test_loss_time",
            "test_time_mae_s", "test_ece")
"""What the final runs are compared on, in this order, where they have it."""
SILENT = Silent()
POLL_S = 1.0
"""Pause between two looks at what other workers are doing."""
FAILURES = (DivergenceError, torch.OutOfMemoryError)
"""What a setting may do to its training; all else ends the worker."""
STOPPED = "the study was stopped"


def work(study: Study, train: Train, *, observer: Observer = SILENT, stop: StopRequested,
         settled: Callable[[], None] = lambda: None, poll_s: float = POLL_S) -> None:
    """Do whatever is left of a study, along with all others who work on it.

    The baseline comes first, then trials until there are enough; when the last has ended, the
    final runs. What a worker that is gone has left is taken up by the others.

    Args:
        train: Trains one task.
        settled: Called whenever a trial has ended, for who wants to tidy up.
        poll_s: Pause between two looks at others' work, while there is nothing else to do.

    Raises:
        InterruptedRunError: `stop` said so; what this worker was at is queued again.
    """
    with study.at_work():
        study.queue([_job(VANILLA, "vanilla", study.config.seed, study.config.tune.epochs)])
        while _one_turn(study, train, observer, stop, settled, poll_s):
            if stop():
                raise InterruptedRunError(STOPPED)


def _one_turn(study: Study, train: Train, observer: Observer, stop: StopRequested,
              settled: Callable[[], None], poll_s: float) -> bool:
    """Do one thing that is left, or wait for others; False: nothing is left."""
    for number in study.rescue():
        what = f"trial {number}" if number else "a run"
        observer.notify(Note(f"{what} was left by a process that is gone: marked as failed, "
                             "queued again", level="warning"))
    if (job := study.take_job()) is not None:
        run_job(study, job, train, stop)
    elif (trial := study.take_trial()) is not None:
        run_trial(study, trial, train, stop)
        done = sum(t.state.is_finished() for t in study.ledger.trials())
        observer.notify(Progress("searching settings", min(done + 1, study.config.tune.trials),
                                 study.config.tune.trials, "trials"))
    elif study.ledger.unended():
        time.sleep(poll_s)
        return True
    else:
        study.queue(final_jobs(study.ledger, study.config))
        return bool(study.ledger.unended())
    settled()
    return True


class TrialWatch:
    """Reports a trial's epochs to the study and says when it should end before its time."""

    def __init__(self, trial: optuna.Trial, objective: Objective, epochs: int, *, prunes: bool,
                 stop: StopRequested) -> None:
        self._trial = trial
        self._objective = objective
        self._epochs = epochs
        self._prunes = prunes
        self._stop = stop
        self._curve: dict[str, float] = {}
        self.pruned = False
        self.lost = False
        """Others took this process for gone, and the trial from it."""

    def repeat(self, study: optuna.Study) -> None:
        """Report what the trial had reached that this one goes on with, if it does."""
        continued = self._trial.user_attrs.get("continues")
        if continued is not None:
            earlier = study.get_trials(deepcopy=False)[continued]
            for epoch, value in earlier.user_attrs.get("curve", {}).items():
                self._report(int(epoch), value)

    def notify(self, event: Event) -> None:
        """Report the first objective at every epoch's end."""
        if not isinstance(event, EpochDone) or self._objective.metric not in event.metrics:
            return
        self._report(event.epoch + 1, event.metrics[self._objective.metric])
        # Nothing is saved by pruning a trial that has done its last epoch.
        if self._prunes and not self.lost and event.epoch + 1 < self._epochs:
            self.pruned = bool(self._trial.should_prune())

    def should_stop(self) -> bool:
        """Return whether the trial shall end before its time."""
        return self.pruned or self.lost or self._stop()

    def _report(self, epoch: int, value: float) -> None:
        if str(epoch) in self._curve:
            return
        self._curve[str(epoch)] = value
        try:
            self._trial.set_user_attr("curve", self._curve)
            if self._prunes:
                self._trial.report(value, epoch)
        except UpdateFinishedTrialError:
            self.lost = True


def run_trial(study: Study, trial: optuna.Trial, train: Train, stop: StopRequested) -> None:
    """Train one trial and tell the study what came of it."""
    config, ledger = study.config, study.ledger
    objective = ledger.objectives[0]
    prunes = len(ledger.objectives) == 1 and objective.by_epoch
    watch = TrialWatch(trial, objective, config.tune.epochs, prunes=prunes, stop=stop)
    watch.repeat(ledger.optuna)
    task = Task(f"{study.name}-{trial.number + 1}", ("search",),
                with_setting(config, trial.params, config.tune.epochs, config.seed),
                trial.user_attrs.get("run"))
    try:
        metrics = train(task, watch, watch.should_stop, _remembering(trial))
    except InterruptedRunError:
        if watch.lost:
            return
        if not watch.pruned:
            study.requeue(ledger.optuna, _frozen(ledger.optuna, trial))
            raise
        ledger.optuna.tell(trial, state=TrialState.PRUNED)
    except FAILURES as error:
        study.fail(ledger.optuna, trial, _words(error))
    else:
        _complete(study, ledger.optuna, trial, values_of(ledger.objectives, metrics), metrics)


def run_job(study: Study, job: optuna.Trial, train: Train, stop: StopRequested) -> None:
    """Train the baseline or a final run, and keep its figures with the study."""
    runs, told = study.ledger.runs, job.user_attrs
    role, seed = told["role"], int(told["seed"])
    name = f"{study.name}-0" if role == VANILLA else f"{study.name}-{role}-{seed}"
    task = Task(name, (role,), with_setting(study.config, told.get("params"), int(told["epochs"]),
                                            seed), told.get("run"))
    watch = TrialWatch(job, study.ledger.objectives[0], int(told["epochs"]), prunes=False,
                       stop=stop)
    watch.repeat(runs)
    try:
        metrics = train(task, watch, watch.should_stop, _remembering(job))
    except InterruptedRunError:
        if not watch.lost:
            study.requeue(runs, _frozen(runs, job))
            raise
    except FAILURES as error:
        study.fail(runs, job, _words(error))
    else:
        _complete(study, runs, job, [metrics["val_accuracy"]], metrics)


def final_jobs(ledger: Ledger, config: EngineConfig) -> Iterator[Mapping[str, Any]]:
    """Yield the final runs: vanilla and the best setting with every final seed."""
    best, epochs = ledger.leader, config.tune.final_epochs
    if best is None:
        return
    for seed in config.tune.final_seeds:
        yield _job(vanilla_key(seed, epochs), "final-vanilla", seed, epochs)
        yield _job(best_key(best, seed, epochs), "final-best", seed, epochs, dict(best.params))


def vanilla_key(seed: int, epochs: int) -> str:
    """Return the key of a final run of vanilla."""
    return f"final-vanilla-{seed}-{epochs}"


def best_key(best: FrozenTrial, seed: int, epochs: int) -> str:
    """Return the key of a final run of the best trial."""
    return f"final-best-{best.number + 1}-{seed}-{epochs}"


def compare_finals(ledger: Ledger, seeds: tuple[int, ...], epochs: int) -> tuple[Comparison, ...]:
    """Return the leader against vanilla, paired by seed; empty where no final runs are done.

    With Holm's correction over all figures compared.
    """
    best = ledger.leader
    if best is None:
        return ()
    pairs = [(ledger.metrics(best_key(best, seed, epochs)),
              ledger.metrics(vanilla_key(seed, epochs))) for seed in seeds]
    done = [(ours, plain) for ours, plain in pairs if ours is not None and plain is not None]
    if not done:
        return ()
    metrics = [*COMPARED, *(each.metric for each in ledger.objectives
                            if each.metric not in COMPARED)]
    return corrected([
        paired(metric, [ours[metric] for ours, _ in done], [plain[metric] for _, plain in done])
        for metric in metrics if metric in done[0][0] and metric in done[0][1]])


def outcome(ledger: Ledger, config: EngineConfig, parameters: tuple[str, ...], place: str
            ) -> TuneOutcome:
    """Return what a study has come to, at its end or on the way."""
    best, leader, rows = ledger.best, ledger.leader, ledger.rows()
    tune = config.tune
    return TuneOutcome(
        name=ledger.name, place=place, made_from=made_from_of(ledger.settings()),
        objectives=ledger.objectives, parameters=parameters,
        rows=rows, leader=None if leader is None else leader.number + 1,
        best=None if best is None else best.number + 1,
        front=front_of(rows, ledger.objectives),
        importances=importances(ledger.optuna, ledger.objectives),
        comparisons=compare_finals(ledger, tune.final_seeds, tune.final_epochs),
        planned=tune.trials, final_seeds=tune.final_seeds)


def _job(key: str, role: str, seed: int, epochs: int, params: Mapping[str, Any] | None = None
         ) -> Mapping[str, Any]:
    return {"key": key, "role": role, "seed": seed, "epochs": epochs,
            **({} if params is None else {"params": params})}


def _remembering(trial: optuna.Trial) -> Callable[[str], None]:
    def remember(run: str) -> None:
        trial.set_user_attr("run", run)

    return remember


def _complete(study: Study, of: optuna.Study, trial: optuna.Trial, values: list[float],
              metrics: Mapping[str, float]) -> None:
    if not all(math.isfinite(value) for value in values):
        study.fail(of, trial, f"an objective is not a number: {values}")
        return
    try:
        trial.set_user_attr("metrics", {name: float(value) for name, value in metrics.items()})
        of.tell(trial, values)
    except (UpdateFinishedTrialError, ValueError):
        # Others took this process for gone and have begun the trial anew: theirs counts.
        return


def _frozen(study: optuna.Study, trial: optuna.Trial) -> FrozenTrial:
    return study.get_trials(deepcopy=False)[trial.number]


def _words(error: Exception) -> str:
    return getattr(error, "message", None) or str(error).splitlines()[0]
