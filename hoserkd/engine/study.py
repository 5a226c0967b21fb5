"""What distillation is worth: vanilla against arms, over shares of the training trips and seeds.

All arms see the same trips and take the same number of steps; they are compared seed by seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from hoserkd.engine.config import DistillConfig, EngineConfig
from hoserkd.engine.events import Event, Note, Observer, Progress, StepDone, StopRequested
from hoserkd.engine.identity import Identity
from hoserkd.engine.seeds import Comparison, Verdict, corrected, paired
from hoserkd.engine.tasks import Task, Train
from hoserkd.engine.training.schedule import epoch_steps
from hoserkd.engine.trips.shares import share_size
from hoserkd.errors import DivergenceError

VANILLA = "vanilla"
ALL = "all"
PARTS = ("short", "long", "seen", "unseen")
"""Of the test trips: at most as many steps as the median trip, or more; the pair of first and
last road occurs among the training trips of the share, or not."""
FIGURES = ("accuracy", "loss_road", "ece", "loss_time", "time_mae_s")
PART_FIGURES = ("accuracy", "loss_road", "ece")
COUNTED = ("accuracy",)
"""Figures that are whole steps out of all."""
VALIDATIONS = 10
"""A training is judged on the validation trips at most so often."""


@dataclass(frozen=True, slots=True)
class SharePlan:
    """What every training on one share has in common."""

    share: float
    trips: int
    epoch_steps: int
    """Optimiser steps of a pass over the share."""
    steps: int
    """Optimiser steps of a training."""
    validate_every: int
    """Epochs between two validations."""


@dataclass(frozen=True, slots=True)
class PartSize:
    """How much of the test split a part is."""

    trips: int
    steps: int


Sizes = Mapping[float, Mapping[str, PartSize]]
"""By share and part, `ALL` among them."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One training of the study."""

    arm: str
    plan: SharePlan
    seed: int
    task: Task


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a training that was begun."""

    run: str
    metrics: dict[str, float] | None
    """None: it is not finished."""


class Ledger(Protocol):
    """Remembers trainings."""

    def find(self, task: Task) -> Entry | None:
        """Return the training with the task's settings; None: it was never begun."""
        ...


@dataclass(frozen=True, slots=True)
class Trained:
    """One training that has come to its end."""

    arm: str
    share: float
    seed: int
    run: str
    metrics: dict[str, float] | None
    """None: it diverged."""


@dataclass(frozen=True, slots=True)
class ArmComparison:
    """An arm against vanilla in one figure, at one share, on one part of the test trips."""

    share: float
    arm: str
    part: str
    """`all`, or one of `PARTS`."""
    figure: str
    seeds: tuple[int, ...]
    """Those with which both were trained."""
    found: Comparison
    """With Holm's correction over all comparisons of whole splits, or over all of parts."""

    @property
    def p_holm(self) -> float | None:
        """The p after the correction; None for a single seed."""
        return self.found.p_holm

    @property
    def verdict(self) -> Verdict:
        """Say in words whether the arm is better, with the correction for many comparisons."""
        return self.found.verdict

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        found = self.found
        return {
            "share": self.share, "arm": self.arm, "part": self.part, "figure": self.figure,
            "seeds": list(self.seeds), "vanilla": found.vanilla, "values": found.arm,
            "difference": found.difference, "interval": found.interval, "p": found.p,
            "p_holm": self.p_holm, "verdict": self.verdict, "alone": found.alone,
        }


def study_name(config: EngineConfig) -> str:
    """Return what the study is called."""
    return config.study.name or f"{config.city.name}-study"


def plan_share(config: EngineConfig, trips: int, share: float) -> SharePlan:
    """Return the budget of a share of `trips` training trips; it is the same for every arm."""
    study, train = config.study, config.train
    count = share_size(trips, share)
    epoch = epoch_steps(count, train.batch_size, train.accumulation)
    steps = min(study.steps, study.max_epochs * epoch)
    epochs = -(-steps // epoch)
    return SharePlan(share, count, epoch, steps, -(-epochs // VALIDATIONS))


def training_config(
    config: EngineConfig, plan: SharePlan, arm: Mapping[str, Any] | None, seed: int
) -> EngineConfig:
    """Return the settings of one training; `arm` None means vanilla."""
    changes = {"enabled": False} if arm is None else {"enabled": True, **arm}
    teacher = changes.pop("teacher", config.teacher.name)
    return config.model_copy(update={
        "distill": DistillConfig.model_validate({**config.distill.model_dump(), **changes}),
        "teacher": config.teacher.model_copy(update={"name": teacher}),
        "data": config.data.model_copy(update={"train_share": plan.share}),
        "train": config.train.model_copy(update={
            "epochs": -(-plan.steps // plan.epoch_steps), "max_steps": plan.steps,
            "validate_every": plan.validate_every}),
        "seed": seed,
    })


def plan_study(config: EngineConfig, trips: int) -> tuple[Planned, ...]:
    """Return all trainings: share by share, seed by seed, vanilla first.

    Args:
        trips: Of the whole training split.
    """
    study, name = config.study, study_name(config)
    arms: dict[str, Mapping[str, Any] | None] = {VANILLA: None, **study.arms}
    planned = []
    for share in study.shares:
        plan = plan_share(config, trips, share)
        for seed in study.seeds:
            for arm, settings in arms.items():
                task = Task(f"{name}-{arm}-{share:g}-{seed}", (arm, f"share-{share:g}"),
                            training_config(config, plan, settings, seed))
                planned.append(Planned(arm, plan, seed, task))
    return tuple(planned)


def decisive(config: EngineConfig, teacher: Identity | None) -> dict[str, Any]:
    """Return what decides the result of a training on a city, as plain values.

    Args:
        teacher: Who teaches, where `distill` asks for one: its hash counts, never its name.
    """
    found = {
        "seed": config.seed,
        "data": config.data.model_dump(mode="json", exclude={"residency"}),
        "student": config.student.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json", exclude={"checkpoint_every", "recompute"}),
    }
    if config.distill.enabled:
        found["distill"] = config.distill.model_dump(mode="json")
        if config.distill.source != "self":
            found["teacher"] = None if teacher is None else teacher.sha256
    return found


class _StepCount:
    """Turns the steps of the running training into progress of the whole study."""

    def __init__(self, observer: Observer, done: int, total: int) -> None:
        self._observer = observer
        self._total = total
        self.done = done
        """Steps of the finished trainings."""

    def notify(self, event: Event) -> None:
        """Report how far the study is."""
        if isinstance(event, StepDone):
            self.tell(self.done + event.step)

    def tell(self, steps: int) -> None:
        """Report `steps` of all."""
        self._observer.notify(Progress("study", steps, self._total, "optimiser steps"))


def run_study(
    planned: Sequence[Planned], train: Train, ledger: Ledger, observer: Observer,
    stop: StopRequested,
) -> tuple[Trained, ...]:
    """Train what has not been trained; what is finished stays, what was stopped goes on.

    A training that diverges is told and left out of the comparison.

    Raises:
        InterruptedRunError: `stop` said so.
    """
    known = [ledger.find(each.task) for each in planned]
    finished = [entry is not None and entry.metrics is not None for entry in known]
    if any(finished):
        observer.notify(Note(f"{sum(finished)} of {len(planned)} trainings are done already"))
    steps = [each.plan.steps for each in planned]
    done = sum(count for count, is_done in zip(steps, finished, strict=True) if is_done)
    count, trained = _StepCount(observer, done, sum(steps)), []
    count.tell(done)
    for each, entry in zip(planned, known, strict=True):
        if entry is not None and entry.metrics is not None:
            trained.append(Trained(each.arm, each.plan.share, each.seed, entry.run, entry.metrics))
            continue
        found = _train_one(each, entry, train, count, observer, stop)
        count.done += each.plan.steps
        trained.append(found)
        observer.notify(Note(_told(found, len(trained), len(planned))))
    return tuple(trained)


def _train_one(
    each: Planned, entry: Entry | None, train: Train, count: _StepCount, observer: Observer,
    stop: StopRequested,
) -> Trained:
    run = [entry.run] if entry is not None else []
    task = replace(each.task, continues=run[0] if run else None)
    try:
        metrics: dict[str, float] | None = train(task, count, stop, run.append)
    except DivergenceError as error:
        observer.notify(Note(f"{task.name}: {error.message}; left out", level="warning"))
        metrics = None
    return Trained(each.arm, each.plan.share, each.seed, run[-1], metrics)


def _told(found: Trained, number: int, total: int) -> str:
    accuracy = None if found.metrics is None else found.metrics.get("test_accuracy")
    result = "diverged" if accuracy is None else f"test accuracy {accuracy:.4f}"
    return (f"{number} of {total}: {found.arm}, {100 * found.share:g} % of the trips, "
            f"seed {found.seed}: {result}")


def metric_key(part: str, figure: str) -> str:
    """Return the name of a figure among a training's metrics."""
    return f"test_{figure}" if part == ALL else f"test_{part}_{figure}"


def compare_arms(trained: Sequence[Trained], sizes: Sizes) -> tuple[ArmComparison, ...]:
    """Return every arm against vanilla: whole splits first, then parts.

    Each of the two is a family of its own for Holm's correction, so that looking at parts does
    not hide what the whole split says.
    """
    whole = _family(trained, sizes, [(ALL, figure) for figure in FIGURES])
    parts = _family(trained, sizes, [(part, figure) for part in PARTS for figure in PART_FIGURES])
    return (*whole, *parts)


def _family(
    trained: Sequence[Trained], sizes: Sizes, wanted: Sequence[tuple[str, str]]
) -> list[ArmComparison]:
    known = {(t.arm, t.share, t.seed): t.metrics for t in trained if t.metrics is not None}
    arms = [arm for arm in dict.fromkeys(t.arm for t in trained) if arm != VANILLA]
    shares, seeds = (list(dict.fromkeys(getattr(t, name) for t in trained))
                     for name in ("share", "seed"))
    found = []
    for share in shares:
        for arm in arms:
            for part, figure in wanted:
                key = metric_key(part, figure)
                pairs = {seed: (ours[key], plain[key]) for seed in seeds
                         if (ours := known.get((arm, share, seed), {})) and key in ours
                         and (plain := known.get((VANILLA, share, seed), {})) and key in plain}
                if pairs:
                    whole_steps = 1 / sizes[share][part].steps if figure in COUNTED else 0.0
                    compared = paired(figure, [a for a, _ in pairs.values()],
                                      [b for _, b in pairs.values()], whole_steps)
                    found.append(ArmComparison(share, arm, part, figure, tuple(pairs), compared))
    return [replace(each, found=compared) for each, compared in zip(
        found, corrected([each.found for each in found]), strict=True)]
