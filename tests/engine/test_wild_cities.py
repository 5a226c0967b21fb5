"""Cities that are odd and yet valid: each is prepared and comes back as it was written."""

import json
from pathlib import Path

import numpy as np
import pytest
from source_folder import (
    GEO_COLUMNS,
    prepared,
    quoted,
    ring_road,
    table,
    trip,
    trips_table,
    write_source,
)

from hoserkd.engine.city.storage import City, load_city
from hoserkd.engine.geo import great_circle_m


def wild(
    tmp_path: Path,
    roads: list[tuple[object, ...]],
    relations: list[tuple[int, int]],
    trips: list[tuple[str, str]],
    zones: int = 3,
) -> City:
    """Prepare a city of the given tables, with no trip rejected, and load it."""
    text = trips_table(trips)
    source = write_source(
        tmp_path / "путь with space", geo=table(GEO_COLUMNS, roads), train=text, val=text,
        test=text, rel=table(("rel_id", "type", "origin_id", "destination_id"),
                             [(i, "geo", a, b) for i, (a, b) in enumerate(relations)]),
    )
    prepared(source, tmp_path / "c", zones=zones, max_rejected_share=0.0)
    return load_city(tmp_path / "c")


def line(*points: tuple[float, float]) -> str:
    return json.dumps(points)


def road(index: int, coordinates: str, geo_id: object | None = None) -> tuple[object, ...]:
    return ring_road(index, geo_id, coordinates=coordinates)


def test_a_city_of_one_road_is_prepared(tmp_path: Path) -> None:
    city = wild(tmp_path, [ring_road(0)], [(0, 0)], [trip([0, 0, 0])], zones=300)
    assert city.network.roads == city.network.zones == 1
    assert city.network.adjacency.shape == (2, 0)
    assert city.network.adjacency_attr.shape == (0, 2)
    assert city.split("train").steps == 2


def test_self_loops_parallel_roads_and_dead_ends_are_kept(tmp_path: Path) -> None:
    same = line((10, 50), (10.01, 50))
    loop = line((10.01, 50), (10.02, 50.01), (10.01, 50))
    roads = [road(0, same), road(1, same), road(2, loop), road(3, line((10.01, 50), (10.03, 50)))]
    city = wild(tmp_path, roads, [(0, 2), (1, 2), (2, 2), (2, 3), (0, 3)],
                [trip([0, 2, 2, 3]), trip([1, 2])])
    assert city.manifest["statistics"]["dead_ends"] == 1
    pairs = set(map(tuple, city.network.adjacency.T.tolist()))
    assert {(0, 1), (1, 0), (2, 3)} <= pairs
    assert not any(a == b for a, b in pairs)
    assert np.isfinite(city.network.adjacency_attr).all()


def test_a_disconnected_city_is_prepared(tmp_path: Path) -> None:
    roads = [road(i, line((i, 50), (i + 0.01, 50))) for i in range(20)]
    city = wild(tmp_path, roads, [(2 * i, 2 * i + 1) for i in range(10)], [trip([4, 5])], zones=4)
    assert city.manifest["statistics"]["strongly_connected_share"] == pytest.approx(0.05)
    assert city.network.zones <= 4


def test_a_road_with_1500_candidates_is_prepared(tmp_path: Path) -> None:
    hub = (10.0, 50.0)
    roads = [road(0, line((9.9, 50), hub))]
    roads += [road(i, line(hub, (10 + np.cos(i) / 9, 50 + np.sin(i) / 9))) for i in range(1, 1501)]
    city = wild(tmp_path, roads, [(0, i) for i in range(1500, 0, -1)],
                [trip([0, i]) for i in (1, 750, 1500)], zones=20)
    assert city.network.candidates.road.tolist() == list(range(1500, 0, -1))
    assert city.network.adjacency.shape == (2, 1501 * 1500)


def test_a_city_across_the_antimeridian_is_one_piece(tmp_path: Path) -> None:
    roads = [road(0, line((179.98, -17), (180.0, -17))),
             road(1, line((-180.0, -17), (-179.98, -17))),
             road(2, line((179.999, -17), (-179.999, -17)))]
    city = wild(tmp_path, roads, [(0, 1)], [trip([0, 1])])
    centroid = city.network.centroid_lonlat
    assert np.ptp(centroid[:, 0]) < 0.1
    assert great_circle_m(centroid[0], centroid[1]) == pytest.approx(2127, rel=0.01)
    assert city.network.adjacency.T.tolist() == [[0, 1], [1, 0]]
    assert centroid[2, 0] == pytest.approx(180)


def test_a_city_at_the_pole_has_finite_tables(tmp_path: Path) -> None:
    roads = [road(0, line((0, 89.99), (0, 90))), road(1, line((0, 90), (120, 89.99))),
             road(2, line((0, 90), (0, 90)))]
    network = wild(tmp_path, roads, [(0, 1), (0, 2)], [trip([0, 1])]).network
    for values in (network.centroid_lonlat, network.adjacency_attr, network.length_m):
        assert np.isfinite(values).all()


@pytest.mark.parametrize(
    ("first", "step_s", "last"),
    [
        ("2023-12-31T23:59:55", 10, "2024-01-01T00:00:15"),
        ("2024-02-28T23:59:55", 10, "2024-02-29T00:00:15"),
        ("2023-02-28T23:59:55", 10, "2023-03-01T00:00:15"),
        ("2024-03-31T01:59:55", 10, "2024-03-31T02:00:15"),
        ("2008-05-17T04:06:00", 0, "2008-05-17T04:06:00"),
        ("2008-05-17T04:06:00", 3 * 3600, "2008-05-17T10:06:00"),
        ("1969-12-31T23:59:55", 10, "1970-01-01T00:00:15"),
    ],
)
def test_trips_over_every_border_of_the_calendar_keep_their_wall_clock(
    tmp_path: Path, first: str, step_s: int, last: str
) -> None:
    roads = [ring_road(i) for i in range(3)]
    city = wild(tmp_path, roads, [(0, 1), (1, 2)], [trip([0, 1, 2], first, step_s)])
    entered = city.split("val").entered_at_s
    assert np.diff(entered).tolist() == [step_s] * 2
    assert entered[[0, 2]].astype("datetime64[s]").astype(str).tolist() == [first, last]
    assert city.times.log1p_std > 0


def test_trips_of_2_and_of_5000_roads_live_together(tmp_path: Path) -> None:
    roads = [ring_road(i) for i in range(2)]
    city = wild(tmp_path, roads, [(0, 1), (1, 0)],
                [trip([0, 1]), trip([0, 1] * 2500, step_s=1), trip([1, 0])])
    assert np.diff(city.split("train").offset).tolist() == [2, 5000, 2]


def test_ids_names_line_ends_and_bom_of_strangers_are_taken(tmp_path: Path) -> None:
    ids = [2**40, -7, 5_000_000]
    rows = [(*ring_road(i, ids[i], highway="мост"), "Jalan \"Raya\", no. 1") for i in range(3)]
    geo = table((*GEO_COLUMNS, "name"), rows).replace("\n", "\r\n")
    trips = [trip([ids[0], ids[1], ids[2]])]
    lines = [f"{quoted(r)},{quoted(t)},é" for r, t in trips]
    csv_text = "\r\n".join(["rid_list,time_list,заметка", *lines, "", ""])
    rel = table(("destination_id", "origin_id"), [(ids[1], ids[0]), (ids[2], ids[1])])
    splits = dict.fromkeys(("train", "val", "test"), "\ufeff" + csv_text)
    source = write_source(tmp_path / "é à", geo="\ufeff" + geo, rel=rel, **splits)
    prepared(source, tmp_path / "c", max_rejected_share=0.0)
    city = load_city(tmp_path / "c")
    assert city.network.road_id.tolist() == sorted(ids)
    assert city.network.road_id[city.split("test").road].tolist() == ids
    assert city.network.highway_names == ("мост",)


@pytest.mark.slow
def test_ten_million_steps_are_prepared_in_bounded_memory(tmp_path: Path) -> None:
    import resource

    roads, times = trip([0, 1] * 2500, step_s=1)
    one = f'1,1,1,"{roads}","{times}"\n'
    source = write_source(tmp_path / "s", geo=table(GEO_COLUMNS, [ring_road(0), ring_road(1)]),
                          rel="origin_id,destination_id\n0,1\n1,0\n")
    with (source / "train.csv").open("w") as file:
        file.write("mm_id,entity_id,traj_id,rid_list,time_list\n")
        file.writelines(one for _ in range(2001))
    for split in ("val", "test"):
        (source / f"{split}.csv").write_text(trips_table([trip([0, 1])]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    prepared(source, tmp_path / "c")
    assert load_city(tmp_path / "c").split("train").steps == 2001 * 4999
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 900
