"""Comparing two generators on the same queries, each against the same real trip."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from hoserkd.engine.metrics.distributions import bin_edges, bin_index, jensen_shannon, trip_features
from hoserkd.engine.metrics.packed import (
    as_trajectories,
    destinations,
    origins,
    take_trips,
)
from hoserkd.engine.metrics.pairwise import match_keys, od_keys, pair_distances
from hoserkd.engine.metrics.rating import PER_TRIP, RealSide
from hoserkd.engine.metrics.statistics import (
    Figure,
    PairedTest,
    Resampling,
    centred_interval,
    holm,
    paired_test,
)
from hoserkd.engine.metrics.task import completion
from hoserkd.engine.types import GeneratedTrips

LEAST_PAIRS = 6
"""With fewer pairs the signed-rank test cannot reach 5 %."""
PAIRED = {
    "dtw_km": ("lower", "DTW, km"),
    "hausdorff_km": ("lower", "Hausdorff, km"),
    "frechet_km": ("lower", "discrete Fréchet, km"),
    "edr": ("lower", "EDR"),
    "dtw_per_point_km": ("lower", "DTW per road, km"),
    "distance_error_km": ("lower", "length off by, km"),
    "duration_error_min": ("lower", "duration off by, min"),
    "completion": ("higher", "ends on the requested road"),
}
"""What is compared query by query, all but the last against the query's real trip: which is
better, and what it is."""


@dataclass(frozen=True, slots=True)
class QueryValues:
    """One value a query of a generated set; NaN where it does not exist."""

    origin: Int64[np.ndarray, " N"]
    destination: Int64[np.ndarray, " N"]
    departure_s: Int64[np.ndarray, " N"]
    values: dict[str, Float64[np.ndarray, " N"]]
    features: dict[str, Float64[np.ndarray, " N"]]
    """Distance, radius and duration of each answer, for the divergences."""
    scenarios: dict[str, Bool[np.ndarray, " N"]]


@dataclass(frozen=True, slots=True)
class DivergenceDifference:
    """Two runs' divergence from the real trips: a minus b over the same queries."""

    a: float
    b: float
    difference: Figure


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs on the same queries: a minus b everywhere."""

    a: str
    b: str
    queries: int
    tests: dict[str, PairedTest]
    """By what is compared; Holm's correction runs over them all."""
    divergences: dict[str, DivergenceDifference]
    scenarios: dict[str, dict[str, PairedTest]]
    """By scenario, then by what is compared; Holm's correction runs over all of them."""
    note: str = ""


def query_values(
    real: RealSide, generated: GeneratedTrips, epsilon_m: float,
    scenarios: dict[str, Bool[np.ndarray, " N"]],
) -> QueryValues:
    """Return how far each query's answer is from the real trip between the requested cells.

    The partner of a query depends on the query alone (its cells and its place among the queries
    of those cells), so two runs that answer the same queries are held against the same trips.
    """
    lonlat = real.network.centroid_lonlat
    values = {name: np.full(len(generated), np.nan) for name in PAIRED}
    features = {name: np.full(len(generated), np.nan) for name in PER_TRIP}
    known = (generated.origin >= 0) & (generated.destination >= 0)
    values["completion"][known] = completion(generated, lonlat)[0][known]
    has = np.flatnonzero(np.diff(generated.offset) >= 1)
    trips = take_trips(as_trajectories(generated), has)
    found = trip_features(trips, lonlat)
    for name, attribute in PER_TRIP.items():
        features[name][has] = getattr(found, attribute)
    asked = np.flatnonzero(known)
    keys = od_keys(generated.origin[asked], generated.destination[asked], real.cell)
    partner = np.full(len(generated), -1, dtype=np.int64)
    meet = match_keys(keys, od_keys(origins(real.trips), destinations(real.trips), real.cell))
    partner[asked[meet[:, 0]]] = meet[:, 1]
    here = np.flatnonzero(partner[has] >= 0)
    pairs = np.stack([here, partner[has[here]]], axis=1)
    distances = pair_distances(trips, real.trips, pairs, lonlat, epsilon_m)
    query = has[here]
    for name in ("dtw_km", "hausdorff_km", "frechet_km", "edr", "dtw_per_point_km"):
        values[name][query] = getattr(distances, name)
    for name, attribute in (("distance_error_km", "distance_km"),
                            ("duration_error_min", "trip_duration_min")):
        gap = getattr(found, attribute)[here] - getattr(real.features, attribute)[pairs[:, 1]]
        values[name][query] = np.abs(gap)
    return QueryValues(generated.origin, generated.destination, generated.departure_s,
                       values, features, scenarios)


def _same_queries(a: QueryValues, b: QueryValues) -> Int64[np.ndarray, "M 2"]:
    """Return the pairs of equal queries, the i-th of a kind with the i-th."""
    rows = [np.stack([x.origin, x.destination, x.departure_s], axis=1) for x in (a, b)]
    key = np.unique(np.concatenate(rows), axis=0, return_inverse=True)[1].reshape(-1)
    return match_keys(key[: len(rows[0])], key[len(rows[0]):])


def compare(
    real: RealSide, bins: int, names: tuple[str, str], a: QueryValues, b: QueryValues,
    how: Resampling,
) -> Comparison:
    """Return the comparison of two runs over the queries that both answered or tried."""
    pairs = _same_queries(a, b)
    if len(pairs) < LEAST_PAIRS:
        return Comparison(*names, len(pairs), {}, {}, {}, note=(
            f"{names[0]} and {names[1]} share {len(pairs)} queries (origin, destination and "
            "departure); generate both with the same seed to compare them"))
    everything = np.ones(len(pairs), dtype=bool)
    tests = _tests(a, b, pairs, everything, how)
    scenarios = {
        name: _tests(a, b, pairs, mask[pairs[:, 0]], how) for name, mask in a.scenarios.items()
    }
    return Comparison(
        *names, len(pairs), _corrected({"": tests})[""],
        {name: _divergence(real, bins, name, a, b, pairs, how) for name in PER_TRIP},
        _corrected({name: found for name, found in scenarios.items() if found}),
    )


def _tests(
    a: QueryValues, b: QueryValues, pairs: Int64[np.ndarray, "M 2"],
    inside: Bool[np.ndarray, " M"], how: Resampling,
) -> dict[str, PairedTest]:
    tests = {}
    for name in PAIRED:
        left, right = a.values[name][pairs[:, 0]], b.values[name][pairs[:, 1]]
        kept = inside & np.isfinite(left) & np.isfinite(right)
        if kept.sum() >= LEAST_PAIRS:
            tests[name] = paired_test(left[kept], right[kept], how)
    return tests


def _corrected(
    families: Mapping[str, dict[str, PairedTest]]
) -> dict[str, dict[str, PairedTest]]:
    """Return the tests with Holm's correction over all of them together."""
    flat = [(family, name, test) for family, tests in families.items()
            for name, test in tests.items()]
    adjusted = holm([test.p for _, _, test in flat])
    result: dict[str, dict[str, PairedTest]] = {family: {} for family in families}
    for (family, name, test), p in zip(flat, adjusted, strict=True):
        result[family][name] = replace(test, p_holm=p)
    return result


def _divergence(
    real: RealSide, bins: int, name: str, a: QueryValues, b: QueryValues,
    pairs: Int64[np.ndarray, "M 2"], how: Resampling,
) -> DivergenceDifference:
    """Compare divergences: the same resampled queries for both runs."""
    truth = getattr(real.features, PER_TRIP[name])
    edge = bin_edges(truth, bins)
    counts = np.bincount(bin_index(truth, edge), minlength=bins).astype(np.float64)
    left, right = a.features[name][pairs[:, 0]], b.features[name][pairs[:, 1]]
    kept = np.isfinite(left) & np.isfinite(right)
    index = [bin_index(x[kept], edge) for x in (left, right)]
    if not kept.any():
        return DivergenceDifference(np.nan, np.nan, Figure(None, note="no trips"))
    whole = [float(jensen_shannon(counts, np.bincount(i, minlength=bins))) for i in index]
    rng = np.random.default_rng([how.seed, 21])
    samples = np.empty(how.resamples)
    for k in range(how.resamples):
        drawn = rng.integers(0, len(index[0]), len(index[0]))
        one, two = (jensen_shannon(counts, np.bincount(i[drawn], minlength=bins)) for i in index)
        samples[k] = one - two
    return DivergenceDifference(
        whole[0], whole[1], centred_interval(whole[0] - whole[1], samples, how.confidence))
