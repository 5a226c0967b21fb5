from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from source_folder import prepared

from hoserkd.engine.city.network import build_network, strongly_connected_share
from hoserkd.engine.city.roadmap import read_roadmap
from hoserkd.engine.city.storage import SPLITS, City, load_city
from hoserkd.engine.city.synthetic import make_demo_source
from hoserkd.engine.types import RoadNetwork


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, City]:
    folder = tmp_path_factory.mktemp("demo")
    make_demo_source(folder / "source", 400, 500, 7)
    prepared(folder / "source", folder / "city", zones=12, max_rejected_share=0.0)
    return folder / "source", load_city(folder / "city")


def test_demo_city_is_about_as_large_as_asked_and_nearly_all_reaches_all(
    demo: tuple[Path, City],
) -> None:
    network = demo[1].network
    assert abs(network.roads - 400) < 40
    assert strongly_connected_share(network.candidates) > 0.95
    assert (np.diff(network.candidates.offset) == 0).any()


def test_demo_city_has_a_hierarchy_bridges_and_one_way_streets(demo: tuple[Path, City]) -> None:
    text = (demo[0] / "roadmap.geo").read_text()
    assert {"motorway", "primary", "secondary", "residential"} <= set(demo[1].network.highway_names)
    assert 2 <= text.count(",yes,") <= 40
    assert ",True," in text
    assert ",False," in text


def test_demo_splits_are_cut_by_time_70_10_20(demo: tuple[Path, City]) -> None:
    splits = [demo[1].split(name) for name in SPLITS]
    assert [len(split) for split in splits] == [350, 50, 100]
    starts = [split.entered_at_s[split.offset[:-1]] for split in splits]
    assert starts[0].max() <= starts[1].min()
    assert starts[1].max() <= starts[2].min()


def test_demo_drivers_do_not_all_take_the_shortest_way(demo: tuple[Path, City]) -> None:
    network, trips = demo[1].network, demo[1].split("train")
    candidates = network.candidates
    graph = csr_matrix(
        (network.length_m[candidates.road], candidates.road, candidates.offset),
        shape=(network.roads, network.roads),
    )
    longer = []
    for k in range(100):
        road = np.asarray(trips.road[trips.offset[k] : trips.offset[k + 1]])
        shortest = dijkstra(graph, indices=road[0])[road[-1]]
        longer.append(network.length_m[road[1:]].sum() / shortest)
    assert min(longer) >= 1 - 1e-9
    assert 0.1 < np.mean(np.array(longer) > 1.01) < 0.95
    assert np.mean(longer) < 1.5


def mean_speed_kmh(network: RoadNetwork, city: City, peak: bool) -> float:
    trips = city.split("train")
    step = np.delete(np.arange(len(trips.road) - 1), trips.offset[1:-1] - 1)
    hour = trips.entered_at_s[step] / 3600 % 24
    chosen = step[(np.abs(hour - 8) < 1) if peak else (hour < 6)]
    taken = trips.entered_at_s[chosen + 1] - trips.entered_at_s[chosen]
    return float(3.6 * network.length_m[trips.road[chosen]].sum() / taken.sum())


def test_demo_streets_are_slower_at_the_morning_peak_than_at_night(
    demo: tuple[Path, City],
) -> None:
    network = demo[1].network
    assert mean_speed_kmh(network, demo[1], True) < 0.85 * mean_speed_kmh(network, demo[1], False)


def test_demo_city_is_the_same_for_the_same_seed_only(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_demo_source(tmp_path / name, 80, 50, seed)
    files = [{p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in "abc"]
    assert files[0] == files[1]
    assert files[0]["train.csv"] != files[2]["train.csv"]
    assert files[0]["roadmap.geo"] != files[2]["roadmap.geo"]


def test_demo_source_is_made_anew_only_where_the_settings_changed(tmp_path: Path) -> None:
    make_demo_source(tmp_path / "a", 80, 50, 1)
    before = (tmp_path / "a" / "train.csv").stat().st_mtime_ns
    make_demo_source(tmp_path / "a", 80, 50, 1)
    assert (tmp_path / "a" / "train.csv").stat().st_mtime_ns == before
    make_demo_source(tmp_path / "a", 80, 60, 1)
    assert (tmp_path / "a" / "train.csv").stat().st_mtime_ns != before
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(("roads", "trips"), [(60, 50), (150, 200)])
def test_small_demo_cities_work(tmp_path: Path, roads: int, trips: int) -> None:
    make_demo_source(tmp_path, roads, trips, 0)
    roadmap = read_roadmap(tmp_path / "roadmap.geo", tmp_path / "roadmap.rel")
    zone = np.zeros(roadmap.roads, np.int32)
    network = build_network(roadmap, zone, np.zeros((1, 1), np.int64))
    assert abs(network.roads - roads) < 0.2 * roads
    assert strongly_connected_share(network.candidates) > 0.9
