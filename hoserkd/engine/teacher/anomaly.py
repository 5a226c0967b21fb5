"""LM-TAD's own task: tell trips that somebody has bent from real ones, by their perplexity.

The two kinds of outliers are those of LM-TAD's Porto data (after GM-VSAE, ICDE 2020), made on
the grid: single points pushed aside, or one stretch moved to the side as a whole.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from hoserkd.engine.city.grid import Grid
from hoserkd.engine.events import Observer, StopRequested, never_stop
from hoserkd.engine.teacher.fit import road_cells
from hoserkd.engine.teacher.perplexity import SILENT, score_tokens
from hoserkd.engine.teacher.sequences import TokenTrips, cell_trips
from hoserkd.engine.teacher.storage import Teacher
from hoserkd.engine.types import RoadNetwork, TrajectorySet

Kind = Literal["route_switch", "detour"]
SETTINGS = ((0.05, 3, 0.1), (0.05, 3, 0.3), (0.05, 5, 0.1))
"""LM-TAD's (ratio of the trips, cells aside, probability or share of a trip's points)."""
MIN_POINTS = 20
"""LM-TAD's shortest trip. In a shorter one its 10 % may be no point at all."""
FEWEST_TRIPS = 100
"""With fewer trips of that length, shorter ones are taken too."""
DIRECTIONS = np.array([[0, 1], [1, 0], [-1, 0], [0, -1], [1, 1], [-1, -1], [-1, 1], [1, -1]])


@dataclass(frozen=True, slots=True)
class Anomalies:
    """How well log-perplexity tells one kind of outliers from the real trips."""

    kind: Kind
    ratio: float
    """Outliers made, as a share of the real trips."""
    level: int
    """Cells by which points are moved."""
    probability: float
    """Of a point's being moved (route_switch), or the share of a trip that is (detour)."""
    real: int
    outliers: int
    f1: float
    """Of the rule: unusual is above mean + 3 standard deviations of the real trips."""
    pr_auc: float
    """Area under precision over recall, by trapezoids; `outliers / (real + outliers)` is chance."""
    roc_auc: float
    """Probability that an outlier scores higher than a real trip; 0.5 is chance."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


def judge_anomalies(teacher: Teacher, network: RoadNetwork, trips: TrajectorySet, *,
                    most: int = 5000, seed: int = 0, observer: Observer = SILENT,
                    stop: StopRequested = never_stop) -> list[Anomalies]:
    """Make outliers of held-out trips in each of LM-TAD's ways and find them by perplexity.

    Args:
        teacher: Its grid holds the city.
        network: The roads that the trips name.
        trips: Trips that the teacher has not been trained on.
        most: Take at most so many of them.
        seed: Of the choice and the bending.
        observer: Hears of progress in trips.
        stop: Asked between batches.

    Raises:
        InterruptedRunError: `stop` said so.
    """
    rng = np.random.default_rng(seed)
    cells = road_cells(teacher.grid, network)
    real = [cells[np.asarray(trips.road[trips.offset[i]:trips.offset[i + 1]])]
            for i in _chosen(np.diff(trips.offset), most, rng)]
    if not real:
        return []

    def scores(tokens: list[Int64[np.ndarray, " _"]]) -> Float64[np.ndarray, " N"]:
        packed = _packed(tokens, teacher)
        return score_tokens(teacher.model, packed, observer=observer, stop=stop).log_perplexity

    normal = scores(real)
    found = []
    for ratio, level, probability in SETTINGS:
        for kind, bend in BENDS.items():
            count = max(int(len(real) * ratio), 1)
            drawn = rng.choice(len(real), size=count, replace=False)
            bent = scores([bend(real[i], teacher.grid, level, probability, rng) for i in drawn])
            found.append(Anomalies(kind, ratio, level, probability, len(real), count,
                                   *separation(normal, bent)))
    return found


def route_switch(tokens: Int64[np.ndarray, " T"], grid: Grid, level: int, probability: float,
                 rng: np.random.Generator) -> Int64[np.ndarray, " T"]:
    """Return a trip whose inner points are pushed `level` cells aside, each with a probability.

    Each goes into one of eight directions; a point that would leave the grid stays.
    """
    chosen = rng.random(len(tokens)) < probability
    chosen[[0, -1]] = False
    direction = DIRECTIONS[rng.integers(len(DIRECTIONS), size=len(tokens))]
    return np.where(chosen, _moved(tokens, grid, direction * level), tokens)


def detour(tokens: Int64[np.ndarray, " T"], grid: Grid, level: int, share: float,
           rng: np.random.Generator) -> Int64[np.ndarray, " T"]:
    """Return a trip of which one stretch is moved aside as a whole, across its own direction.

    The stretch holds `share` of the inner points. A point that would leave the grid stays.
    """
    length = int((len(tokens) - 2) * share)
    start = int(rng.integers(1, len(tokens) - length - 1)) if len(tokens) - length > 2 else 1
    end = min(start + length, len(tokens) - 1)
    ends = np.stack(np.divmod(tokens[[start, end]], grid.cols))
    along = np.sign(ends[:, 0] - ends[:, 1])
    across = along * (np.array([-1, 1]) if rng.random() < 0.5 else np.array([1, -1]))
    bent = tokens.copy()
    bent[start:end] = _moved(tokens[start:end], grid, across * level)
    return bent


Bend = Callable[[Int64[np.ndarray, " T"], Grid, int, float, np.random.Generator],
                Int64[np.ndarray, " T"]]
BENDS: dict[Kind, Bend] = {"route_switch": route_switch, "detour": detour}


def separation(normal: Float64[np.ndarray, " N"], outliers: Float64[np.ndarray, " M"]
               ) -> tuple[float, float, float]:
    """Return F1 at mean + 3 std of the normal scores, area under PR, and area under ROC."""
    threshold = normal.mean() + 3 * normal.std(ddof=1 if len(normal) > 1 else 0)
    hits, alarms = int((outliers > threshold).sum()), int((normal > threshold).sum())
    f1 = 2 * hits / (hits + alarms + len(outliers)) if len(outliers) else 0.0
    score = np.concatenate([normal, outliers])
    label = np.arange(len(score)) >= len(normal)
    return f1, _pr_auc(score, label), _roc_auc(score, label)


def _pr_auc(score: Float64[np.ndarray, " N"], label: Bool[np.ndarray, " N"]) -> float:
    order = np.argsort(-score, kind="stable")
    # Equal scores are one threshold.
    last = np.append(np.diff(score[order]) != 0, True)
    hits = np.cumsum(label[order])[last]
    precision = hits / (np.flatnonzero(last) + 1)
    recall = hits / label.sum()
    return float(np.trapezoid(np.concatenate([[1.0], precision]),
                              np.concatenate([[0.0], recall])))


def _roc_auc(score: Float64[np.ndarray, " N"], label: Bool[np.ndarray, " N"]) -> float:
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]
    positive, negative = int(label.sum()), int((~label).sum())
    below = rank[label].sum() - positive * (positive + 1) / 2
    return float(below / (positive * negative))


def _chosen(points: Int64[np.ndarray, " N"], most: int, rng: np.random.Generator
            ) -> Int64[np.ndarray, " n"]:
    """Return which trips are long enough, at most `most` of them."""
    long = np.flatnonzero(points >= MIN_POINTS)
    if len(long) < FEWEST_TRIPS:
        long = np.flatnonzero(points >= 3)
    return long if len(long) <= most else np.sort(rng.choice(long, size=most, replace=False))


def _moved(tokens: Int64[np.ndarray, " T"], grid: Grid, by: Int64[np.ndarray, "..."]
           ) -> Int64[np.ndarray, " T"]:
    row, col = np.divmod(tokens, grid.cols)
    down, right = row + by[..., 0], col + by[..., 1]
    inside = (down >= 0) & (down < grid.rows) & (right >= 0) & (right < grid.cols)
    return np.where(inside, down * grid.cols + right, tokens)


def _packed(trips: list[Int64[np.ndarray, " _"]], teacher: Teacher) -> TokenTrips:
    points = np.array([len(tokens) for tokens in trips])
    tokens = torch.from_numpy(np.concatenate(trips).astype(np.int32)).to(teacher.model.device)
    return cell_trips(tokens, points, teacher.card)
