"""Trips that cannot be driven spoil no figure that they have no place in."""

from dataclasses import replace

import numpy as np
import pytest
from handmade import as_generated, town, walks

from hoserkd.engine.config import EvaluateConfig
from hoserkd.engine.metrics.distributions import trip_features
from hoserkd.engine.metrics.packed import as_trajectories, take_trips
from hoserkd.engine.metrics.rating import rate, real_side
from hoserkd.engine.metrics.soundness import fault_counts, fault_notes, find_faults
from hoserkd.engine.metrics.statistics import Resampling
from hoserkd.engine.metrics.task import length_ratios
from hoserkd.engine.types import GeneratedTrips, TrajectorySet

NETWORK = town()
HOW = Resampling(50, 0.95, 0)
DURATIONS = ("mean_trip_duration_min", "trip_duration_jsd", "step_duration_jsd")


def spoilt(trips: TrajectorySet, backward: int, jumping: int) -> TrajectorySet:
    """Return the trips with the first clocks turned back and the last trips made to jump."""
    road, entered = trips.road.copy(), trips.entered_at_s.copy()
    for trip in range(backward):
        part = slice(trips.offset[trip], trips.offset[trip + 1])
        entered[part] = entered[part][::-1]
    for trip in range(len(trips) - jumping, len(trips)):
        first, last = trips.offset[trip], trips.offset[trip + 1]
        road[first + 1:last] = np.where(road[first] == 0, 79, 0)
    return TrajectorySet(trips.offset, road, entered)


@pytest.fixture(scope="module")
def real() -> TrajectorySet:
    return walks(NETWORK, 60, seed=1)


def long_walks(count: int, seed: int) -> TrajectorySet:
    trips = walks(NETWORK, 3 * count, seed)
    return take_trips(trips, np.flatnonzero(np.diff(trips.offset) >= 3)[:count])


def plainly(trips: TrajectorySet) -> tuple[list[int], list[int]]:
    """Count missing moves and backward steps of each trip the slow, obvious way."""
    offset, candidate = NETWORK.candidates.offset, NETWORK.candidates.road
    missing, back = [], []
    for a, b in zip(trips.offset[:-1], trips.offset[1:], strict=True):
        pairs = [(trips.road[k], trips.road[k + 1]) for k in range(a, b - 1)]
        missing.append(sum(y not in candidate[offset[x]:offset[x + 1]] for x, y in pairs))
        back.append(int((np.diff(trips.entered_at_s[a:b]) < 0).sum()))
    return missing, back


def test_faults_are_counted_as_the_plain_way_counts_them() -> None:
    trips = spoilt(walks(NETWORK, 40, seed=2), 7, 9)
    faults = find_faults(NETWORK, trips)
    assert (faults.missing_moves.tolist(), faults.backward_steps.tolist()) == plainly(trips)
    assert faults.backward_steps.sum() > 0
    assert faults.missing_moves.sum() > 0


def test_walks_along_candidates_have_no_faults() -> None:
    generated = as_generated(walks(NETWORK, 40, seed=2))
    faults = find_faults(NETWORK, generated)
    assert fault_counts(faults) == {"impossible_trips": 0, "backward_trips": 0}
    assert list(fault_notes(NETWORK, generated, faults)) == []


def figures(real: TrajectorySet, generated: GeneratedTrips) -> dict[str, float | None]:
    side = real_side(NETWORK, real, EvaluateConfig())
    rating = rate(side, {"x": generated}, EvaluateConfig(), HOW)["x"]
    for name in ("step_duration", "trip_duration"):
        shown = rating.histograms[name].other.sum()
        steps = side.features.step_duration_min if name == "step_duration" else None
        assert shown == np.isfinite(
            rating.features.step_duration_min if steps is not None
            else rating.features.trip_duration_min).sum()
    return {name: figure.value for name, figure in rating.figures.items()}


def test_durations_are_those_of_the_trips_whose_clocks_run_forward(real: TrajectorySet) -> None:
    trips = long_walks(40, seed=3)
    whole = figures(real, as_generated(spoilt(trips, 8, 0)))
    rest = figures(real, as_generated(take_trips(trips, np.arange(8, 40))))
    assert [whole[name] for name in DURATIONS] == [rest[name] for name in DURATIONS]
    assert whole["mean_distance_km"] == figures(real, as_generated(trips))["mean_distance_km"]


def test_length_over_shortest_is_that_of_the_possible_trips(real: TrajectorySet) -> None:
    trips = long_walks(40, seed=4)
    whole = figures(real, as_generated(spoilt(trips, 0, 8)))
    rest = figures(real, as_generated(take_trips(trips, np.arange(32))))
    assert whole["length_ratio"] == pytest.approx(rest["length_ratio"], rel=1e-12)
    ratios = length_ratios(NETWORK, spoilt(trips, 0, 8))
    assert np.isnan(ratios[32:]).all()
    assert np.isfinite(ratios[:32]).all()
    assert (ratios[:32] >= 1 - 1e-9).all()


def test_where_every_clock_runs_back_there_are_no_durations(real: TrajectorySet) -> None:
    found = figures(real, as_generated(spoilt(long_walks(20, seed=5), 20, 0)))
    assert [found[name] for name in DURATIONS] == [None, None, None]
    assert found["mean_distance_km"] is not None


def test_sound_features_are_what_they_were(real: TrajectorySet) -> None:
    found = trip_features(real, NETWORK.centroid_lonlat)
    first, last = real.offset[:-1], real.offset[1:] - 1
    assert np.array_equal(found.trip_duration_min,
                          (real.entered_at_s[last] - real.entered_at_s[first]) / 60.0)


def test_notes_name_an_example_by_the_ids_of_the_source() -> None:
    network = replace(NETWORK, road_id=NETWORK.road_id + 1000)
    trips = spoilt(long_walks(6, seed=6), 1, 2)
    generated = as_generated(trips)
    jump, clock = fault_notes(network, generated, find_faults(network, generated))
    here, there = trips.road[trips.offset[4]:trips.offset[4] + 2] + 1000
    assert f"in 2 of 6 trips, are not in roadmap.rel (for instance trip 5: {here} to {there})" \
        in jump
    assert "the clock of 1 of 6 trips runs back (for instance trip 1)" in clock
    assert as_trajectories(generated).offset.tolist() == trips.offset.tolist()
