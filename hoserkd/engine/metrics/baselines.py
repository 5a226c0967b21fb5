"""What a perfect generator and what simple rules would score: the floor and the ceilings."""

import numpy as np
from jaxtyping import Float64, Int64

from hoserkd.engine.metrics.packed import (
    departures_s,
    destinations,
    origins,
    step_mask,
    take_trips,
)
from hoserkd.engine.metrics.paths import (
    cheapest_paths,
    free_flow_s,
    mean_step_s,
    timed_paths,
    turn_counts,
    turn_surprise,
)
from hoserkd.engine.metrics.rating import SHARE
from hoserkd.engine.metrics.statistics import Figure, Resampling, ratio_figure
from hoserkd.engine.metrics.task import most_frequent_next, straightest_next
from hoserkd.engine.types import GeneratedTrips, RoadNetwork, TrajectorySet

FLOOR = "floor"
SHORTEST = "shortest path"
FREQUENT = "most frequent turns"
STRAIGHTEST = "straightest turns"
NO_LOOPS = Figure(None, note="by construction: the search enters no road twice")
STEP_TRIPS = 20_000
"""Real trips on which the rules for the next road are judged."""


def real_sample(trips: TrajectorySet, count: int, seed: int) -> GeneratedTrips:
    """Return `count` real trips (all, where there are fewer) as if a generator had made them."""
    chosen = np.arange(len(trips))
    if count < len(trips):
        chosen = np.sort(np.random.default_rng(seed).choice(len(trips), count, replace=False))
    taken = take_trips(trips, chosen)
    return as_answers(taken, origins(taken), destinations(taken), departures_s(taken))


def as_answers(
    trips: TrajectorySet,
    origin: Int64[np.ndarray, " N"],
    destination: Int64[np.ndarray, " N"],
    departure_s: Int64[np.ndarray, " N"],
) -> GeneratedTrips:
    """Return trips as the answers to these queries; one without a road is not reached."""
    empty = np.diff(trips.offset) == 0
    return GeneratedTrips(
        origin=origin, destination=destination, departure_s=departure_s,
        offset=trips.offset, road=trips.road, entered_at_s=trips.entered_at_s,
        log_prob=np.zeros(len(trips)), reached=~empty,
        reason=tuple("unreachable" if x else "reached" for x in empty),
    )


def _answer(
    network: RoadNetwork, queries: GeneratedTrips, turn_cost: Float64[np.ndarray, " K"],
    road_s: Float64[np.ndarray, " R"],
) -> GeneratedTrips:
    known = np.flatnonzero((queries.origin >= 0) & (queries.destination >= 0))
    origin, destination = queries.origin[known], queries.destination[known]
    departure = queries.departure_s[known]
    paths = cheapest_paths(network, turn_cost, origin, destination)
    return as_answers(timed_paths(paths, departure, road_s), origin, destination, departure)


def shortest_paths(network: RoadNetwork, queries: GeneratedTrips) -> GeneratedTrips:
    """Return the queries answered by the fastest way at free-flow speeds."""
    seconds = free_flow_s(network)
    return _answer(network, queries, seconds[network.candidates.road], seconds)


def frequent_turns(
    network: RoadNetwork, queries: GeneratedTrips, train: TrajectorySet
) -> GeneratedTrips:
    """Return the queries answered by the likeliest chain of the training trips' turns.

    Each road's turns are taken with their shares among the training trips, whatever the
    destination; each road takes its mean time there.
    """
    surprise = turn_surprise(network, turn_counts(network, train))
    return _answer(network, queries, surprise, mean_step_s(network, train))


def same_queries(a: GeneratedTrips, b: GeneratedTrips) -> bool:
    """Return whether two sets of trips answer the same queries in the same order."""
    return all(np.array_equal(getattr(a, n), getattr(b, n))
               for n in ("origin", "destination", "departure_s"))


def by_construction(label: str) -> dict[str, Figure]:
    """Return the figures of a floor or ceiling that hold by its making, without a value."""
    if label == FLOOR:
        return dict.fromkeys(("completion", "completion_200m", "answered_share"), Figure(
            None, note="by construction: real trips end where they end"))
    arrives = Figure(None, note="by construction: a rule is given the destination")
    once = Figure(None, note="by construction: a rule gives each request one way without loops")
    return {**dict.fromkeys(("completion", "completion_200m", "answered_share"), arrives),
            "revisit_share": once, "diversity": once}


def rules_of_next_road(
    network: RoadNetwork, train: TrajectorySet, trips: TrajectorySet, how: Resampling
) -> dict[str, dict[str, Figure]]:
    """Return the next-step accuracy of the two simplest rules on real trips.

    Over all steps, and over those with two candidates or more.
    """
    if len(trips) > STEP_TRIPS:
        chosen = np.random.default_rng(how.seed).choice(len(trips), STEP_TRIPS, replace=False)
        trips = take_trips(trips, np.sort(chosen))
    right = {FREQUENT: most_frequent_next(network, train, trips),
             STRAIGHTEST: straightest_next(network, trips)}
    offset, candidates = trips.step_offset(), np.diff(network.candidates.offset)
    steps = {"next_step_accuracy": np.ones(offset[-1]), "next_step_accuracy_choice": (
        candidates[np.asarray(trips.road)[step_mask(trips)]] > 1).astype(np.float64)}
    return {name: {figure: ratio_figure(values * counted, counted, offset, how, SHARE)
                   for figure, counted in steps.items()} for name, values in right.items()}
