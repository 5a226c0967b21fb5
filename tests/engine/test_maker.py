import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from hoserkd.engine.config import GenerateConfig
from hoserkd.engine.generate import draw_queries
from hoserkd.engine.identity import Identity, city_identity, student_identity
from hoserkd.engine.library import search_trips
from hoserkd.engine.outputs import is_own
from hoserkd.engine.trips.generated import load_generated, save_chunks, save_generated
from hoserkd.engine.trips.maker import (
    READ_BY,
    TripsMaker,
    files_made_by,
    note_path,
    other_maker,
    place_for,
    read_note,
    requests_sha256,
    trips_maker,
    unlike_makers,
)


@pytest.fixture(scope="module")
def made(two_way_city, new_tiny_student):
    """A student, 20 requests, the answers to them, and who made these."""
    student = new_tiny_student(two_way_city)
    queries = draw_queries(two_way_city, "test", 20, 3)
    maker = maker_of(two_way_city, student, queries)
    return student, queries, search_trips(student, two_way_city, queries), maker


def maker_of(city, student, queries, source="test", seed=0, **settings):
    identity = student_identity(student, city.directory / "best.safetensors", "mine")
    return trips_maker(identity, city, queries, source, GenerateConfig(**settings), seed)


def test_every_setting_of_generate_is_known_to_matter_or_not():
    """A new setting must be sorted in: one that changes answers belongs to who made them."""
    speed = {"batch_size", "workers", "memory_mb"}
    requests = {"num", "trips_per_od", "max_snap_m"}
    read = {name for names in READ_BY.values() for name in names}
    assert read | speed | requests | {"search"} == set(GenerateConfig.model_fields)
    assert not read & (speed | requests)


def test_maker_changes_with_all_that_changes_the_trips(two_way_city, made, new_tiny_student):
    student, queries, _, maker = made
    sampled = maker_of(two_way_city, student, queries, search="sample")
    others = [
        maker_of(two_way_city, new_tiny_student(two_way_city, 1), queries),
        maker_of(two_way_city, student, queries.select(slice(19))),
        maker_of(two_way_city, student, queries.select(np.arange(20)[::-1])),
        maker_of(two_way_city, student, queries.repeat(2)),
        maker_of(two_way_city, student, queries, seed=1),
        maker_of(two_way_city, student, queries, max_steps=9),
        maker_of(two_way_city, student, queries, guide=True),
        sampled, maker_of(two_way_city, student, queries, search="sample", temperature=2.0),
        replace(maker, city=Identity("city", "two_way", "f" * 64)),
    ]
    assert len({m.sha256 for m in [maker, *others]}) == len(others) + 1
    assert all(maker != other and maker.differences(other) for other in others)
    same = [maker_of(two_way_city, student, queries, batch_size=3, num=4, temperature=2.0,
                     beam_width=9, guide_weight=0.7),
            maker_of(two_way_city, student, queries, source="elsewhere/pairs.csv")]
    assert {m.sha256 for m in same} == {maker.sha256}
    assert all(maker == other and not maker.differences(other) for other in same)


def test_maker_comes_back_from_json_and_names_no_place(two_way_city, made):
    *_, maker = made
    text = json.dumps(maker.to_json())
    again = TripsMaker.from_json(json.loads(text))
    assert (again, again.sha256) == (maker, maker.sha256)
    assert str(two_way_city.directory) not in text
    assert TripsMaker.from_json({**maker.to_json(), "student": 3}) is None
    assert TripsMaker.from_json([]) is None


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".geojson"])
def test_file_says_who_made_it(two_way_city, made, tmp_path, suffix):
    *_, trips, maker = made
    path = tmp_path / f"trips{suffix}"
    save_generated(path, trips, two_way_city.network, maker)
    note = read_note(path)
    assert (note.maker, note.trips) == (maker, 20)
    assert note.is_of(trips)
    beside = note_path(path)
    assert beside is None if suffix == ".parquet" else is_own(beside)
    if suffix == ".parquet":
        assert b"hoserkd" in pq.read_metadata(path).metadata
    if suffix != ".geojson":
        assert note.is_of(load_generated(path, two_way_city.network))
    save_generated(path, trips, two_way_city.network)
    assert read_note(path) is None
    assert beside is None or not beside.exists()


def test_file_beside_the_trips_that_is_a_users_own_stays(two_way_city, made, tmp_path):
    (tmp_path / "trips.csv.json").write_text("mine")
    save_generated(tmp_path / "trips.csv", made[2], two_way_city.network)
    assert (tmp_path / "trips.csv.json").read_text() == "mine"


def test_note_does_not_depend_on_the_chunks(two_way_city, made, tmp_path, new_tiny_student):
    student, queries, trips, maker = made
    chunks = [search_trips(student, two_way_city, queries.select(slice(a, a + 4)))
              for a in range(0, 20, 4)]
    save_chunks(tmp_path / "parts.csv", chunks, two_way_city.network, maker)
    save_generated(tmp_path / "whole.csv", trips, two_way_city.network, maker)
    assert read_note(tmp_path / "parts.csv") == read_note(tmp_path / "whole.csv")


def test_note_of_changed_trips_is_not_theirs(two_way_city, made, tmp_path):
    *_, trips, maker = made
    path = tmp_path / "trips.csv"
    save_generated(path, trips, two_way_city.network, maker)
    whole = path.read_text()
    path.write_text(whole.replace(":00Z", ":01Z"))
    assert path.read_text() != whole
    note = read_note(path)
    assert not note.is_of(load_generated(path, two_way_city.network))
    assert not note.is_beside(path)
    assert list(files_made_by(tmp_path, maker)) == []
    assert other_maker(path, maker) == "they were changed since they were generated"


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"made_by": {}}', "\x00", "9" * 2_000_000,
                                  '{"made_by": {"student": {"sha256": 1}}, "trips": "x"}'])
def test_note_that_is_none_is_taken_for_none(tmp_path, text):
    (tmp_path / "trips.csv").write_text("")
    note_path(tmp_path / "trips.csv").write_text(text)
    assert read_note(tmp_path / "trips.csv") is None
    (tmp_path / "trips.parquet").write_text(text)
    assert read_note(tmp_path / "trips.parquet") is None


def test_note_without_the_hash_of_its_file_is_taken_for_none(two_way_city, made, tmp_path):
    *_, trips, maker = made
    path = tmp_path / "trips.csv"
    save_generated(path, trips, two_way_city.network, maker)
    said = json.loads(note_path(path).read_text())
    note_path(path).write_text(json.dumps({**said, "file_sha256": None}))
    assert read_note(path) is None


def test_place_never_holds_the_trips_of_another_maker(two_way_city, made, tmp_path):
    student, queries, trips, maker = made
    few = maker_of(two_way_city, student, queries.select(slice(3)))
    plain = tmp_path / "test-astar.csv"
    assert place_for(tmp_path, maker) == place_for(tmp_path, few) == plain
    save_generated(plain, trips, two_way_city.network, maker)
    assert place_for(tmp_path, maker) == plain
    other = place_for(tmp_path, few)
    assert other == tmp_path / f"test-astar-{few.sha256[:8]}.csv"
    assert other_maker(plain, few) == "requests: 20 requests of test and 3 requests of test"
    assert other_maker(plain, maker) is None
    save_generated(other, search_trips(student, two_way_city, queries.select(slice(3))),
                   two_way_city.network, few)
    assert [path for path, _ in files_made_by(tmp_path, few)] == [other]
    assert [path for path, _ in files_made_by(tmp_path, maker)] == [plain]
    plain.unlink()
    plain.write_text("a user's own")
    assert place_for(tmp_path, maker) == tmp_path / f"test-astar-{maker.sha256[:8]}.csv"
    assert place_for(tmp_path, few) == other


def test_name_of_a_file_of_requests_cannot_lead_out_of_the_folder(two_way_city, made, tmp_path):
    student, queries, *_ = made
    for source in ("/etc/x/pairs.csv", "../pairs.csv", "/etc/pairs", "zones:1,2", ".."):
        maker = maker_of(two_way_city, student, queries, source=source)
        assert place_for(tmp_path, maker).parent == tmp_path
        assert "/etc" not in json.dumps(maker.to_json())


def test_sets_made_unlike_are_told_apart(two_way_city, made, new_tiny_student):
    student, queries, _, maker = made
    city = city_identity(two_way_city)
    trained_on = maker_of(two_way_city, new_tiny_student(two_way_city, 1), queries)
    assert unlike_makers({"a": maker, "b": trained_on}, "test", city) == ()
    assert unlike_makers({"a": None, "b": None}, "test", city) == ()
    sampled = maker_of(two_way_city, student, queries.select(slice(3)), search="sample", seed=7)
    [told] = unlike_makers({"a": maker, "b": sampled}, "test", city)
    assert told.startswith("a and b were not made alike (")
    for part in ("20 requests of test and 3 requests of test", "search: astar and sample",
                 "seed: 0 and 7"):
        assert part in told
    [told] = unlike_makers({"a": None, "b": maker}, "test", city)
    assert told == "how the trips of a were made is not known"
    [told] = unlike_makers({"a": maker}, "train", city)
    assert told == "a answers test requests and is judged against train trips"
    [told] = unlike_makers({"a": maker}, "test", Identity("city", "new", "0" * 64))
    assert "was generated in city two_way" in told


def test_requests_of_unknown_roads_are_told_apart_by_their_ids(made):
    _, queries, *_ = made
    unknown = replace(queries, origin=np.full(20, -1), requested=np.full((20, 2), 901))
    assert requests_sha256(unknown) != requests_sha256(
        replace(unknown, requested=np.full((20, 2), 902)))


