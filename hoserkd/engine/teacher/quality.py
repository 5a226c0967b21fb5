"""What a stored signal is worth: how often the teacher is right, and how often it can be."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, Int64

from hoserkd.engine.types import Candidates, RoadNetwork, TrajectorySet

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class SignalQuality:
    """A teacher judged on a split's steps, at temperature 1, over all candidates."""

    accuracy: float
    """Share of all steps whose next road the teacher puts first; of n equal firsts each counts
    1/n. Roads in one cell look equal to the teacher."""
    chance: float
    """The same for one who knows nothing: the mean of 1 / candidates."""
    entropy: float
    """Mean entropy of the teacher's distribution, in nats, over steps with a choice."""
    informative_share: float
    """Of all steps, those with two candidates or more that do not all share one cell."""
    collision_share: float
    """Of all steps, those of whose candidates two or more share a cell."""


def judge_signal(logits: np.ndarray[Any, Any], row_offset: Int[np.ndarray, " M+1"],
                 step_row: Int[np.ndarray, " S"] | None, network: RoadNetwork,
                 trips: TrajectorySet, cells: Int64[np.ndarray, " R"]) -> SignalQuality:
    """Judge stored logits against the trips' real next roads.

    Args:
        logits: Raw, row by row.
        row_offset: First logit of each row.
        step_row: Row of each step; None: a row is a step.
        network: The city's roads.
        trips: The split that the steps are of.
        cells: Grid token of each road.
    """
    if not trips.steps:
        return SignalQuality(0.0, 0.0, 0.0, 0.0, 0.0)
    top, ties, entropy = _row_figures(logits, row_offset)
    inner = np.ones(len(trips.road), dtype=bool)
    inner[trips.offset[1:] - 1] = False
    here = np.flatnonzero(inner)
    count = np.diff(network.candidates.offset)
    distinct = _distinct_cells(network.candidates, cells)
    find = _SlotFinder(network.candidates)
    sums = np.zeros(6)
    for first in range(0, len(here), CHUNK):
        point = here[first:first + CHUNK]
        row = np.arange(first, first + len(point)) if step_row is None \
            else np.asarray(step_row[first:first + CHUNK])
        road = np.asarray(trips.road)[point]
        slot = find.slot(road, np.asarray(trips.road)[point + 1])
        label = np.asarray(logits[row_offset[row] + slot], dtype=np.float32)
        choice = count[road] > 1
        sums += [
            ((label == top[row]) / ties[row]).sum(), (1 / count[road]).sum(),
            entropy[row][choice].sum(), choice.sum(),
            (distinct[road] > 1).sum(), (distinct[road] < count[road]).sum()]
    steps = trips.steps
    return SignalQuality(*(float(x) for x in (
        sums[0] / steps, sums[1] / steps, sums[2] / max(sums[3], 1), sums[4] / steps,
        sums[5] / steps)))


def _row_figures(logits: np.ndarray[Any, Any], row_offset: Int[np.ndarray, " M+1"]
                 ) -> tuple[Float32[np.ndarray, " M"], Int64[np.ndarray, " M"],
                            Float32[np.ndarray, " M"]]:
    """Return each row's largest logit, how many candidates have it, and its entropy."""
    rows = len(row_offset) - 1
    top = np.empty(rows, np.float32)
    ties = np.empty(rows, np.int64)
    entropy = np.empty(rows, np.float32)
    for first in range(0, rows, CHUNK):
        end = min(first + CHUNK, rows)
        offset = np.asarray(row_offset[first:end + 1]).astype(np.int64)
        value = np.asarray(logits[offset[0]:offset[-1]], dtype=np.float32)
        begin, count = offset[:-1] - offset[0], np.diff(offset)
        best = np.maximum.reduceat(value, begin)
        shifted = value - np.repeat(best, count)
        weight = np.exp(shifted)
        total = np.add.reduceat(weight, begin)
        top[first:end] = best
        ties[first:end] = np.add.reduceat((shifted == 0).astype(np.int64), begin)
        # H = log Z - E[x], with x shifted by the row's maximum.
        entropy[first:end] = np.log(total) - np.add.reduceat(weight * shifted, begin) / total
    return top, ties, entropy


def _distinct_cells(candidates: Candidates, cells: Int64[np.ndarray, " R"]
                    ) -> Int64[np.ndarray, " R"]:
    count = np.diff(candidates.offset)
    owner = np.repeat(np.arange(len(count)), count)
    pairs = np.unique(np.stack([owner, cells[candidates.road]]), axis=1)
    return np.bincount(pairs[0], minlength=len(count))


class _SlotFinder:
    """Finds where a road stands among another's candidates."""

    def __init__(self, candidates: Candidates) -> None:
        count = np.diff(candidates.offset)
        self._roads = len(count)
        owner = np.repeat(np.arange(self._roads), count)
        key = owner * self._roads + candidates.road
        slot = np.arange(len(key)) - np.repeat(candidates.offset[:-1], count)
        # Stable, so that of a road listed twice the first place counts.
        order = np.argsort(key, kind="stable")
        self._key, self._slot = key[order], slot[order]

    def slot(self, road: Int[np.ndarray, " S"], following: Int[np.ndarray, " S"]
             ) -> Int64[np.ndarray, " S"]:
        """Return the place of each `following` among the candidates of `road`."""
        key = road.astype(np.int64) * self._roads + following
        found: Int64[np.ndarray, " S"] = self._slot[np.searchsorted(self._key, key)]
        return found
