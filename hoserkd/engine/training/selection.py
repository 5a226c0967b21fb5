"""Which epoch's weights are the best: one criterion, and what breaks a tie."""

from collections.abc import Mapping, Sequence
from typing import Literal

Direction = Literal[1, -1]
"""1: more is better."""
Order = Sequence[tuple[str, Direction]]
"""Figures in the order in which they decide."""

STUDENT: dict[str, Order] = {
    "accuracy": (("accuracy", 1), ("loss", -1)),
    "loss": (("loss", -1), ("accuracy", 1)),
    "loss_road": (("loss_road", -1), ("accuracy", 1)),
    "loss_time": (("loss_time", -1), ("accuracy", 1)),
}
"""By `train.best`."""
TEACHER: dict[str, Order] = {
    "loss": (("loss", -1), ("accuracy", 1)),
    "accuracy": (("accuracy", 1), ("loss", -1)),
}
"""By `teacher.best`."""


def is_better(
    found: Mapping[str, float], best: Mapping[str, float] | None, order: Order
) -> bool:
    """Return whether an epoch with the figures `found` replaces the best one so far.

    The first figure that differs decides; where all are equal the earlier epoch stays. A figure
    that the best epoch lacks (it was judged by an older version) decides nothing.

    Args:
        best: The figures of the best epoch so far; None: there is none.
    """
    if best is None:
        return True
    for name, direction in order:
        gain = direction * (found[name] - best.get(name, found[name]))
        if gain:
            return gain > 0
    return False


def described(order: Order) -> str:
    """Return the criterion in words: `accuracy, then loss`."""
    return ", then ".join(name for name, _ in order)
