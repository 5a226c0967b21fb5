"""The two-phase study: a vanilla baseline, a search, then final runs over seeds.

The baseline is trial 0. It has no distillation settings, which the samplers cannot express, so it
lives beside the study's own trials, of which number n is shown as trial n + 1.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from hoserkd.engine.config import EngineConfig, TuneConfig
from hoserkd.engine.events import EpochDone, Event, Observer, Progress, Silent, StopRequested
from hoserkd.engine.seeds import Comparison, paired
from hoserkd.engine.study_journal import StudyJournal
from hoserkd.engine.tasks import Task, Train
from hoserkd.errors import DivergenceError, InterruptedRunError, StoreError

OBJECTIVE = "val_accuracy"
COMPARED = ("test_accuracy", "val_accuracy", "test_loss_road", "test_loss_time",
            "test_time_mae_s", "test_ece")
"""What the final runs are compared on, in this order, where they have it."""
SILENT = Silent()
Role = Literal["vanilla", "search", "final-best", "final-vanilla"]


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One line of a study's table."""

    number: int
    """0: the vanilla baseline."""
    state: str
    """complete, pruned, failed, running or waiting."""
    accuracy: float | None
    """Best validation accuracy so far."""
    epochs: int
    params: dict[str, Any]
    run: str | None


class Study:
    """A study on disk that several processes may work on."""

    def __init__(self, directory: Path, config: EngineConfig, *, resume: bool,
                 worker: int = 0) -> None:
        """Open or create the study that `tune.study` names.

        Args:
            directory: Holds the study's journal and locks.
            config: The settings that every trial starts from.
            resume: Whether the study may exist already; it must not otherwise.
            worker: Number of this process among those that work on the study.

        Raises:
            StoreError: the study exists and `resume` is False.
        """
        directory.mkdir(parents=True, exist_ok=True)
        name = self.name = config.tune.study
        self.config = config
        self._locks = directory / f"{name}.locks"
        self._locks.mkdir(exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        journal = directory / f"{name}.log"
        storage = JournalStorage(StudyJournal(journal))
        known = {s.study_name for s in optuna.get_all_study_summaries(storage)}
        if name in known and not resume:
            raise StoreError(f"study {name} exists already ({journal})",
                             hint="--resume goes on with it; --study names another")
        self.optuna = optuna.create_study(study_name=name, storage=storage, direction="maximize",
                                          load_if_exists=True, pruner=build_pruner(config.tune))
        # A sampler that starts anew must not repeat what it drew before, nor what others draw.
        seed = np.random.SeedSequence([config.seed, worker, len(self.trials())])
        self.optuna.sampler = build_sampler(config.tune, int(seed.generate_state(1)[0]))

    @property
    def baseline(self) -> dict[str, Any] | None:
        """What is known of trial 0; None before it is done."""
        found: dict[str, Any] | None = self.optuna.user_attrs.get("vanilla")
        return found

    @property
    def best(self) -> FrozenTrial | None:
        """The completed trial with the best validation accuracy, or None."""
        done = [t for t in self.trials() if t.state == TrialState.COMPLETE]
        return max(done, key=lambda t: (t.value or 0.0, -t.number), default=None)

    def trials(self) -> list[FrozenTrial]:
        """Return the searched trials, the oldest first."""
        found: list[FrozenTrial] = self.optuna.get_trials(deepcopy=False)
        return found

    def rows(self) -> list[TrialRow]:
        """Return the table, the baseline first."""
        rows = []
        if self.baseline is not None:
            rows.append(TrialRow(0, "complete", self.baseline["metrics"][OBJECTIVE],
                                 self.config.tune.epochs, {}, self.baseline["run"]))
        trials = self.trials()
        continued = {t.user_attrs.get("continues") for t in trials}
        return rows + [_row(trial) for trial in trials if trial.number not in continued]

    def remember(self, key: str, value: Any) -> None:
        """Keep a plain value with the study."""
        self.optuna.set_user_attr(key, value)

    @contextmanager
    def lock(self, name: str, wait: bool = True) -> Iterator[bool]:
        """Hold a lock of the study while the block runs; gives False if another process has it."""
        with (self._locks / name).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def fail_stale(self) -> list[int]:
        """Mark trials whose process is gone as failed, queue them again, return their numbers.

        A working process holds its trial's lock, which the system takes away with the process.
        """
        stale = []
        for trial in self.trials():
            if trial.state != TrialState.RUNNING:
                continue
            with self.lock(f"trial-{trial.number}", wait=False) as free:
                if free:
                    self.requeue(trial)
                    stale.append(trial.number)
        return stale

    def requeue(self, trial: FrozenTrial) -> None:
        """Mark a trial as failed and queue its setting again, to go on where it was."""
        self.optuna.tell(trial.number, state=TrialState.FAIL)
        self.optuna.enqueue_trial(trial.params, user_attrs={
            "continues": trial.number, "run": trial.user_attrs.get("run")})

    def next_trial(self) -> optuna.Trial | None:
        """Take a trial to work on; None if there are enough."""
        with self.lock("ask"):
            trials = self.trials()
            continued = {t.user_attrs.get("continues") for t in trials}
            counted = [t for t in trials if t.number not in continued]
            waiting = any(t.state == TrialState.WAITING for t in trials)
            if not waiting and len(counted) >= self.config.tune.trials - 1:
                return None
            trial = self.optuna.ask()
            suggest(trial, self.config.tune)
            return trial


def build_sampler(tune: TuneConfig, seed: int) -> optuna.samplers.BaseSampler:
    """Return the sampler that the settings name."""
    match tune.sampler:
        case "cmaes":
            return optuna.samplers.CmaEsSampler(seed=seed)
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed)
        case "gp":
            return optuna.samplers.GPSampler(seed=seed)
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)


def build_pruner(tune: TuneConfig) -> optuna.pruners.BasePruner:
    """Return Hyperband over epochs."""
    return optuna.pruners.HyperbandPruner(
        min_resource=min(tune.min_resource, tune.epochs), max_resource=tune.epochs,
        reduction_factor=tune.reduction_factor)


def suggest(trial: optuna.Trial, tune: TuneConfig) -> None:
    """Let the sampler choose lambda (log scale), temperature and window."""
    trial.suggest_float("lambda_kl", *tune.lambda_kl, log=True)
    trial.suggest_float("temperature", *tune.temperature)
    trial.suggest_int("window", *tune.window)


def with_setting(config: EngineConfig, params: dict[str, Any] | None, epochs: int,
                 seed: int) -> EngineConfig:
    """Return the settings of one training; `params` None means vanilla."""
    distill = {"enabled": False} if params is None else {"enabled": True, **params}
    return config.model_copy(update={
        "distill": config.distill.model_copy(update=distill),
        "train": config.train.model_copy(update={"epochs": epochs}),
        "seed": seed,
    })


class TrialWatch:
    """Reports a trial's epochs to the study and says when it should be pruned."""

    def __init__(self, trial: optuna.Trial, epochs: int, stop: StopRequested) -> None:
        self._trial = trial
        self._epochs = epochs
        self._stop = stop
        self._reported = 0
        self.pruned = False

    def repeat(self, earlier: FrozenTrial) -> None:
        """Report what an earlier trial had reached that this one goes on with."""
        for epoch, value in sorted(earlier.intermediate_values.items()):
            self._report(epoch, value)

    def notify(self, event: Event) -> None:
        """Report the validation accuracy at every epoch's end."""
        if isinstance(event, EpochDone):
            self._report(event.epoch + 1, event.metrics[OBJECTIVE])
            # Nothing is saved by pruning a trial that has done its last epoch.
            unfinished = event.epoch + 1 < self._epochs
            self.pruned = unfinished and bool(self._trial.should_prune())

    def should_stop(self) -> bool:
        """Return whether the trial shall end before its time."""
        return self.pruned or self._stop()

    def _report(self, epoch: int, value: float) -> None:
        if epoch > self._reported:
            self._trial.report(value, epoch)
            self._reported = epoch


def run_baseline(study: Study, train: Train, stop: StopRequested) -> None:
    """Train trial 0, if it has not been trained, or go on with it."""
    with study.lock("baseline"):
        if study.baseline is not None:
            return
        config = study.config
        task = Task(f"{study.name}-0", ("vanilla",),
                    with_setting(config, None, config.tune.epochs, config.seed),
                    study.optuna.user_attrs.get("vanilla_run"))
        metrics = train(task, SILENT, stop, lambda run: study.remember("vanilla_run", run))
        study.remember("vanilla", {"metrics": metrics,
                                   "run": study.optuna.user_attrs["vanilla_run"]})


def search(study: Study, train: Train, observer: Observer, stop: StopRequested) -> None:
    """Work on trials until there are enough; several processes may do so at once.

    Raises:
        InterruptedRunError: `stop` said so; the trial is queued again.
    """
    while (trial := study.next_trial()) is not None:
        with study.lock(f"trial-{trial.number}"):
            run_trial(study, trial, train, stop)
        observer.notify(Progress("searching settings", trial.number + 2, study.config.tune.trials,
                                 "trials"))


def run_trial(study: Study, trial: optuna.Trial, train: Train, stop: StopRequested) -> None:
    """Train one trial and tell the study what came of it."""
    config = study.config
    watch = TrialWatch(trial, config.tune.epochs, stop)
    continued = trial.user_attrs.get("continues")
    if continued is not None:
        watch.repeat(study.trials()[continued])
    task = Task(f"{study.name}-{trial.number + 1}", ("search",),
                with_setting(config, trial.params, config.tune.epochs, config.seed),
                trial.user_attrs.get("run"))
    try:
        metrics = train(task, watch, watch.should_stop,
                        lambda run: trial.set_user_attr("run", run))
    except InterruptedRunError:
        if not watch.pruned:
            study.requeue(study.trials()[trial.number])
            raise
        study.optuna.tell(trial, state=TrialState.PRUNED)
    except DivergenceError as error:
        trial.set_user_attr("error", error.message)
        study.optuna.tell(trial, state=TrialState.FAIL)
    else:
        study.optuna.tell(trial, metrics[OBJECTIVE])


def run_finals(study: Study, train: Train, observer: Observer, stop: StopRequested) -> None:
    """Train the best setting and vanilla with every final seed; what is done stays done."""
    tune, best = study.config.tune, study.best
    if best is None:
        return
    tasks: list[tuple[Role, dict[str, Any] | None, int]] = []
    for seed in tune.final_seeds:
        tasks += [("final-vanilla", None, seed), ("final-best", dict(best.params), seed)]
    for number, (role, params, seed) in enumerate(tasks):
        key = f"{role}-{seed}" if params is None else f"{role}-{best.number}-{seed}"
        if key not in study.optuna.user_attrs:
            run_final(study, key, Task(
                f"{study.name}-{role}-{seed}", (role,),
                with_setting(study.config, params, tune.final_epochs, seed),
                study.optuna.user_attrs.get(f"{key}-run")), train, stop)
        observer.notify(Progress("final runs", number + 1, len(tasks), "runs"))


def run_final(study: Study, key: str, task: Task, train: Train, stop: StopRequested) -> None:
    """Train one final run and keep its metrics with the study."""
    metrics = train(task, SILENT, stop, lambda run: study.remember(f"{key}-run", run))
    study.remember(key, metrics)


def compare_finals(study: Study) -> list[Comparison]:
    """Return best against vanilla, paired by seed; empty where the final runs are not done."""
    best, known = study.best, study.optuna.user_attrs
    if best is None:
        return []
    pairs = [(known.get(f"final-best-{best.number}-{seed}"), known.get(f"final-vanilla-{seed}"))
             for seed in study.config.tune.final_seeds]
    done = [(ours, plain) for ours, plain in pairs if ours is not None and plain is not None]
    if not done:
        return []
    return [paired(metric, [ours[metric] for ours, _ in done], [plain[metric] for _, plain in done])
            for metric in COMPARED if metric in done[0][0]]


def _row(trial: FrozenTrial) -> TrialRow:
    reported = trial.intermediate_values
    value = trial.value if trial.state == TrialState.COMPLETE else None
    best = value if value is not None else max(reported.values(), default=None)
    names = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned",
             TrialState.FAIL: "failed", TrialState.RUNNING: "running",
             TrialState.WAITING: "waiting"}
    return TrialRow(trial.number + 1, names[trial.state], best, len(reported), dict(trial.params),
                    trial.user_attrs.get("run"))
