"""A study as plain records: its trials, the best of them, what mattered."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from hoserkd.engine.identity import MadeFrom
from hoserkd.engine.seeds import Comparison
from hoserkd.engine.tuning.objectives import Objective

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned",
          TrialState.FAIL: "failed", TrialState.RUNNING: "running",
          TrialState.WAITING: "waiting"}
State = Literal["complete", "pruned", "failed", "running", "waiting"]


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One line of a study's table."""

    number: int
    """0: the vanilla baseline; those that are searched count from 1."""
    state: str
    """complete, pruned, failed, running or waiting."""
    values: Mapping[str, float]
    """By objective; of a trial that is not complete, the best epoch so far, where epochs tell."""
    epochs: int
    params: Mapping[str, Any]
    run: str | None
    error: str = ""
    """Why it failed."""
    went_on_as: int | None = None
    """The trial that goes on where this one was left."""
    curve: Mapping[int, float] = field(default_factory=dict)
    """The first objective by epoch, 1 for the first."""
    worker: str = ""
    """Machine and process that worked on it."""
    optuna: int | None = None
    """Its number in Optuna's study and tools, which count from 0; None: the baseline, which lives
    in a study of its own."""

    def value(self, objective: str) -> float | None:
        """Return the figure of one objective, if known."""
        return self.values.get(objective)


@dataclass(frozen=True, slots=True)
class TuneOutcome:
    """What a study has come to."""

    name: str
    place: str
    """Its storage, without passwords."""
    objectives: tuple[Objective, ...]
    parameters: tuple[str, ...]
    rows: tuple[TrialRow, ...]
    leader: int | None
    """Number of the searched trial with the best first objective; of the front where there are
    several. It goes on to the final runs, whether it beats vanilla or not."""
    best: int | None
    """The same if it beats vanilla; None where vanilla is not beaten, or not known yet."""
    front: tuple[int, ...]
    """Numbers of the trials, vanilla's (0) among them, that none beats in every objective."""
    importances: Mapping[str, Mapping[str, float]]
    """By objective: each parameter's share, the largest first; empty where trials are too few."""
    comparisons: tuple[Comparison, ...]
    """Best against vanilla over the final seeds."""
    planned: int
    """Trials that the settings ask for, the baseline among them."""
    final_seeds: tuple[int, ...]
    made_from: MadeFrom = field(default_factory=MadeFrom)
    """The city and the teacher with which the study was begun."""

    def row(self, number: int) -> TrialRow:
        """Return the line of a trial."""
        return next(row for row in self.rows if row.number == number)

    @property
    def counts(self) -> dict[str, int]:
        """How many trials are in each state, the baseline among them.

        A trial that another one goes on with is not counted twice.
        """
        states = [row.state for row in self.rows if row.went_on_as is None]
        return {state: states.count(state) for state in STATES.values() if state in states}

    def best_so_far(self, objective: Objective) -> list[tuple[int, float]]:
        """Return the best figure of the complete searched trials after each of them."""
        best: list[tuple[int, float]] = []
        for row in self.rows:
            value = row.value(objective.name)
            if row.number and row.state == "complete" and value is not None:
                ahead = not best or objective.better(value, best[-1][1])
                best.append((row.number, value if ahead else best[-1][1]))
        return best


def trial_row(trial: FrozenTrial, objectives: Sequence[Objective], number: int,
              went_on_as: int | None, worker: str) -> TrialRow:
    """Return a trial of Optuna's as a line."""
    curve = {int(epoch): float(value)
             for epoch, value in sorted(trial.user_attrs.get("curve", {}).items(),
                                        key=lambda item: int(item[0]))}
    values: dict[str, float] = {}
    if trial.state == TrialState.COMPLETE:
        values = {each.name: float(value)
                  for each, value in zip(objectives, trial.values, strict=False)}
    elif curve:
        first = objectives[0]
        seek = max if first.direction == "maximize" else min
        values = {first.name: seek(curve.values())}
    return TrialRow(number, STATES[trial.state], values, len(curve), dict(trial.params),
                    trial.user_attrs.get("run"), trial.user_attrs.get("error", ""), went_on_as,
                    curve, worker, trial.number if number else None)


def front_of(rows: Sequence[TrialRow], objectives: Sequence[Objective]) -> tuple[int, ...]:
    """Return the numbers of the complete trials that none beats in every objective.

    Of trials that came to the same, the oldest.
    """
    done = [row for row in rows if row.state == "complete"
            and all(each.name in row.values for each in objectives)]

    def beaten(row: TrialRow, by: TrialRow) -> bool:
        pairs = [(each, by.values[each.name], row.values[each.name]) for each in objectives]
        if any(each.better(own, other) for each, other, own in pairs):
            return False
        return by.number < row.number or any(other != own for _, other, own in pairs)

    return tuple(row.number for row in done
                 if not any(beaten(row, by) for by in done if by is not row))


def importances(study: optuna.Study, objectives: Sequence[Objective],
                least: int = 4) -> dict[str, dict[str, float]]:
    """Return by objective how much of its variation each parameter explains (PED-ANOVA).

    Watanabe, Bansal and Hutter, IJCAI 2023. Of completed trials alone; shares add up to one.

    Args:
        least: Fewer completed trials give nothing: they say nothing.
    """
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(done) < least:
        return {}
    # It compares the best trials with all: of few trials a tenth would be one or two.
    top = min(0.5, max(0.1, least / len(done)))
    found = {}
    for index, objective in enumerate(objectives):
        if len({trial.values[index] for trial in done}) == 1:
            continue  # nothing varies, so nothing explains it
        target = _target(index, objective) if len(objectives) > 1 else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what it warns of, `_target` sees to
                shares = optuna.importance.get_param_importances(
                    study, target=target,
                    evaluator=optuna.importance.PedAnovaImportanceEvaluator(target_quantile=top))
        except (ValueError, RuntimeError):
            # No parameter varied: nothing is explained.
            continue
        if all(math.isfinite(share) for share in shares.values()):
            found[objective.name] = {name: float(share) for name, share in shares.items()}
    return found


def _target(index: int, objective: Objective) -> Callable[[FrozenTrial], float]:
    # With a target the evaluator takes smaller values to be better, whatever the study seeks.
    sign = -1.0 if objective.direction == "maximize" else 1.0
    return lambda trial: sign * float(trial.values[index])
