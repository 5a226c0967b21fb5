import gzip
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import zstandard
from source_folder import (
    RING,
    Listener,
    prepared,
    trip,
    trips_table,
    write_source,
)

from hoserkd.engine.city.statistics import time_statistics
from hoserkd.engine.city.storage import load_city, pack_trips, read_manifest, save_city
from hoserkd.engine.config import CityConfig
from hoserkd.engine.events import Note, Progress
from hoserkd.engine.types import TrajectorySet
from hoserkd.errors import DataError, InterruptedRunError, UsageError

RECORDED = Path(__file__).parents[1] / "data" / "hoser"


def rows_of(trips: TrajectorySet) -> list[list[int]]:
    return [trips.road[a:b].tolist()
            for a, b in zip(trips.offset[:-1], trips.offset[1:], strict=True)]


def test_prepared_city_holds_what_the_files_say(tmp_path: Path) -> None:
    train = trips_table([trip([0, 1, 2]), trip([5, 0], step_s=3)])
    source = write_source(tmp_path / "s", train=train)
    report = prepared(source, tmp_path / "c", name="ring")
    city = load_city(tmp_path / "c")
    assert (city.name, city.sha256, report.changed) == ("ring", report.sha256, True)
    assert rows_of(city.split("train")) == [[0, 1, 2], [5, 0]]
    assert city.split("train").entered_at_s.tolist() == [
        1704067200 + s for s in (0, 10, 20, 0, 3)]
    assert city.network.roads == RING
    assert city.split("test").steps == 2
    assert report.statistics["splits"]["train"]["trips"] == 2
    assert report.rejected_path is None


def test_recorded_city_gives_the_recorded_time_statistics_zones_and_transitions(
    tmp_path: Path,
) -> None:
    recorded = np.load(RECORDED / "expected.npz")
    prepared(RECORDED / "city", tmp_path / "given")
    given = load_city(tmp_path / "given")
    assert given.times.log1p_mean == pytest.approx(float(recorded["log1p_mean"]), rel=1e-6)
    assert given.times.log1p_std == pytest.approx(float(recorded["log1p_std"]), rel=1e-6)
    assert np.array_equal(given.network.zone, recorded["zone"])
    shutil.copytree(RECORDED / "city", tmp_path / "without")
    (tmp_path / "without" / "zone_trans_mat.npy").unlink()
    prepared(tmp_path / "without", tmp_path / "counted")
    counted = load_city(tmp_path / "counted").network.zone_transitions
    assert np.array_equal(counted, np.load(RECORDED / "city" / "zone_trans_mat.npy"))
    assert np.array_equal(counted, given.network.zone_transitions)


def test_transitions_without_a_partition_are_ignored_aloud(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s")
    np.save(source / "zone_trans_mat.npy", np.full((3, 3), 7))
    listener = Listener()
    prepared(source, tmp_path / "c", observer=listener)
    assert any(isinstance(e, Note) and "ignored" in e.message for e in listener.events)
    assert load_city(tmp_path / "c").network.zone_transitions.max() < 7


def test_a_second_run_does_nothing_until_an_input_or_a_setting_changes(tmp_path: Path) -> None:
    source, city = write_source(tmp_path / "s"), tmp_path / "c"
    first = prepared(source, city)
    manifest = (city / "manifest.json").stat().st_mtime_ns
    assert prepared(source, city).changed is False
    assert (city / "manifest.json").stat().st_mtime_ns == manifest
    assert prepared(source, city, zones=2).changed is True
    again = prepared(source, city)
    assert (again.changed, again.sha256) == (True, first.sha256)
    assert prepared(source, city, force=True).changed is True
    write_source(source, val=trips_table([trip([1, 2])]))
    assert prepared(source, city).sha256 != first.sha256


def test_a_time_zone_is_kept_and_given_later_without_preparing_anew(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    assert load_city(prepared(source, tmp_path / "city").directory).network.timezone is None
    again = prepared(source, tmp_path / "city", timezone="Europe/Lisbon")
    assert not again.changed
    city = load_city(tmp_path / "city")
    assert city.network.timezone == "Europe/Lisbon"
    assert load_city(tmp_path / "city", "Asia/Tokyo").network.timezone == "Asia/Tokyo"
    fresh = prepared(source, tmp_path / "other", timezone="Europe/Lisbon")
    assert load_city(fresh.directory).sha256 == city.sha256
    with pytest.raises(ValueError, match="no time zone 'Europe/Lissabon'"):
        CityConfig(timezone="Europe/Lissabon")


def test_a_partition_file_that_appears_later_counts_as_a_change(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s")
    prepared(source, tmp_path / "c")
    (source / "road_network_partition").write_text("0\n0\n1\n1\n4\n4\n")
    assert prepared(source, tmp_path / "c").changed is True
    network = load_city(tmp_path / "c").network
    assert network.zone.tolist() == [0, 0, 1, 1, 4, 4]
    assert network.zones == 5


def test_bad_trips_are_left_out_counted_and_named(tmp_path: Path) -> None:
    bad = [trip([0, 1]), trip([0, 2]), trip([0]), trip([1, 2]), ("x", "y"), trip([0, 77])]
    listener = Listener()
    source = write_source(tmp_path / "s", train=trips_table(bad))
    report = prepared(source, tmp_path / "c", observer=listener)
    assert report.rejected["train"] == {"pair not in roadmap.rel": 1, "fewer than 2 roads": 1,
                                        "unparsable": 1, "unknown road": 1}
    assert rows_of(load_city(tmp_path / "c").split("train")) == [[0, 1], [1, 2]]
    assert report.rejected_path is not None
    lines = report.rejected_path.read_text().splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [["train", str(r)] for r in (3, 4, 6, 7)]
    assert any(isinstance(e, Note) and "4 bad trips" in e.message for e in listener.events)


def test_too_many_bad_trips_are_an_error_that_keeps_the_old_city(tmp_path: Path) -> None:
    source, city = write_source(tmp_path / "s"), tmp_path / "c"
    old = prepared(source, city).sha256
    write_source(source, val=trips_table([trip([0, 1]), trip([0, 3])]))
    with pytest.raises(DataError, match=r"1 of 4 trips \(25\.0%\).*pair not in roadmap\.rel"):
        prepared(source, city, max_rejected_share=0.2)
    assert load_city(city).sha256 == old
    assert (city / "rejected.csv").read_text().count("\n") == 2
    assert not list(city.glob(".content*"))


@pytest.mark.parametrize("text", [trips_table([]), trips_table([trip([0, 4])])])
def test_a_split_without_a_usable_trip_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"test\.csv: (holds no trips|every trip is bad)"):
        prepared(write_source(tmp_path / "s", test=text), tmp_path / "c")


@pytest.mark.parametrize("name", ["roadmap.geo", "roadmap.rel", "train.csv", "val.csv", "test.csv"])
def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    source = write_source(tmp_path / "s")
    (source / name).rename(source / f"my_{name}")
    with pytest.raises(DataError, match=f"{name} is missing") as raised:
        prepared(source, tmp_path / "c")
    assert f"my_{name}" in (raised.value.hint or "")


def test_two_forms_of_one_file_are_an_error(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s")
    shutil.copy(source / "train.csv", source / "train.csv.gz")
    with pytest.raises(DataError, match=r"train\.csv, train\.csv\.gz are all there"):
        prepared(source, tmp_path / "c")


def test_a_source_in_other_forms_and_cases_is_the_same_city(tmp_path: Path) -> None:
    plain = write_source(tmp_path / "plain")
    other = write_source(tmp_path / "other")
    (other / "roadmap.geo").rename(other / "roadmap.GEO")
    (other / "roadmap.rel.gz").write_bytes(gzip.compress((other / "roadmap.rel").read_bytes()))
    (other / "val.CSV.Zst").write_bytes(zstandard.compress((other / "val.csv").read_bytes()))
    trips = pa_csv.read_csv(other / "train.csv").rename_columns(
        ["mm_id", "entity_id", "traj_id", "gene_trace_road_id", "gene_trace_datetime"])
    pq.write_table(trips, other / "train.Parquet")
    for name in ("roadmap.rel", "val.csv", "train.csv"):
        (other / name).unlink()
    assert prepared(other, tmp_path / "b").sha256 == prepared(plain, tmp_path / "a").sha256


def test_a_missing_source_folder_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        prepared(tmp_path / "nowhere", tmp_path / "c")


def test_a_stop_request_ends_the_work_and_changes_nothing(tmp_path: Path) -> None:
    source, city = write_source(tmp_path / "s"), tmp_path / "c"
    old = prepared(source, city).sha256
    asked: list[bool] = []

    def stop() -> bool:
        asked.append(True)
        return len(asked) > 9

    with pytest.raises(InterruptedRunError):
        prepared(source, city, force=True, stop=stop)
    assert load_city(city).sha256 == old
    assert {p.name for p in city.iterdir()} == {".lock", "manifest.json", f"content-{old[:16]}"}


KILLED = """
import os, sys
from pathlib import Path
import hoserkd.engine.city.storage as storage
source, city, helpers = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
sys.path.insert(0, helpers)
from source_folder import prepared

def dying(real):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os._exit(9)
        return real(*args, **kwargs)
    return call

left, status, deaths = 0, 9, 0
os.fsync, os.rename, os.replace = map(dying, (os.fsync, os.rename, os.replace))
storage.sweep = dying(storage.sweep)
loaded = lambda: (storage.load_city(city).name, len(storage.load_city(city).split("val")))
prepared(source, city, name="old")
old, new = ("old", 1), ("new", 2)
(source / "val.csv").write_text((source / "other.csv").read_text())
seen = [old]
while status:
    # The first writes are all alike; the last decide.
    deaths += 1 if deaths >= 20 else 10
    child = os.fork()
    if not child:
        left = deaths
        prepared(source, city, name="new")
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    seen.append(loaded())
    if seen[-1] == new and status:
        assert prepared(source, city, name="new").changed is False
        # Back to the old city, so that the next death meets one too.
        good = (source / "val.csv").read_text()
        (source / "val.csv").write_text((source / "train.csv").read_text())
        prepared(source, city, name="old")
        (source / "val.csv").write_text(good)
assert set(seen) == {old, new}, seen
assert len(list(city.glob("*content*"))) == 1, list(city.iterdir())
print(deaths)
"""


def test_a_prepare_killed_at_any_write_leaves_the_old_or_the_new_city(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s")
    (source / "other.csv").write_text(trips_table([trip([1, 2]), trip([2, 3])]))
    script = [sys.executable, "-c", KILLED, source, tmp_path / "c", Path(__file__).parent]
    done = subprocess.run(script, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


def test_a_second_prepare_waits_for_the_first(tmp_path: Path) -> None:
    source, city = write_source(tmp_path / "s"), tmp_path / "c"
    city.mkdir()
    held = ("import fcntl,sys,time\nf=open(sys.argv[1],'w')\nfcntl.flock(f,fcntl.LOCK_EX)\n"
            "print('held',flush=True)\ntime.sleep(0.6)")
    holder = subprocess.Popen([sys.executable, "-c", held, city / ".lock"], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    listener = Listener()
    began = time.perf_counter()
    prepared(source, city, observer=listener)
    assert holder.wait() == 0
    holder.stdout.close()
    assert time.perf_counter() - began > 0.4
    assert any(isinstance(e, Note) and "waiting" in e.message for e in listener.events)


@pytest.mark.parametrize("damage", ["manifest", "array", "missing", "version", "shape"])
def test_a_damaged_city_is_an_error_and_is_made_anew(tmp_path: Path, damage: str) -> None:
    source, city = write_source(tmp_path / "s"), tmp_path / "c"
    prepared(source, city)
    manifest = city / "manifest.json"
    content = city / read_manifest(city)["content"]
    if damage == "manifest":
        manifest.write_text("{")
    elif damage == "array":
        array = content / "network" / "adjacency.npy"
        array.write_bytes(array.read_bytes()[:-8])
    elif damage == "missing":
        (content / "trips" / "val" / "road.npy").unlink()
    elif damage == "shape":
        np.save(content / "network" / "zone.npy", np.zeros(3, np.int32))
    else:
        manifest.write_text(json.dumps({**read_manifest(city), "format": 99}))
    with pytest.raises(DataError) as raised:
        load_city(city).split("val")
    assert "hoserkd prepare" in (raised.value.hint or "")
    assert prepared(source, city).changed is True
    assert len(load_city(city).split("val")) == 1


def test_a_folder_without_a_city_hints_at_prepare(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no prepared city"):
        load_city(tmp_path)


def test_an_unknown_split_is_a_value_error(tmp_path: Path) -> None:
    prepared(write_source(tmp_path / "s"), tmp_path / "c")
    with pytest.raises(ValueError, match="split must be"):
        load_city(tmp_path / "c").split("valid")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s")
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(DataError, match="cannot be written"):
        prepared(source, tmp_path / "locked" / "c")


def test_a_disk_that_fills_up_is_an_error_and_keeps_the_old_city(tmp_path: Path) -> None:
    source, city = write_source(tmp_path / "s"), tmp_path / "c"
    old = prepared(source, city).sha256
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for limit in (0, 100, 140, 300, 2000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            with pytest.raises(DataError, match="cannot be written"):
                prepared(source, city, force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_city(city).sha256 == old
    assert prepared(source, city, force=True).sha256 == old
    assert len(list(city.glob("*content*"))) == 1


def test_a_folder_one_level_too_high_is_answered_with_the_right_one(tmp_path: Path) -> None:
    write_source(tmp_path / "cities" / "porto")
    with pytest.raises(DataError) as raised:
        prepared(tmp_path / "cities", tmp_path / "c")
    assert raised.value.hint == f"is {tmp_path / 'cities' / 'porto'} meant?"


def test_a_file_in_the_citys_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("in the way")
    with pytest.raises(UsageError, match="cannot be written"):
        prepared(write_source(tmp_path / "s"), tmp_path / "c")


def test_saved_records_come_back_the_same(tmp_path: Path) -> None:
    prepared(write_source(tmp_path / "s"), tmp_path / "a")
    one = load_city(tmp_path / "a")
    trips = pack_trips([[0, 1], [3, 4, 5]], [[5, 6], [7, 8, 9]])
    splits = dict.fromkeys(("train", "val", "test"), trips)
    two = save_city(tmp_path / "b", "copy", one.network, splits, one.times)
    assert rows_of(two.split("val")) == [[0, 1], [3, 4, 5]]
    assert two.times == one.times
    assert np.array_equal(two.network.shape_lonlat, one.network.shape_lonlat)


@pytest.mark.parametrize("seed", range(3))
def test_time_statistics_equal_numpys_over_blocks(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    times = [np.cumsum(rng.integers(0, 500, rng.integers(2, 9))).tolist() for _ in range(40)]
    trips = pack_trips([[0] * len(t) for t in times], times)
    values = np.log1p(np.concatenate([np.diff(t) for t in times]))
    monkeypatch.setattr("hoserkd.engine.city.statistics.BLOCK_TRIPS", 7)
    found = time_statistics(trips)
    assert found.log1p_mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.log1p_std == pytest.approx(values.std(), rel=1e-12)


def test_progress_speaks_of_every_split_and_ends_whole(tmp_path: Path) -> None:
    listener = Listener()
    prepared(write_source(tmp_path / "s"), tmp_path / "c", observer=listener)
    last = {e.job: e for e in listener.events if isinstance(e, Progress)}
    assert {f"reading {split}.csv" for split in ("train", "val", "test")} <= set(last)
    assert all(e.done == e.total for e in last.values())


def test_mini_city_of_real_trips_has_the_published_counts(real_data: Path, tmp_path: Path) -> None:
    report = prepared(real_data / "san_francisco_mini", tmp_path / "c", zones=20)
    assert report.statistics["roads"] == 1653
    assert report.statistics["relations"] == 3408
    assert [s["trips"] for s in report.statistics["splits"].values()] == [2056, 330, 614]
    assert not any(report.rejected.values())
    assert report.statistics["strongly_connected_share"] == 1.0
