"""Whose weights a study keeps."""

from collections.abc import Iterable

from optuna.trial import FrozenTrial, TrialState

from hoserkd.engine.config import TuneConfig
from hoserkd.engine.tuning.ledger import Ledger


def runs_to_strip(ledger: Ledger, tune: TuneConfig) -> list[str]:
    """Return the runs of ended trials whose weights and checkpoints need not stay.

    The baseline and the final runs always keep theirs, and so does whoever may go on.
    """
    if tune.keep == "all":
        return []
    trials = ledger.trials()
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    first = ledger.objectives[0]
    sign = -1 if first.direction == "maximize" else 1
    ranked = sorted(complete, key=lambda t: (sign * t.values[0], t.number))
    kept = _runs(ledger.front()) + _runs(t for t in trials if not t.state.is_finished())
    if tune.keep != "best":
        kept += _runs(ranked[:tune.keep])
    return [run for run in dict.fromkeys(_runs(trials)) if run not in kept]


def _runs(trials: Iterable[FrozenTrial]) -> list[str]:
    return [t.user_attrs["run"] for t in trials if t.user_attrs.get("run")]
