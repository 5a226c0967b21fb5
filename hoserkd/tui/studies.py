"""Tuning studies as the dashboard shows them, made of the runs of their trials."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hoserkd.tui.snapshot import Curve, RunRow

PARAMETERS = ("lambda_kl", "temperature", "window")
"""Settings of `distill` that are searched in ranges; `tune.choices` may name others."""
LEAST_TRIALS = 5
FINALS = ("final-best", "final-vanilla")
"""Trials with other epochs and seeds than those of the search."""
VANILLA = "vanilla"


@dataclass(frozen=True, slots=True)
class Trial:
    """One training of a study."""

    run_id: str
    name: str
    role: str
    """What the study made it for: its first tag."""
    status: str
    epoch: int | None
    val_accuracy: float | None
    parameters: Mapping[str, float | str]
    """What the study searches, by name: figures from ranges, then choices. Empty for vanilla."""


@dataclass(frozen=True, slots=True)
class Importance:
    """How much one searched parameter matters."""

    share: float
    """Of the spread of accuracy, what a parabola over the parameter's ranks explains, or the means
    of its choices, less what it would explain by chance (adjusted R squared), 0 to 1."""
    tie: float | None
    """Spearman's rank correlation with accuracy; None for choices that have no order."""


@dataclass(frozen=True, slots=True)
class Study:
    """A study and its trials, in the order in which they were started."""

    name: str
    status: str
    trials: tuple[Trial, ...]

    @property
    def parameters(self) -> tuple[str, ...]:
        """What is searched."""
        return tuple(dict.fromkeys(name for trial in self.trials for name in trial.parameters))

    @property
    def compared(self) -> tuple[Trial, ...]:
        """The trials of one length and seed: the search and its baseline."""
        return tuple(trial for trial in self.trials if trial.role not in FINALS)

    @property
    def best(self) -> Trial | None:
        """The trial with the highest validation accuracy so far."""
        known = [trial for trial in self.compared if trial.val_accuracy is not None]
        return max(known, key=lambda trial: trial.val_accuracy or 0.0, default=None)

    def best_so_far(self) -> Curve:
        """Return the best validation accuracy after each trial."""
        best, points = float("-inf"), []
        for number, trial in enumerate(self.compared, 1):
            best = max(best, trial.val_accuracy if trial.val_accuracy is not None else best)
            if best > float("-inf"):
                points.append((float(number), best))
        return Curve("best so far", tuple(x for x, _ in points), tuple(y for _, y in points))

    def each(self) -> Curve:
        """Return the validation accuracy of each trial that has one."""
        points = [(float(number), trial.val_accuracy) for number, trial
                  in enumerate(self.compared, 1) if trial.val_accuracy is not None]
        return Curve("trial", tuple(x for x, _ in points), tuple(y for _, y in points))

    def importance(self) -> dict[str, Importance]:
        """Return how much each parameter matters, the weightiest first.

        Over the searched trials that have an accuracy; fewer than `LEAST_TRIALS` give nothing.
        """
        found = {}
        for name in self.parameters:
            pairs = [(trial.parameters[name], trial.val_accuracy) for trial in self.compared
                     if name in trial.parameters and trial.val_accuracy is not None]
            if len(pairs) >= LEAST_TRIALS:
                found[name] = _importance([x for x, _ in pairs], [y for _, y in pairs])
        return dict(sorted(found.items(), key=lambda item: -item[1].share))


def studies_of(rows: Sequence[RunRow], studies: Mapping[str, str],
               configs: Mapping[str, Mapping[str, Any]]) -> tuple[Study, ...]:
    """Return the studies, the newest first.

    Args:
        rows: all runs, the newest first.
        studies: study of each run that belongs to one.
        configs: settings of the trials' runs.
    """
    names = list(dict.fromkeys(studies[row.run_id] for row in rows if row.run_id in studies))
    return tuple(_study(name, [row for row in reversed(rows) if studies.get(row.run_id) == name],
                        configs) for name in names)


def _study(name: str, rows: Sequence[RunRow],
           configs: Mapping[str, Mapping[str, Any]]) -> Study:
    whole = [row for row in rows if row.kind in ("tune", "study")]
    trials = tuple(_trial(row, configs.get(row.run_id, {})) for row in rows if row.kind == "train")
    working = any(row.live for row in rows)
    status = whole[-1].status if whole and not working else "running" if working else "finished"
    return Study(name, status, trials)


def _trial(row: RunRow, config: Mapping[str, Any]) -> Trial:
    distill = config.get("distill", {})
    role = row.tags[0] if row.tags else ""
    parameters: dict[str, float | str] = {
        name: float(distill[name]) for name in PARAMETERS
        if distill.get("enabled") and isinstance(distill.get(name), int | float)}
    if parameters:
        parameters |= {key: str(_setting(config, key))
                       for key in config.get("tune", {}).get("choices") or {}}
    return Trial(row.run_id, row.name, role, row.status, row.epoch, row.val_accuracy, parameters)


def _setting(config: Mapping[str, Any], key: str) -> Any:
    found: Any = config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _importance(x: Sequence[float | str], y: Sequence[float]) -> Importance:
    figures = [value for value in x if not isinstance(value, str)]
    if len(figures) == len(x):
        ranks = _ranks(figures)
        return Importance(_explained(ranks, y), _correlation(ranks, _ranks(y)))
    means = {one: float(np.mean([b for a, b in zip(x, y, strict=True) if a == one]))
             for one in set(x)}
    return Importance(_adjusted(y, [means[one] for one in x], len(means) - 1), None)


def _ranks(values: Sequence[float]) -> list[float]:
    """Return each value's rank; equal values share the mean of theirs."""
    return [sum(other < value for other in values)
            + (sum(other == value for other in values) - 1) / 2 for value in values]


def _explained(x: Sequence[float], y: Sequence[float]) -> float:
    degree = min(2, len(set(x)) - 1)
    if degree < 1:
        return 0.0
    return _adjusted(y, np.polyval(np.polyfit(x, y, degree), x).tolist(), degree)


def _adjusted(y: Sequence[float], fitted: Sequence[float], degrees: int) -> float:
    """Return R squared of a fit, less what as many degrees of freedom explain by chance."""
    left, spread = len(y) - degrees - 1, float(np.var(y))
    if left < 1 or spread == 0:
        return 0.0
    share = 1 - float(np.mean((np.asarray(y) - np.asarray(fitted)) ** 2)) / spread
    return max(0.0, 1 - (1 - share) * (len(y) - 1) / left)


def _correlation(x: Sequence[float], y: Sequence[float]) -> float:
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    spread = (sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y)) ** 0.5
    return covariance / spread if spread else 0.0
