"""The figures of an evaluation by kind of trip."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool

from hoserkd.engine.config import EvaluateConfig
from hoserkd.engine.metrics.distributions import bin_index, histogram
from hoserkd.engine.metrics.evaluation import ScenarioResult
from hoserkd.engine.metrics.packed import departures_s, destinations, origins
from hoserkd.engine.metrics.rating import (
    NOT_STATED,
    PER_TRIP,
    SHARE,
    Rating,
    RealSide,
    histogram_divergence,
)
from hoserkd.engine.metrics.scenarios import Places, TripEnds, scenario_masks
from hoserkd.engine.metrics.statistics import Figure, Resampling, mean_figure, mean_figures
from hoserkd.engine.metrics.task import asked_queries, completion
from hoserkd.engine.types import GeneratedTrips, TrajectorySet

SCENARIO_PAIRS = ("hausdorff_km", "dtw_km", "edr")
RESAMPLES = 200
"""Resamples of a breakdown at most: its intervals are wide anyway."""


def asked_ends(generated: GeneratedTrips) -> TripEnds:
    """Return what was asked of the generator; unknown roads stand as road 0."""
    return TripEnds(np.maximum(generated.origin, 0), np.maximum(generated.destination, 0),
                    generated.departure_s)


def real_ends(trips: TrajectorySet) -> TripEnds:
    """Return where and when the trips began, and where they ended."""
    return TripEnds(origins(trips), destinations(trips), departures_s(trips))


def scenario_results(
    real: RealSide, places: Places, sets: Mapping[str, GeneratedTrips],
    ratings: Mapping[str, Rating], name: str, floor: str, config: EvaluateConfig, how: Resampling,
) -> dict[str, ScenarioResult]:
    """Return the figures of each kind of trips; kinds that nobody asked for are left out."""
    less = Resampling(min(how.resamples, RESAMPLES), how.confidence, how.seed)
    generated, rating = sets[name], ratings[name]
    truth = scenario_masks(real_ends(real.trips), places, config.scenario)
    asked = scenario_masks(asked_ends(generated), places, config.scenario)
    others = scenario_masks(real_ends(ratings[floor].trips), places, config.scenario)
    completed, _ = completion(generated, real.network.centroid_lonlat)
    judged = asked_queries(generated)
    result = {}
    for kind, mask in asked.items():
        if not mask.any():
            continue
        inside = mask[rating.query]
        requests = rating.requests.take(np.flatnonzero(mask))
        queries = np.flatnonzero(mask & judged)
        figures = {"completion": mean_figure(
            completed[queries].astype(np.float64), less, SHARE, rating.requests.take(queries))
            if generated.stated else Figure(None, note=NOT_STATED)}
        figures.update(_divergences(real, rating, truth[kind], inside, config, less))
        paired = inside[rating.pairs[:, 0]]
        figures.update(mean_figures({
            metric: (getattr(rating.distances, metric)[paired], (0.0, np.inf))
            for metric in SCENARIO_PAIRS}, less, rating.units.take(rating.pairs[paired, 0])))
        result[kind] = ScenarioResult(
            requests.count, int(inside.sum()), int(truth[kind].sum()), int(paired.sum()), figures,
            _divergences(real, ratings[floor], truth[kind], others[kind], config, less))
    return result


def _divergences(
    real: RealSide, rating: Rating, truth: Bool[np.ndarray, " N"], inside: Bool[np.ndarray, " n"],
    config: EvaluateConfig, how: Resampling,
) -> dict[str, Figure]:
    figures = {}
    for stream, (name, attribute) in enumerate(PER_TRIP.items()):
        ours = getattr(real.features, attribute)[truth]
        theirs = getattr(rating.features, attribute)[inside]
        if not len(ours) or not len(theirs):
            figures[f"{name}_jsd"] = Figure(None, note="no trips of this kind")
            continue
        counts = histogram(ours, theirs, config.bins)
        figures[f"{name}_jsd"] = histogram_divergence(
            counts, bin_index(theirs, counts.edge), rating.units.take(np.flatnonzero(inside)),
            how, 50 + stream)
    return figures
