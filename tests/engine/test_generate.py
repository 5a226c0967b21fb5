from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from random_city import random_network, random_walks

from hoserkd.engine.city.storage import save_city
from hoserkd.engine.config import GenerateConfig, StudentConfig
from hoserkd.engine.events import Silent, never_stop
from hoserkd.engine.generate import draw_queries, generate_trips
from hoserkd.engine.search.quality import Quality, may_revisit
from hoserkd.engine.search.queries import Queries
from hoserkd.engine.student.storage import LoadedStudent, StudentMeta, new_student
from hoserkd.engine.types import GeneratedTrips, TimeStatistics
from hoserkd.errors import DataError, InterruptedRunError, UsageError

ROADS = 40
CPU = torch.device("cpu")
TIMES = TimeStatistics(3.4, 0.5)


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    network = random_network(ROADS)
    splits = {split: random_walks(network, trips=30, seed=i)
              for i, split in enumerate(("train", "val", "test"))}
    return save_city(tmp_path_factory.mktemp("city"), "random", network, splits, TIMES)


@pytest.fixture(scope="module")
def student(city):
    torch.manual_seed(0)
    config = StudentConfig(hidden_dim=16, road_id_dim=8, attribute_dim=2)
    meta = StudentMeta(config, ROADS, 3, 4, TIMES)
    return LoadedStudent(new_student(config, city.network).eval(), meta)


def generate(student, city, queries, *, seed=0, observer=None, stop=never_stop, **settings):
    return list(generate_trips(
        student, city, queries, GenerateConfig(**settings), device=CPU, seed=seed,
        observer=observer or Silent(), stop=stop))


def paths(chunks):
    return [chunk.road[a:b].tolist() for chunk in chunks
            for a, b in zip(chunk.offset[:-1], chunk.offset[1:], strict=True)]


@pytest.mark.parametrize("search", ["astar", "beam", "sample", "greedy"])
def test_generated_trips_are_the_same_whatever_the_batch_and_the_workers(city, student, search):
    queries = draw_queries(city, "test", 300, seed=1)
    expected = generate(student, city, queries, search=search, batch_size=256, workers=1)
    assert len(paths(expected)) == 300
    assert np.concatenate([c.origin for c in expected]).tolist() == queries.origin.tolist()
    for batch_size, workers in ((1, 1), (7, 3), (64, 2)):
        found = generate(student, city, queries, search=search, batch_size=batch_size,
                         workers=workers)
        assert paths(found) == paths(expected)
        for name in ("origin", "entered_at_s", "log_prob", "reached"):
            a, b = (np.concatenate([getattr(c, name) for c in x]) for x in (found, expected))
            assert np.array_equal(a, b), name


@pytest.mark.parametrize("search", ["astar", "beam", "sample", "greedy"])
def test_generated_trips_are_the_same_in_any_order(city, student, search):
    queries = draw_queries(city, "test", 200, seed=1)
    order = np.random.default_rng(0).permutation(200)
    expected = paths(generate(student, city, queries, search=search))
    shuffled = paths(generate(student, city, queries.select(order), search=search, batch_size=7))
    assert shuffled == [expected[i] for i in order]


def test_generated_trips_follow_candidates_and_say_whether_they_arrived(city, student):
    queries = draw_queries(city, "train", 100, seed=2)
    candidates = city.network.candidates
    for chunk in generate(student, city, queries):
        for i in range(len(chunk)):
            road = chunk.road[chunk.offset[i]:chunk.offset[i + 1]]
            for a, b in pairwise(road):
                assert b in candidates.road[candidates.offset[a]:candidates.offset[a + 1]]
            assert chunk.reached[i] == (road[-1] == chunk.destination[i])
            assert chunk.entered_at_s[chunk.offset[i]] == chunk.departure_s[i]
            assert (np.diff(chunk.entered_at_s[chunk.offset[i]:chunk.offset[i + 1]]) >= 0).all()


def test_queries_that_need_no_search_are_answered_with_a_reason(city, student):
    queries = Queries(np.array([3, -1, 5, 2]), np.array([3, 4, -1, 9]), np.arange(4) + 10**9)
    [trips] = generate(student, city, queries)
    assert trips.reason[:3] == ("same road", "unknown road", "unknown road")
    assert trips.reached.tolist() == [True, False, False, True]
    assert np.diff(trips.offset)[:3].tolist() == [1, 0, 0]
    [nothing] = generate(student, city, queries.select(slice(1, 2)))
    assert nothing.reason == ("unknown road",)
    assert generate(student, city, queries.select(slice(0, 0))) == []


def test_search_that_is_out_of_steps_keeps_the_nearest_path(city, student):
    queries = draw_queries(city, "test", 50, seed=3)
    trips = generate(student, city, queries, max_steps=1)
    reasons = Counter(reason for chunk in trips for reason in chunk.reason)
    assert reasons["max steps"] > 10
    assert all(len(path) <= 2 for path in paths(trips))


def test_drawn_queries_follow_the_split_with_their_own_departures(city):
    trips = city.split("test")
    known = {(int(trips.road[a]), int(trips.road[b - 1]), int(trips.entered_at_s[a]))
             for a, b in zip(trips.offset[:-1], trips.offset[1:], strict=True)}
    queries = draw_queries(city, "test", None, seed=4)
    drawn = Counter(requests(queries))
    assert drawn == Counter(requests(draw_queries(city, "test-trips", None, seed=0)))
    assert set(drawn) == known
    again = draw_queries(city, "test", None, seed=4)
    assert np.array_equal(queries.origin, again.origin)
    assert not np.array_equal(queries.origin, draw_queries(city, "test", None, seed=5).origin)
    own = draw_queries(city, "test-trips", None, seed=0)
    assert own.departure_s.tolist() == trips.entered_at_s[trips.offset[:-1]].tolist()
    assert len(draw_queries(city, "test-trips", 7, seed=0)) == 7


def requests(queries):
    return zip(queries.origin.tolist(), queries.destination.tolist(),
               queries.departure_s.tolist(), strict=True)


def test_drawn_queries_take_no_trip_twice_before_each_was_taken_once(city):
    trips = len(city.split("test"))
    few, many = (draw_queries(city, "test", num, seed=4) for num in (trips // 2, 3 * trips - 1))
    once = Counter(requests(draw_queries(city, "test", None, seed=0)))
    assert not Counter(requests(few)) - once
    assert set((Counter(requests(many)) - once - once).values()) <= set(once.values())
    assert sum((Counter(requests(many)) - once - once).values()) == trips - 1
    assert list(requests(few)) == list(requests(many))[:len(few)]


def test_the_setting_bounds_the_draw_and_never_repeats_a_trip(city):
    trips = len(city.split("train"))
    assert len(draw_queries(city, "train", None, seed=0, most=5)) == 5
    assert len(draw_queries(city, "train", None, seed=0, most=10 * trips)) == trips
    assert len(draw_queries(city, "train", 7, seed=0, most=5)) == 7


def test_queries_of_a_file_are_read_with_unknown_roads_and_missing_departures(city, tmp_path):
    path = tmp_path / "od.csv"
    path.write_text("destination,origin,departure\n4,3,2015-11-07T16:30:00Z\n4,999,\n")
    queries = draw_queries(city, str(path), None, seed=0)
    assert queries.origin.tolist() == [3, -1]
    assert queries.destination.tolist() == [4, 4]
    assert queries.requested.tolist() == [[3, 4], [999, 4]]
    assert queries.departure_s[0] == 1446913800
    trained = city.split("train")
    assert queries.departure_s[1] in trained.entered_at_s[trained.offset[:-1]]


@pytest.mark.parametrize(("text", "message"), [
    ("origin,departure\n1,2015-11-07T16:30:00Z\n", "od.csv:1: no column destination"),
    ("origin,destination,departure\n1,2,soon\n1,x,\n", "2 of 2 rows are bad: .*od.csv:2: .*soon"),
    ("a\n1\n", "od.csv:1: no column origin or destination; found a"),
    ("", "od.csv: the file is empty"),
])
def test_bad_file_of_queries_is_refused_with_its_rows(city, tmp_path, text, message):
    path = tmp_path / "od.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        draw_queries(city, str(path), None, seed=0)
    with pytest.raises(UsageError, match="neither train, test or test-trips nor a file"):
        draw_queries(city, str(tmp_path / "none.csv"), None, seed=0)


def test_progress_is_reported_and_a_stop_is_honoured(city, student):
    class Heard:
        def __init__(self):
            self.events = []

        def notify(self, event):
            self.events.append(event)

    heard, queries = Heard(), draw_queries(city, "test", 40, seed=5)
    generate(student, city, queries, observer=heard)
    last = heard.events[-1]
    assert (last.done, last.total, last.unit) == (40, 40, "trips")
    assert last.metrics.keys() == {"trips_per_s", "completion", "expansions_per_trip"}
    assert last.metrics["completion"] == 1.0
    with pytest.raises(InterruptedRunError, match="of 40 trips"):
        generate(student, city, queries, batch_size=2, stop=lambda: True)


def test_quality_counts_reached_revisits_and_lengths(city):
    network = city.network
    a = 0
    b = int(network.candidates.road[network.candidates.offset[a]])
    trips = GeneratedTrips(
        np.array([a, a]), np.array([b, b]), np.zeros(2, np.int64), np.array([0, 2, 5]),
        np.array([a, b, a, b, a], np.int32), np.array([0, 9, 0, 9, 5]), np.array([-1.0, -3.0]),
        np.array([True, False]), ("reached", "max steps"))
    quality = Quality(network, loops=True)
    quality.add(trips)
    found = quality.figures()
    # The second trip goes back where the network has no way, so that only the first has a ratio.
    assert found.pop("length_ratio") == pytest.approx(1.0)
    assert found == pytest.approx({
        "completion": 0.5, "roads_per_trip": 2.5, "log_prob": -2.0, "revisit_share": 0.5})


@pytest.mark.parametrize(("settings", "told"), [
    (("astar", False), False), (("beam", False), False), (("sample", True), False),
    (("sample", False), True)])
def test_a_search_that_cannot_come_back_tells_no_share_of_revisits(settings, told):
    assert may_revisit(*settings) == told


def test_a_request_for_the_road_where_it_starts_counts_as_nothing(city):
    here = GeneratedTrips(
        np.array([3]), np.array([3]), np.zeros(1, np.int64), np.array([0, 1]),
        np.array([3], np.int32), np.array([0]), np.zeros(1), np.array([True]), ("same road",))
    quality = Quality(city.network, loops=False)
    quality.add(here)
    assert quality.figures() == {"roads_per_trip": 1.0, "log_prob": 0.0}


def test_attempts_reach_more_and_leave_what_was_reached_as_it_was(city, student):
    queries = draw_queries(city, "test", 200, seed=6)
    settings = {"search": "sample", "max_steps": 12}
    [once] = generate(student, city, queries, **settings)
    [often] = generate(student, city, queries, attempts=6, **settings)
    assert often.reached.sum() > 1.2 * once.reached.sum()
    assert often.reached[once.reached].all()
    for i in np.flatnonzero(once.reached):
        a, b = (t.road[t.offset[i]:t.offset[i + 1]].tolist() for t in (once, often))
        assert a == b


def test_repeated_queries_are_drawn_apart_and_a_share_of_them_as_in_the_whole(city, student):
    queries = draw_queries(city, "test-trips", 20, seed=0).repeat(4)
    whole = paths(generate(student, city, queries, search="sample"))
    assert any(len({tuple(path) for path in whole[i:i + 4]}) > 1 for i in range(0, 80, 4))
    part = paths(generate(student, city, queries.select(slice(33, 60)), search="sample"))
    assert part == whole[33:60]


def test_time_limit_ends_searches_where_they_stand(city, student):
    queries = draw_queries(city, "test", 50, seed=7)
    chunks = generate(student, city, queries, time_limit_s=1e-9)
    assert {reason for chunk in chunks for reason in chunk.reason} <= {"time limit", "same road"}
    assert len(paths(chunks)) == 50


@pytest.mark.parametrize("search", ["astar", "beam", "sample"])
def test_search_time_limit_ends_each_search_by_itself(city, student, search):
    queries = draw_queries(city, "test", 50, seed=7)
    chunks = generate(student, city, queries, search=search, search_time_limit_s=1e-9)
    ended = [(reason, len(path)) for chunk in chunks
             for reason, path in zip(chunk.reason, paths([chunk]), strict=True)]
    assert len(ended) == 50
    assert any(reason == "time limit" for reason, _ in ended)
    # One round is granted: a road may be entered in it, and may happen to be the destination.
    assert all(roads <= 2 for _, roads in ended)
    unhurried = generate(student, city, queries, search=search, search_time_limit_s=3600)
    assert paths(unhurried) == paths(generate(student, city, queries, search=search))


def test_guide_needs_fewer_expansions_and_still_arrives(city, student):
    class Last:
        def notify(self, event):
            self.metrics = event.metrics

    queries = draw_queries(city, "test", 200, seed=8)
    plain, guided = Last(), Last()
    generate(student, city, queries, observer=plain)
    [*_, trips] = generate(student, city, queries, observer=guided, guide=True)
    assert guided.metrics["expansions_per_trip"] < 0.8 * plain.metrics["expansions_per_trip"]
    assert trips.reached.all()


def test_normalised_beam_ranks_by_mean(city, student):
    queries = draw_queries(city, "test", 100, seed=9)
    total = paths(generate(student, city, queries, search="beam"))
    mean = paths(generate(student, city, queries, search="beam", length_normalised=True))
    assert sum(map(len, mean)) > sum(map(len, total))


def test_zone_pairs_are_all_pairs_and_start_and_end_in_their_zones(city):
    queries = draw_queries(city, "zones:0,2,3", None, seed=0)
    zone = city.network.zone
    pairs = list(zip(zone[queries.origin].tolist(), zone[queries.destination].tolist(),
                     strict=True))
    assert pairs == [(a, b) for a in (0, 2, 3) for b in (0, 2, 3) if a != b]
    assert len(draw_queries(city, "zones:all", None, seed=0)) == 12
    with pytest.raises(UsageError, match="the city has no zone 9, only 0 to 3"):
        draw_queries(city, "zones:1,9", None, seed=0)
    with pytest.raises(UsageError, match="zones are numbers"):
        draw_queries(city, "zones:north", None, seed=0)


def test_points_are_taken_to_the_nearest_roads_with_their_distance(city, tmp_path):
    network = city.network
    middle = (network.start_lonlat + network.end_lonlat) / 2
    path = tmp_path / "points.csv"
    lines = ["origin_lon,origin_lat,destination_lon,destination_lat,departure"]
    for a, b in ((3, 17), (8, 30)):
        away = middle[b] + [0, 1e-7]
        lines.append(f"{middle[a][0]},{middle[a][1]},{away[0]},{away[1]},2015-11-07T16:30:00Z")
    path.write_text("\n".join(lines) + "\n")
    queries = draw_queries(city, str(path), None, seed=0)
    assert queries.origin.tolist() == [3, 8]
    assert queries.destination.tolist() == [17, 30]
    assert (queries.snapped_m[:, 0] < 1e-3).all()
    assert (queries.snapped_m[:, 1] < 0.012).all()


def test_memory_of_one_search_is_enough(city, student):
    queries = draw_queries(city, "test", 60, seed=10)
    expected = generate(student, city, queries)
    assert paths(generate(student, city, queries, memory_mb=1)) == paths(expected)
