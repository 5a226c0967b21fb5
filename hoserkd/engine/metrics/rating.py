"""Rating sets of trips against the real ones: every figure that needs no model.

Several sets (a run, the floor, the ceilings) are rated together, since the costly part of their
intervals, the resampling of the real trips, is theirs in common.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float64, Int64

from hoserkd.engine.config import EvaluateConfig
from hoserkd.engine.metrics.compiling import over_tasks
from hoserkd.engine.metrics.distributions import (
    Histogram,
    TripFeatures,
    bin_edges,
    bin_index,
    cosine,
    histogram,
    jensen_shannon,
    trip_features,
)
from hoserkd.engine.metrics.packed import (
    answered,
    as_trajectories,
    join_sets,
    sum_by_trip,
    take_trips,
)
from hoserkd.engine.metrics.pairwise import PairDistances, match_trips, pair_distances, road_cells
from hoserkd.engine.metrics.statistics import (
    Figure,
    PackedCounts,
    Resampling,
    blocks,
    centred_interval,
    counts_figure,
    drawn_weights,
    mean_figure,
    mean_figures,
    resampled_histogram,
    weighted_counts,
)
from hoserkd.engine.metrics.task import (
    asked_queries,
    completion,
    diversity,
    length_ratios,
    revisits,
    road_visits,
    used_columns,
    zone_changes,
)
from hoserkd.engine.metrics.units import Units, request_units
from hoserkd.engine.types import GeneratedTrips, RoadNetwork, TrajectorySet

NOT_STATED = "the file does not say what was requested"
LN2 = float(np.log(2))
SHARE = (0.0, 1.0)
ABOVE_ZERO = (0.0, np.inf)
PER_TRIP = {"distance": "distance_km", "radius": "radius_km", "trip_duration": "trip_duration_min"}
PAIR_METRICS = ("hausdorff_km", "dtw_km", "frechet_km", "edr", "edr_public", "dtw_per_point_km",
                "hausdorff_per_point_km")
PACKED = 100
"""First stream of the draws behind quantities that are counted many times a trip."""
CountStatistic = tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], tuple[float, float]]
"""A statistic of real and other counts along the last axis, and the range of its values."""


@dataclass(frozen=True, slots=True)
class RealSide:
    """The real trips and what is derived from them once."""

    network: RoadNetwork
    trips: TrajectorySet
    features: TripFeatures
    cell: Int64[np.ndarray, " R"]


@dataclass(frozen=True, slots=True)
class Rating:
    """What one set of trips scores."""

    trips: TrajectorySet
    """The rated trips: those with at least two roads."""
    query: Int64[np.ndarray, " n"]
    """Which query each of them answers."""
    units: Units
    """Which request each of them answers."""
    features: TripFeatures
    pairs: Int64[np.ndarray, "M 2"]
    distances: PairDistances
    requests: Units
    """Which request each query is, unanswered ones too."""
    figures: dict[str, Figure] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    per_trip: dict[str, Float64[np.ndarray, " n"]] = field(default_factory=dict)
    """Values of each rated trip, by the figure that is their mean."""


def real_side(network: RoadNetwork, trips: TrajectorySet, config: EvaluateConfig) -> RealSide:
    """Return the real trips made ready for ratings."""
    in_memory = TrajectorySet(*(np.asarray(x) for x in (trips.offset, trips.road,
                                                        trips.entered_at_s)))
    return RealSide(
        network, in_memory, trip_features(in_memory, network.centroid_lonlat),
        road_cells(network.centroid_lonlat, config.cell_m, config.cell_origin),
    )


def rate(
    real: RealSide,
    sets: Mapping[str, GeneratedTrips],
    config: EvaluateConfig,
    how: Resampling,
) -> dict[str, Rating]:
    """Return the rating of each set of trips. A figure that does not exist has no value."""
    ratings = {name: _paired(real, trips, config) for name, trips in sets.items()}
    for name, rating in ratings.items():
        _judge_trip_distributions(real, rating, config, how)
        _judge_pairs(rating, how)
        _judge_answers(real, sets[name], rating, how)
    _judge_lengths(real, ratings, how)
    _judge_packed(real, ratings, config, how)
    return ratings


def _paired(real: RealSide, generated: GeneratedTrips, config: EvaluateConfig) -> Rating:
    lonlat = real.network.centroid_lonlat
    query = answered(generated)
    requests = request_units(generated)
    trips = take_trips(as_trajectories(generated), query)
    pairs = match_trips(trips, real.trips, real.cell)
    return Rating(
        trips, query, requests.take(query), trip_features(trips, lonlat), pairs,
        pair_distances(trips, real.trips, pairs, lonlat, config.edr_epsilon_m), requests,
    )


def _judge_trip_distributions(
    real: RealSide, rating: Rating, config: EvaluateConfig, how: Resampling
) -> None:
    matched = np.zeros(len(rating.trips))
    matched[rating.pairs[:, 0]] = 1.0
    rating.figures.update(trip_means(rating.features, rating.units, how))
    rating.figures.update(mean_figures({
        "matched_share": (matched, SHARE),
        "revisit_share": (revisits(rating.trips).astype(np.float64), SHARE),
    }, how, rating.units))
    for stream, (name, attribute) in enumerate(PER_TRIP.items()):
        ours, theirs = getattr(real.features, attribute), getattr(rating.features, attribute)
        for suffix, bins in (("", config.bins), ("_101", config.bins + 1)):
            if not len(theirs):
                rating.figures[f"{name}_jsd{suffix}"] = Figure(None, note="no trips")
                continue
            counts = histogram(ours, theirs, bins)
            rating.figures[f"{name}_jsd{suffix}"] = histogram_divergence(
                counts, bin_index(theirs, counts.edge), rating.units, how, stream)
            if not suffix:
                rating.histograms[name] = counts


def trip_means(features: TripFeatures, units: Units, how: Resampling) -> dict[str, Figure]:
    """Return the means of the quantities whose histograms are compared, over the same trips."""
    figures = {}
    for name in PER_TRIP.values():
        values = getattr(features, name)
        known = np.flatnonzero(np.isfinite(values))
        figures[f"mean_{name}"] = mean_figure(values[known], how, ABOVE_ZERO, units.take(known))
    return figures


def histogram_divergence(
    counts: Histogram, index: Int64[np.ndarray, " n"], units: Units, how: Resampling, stream: int
) -> Figure:
    """Return the divergence of a histogram of one value a trip.

    Args:
        index: Bin of each of the other trips; -1 for one that is not counted.
        units: Of these trips.
    """
    if not counts.real.sum() or not counts.other.sum():
        return Figure(None, note="no trips", count=0)
    real = resampled_histogram(counts.real, how, 2 * stream)
    other = (resampled_histogram(counts.other, how, 2 * stream + 1) if units.alone
             else _resampled_bins(index, units, len(counts.edge), how, 2 * stream + 1))
    return counts_figure(jensen_shannon, (counts.real, real), (counts.other, other), how,
                         units.count, (0.0, LN2))


def _resampled_bins(
    index: Int64[np.ndarray, " n"], units: Units, bins: int, how: Resampling, stream: int
) -> Float64[np.ndarray, "b c"]:
    """Return resampled counts of bins, whole units drawn."""
    counted = index >= 0
    offset = np.concatenate([[0], np.cumsum(counted)])
    rows = PackedCounts(offset, index[counted], bins).by(units)
    drawn = [weighted_counts(rows, drawn_weights(units.count, how, stream, *block))
             for block in blocks(how.resamples)]
    return np.concatenate([np.empty((0, bins)), *drawn])


def _judge_pairs(rating: Rating, how: Resampling) -> None:
    if not len(rating.pairs):
        none = Figure(None, note="no generated trip starts and ends in the cells of a real one",
                      count=0)
        rating.figures.update(dict.fromkeys(PAIR_METRICS, none))
        return
    units = rating.units.take(rating.pairs[:, 0])
    found = mean_figures({
        name: (getattr(rating.distances, name), SHARE if name.startswith("edr") else ABOVE_ZERO)
        for name in PAIR_METRICS}, how, units)
    note = f"{len(rating.pairs)} pairs of {units.count} requests"
    rating.figures.update({name: replace(figure, note=note) for name, figure in found.items()})


def _judge_answers(
    real: RealSide, generated: GeneratedTrips, rating: Rating, how: Resampling
) -> None:
    if not generated.stated:
        none = Figure(None, note=NOT_STATED)
        rating.figures.update(dict.fromkeys(
            ("completion", "completion_200m", "answered_share", "diversity"), none))
        return
    asked = np.flatnonzero(asked_queries(generated))
    exact, near = completion(generated, real.network.centroid_lonlat)
    long_enough = np.zeros(len(generated))
    long_enough[rating.query] = 1.0
    rating.figures.update(mean_figures({
        name: (values[asked].astype(np.float64), SHARE)
        for name, values in (("completion", exact), ("completion_200m", near),
                             ("answered_share", long_enough))}, how,
        rating.requests.take(asked)))
    different = diversity(rating.trips, generated.origin[rating.query],
                          generated.destination[rating.query])
    rating.figures["diversity"] = (
        mean_figure(different, how, SHARE) if len(different)
        else Figure(None, note="no origin and destination was answered more than once", count=0))


def _judge_lengths(real: RealSide, ratings: Mapping[str, Rating], how: Resampling) -> None:
    """Compare all sets' path lengths with the shortest ones, found in one go."""
    crowd = join_sets([rating.trips for rating in ratings.values()])
    ratios, done = length_ratios(real.network, crowd), 0
    for rating in ratings.values():
        ratio = ratios[done:done + len(rating.trips)]
        done += len(rating.trips)
        rating.per_trip["length_ratio"] = ratio
        known = np.flatnonzero(np.isfinite(ratio))
        rating.figures["length_ratio"] = mean_figure(
            ratio[known], how, ABOVE_ZERO, rating.units.take(known))


def _step_bins(
    features: TripFeatures, edge: Float64[np.ndarray, " b"]
) -> PackedCounts:
    """Return each trip's steps as columns of the bins; none where its clock runs back."""
    index = bin_index(features.step_duration_min, edge)
    kept = index >= 0
    offset = features.step_offset
    if not kept.all():
        counts = sum_by_trip(kept.astype(np.float64), offset)
        offset = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return PackedCounts(offset, index[kept], len(edge))


@dataclass(frozen=True, slots=True)
class _Packed:
    """Something counted many times a trip, for the real trips and then for each rated set."""

    name: str
    rows: tuple[PackedCounts, ...]
    statistics: Mapping[str, CountStatistic]


def _judge_packed(
    real: RealSide, ratings: Mapping[str, Rating], config: EvaluateConfig, how: Resampling
) -> None:
    """Judge what counts many things a trip: steps, visits, moves. Whole requests are resampled."""
    rated = list(ratings.values())
    counted = _counted(real, rated, config)
    totals = [[rows.total() for rows in packed.rows] for packed in counted]
    samples = over_tasks(
        lambda block: _block_samples(counted, how, *block), blocks(how.resamples))
    for place, (packed, total) in enumerate(zip(counted, totals, strict=True)):
        for index, rating in enumerate(rated, 1):
            for kind, (statistic, bounds) in packed.statistics.items():
                drawn = [np.empty(0), *(block[place, index, kind] for block in samples)]
                rating.figures[_packed_name(packed.name, kind)] = centred_interval(
                    float(statistic(total[0], total[index])), np.concatenate(drawn), how,
                    rating.units.count, bounds)
            if packed.name == "step_duration":
                edge = bin_edges(real.features.step_duration_min, config.bins)
                rating.histograms[packed.name] = Histogram(
                    edge, *(total[k].astype(np.int64) for k in (0, index)))


def _packed_name(name: str, kind: str) -> str:
    stem, _, suffix = name.partition("+")
    return f"{stem}_{kind}{suffix}"


def _counted(
    real: RealSide, rated: Sequence[Rating], config: EvaluateConfig
) -> list[_Packed]:
    jsd: dict[str, CountStatistic] = {"jsd": (jensen_shannon, (0.0, LN2))}
    both: dict[str, CountStatistic] = {**jsd, "cosine": (cosine, SHARE)}
    counted = []
    for name, bins in (("step_duration", config.bins), ("step_duration+_101", config.bins + 1)):
        edge = bin_edges(real.features.step_duration_min, bins)
        rows = [_step_bins(f, edge) for f in (real.features, *(x.features for x in rated))]
        counted.append(_Packed(name, tuple(rows), jsd))
    crowds = [real.trips, *(x.trips for x in rated)]
    visits = [road_visits(trips, real.network.roads) for trips in crowds]
    changes = [zone_changes(trips, real.network.zone) for trips in crowds]
    counted.append(_Packed("road_usage", used_columns(*visits), both))
    counted.append(_Packed("zone_flow", used_columns(*changes), both))
    return [replace(packed, rows=(packed.rows[0], *(
        rows.by(rating.units) for rows, rating in zip(packed.rows[1:], rated, strict=True))))
        for packed in counted]


def _block_samples(
    counted: Sequence[_Packed], how: Resampling, start: int, stop: int
) -> dict[tuple[int, int, str], Float64[np.ndarray, " b"]]:
    """Return the statistics of some resamples by quantity, set and kind."""
    sets = len(counted[0].rows)
    weights = [drawn_weights(len(counted[0].rows[k].offset) - 1, how, PACKED + k, start, stop)
               for k in range(sets)]
    samples = {}
    for place, packed in enumerate(counted):
        truth = weighted_counts(packed.rows[0], weights[0])
        for index in range(1, sets):
            other = weighted_counts(packed.rows[index], weights[index])
            for kind, (statistic, _) in packed.statistics.items():
                samples[place, index, kind] = statistic(truth, other)
    return samples
