"""Comparing generators on the same requests, each against the same real trip.

Several trips of a request are averaged first: tests and intervals count requests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from hoserkd.engine.metrics.catalogue import ONE_TRAINING, PAIRED
from hoserkd.engine.metrics.distributions import (
    bin_counts,
    bin_edges,
    bin_index,
    jensen_shannon,
    trip_features,
)
from hoserkd.engine.metrics.packed import (
    answered,
    as_trajectories,
    destinations,
    origins,
    take_trips,
)
from hoserkd.engine.metrics.paired import PairedTest, holm, paired_test, resampled_p
from hoserkd.engine.metrics.pairwise import match_keys, od_keys, pair_distances
from hoserkd.engine.metrics.rating import NOT_STATED, PER_TRIP, RealSide
from hoserkd.engine.metrics.statistics import (
    Figure,
    PackedCounts,
    Resampling,
    blocks,
    centred_interval,
    drawn_weights,
    weighted_counts,
)
from hoserkd.engine.metrics.task import asked_queries, completion
from hoserkd.engine.metrics.units import Units, request_units
from hoserkd.engine.types import GeneratedTrips

LEAST_PAIRS = 6
"""With fewer requests the signed-rank test cannot reach 5 %."""
DIVERGENCES = 21
"""Stream of the draws behind the differences of divergences."""


@dataclass(frozen=True, slots=True)
class RequestValues:
    """What a generated set comes to for each of its Q requests."""

    origin: Int64[np.ndarray, " Q"]
    destination: Int64[np.ndarray, " Q"]
    departure_s: Int64[np.ndarray, " Q"]
    values: dict[str, Float64[np.ndarray, " Q"]]
    """Means over the request's trips, by what is compared; NaN where there is none."""
    trip_request: Int64[np.ndarray, " n"]
    """Request of each trip of two roads or more."""
    features: dict[str, Float64[np.ndarray, " n"]]
    """Distance, radius and duration of these trips, for the divergences."""
    scenarios: dict[str, Bool[np.ndarray, " Q"]]
    stated: bool = True
    """False: nobody said what was requested, so there is nothing to match."""


@dataclass(frozen=True, slots=True)
class DivergenceDifference:
    """Two runs' divergence from the real trips: a minus b over the same requests."""

    a: float
    b: float
    difference: Figure
    p: float | None = None
    """Two-sided, from the resamples of the difference; None without resamples."""
    p_holm: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs on the same requests: a minus b everywhere.

    Holm's correction (`p_holm`) runs over all comparisons that were corrected together, see
    `corrected`: all tests and divergences of all pairs of runs, and apart from them all tests by
    kind of trip.
    """

    a: str
    b: str
    queries: int
    """Requests that both were given."""
    tests: dict[str, PairedTest]
    """By what is compared."""
    divergences: dict[str, DivergenceDifference]
    scenarios: dict[str, dict[str, PairedTest]]
    """By kind of trip, then by what is compared."""
    note: str = ""
    """Why there is nothing to compare."""
    caution: str = ONE_TRAINING
    """What the comparison cannot say."""


def request_values(
    real: RealSide, generated: GeneratedTrips, epsilon_m: float,
    scenarios: dict[str, Bool[np.ndarray, " N"]],
) -> RequestValues:
    """Return how far each request's answers are from the real trip between the requested cells.

    The partner of a request depends on the request alone (its cells and its place among the
    requests of those cells), so two runs that answer the same requests are held against the same
    trips.

    Args:
        scenarios: Which of the N generated trips are of each kind.
    """
    units = request_units(generated)
    first = np.unique(units.of, return_index=True)[1]
    has = answered(generated)
    found = trip_features(take_trips(as_trajectories(generated), has), real.network.centroid_lonlat)
    return RequestValues(
        generated.origin[first], generated.destination[first], generated.departure_s[first],
        _request_means(_trip_values(real, generated, epsilon_m, units, first), units),
        units.of[has], {name: getattr(found, attribute) for name, attribute in PER_TRIP.items()},
        {name: mask[first] for name, mask in scenarios.items()}, generated.stated)


def _request_means(
    values: Mapping[str, Float64[np.ndarray, " N"]], units: Units
) -> dict[str, Float64[np.ndarray, " Q"]]:
    """Return the mean of each request's known values; NaN where none is known."""
    means = {}
    for name, column in values.items():
        known = np.flatnonzero(np.isfinite(column))
        own = units.of[known]
        # Counted from the request's first value, so that equal values have that very mean: ties
        # between two runs must stay ties.
        request, first = np.unique(own, return_index=True)
        base = np.full(units.count, np.nan)
        base[request] = column[known[first]]
        away = np.bincount(own, weights=column[known] - base[own], minlength=units.count)
        count = np.bincount(own, minlength=units.count)
        means[name] = base + away / np.maximum(count, 1)
    return means


def _trip_values(
    real: RealSide, generated: GeneratedTrips, epsilon_m: float, units: Units,
    first: Int64[np.ndarray, " Q"],
) -> dict[str, Float64[np.ndarray, " N"]]:
    """Return what is compared, a value a trip; NaN where it does not exist."""
    lonlat = real.network.centroid_lonlat
    values = {name: np.full(len(generated), np.nan) for name in PAIRED}
    asked = asked_queries(generated)
    values["completion"][asked] = completion(generated, lonlat)[0][asked]
    partner = _partners(real, generated, first)[units.of]
    query = answered(generated)
    query = query[partner[query] >= 0]
    trips = take_trips(as_trajectories(generated), query)
    pairs = np.stack([np.arange(len(query)), partner[query]], axis=1)
    distances = pair_distances(trips, real.trips, pairs, lonlat, epsilon_m)
    for name in ("dtw_km", "hausdorff_km", "frechet_km", "edr", "dtw_per_point_km"):
        values[name][query] = getattr(distances, name)
    found = trip_features(trips, lonlat)
    for name, attribute in (("distance_error_km", "distance_km"),
                            ("duration_error_min", "trip_duration_min")):
        gap = getattr(found, attribute) - getattr(real.features, attribute)[partner[query]]
        values[name][query] = np.abs(gap)
    return values


def _partners(
    real: RealSide, generated: GeneratedTrips, first: Int64[np.ndarray, " Q"]
) -> Int64[np.ndarray, " Q"]:
    """Return the real trip that each request's answers are held against, -1 for none.

    Args:
        first: The first trip of each request.
    """
    origin, destination = generated.origin[first], generated.destination[first]
    asked = np.flatnonzero((origin >= 0) & (destination >= 0))
    meet = match_keys(od_keys(origin[asked], destination[asked], real.cell),
                      od_keys(origins(real.trips), destinations(real.trips), real.cell))
    partner = np.full(len(first), -1, dtype=np.int64)
    partner[asked[meet[:, 0]]] = meet[:, 1]
    return partner


def _same_requests(a: RequestValues, b: RequestValues) -> Int64[np.ndarray, "M 2"]:
    """Return the pairs of equal requests."""
    rows = [np.stack([x.origin, x.destination, x.departure_s], axis=1) for x in (a, b)]
    key = np.unique(np.concatenate(rows), axis=0, return_inverse=True)[1].reshape(-1)
    return match_keys(key[: len(rows[0])], key[len(rows[0]):])


def compare(
    real: RealSide, bins: int, names: tuple[str, str], a: RequestValues, b: RequestValues,
    how: Resampling,
) -> Comparison:
    """Return the comparison of two runs over the requests that both answered or tried.

    Its p values are not yet corrected: give all that one table shows to `corrected`.
    """
    silent = [name for name, run in zip(names, (a, b), strict=True) if not run.stated]
    if silent:
        return Comparison(*names, 0, {}, {}, {}, note=f"{' and '.join(silent)}: {NOT_STATED}, so "
                          "trips cannot be compared request by request")
    pairs = _same_requests(a, b)
    if len(pairs) < LEAST_PAIRS:
        return Comparison(*names, len(pairs), {}, {}, {}, note=(
            f"{names[0]} and {names[1]} share {len(pairs)} requests (origin, destination and "
            "departure); generate both with the same seed to compare them"))
    everything = np.ones(len(pairs), dtype=bool)
    scenarios = {
        name: _tests(a, b, pairs, mask[pairs[:, 0]], how) for name, mask in a.scenarios.items()}
    return Comparison(
        *names, len(pairs), _tests(a, b, pairs, everything, how),
        {name: divergence_difference(getattr(real.features, attribute), bins, name, (a, b), pairs,
                                     how) for name, attribute in PER_TRIP.items()},
        {name: found for name, found in scenarios.items() if found})


def _tests(
    a: RequestValues, b: RequestValues, pairs: Int64[np.ndarray, "M 2"],
    inside: Bool[np.ndarray, " M"], how: Resampling,
) -> dict[str, PairedTest]:
    tests = {}
    for name in PAIRED:
        left, right = a.values[name][pairs[:, 0]], b.values[name][pairs[:, 1]]
        kept = inside & np.isfinite(left) & np.isfinite(right)
        if kept.sum() >= LEAST_PAIRS:
            tests[name] = paired_test(left[kept], right[kept], how)
    return tests


def corrected(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Return comparisons that stand in one report, with Holm's correction over all of them.

    One family holds every test and every divergence of every pair of runs, another one every test
    by kind of trip: so the parts do not hide what the whole says.
    """
    whole = iter(holm([p for c in comparisons for p in _plain(c.tests, c.divergences)]))
    parts = iter(holm([
        p for c in comparisons for tests in c.scenarios.values() for p in _plain(tests, {})]))
    return tuple(replace(
        c, tests={name: replace(test, p_holm=next(whole)) for name, test in c.tests.items()},
        divergences={name: d if d.p is None else replace(d, p_holm=next(whole))
                     for name, d in c.divergences.items()},
        scenarios={kind: {name: replace(test, p_holm=next(parts))
                          for name, test in tests.items()} for kind, tests in c.scenarios.items()})
        for c in comparisons)


def _plain(
    tests: Mapping[str, PairedTest], divergences: Mapping[str, DivergenceDifference]
) -> list[float]:
    """Return the p values that are known, tests first."""
    return [*(test.p for test in tests.values()),
            *(d.p for d in divergences.values() if d.p is not None)]


def divergence_difference(
    truth: Float64[np.ndarray, " N"], bins: int, name: str,
    runs: tuple[RequestValues, RequestValues], pairs: Int64[np.ndarray, "M 2"], how: Resampling,
) -> DivergenceDifference:
    """Return by how much two runs' divergences differ: the same resampled requests for both.

    Args:
        truth: The real trips' values.
        name: Of the values among the runs' features.
        pairs: The same requests in both.
    """
    edge = bin_edges(truth, bins)
    counts = bin_counts(truth, edge).astype(np.float64)
    rows = [_bins_by_request(x, name, edge, pairs[:, k]) for k, x in enumerate(runs)]
    if not all(len(x.column) for x in rows):
        return DivergenceDifference(np.nan, np.nan, Figure(None, note="no trips", count=0))
    whole = [float(jensen_shannon(counts, x.total())) for x in rows]
    samples = [np.empty(0)]
    for block in blocks(how.resamples):
        weight = drawn_weights(len(pairs), how, DIVERGENCES, *block)
        drawn = [weighted_counts(x, weight) for x in rows]
        one, two = (jensen_shannon(np.broadcast_to(counts, x.shape), x) for x in drawn)
        samples.append(one - two)
    spread, gap = np.concatenate(samples), whole[0] - whole[1]
    p = resampled_p(gap, spread, how, len(pairs))
    return DivergenceDifference(
        whole[0], whole[1], centred_interval(gap, spread, how, len(pairs)), p, p)


def _bins_by_request(
    found: RequestValues, name: str, edge: Float64[np.ndarray, " b"],
    requests: Int64[np.ndarray, " M"],
) -> PackedCounts:
    """Return the bins of the trips of each of these requests, a row a request."""
    place = np.full(len(found.origin), -1, dtype=np.int64)
    place[requests] = np.arange(len(requests))
    row = place[found.trip_request]
    index = bin_index(found.features[name], edge)
    order = np.flatnonzero((row >= 0) & (index >= 0))
    order = order[np.argsort(row[order], kind="stable")]
    size = np.bincount(row[order], minlength=len(requests))
    return PackedCounts(np.concatenate([[0], np.cumsum(size)]), index[order], len(edge))
