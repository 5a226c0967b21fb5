"""Points become roads that a trip can start and end on, and none that is absurdly far."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_folder import prepared, trip, write_source
from two_way_town import CORNER, SIDE, STEP, two_way_town
from wild_cities import CITIES, WildCity

from hoserkd.engine.city.storage import load_city, pack_trips, save_city
from hoserkd.engine.config import EvaluateConfig, GenerateConfig
from hoserkd.engine.geo import great_circle_m
from hoserkd.engine.library import judge_trips, search_trips
from hoserkd.engine.metrics.task import completion
from hoserkd.engine.search.frontier import reachable
from hoserkd.engine.search.od import POINT_COLUMNS, draw_queries
from hoserkd.engine.search.snapping import MOST_AWAY_M, build_reach, snap_requests
from hoserkd.engine.student.storage import save_student
from hoserkd.engine.trips.generated import load_generated, save_generated, save_snapping

TOWN = two_way_town()
HERE, THERE = (CORNER[0] + 0.5 * STEP[0], CORNER[1]), (CORNER[0], CORNER[1] + 3.5 * STEP[1])
FAR = (2.35, 48.85)
"""Paris, 9,000 km away."""


def leads(network, a, b):
    return reachable(network.candidates.offset, network.candidates.road, int(a), int(b))


def middle(road):
    return tuple(np.mean(TOWN.shapes[road], axis=0))


def test_cul_de_sac_without_a_turn_is_entered_by_one_side_and_left_by_the_other(two_way_city):
    end = middle(TOWN.closed_in)
    found = snap_requests(two_way_city.network, np.array([[*HERE, *end], [*end, *HERE]]))
    assert found.road[0, 1] == TOWN.closed_in
    assert found.road[1, 0] == TOWN.closed_out
    assert found.away_m.max() < 1e-3
    loop = middle(TOWN.loop_in)
    assert leads(two_way_city.network, *snap_requests(
        two_way_city.network, np.array([[*loop, *end]])).road[0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-0.5, SIDE + 0.5), min_size=4, max_size=4))
def test_points_anywhere_in_town_get_roads_with_a_way_between_them(two_way_city, places):
    network = two_way_city.network
    points = np.array(CORNER * 2) + np.array(places) * np.array(STEP * 2)
    found = snap_requests(network, points[None])
    assert (found.road >= 0).all()
    assert leads(network, *found.road[0])
    for column, usable in enumerate((build_reach(network).can_start, build_reach(network).can_end)):
        point = points[2 * column:2 * column + 2]
        line = np.linspace(0, 1, 201)[None, :, None]
        start, end = network.start_lonlat[:, None], network.end_lonlat[:, None]
        away = great_circle_m(start + line * (end - start), point[None, None]).min(1)
        assert found.away_m[0, column] == pytest.approx(away[found.road[0, column]], abs=0.6)
        assert found.away_m[0, column] <= away[usable].min() + 0.6


def test_ends_in_pieces_without_a_link_are_brought_together_if_near_enough(tmp_path):
    """Two rings side by side; between them the nearest road of the other ring is taken."""
    def ring(lat):
        a, b, c = (10.0, lat), (10.003, lat), (10.0015, lat + 0.001)
        return [[a, b], [b, c], [c, a]]
    relations = [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3)]
    files = WildCity([*ring(50.0), *ring(50.003)], relations, [trip([0, 1, 2])]).files()
    prepared(write_source(tmp_path / "source", **files), tmp_path / "city", zones=1)
    network = load_city(tmp_path / "city").network
    points = np.array([[10.0015, 50.0, 10.0015, 50.003]])
    near = snap_requests(network, points, 1000)
    assert leads(network, *near.road[0])
    assert near.away_m.max() < 340
    apart = snap_requests(network, points, 50)
    assert apart.road.tolist() == [[0, 3]]


@pytest.mark.parametrize("name", CITIES)
def test_points_on_roads_of_odd_cities_are_taken_somewhere(tmp_path, name):
    prepared(write_source(tmp_path / "source", **CITIES[name]().files()), tmp_path / "city",
             zones=1)
    network = load_city(tmp_path / "city").network
    reach = build_reach(network)
    some = np.arange(network.roads)[:60]
    ends = np.concatenate([network.centroid_lonlat[some], network.centroid_lonlat[some[::-1]]], 1)
    found = snap_requests(network, ends, 1e9)
    assert (found.road >= 0).all()
    assert (reach.can_start[found.road[:, 0]] | ~reach.can_start.any()).all()
    assert (reach.can_end[found.road[:, 1]] | ~reach.can_end.any()).all()


def write(path, rows):
    table = {name: [row[k] for row in rows] for k, name in enumerate(POINT_COLUMNS)}
    if path.suffix == ".parquet":
        pq.write_table(pa.table(table), path)
        return path
    text = "\n".join([",".join(POINT_COLUMNS), *(",".join(map(str, row)) for row in rows)]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["od.csv", "od.csv.gz", "od.parquet"])
def test_points_that_are_absurdly_far_are_answered_but_not_reached(
    two_way_city, new_tiny_student, tmp_path, name
):
    rows = [(*HERE, *THERE), (*HERE, *FAR), (*FAR, *FAR)]
    queries = draw_queries(two_way_city, str(write(tmp_path / name, rows)), None, 0)
    assert (queries.snapped_m[1:, 1] > 8_000_000).all()
    trips = search_trips(new_tiny_student(two_way_city), two_way_city, queries)
    assert trips.reason == ("reached", "too far", "too far")
    assert trips.reached.tolist() == [True, False, False]
    assert completion(trips, two_way_city.network.centroid_lonlat)[1].tolist() == [True, False,
                                                                                   False]
    path = tmp_path / "trips.csv"
    save_generated(path, trips, two_way_city.network)
    assert load_generated(path, two_way_city.network).reason == trips.reason
    beside = save_snapping(path, queries, two_way_city.network).read_text().splitlines()
    assert beside[1].split(",")[0] == beside[2].split(",")[0] == str(queries.origin[0])
    assert beside[2].split(",")[1] == beside[3].split(",")[0] == ""


def test_requests_for_points_too_far_are_noted_by_the_evaluation(two_way_city, new_tiny_student,
                                                                 tmp_path):
    path = write(tmp_path / "od.csv", [(*HERE, *THERE), (*HERE, *FAR)])
    queries = draw_queries(two_way_city, str(path), None, 0)
    trips = search_trips(new_tiny_student(two_way_city), two_way_city, queries)
    found = judge_trips(trips, two_way_city, config=EvaluateConfig(bootstrap=0, model_trips=0))
    assert found.counts["unknown_roads"] == 1
    assert found.figures["completion"].value == 1
    assert ("1 of 2 queries ask for a road that the city lacks or a point too far from any road: "
            "they count neither as completed nor as not, and enter no distribution") in found.notes
    assert not any("count as not completed" in note for note in found.notes)


def test_limit_of_snapping_is_a_setting(two_way_city, tmp_path):
    aside = (HERE[0], HERE[1] - 0.003)
    path = write(tmp_path / "od.csv", [(*aside, *THERE)])
    queries = draw_queries(two_way_city, str(path), None, 0)
    assert queries.origin[0] >= 0
    assert 320 < queries.snapped_m[0, 0] < 350
    few = draw_queries(two_way_city, str(path), None, 0, most_away_m=300)
    assert (few.origin[0], few.destination[0]) == (-1, queries.destination[0])
    assert GenerateConfig().max_snap_m == MOST_AWAY_M


def test_zones_without_trips_are_entered_and_left_by_roads_that_can_be(two_way_city, tmp_path):
    town = two_way_city.network
    zone = np.zeros(town.roads, np.int32)
    zone[[TOWN.closed_in, TOWN.closed_out]] = 1
    network = replace(town, zone=zone, zone_transitions=np.zeros((2, 2), np.int64))
    trips = pack_trips([[0, TOWN.follow[0][0]]], [[0, 9]])
    city = save_city(tmp_path / "city", "zoned", network,
                     dict.fromkeys(("train", "val", "test"), trips), two_way_city.times)
    for seed in range(6):
        queries = draw_queries(city, "zones:0,1", None, seed)
        assert (queries.destination[0], queries.origin[1]) == (TOWN.closed_in, TOWN.closed_out)


def test_command_tells_and_counts_points_that_are_too_far(
    two_way_city, new_tiny_student, tmp_path, run_cli
):
    student = new_tiny_student(two_way_city)
    save_student(tmp_path / "model.safetensors", student.model, student.meta)
    path = write(tmp_path / "od.csv", [(*HERE, *THERE), (*HERE, *FAR)])
    command = ("generate", "--model", tmp_path / "model.safetensors", "--city",
               two_way_city.directory, "--od", path, "-o", tmp_path / "trips.csv", "--search",
               "sample", "--per-od", 2, "--json")
    answer = run_cli(*command)
    assert answer.exit_code == 0, answer.stderr
    said = json.loads(answer.stdout)
    assert said["reasons"]["too far"] == 2
    assert sum(said["reasons"].values()) == 4
    assert said["metrics"]["snapped_max_m"] < 1
    assert "1 of 2 requests are answered by 'too far'" in answer.stderr
    assert "more than 1,000 m (generate.max_snap_m)" in answer.stderr
