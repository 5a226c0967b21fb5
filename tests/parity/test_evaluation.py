"""Our figures against what the public evaluation recorded, pair by pair."""

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from hoserkd.engine.city.storage import load_city, pack_trips
from hoserkd.engine.config import CityConfig
from hoserkd.engine.events import Silent, never_stop
from hoserkd.engine.metrics.distributions import histogram, jensen_shannon, trip_features
from hoserkd.engine.metrics.pairwise import match_trips, pair_distances, road_cells
from hoserkd.engine.prepare import prepare_city

HERE = Path(__file__).resolve().parents[1] / "data" / "hoser"
RADIUS = 1.2e-3
"""The recording has three radii of the Earth, up to 6378.137 km; ours is 6371.0088 km."""


def _seconds(times):
    return [int(datetime.fromisoformat(t.replace("Z", "+00:00")).timestamp()) for t in times]


@pytest.fixture(scope="module")
def recorded():
    return json.loads((HERE / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    directory = tmp_path_factory.mktemp("city")
    prepare_city(CityConfig(name="public", zones=6), HERE / "city", directory, force=False,
                 observer=Silent(), stop=never_stop)
    city = load_city(directory)
    kept = [s for s in json.loads((HERE / "searches.json").read_text())
            if s["max_steps"] == 5000 and len(s["rid_list"]) >= 2]
    generated = pack_trips([s["rid_list"] for s in kept],
                           [_seconds(s["time_list"]) for s in kept])
    return city.network.centroid_lonlat, city.split("test"), generated


@pytest.fixture(scope="module")
def pairs(both):
    lonlat, real, generated = both
    cell = road_cells(lonlat, 200.0, (116.25, 39.79))
    found = match_trips(generated, real, cell)
    return found, pair_distances(generated, real, found, lonlat)


@pytest.mark.parametrize(("name", "attribute"), [
    ("distance_jsd", "distance_km"), ("radius_jsd", "radius_km"),
    ("step_duration_jsd", "step_duration_min")])
def test_divergences_equal_the_recorded_ones(both, recorded, name, attribute):
    """A radius of the Earth cancels in the bins, so nothing but rounding may differ."""
    lonlat, real, generated = both
    ours, theirs = (getattr(trip_features(x, lonlat), attribute) for x in (real, generated))
    counts = histogram(ours, theirs, 100)
    assert jensen_shannon(counts.real, counts.other) == pytest.approx(recorded[name], rel=1e-9)


@pytest.mark.parametrize(("which", "index"), [("real", 1), ("generated", 2)])
def test_mean_distance_and_radius_equal_the_recorded_ones(both, recorded, which, index):
    features = trip_features(both[index], both[0])
    for name, values in (("distance", features.distance_km), ("radius", features.radius_km)):
        assert values.mean() == pytest.approx(recorded[f"{which}_mean_{name}_km"], rel=RADIUS)


def test_the_same_pairs_are_matched(pairs, recorded):
    assert len(pairs[0]) == recorded["pairs"]


def test_hausdorff_equals_the_recorded_one_pair_by_pair(pairs, recorded):
    np.testing.assert_allclose(pairs[1].hausdorff_km, recorded["per_pair"]["hausdorff_km"],
                               rtol=RADIUS, atol=1e-12)


def test_exact_dtw_is_bounded_by_the_recorded_fastdtw_pair_by_pair(pairs, recorded):
    bound = np.array(recorded["per_pair"]["fastdtw_km"])
    assert (pairs[1].dtw_km <= bound + 1e-12).all()
    assert pairs[1].dtw_km.mean() == pytest.approx(recorded["fastdtw_km"], rel=2 * RADIUS)


@pytest.mark.parametrize("name", ["edr", "edr_public"])
def test_edr_under_both_names_equals_the_recorded_one_pair_by_pair(pairs, recorded, name):
    np.testing.assert_allclose(getattr(pairs[1], name), recorded["per_pair"][name], rtol=1e-12)
    assert getattr(pairs[1], name).mean() == pytest.approx(recorded[name], rel=1e-12)
