import dataclasses
import json

import numpy as np
import pytest
from handmade import as_generated, pack, town, walks

from hoserkd.engine.city.storage import City, save_city
from hoserkd.engine.config import EvaluateConfig, Scenario
from hoserkd.engine.evaluate import compare_evaluations, evaluate_runs, evaluate_trips
from hoserkd.engine.metrics.baselines import (
    FLOOR,
    FREQUENT,
    SHORTEST,
    STRAIGHTEST,
    frequent_turns,
    shortest_paths,
)
from hoserkd.engine.metrics.catalogue import BY_NAME
from hoserkd.engine.metrics.packed import as_trajectories, destinations, origins, take_trips
from hoserkd.engine.metrics.pairwise import road_cells
from hoserkd.engine.metrics.scenarios import TripEnds, learn_places, scenario_masks
from hoserkd.engine.metrics.task import copied_trips
from hoserkd.engine.types import TimeStatistics, TrajectorySet
from hoserkd.errors import DataError

QUICK = EvaluateConfig(bootstrap=40, bins=20)


@pytest.fixture(scope="module")
def city(tmp_path_factory) -> City:
    network = town()
    splits = {"train": walks(network, 300, 1), "val": walks(network, 20, 2),
              "test": walks(network, 200, 3)}
    return save_city(tmp_path_factory.mktemp("city"), "town", network, splits,
                     TimeStatistics(3.0, 1.0))


@pytest.fixture(scope="module")
def judged(city):
    queries = as_generated(take_trips(city.split("test"), np.arange(80)))
    runs = {"fast": shortest_paths(city.network, queries),
            "usual": frequent_turns(city.network, queries, city.split("train"))}
    return evaluate_runs(runs, city, QUICK, "test")


def test_the_real_trips_themselves_score_perfectly(city):
    found = evaluate_trips(as_generated(city.split("test")), city, QUICK, "test")
    for name in ("distance_jsd", "radius_jsd", "step_duration_jsd", "trip_duration_jsd",
                 "hausdorff_km", "dtw_km", "edr", "road_usage_jsd", "zone_flow_jsd"):
        assert found.figures[name].value == pytest.approx(0.0, abs=1e-12), name
    for name in ("completion", "matched_share", "road_usage_cosine", "zone_flow_cosine"):
        assert found.figures[name].value == pytest.approx(1.0), name


def test_every_figure_is_in_the_catalogue_and_has_an_interval_or_a_reason(judged):
    for name, figure in judged["fast"].figures.items():
        assert name in BY_NAME
        if figure.value is None:
            assert figure.note
        else:
            assert figure.low <= figure.value <= figure.high


def test_floor_and_ceilings_stand_beside_the_run(judged):
    references = judged["fast"].references
    assert set(references) == {FLOOR, SHORTEST, FREQUENT, STRAIGHTEST}
    assert references[SHORTEST]["hausdorff_km"] == judged["fast"].figures["hausdorff_km"]
    assert 0 < references[STRAIGHTEST]["next_step_accuracy"].value < 1
    assert references[FLOOR]["length_ratio"].value > references[SHORTEST]["length_ratio"].value


def test_json_is_strict_and_repeats_for_a_seed(city, judged):
    again = evaluate_trips(judged["fast"].generated, city, QUICK, "test", name="fast")
    first = json.dumps(judged["fast"].to_json(), allow_nan=False)
    second = again.to_json()
    for part in ("metrics", "scenarios", "histograms"):
        assert json.loads(first)[part] == json.loads(json.dumps(second[part]))


def test_where_nothing_matches_the_pair_metrics_are_absent(city):
    network = city.network
    test = city.split("test")
    keys = {(int(test.road[s]), int(test.road[e - 1]))
            for s, e in zip(test.offset[:-1], test.offset[1:], strict=True)}
    lonely = next((a, b) for a in range(network.roads)
                  for b in network.candidates.road[slice(*network.candidates.offset[a:a + 2])]
                  if (a, int(b)) not in keys)
    config = QUICK.model_copy(update={"cell_m": 1.0})
    found = evaluate_trips(as_generated(pack([list(map(int, lonely))])), city, config, "test")
    assert found.counts["pairs"] == 0
    assert found.figures["edr"].value is None
    assert any("pair metrics do not exist" in note for note in found.notes)
    assert found.to_json()["metrics"]["edr"]["value"] is None


def test_an_unanswered_query_counts_as_not_completed(city):
    trips = as_generated(pack([[0, int(city.network.candidates.road[0])], [5]]))
    asked = dataclasses.replace(trips, destination=np.array([trips.destination[0], 9]),
                                reason=("reached", "dead end"))
    found = evaluate_trips(asked, city, QUICK, "test")
    assert found.figures["completion"].value == 0.5
    assert found.counts["trips"] == 1
    assert found.reasons == {"dead end": 1, "reached": 1}


def test_trips_without_any_path_are_an_error(city):
    with pytest.raises(DataError, match="none of its 1 trips"):
        evaluate_trips(as_generated(pack([[5]])), city, QUICK, "test")


def test_roads_of_another_city_are_an_error(city):
    with pytest.raises(DataError, match="is not one of"):
        evaluate_trips(as_generated(pack([[5, 100_000]])), city, QUICK, "test")


def test_train_queries_are_held_against_train_trips(city):
    found = evaluate_trips(as_generated(city.split("train")), city, QUICK, "train")
    assert found.od == "train"
    assert found.figures["distance_jsd"].value == pytest.approx(0.0, abs=1e-12)
    assert found.references[FLOOR]["distance_jsd"].value > 0.01


def test_scenarios_part_the_trips_by_hour_and_day(city):
    network = city.network
    places = learn_places(city.split("test"), city.split("train"), network.centroid_lonlat,
                          np.arange(network.roads), Scenario())
    # 2008-05-17 was a Saturday, 2008-05-19 a Monday.
    saturday, monday = 1_210_982_400, 1_211_155_200
    ends = TripEnds(np.zeros(4, int), np.ones(4, int), np.array(
        [saturday + 8 * 3600, monday + 8 * 3600, monday + 9 * 3600, monday + 18 * 3600 + 1]))
    masks = scenario_masks(ends, places, Scenario(hours={"night": ((22, 24), (0, 5))}))
    np.testing.assert_array_equal(masks["weekend"], [True, False, False, False])
    np.testing.assert_array_equal(masks["peak"], [False, True, False, True])
    np.testing.assert_array_equal(masks["off-peak"], [True, False, True, False])
    assert not masks["night"].any()


def test_scenarios_by_area_length_and_novelty_are_exhaustive(city):
    network = city.network
    test, train = city.split("test"), city.split("train")
    places = learn_places(test, train, network.centroid_lonlat, np.arange(network.roads),
                          Scenario())
    first, last = origins(test), destinations(test)
    masks = scenario_masks(TripEnds(first, last, np.zeros(len(test), int)), places, Scenario())
    area = sum(masks[x].astype(int) for x in ("centre", "suburb", "to centre", "from centre"))
    np.testing.assert_array_equal(area, 1)
    np.testing.assert_array_equal(masks["short"], ~masks["long"])
    pairs = {(int(train.road[s]), int(train.road[e - 1]))
             for s, e in zip(train.offset[:-1], train.offset[1:], strict=True)}
    seen = [(int(a), int(b)) in pairs for a, b in zip(first, last, strict=True)]
    np.testing.assert_array_equal(masks["seen OD"], seen)


def test_scenarios_of_ones_own_are_days_hours_and_areas(city):
    centroid = city.network.centroid_lonlat
    lon, lat = centroid[0].tolist()
    scenario = Scenario(by=(), hours={"night": ((22, 24), (0, 5))}, days={"friday": (4,)},
                        areas={"here": (lon, lat, 0.001)})
    # The first of January 2010 was a Friday.
    friday = int(np.datetime64("2010-01-01T23:00", "s").astype(np.int64))
    ends = TripEnds(np.array([0, 1, 1]), np.array([1, 0, 1]),
                    np.array([friday, friday + 3600, friday + 9 * 3600]))
    places = learn_places(city.split("test"), city.split("train"), centroid,
                          road_cells(centroid, 200.0), scenario)
    masks = scenario_masks(ends, places, scenario)
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "night": [True, True, False], "friday": [True, False, False],
        "here": [True, True, False]}


def test_comparison_of_a_run_with_itself_finds_no_difference(judged):
    found = compare_evaluations(judged["fast"], judged["fast"])
    assert found.queries == 80
    for test in found.tests.values():
        assert (test.difference.value, test.p_holm, test.effect) == (0.0, 1.0, 0.0)


def test_comparison_is_paired_on_the_same_queries_and_trips(judged):
    found = compare_evaluations(judged["fast"], judged["usual"])
    a, b = judged["fast"].requests.values["dtw_km"], judged["usual"].requests.values["dtw_km"]
    both = np.isfinite(a) & np.isfinite(b)
    assert found.tests["dtw_km"].count == both.sum()
    assert found.tests["dtw_km"].difference.value == pytest.approx((a - b)[both].mean())
    assert all(test.p_holm >= test.p for test in found.tests.values())
    assert {"weekday", "weekend"} <= set(found.scenarios)


def test_runs_on_other_queries_are_not_compared(city, judged):
    other = as_generated(take_trips(city.split("test"), np.arange(150, 160)))
    found = compare_evaluations(judged["fast"], evaluate_trips(other, city, QUICK, "test"))
    assert "share" in found.note
    assert found.tests == {}


def test_evaluation_holds_the_figures_of_the_settings(city, judged):
    assert judged["fast"].to_json()["settings"]["bins"] == 20
    assert judged["fast"].city["name"] == "town"


def test_what_holds_by_the_making_of_floor_and_ceilings_has_no_value(judged):
    for label in (FLOOR, SHORTEST, FREQUENT):
        for name in ("completion", "completion_200m", "answered_share"):
            figure = judged["fast"].references[label][name]
            assert figure.value is None
            assert figure.note.startswith("by construction")
    for name in ("revisit_share", "diversity"):
        assert judged["fast"].references[SHORTEST][name].value is None
    assert judged["fast"].references[FLOOR]["revisit_share"].value is not None


def test_training_trips_have_no_kinds_that_they_themselves_make(city):
    found = evaluate_trips(as_generated(city.split("train")), city, QUICK, "train")
    assert not {"seen OD", "unseen OD"} & set(found.scenarios)
    assert any("counted on the very trips" in note for note in found.notes)


def test_copies_of_real_trips_are_told(city):
    test = city.split("test")
    long = int((np.diff(test.offset) >= 2).sum())
    found = evaluate_trips(as_generated(test), city, QUICK, "test")
    assert any(note.startswith(f"{long} trips are real trips of the split") for note in found.notes)
    later = dataclasses.replace(as_generated(test), entered_at_s=test.entered_at_s + 1)
    assert copied_trips(as_trajectories(later), test) == 0
    turned = TrajectorySet(test.offset, test.road[::-1].copy(), test.entered_at_s)
    assert copied_trips(turned, test) < long / 10


def test_a_request_that_is_there_already_is_neither_completed_nor_not(city):
    trips = as_generated(take_trips(city.split("test"), np.arange(5)))
    asked = dataclasses.replace(trips, destination=np.where(
        np.arange(5) == 2, trips.origin, trips.destination))
    found = evaluate_trips(asked, city, QUICK, "test")
    assert found.counts["same_road"] == 1
    assert found.figures["completion"].count == 4
    assert any("start on the road where they end" in note for note in found.notes)
