import math

import numpy as np
import pytest
from fastdtw import fastdtw
from handmade import pack, town, walks

from hoserkd.engine.metrics.pairwise import (
    match_trips,
    pair_distances,
    road_cells,
    square_cells,
)

RADIUS_KM = 6371.0088


def haversine_km(a, b):
    lon_a, lat_a, lon_b, lat_b = map(math.radians, (*a, *b))
    h = (math.sin((lat_b - lat_a) / 2) ** 2
         + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2)
    return 2 * RADIUS_KM * math.asin(math.sqrt(h))


def plain_dtw(a, b):
    table = [[math.inf] * (len(b) + 1) for _ in range(len(a) + 1)]
    table[0][0] = 0.0
    for i, p in enumerate(a, 1):
        for j, q in enumerate(b, 1):
            table[i][j] = haversine_km(p, q) + min(
                table[i - 1][j - 1], table[i - 1][j], table[i][j - 1])
    return table[-1][-1]


def plain_frechet(a, b):
    table = [[math.inf] * (len(b) + 1) for _ in range(len(a) + 1)]
    table[0][0] = 0.0
    for i, p in enumerate(a, 1):
        for j, q in enumerate(b, 1):
            table[i][j] = max(haversine_km(p, q),
                              min(table[i - 1][j - 1], table[i - 1][j], table[i][j - 1]))
    return table[-1][-1]


def plain_hausdorff(a, b):
    forth = max(min(haversine_km(p, q) for q in b) for p in a)
    back = max(min(haversine_km(p, q) for p in a) for q in b)
    return max(forth, back)


def plain_edr(a, b, epsilon_km=0.1):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in range(len(a) + 1):
        table[i][0] = i
    for j in range(len(b) + 1):
        table[0][j] = j
    for i, p in enumerate(a, 1):
        for j, q in enumerate(b, 1):
            cost = 0 if haversine_km(p, q) < epsilon_km else 1
            table[i][j] = min(table[i - 1][j - 1] + cost, table[i - 1][j] + 1,
                              table[i][j - 1] + 1)
    return table[-1][-1] / max(len(a), len(b))


@pytest.fixture(scope="module")
def judged():
    network = town()
    a, b = walks(network, 40, seed=1), walks(network, 40, seed=2)
    pairs = np.stack([np.arange(40), np.arange(40)[::-1]], axis=1)
    lonlat = network.centroid_lonlat
    points = [([tuple(lonlat[r]) for r in a.road[a.offset[i]:a.offset[i + 1]]],
               [tuple(lonlat[r]) for r in b.road[b.offset[j]:b.offset[j + 1]]])
              for i, j in pairs]
    return pair_distances(a, b, pairs, lonlat), points


def test_dtw_of_random_walks_equals_the_plain_table(judged):
    found, points = judged
    np.testing.assert_allclose(found.dtw_km, [plain_dtw(*p) for p in points], rtol=1e-9)


def test_hausdorff_of_random_walks_equals_the_plain_form(judged):
    found, points = judged
    np.testing.assert_allclose(found.hausdorff_km, [plain_hausdorff(*p) for p in points],
                               rtol=1e-9)


def test_frechet_of_random_walks_equals_the_plain_table(judged):
    found, points = judged
    np.testing.assert_allclose(found.frechet_km, [plain_frechet(*p) for p in points], rtol=1e-9)


def test_edr_of_random_walks_equals_the_plain_table(judged):
    found, points = judged
    np.testing.assert_array_equal(found.edr, [plain_edr(*p) for p in points])


def test_public_edr_is_the_plain_table_with_coordinates_exchanged(judged):
    found, points = judged
    swapped = [([p[::-1] for p in a], [q[::-1] for q in b]) for a, b in points]
    np.testing.assert_array_equal(found.edr_public, [plain_edr(*p) for p in swapped])
    assert (found.edr_public != found.edr).any()


def test_fastdtw_only_bounds_exact_dtw_from_above(judged):
    found, points = judged
    bound = np.array([fastdtw(a, b, radius=1, dist=haversine_km)[0] for a, b in points])
    assert (found.dtw_km <= bound * (1 + 1e-9)).all()


def test_normalised_distances_are_divided_by_the_mean_number_of_roads(judged):
    found, points = judged
    mean = np.array([(len(a) + len(b)) / 2 for a, b in points])
    np.testing.assert_allclose(found.dtw_per_point_km, found.dtw_km / mean)
    np.testing.assert_allclose(found.hausdorff_per_point_km, found.hausdorff_km / mean)


def test_a_trip_against_itself_is_zero_everywhere():
    network = town()
    trips = walks(network, 6, seed=3)
    pairs = np.stack([np.arange(6)] * 2, axis=1)
    found = pair_distances(trips, trips, pairs, network.centroid_lonlat)
    for values in (found.dtw_km, found.hausdorff_km, found.frechet_km, found.edr):
        np.testing.assert_array_equal(values, 0.0)


def test_parallel_lines_on_the_equator_have_closed_forms():
    """Four points each, one degree apart along and two degrees across the equator's meridians."""
    lonlat = np.array([[x, y] for y in (0.0, 2.0) for x in range(4)], dtype=float)
    a, b = pack([[0, 1, 2, 3]]), pack([[4, 5, 6, 7]])
    found = pair_distances(a, b, np.array([[0, 0]]), lonlat)
    across = math.radians(2) * RADIUS_KM
    assert found.dtw_km[0] == pytest.approx(4 * across, rel=1e-12)
    assert found.hausdorff_km[0] == pytest.approx(across, rel=1e-12)
    assert found.frechet_km[0] == pytest.approx(across, rel=1e-12)
    assert found.edr[0] == 1.0


def test_the_way_back_is_near_as_a_set_and_far_as_a_sequence():
    lonlat = np.array([[x, 0.0] for x in range(4)], dtype=float)
    there, back = pack([[0, 1, 2, 3]]), pack([[3, 2, 1, 0]])
    found = pair_distances(there, back, np.array([[0, 0]]), lonlat)
    assert found.hausdorff_km[0] == 0.0
    assert found.frechet_km[0] == pytest.approx(math.radians(3) * RADIUS_KM, rel=1e-12)


def test_edr_threshold_is_a_great_circle_distance():
    east = 100 / 111_194.9266  # degrees of the equator in 100 m
    lonlat = np.array([[0.0, 0.0], [east * 0.999, 0.0], [east * 1.001, 0.0]])
    trips = pack([[0, 0], [1, 1], [2, 2]])
    found = pair_distances(trips, trips, np.array([[0, 1], [0, 2]]), lonlat)
    np.testing.assert_array_equal(found.edr, [0.0, 1.0])


def test_no_pairs_give_empty_distances():
    network = town()
    trips = walks(network, 3, seed=0)
    found = pair_distances(trips, trips, np.empty((0, 2), np.int64), network.centroid_lonlat)
    assert len(found.dtw_km) == 0


def test_pairs_meet_by_cell_and_by_order_within_it():
    cell = np.array([0, 0, 1, 1, 2])
    a = pack([[0, 2], [1, 3], [4, 4], [0, 3]])
    b = pack([[4, 0], [1, 2], [0, 2]])
    np.testing.assert_array_equal(match_trips(a, b, cell), [[0, 1], [1, 2]])


def test_matching_equals_the_plain_loop():
    network = town()
    a, b = walks(network, 200, seed=4, longest=4), walks(network, 300, seed=5, longest=4)
    cell = road_cells(network.centroid_lonlat, 200.0)

    def keys(trips):
        ends = [(trips.road[s], trips.road[e - 1])
                for s, e in zip(trips.offset[:-1], trips.offset[1:], strict=True)]
        return [(cell[o], cell[d]) for o, d in ends]

    expected, waiting = [], {}
    for j, key in enumerate(keys(b)):
        waiting.setdefault(key, []).append(j)
    for i, key in enumerate(keys(a)):
        if waiting.get(key):
            expected.append((i, waiting[key].pop(0)))
    assert len(expected) > 5
    np.testing.assert_array_equal(match_trips(a, b, cell), expected)


def test_squares_are_counted_in_metres_along_parallel_and_meridian():
    step = 200 / 111_194.9266
    narrow = step / math.cos(math.radians(60))
    lonlat = np.array([[10 + narrow * 0.5, 60.0], [10 + narrow * 1.5, 60 + step * 2.5]])
    cells = square_cells(lonlat, (10.0, 60.0), 200.0)
    assert [(c >> 32, c & 0xFFFFFFFF) for c in cells.tolist()] == [(0, 0), (1, 2)]


@pytest.mark.parametrize("spread_degrees", [0.01, 2.0, 60.0])
def test_pairs_of_any_spread_and_length_equal_the_plain_tables(spread_degrees):
    rng = np.random.default_rng(5)
    lonlat = rng.uniform(-1, 1, (50, 2)) * spread_degrees + [116.4, 20.0]
    paths = [rng.integers(0, 50, length).tolist() for length in (1, 2, 9, 30, 5, 1)]
    trips = pack(paths, [list(range(len(p))) for p in paths])
    pairs = np.array([(i, j) for i in range(6) for j in range(6)])
    found = pair_distances(trips, trips, pairs, lonlat)
    for row, (i, j) in enumerate(pairs):
        a, b = ([tuple(lonlat[r]) for r in paths[k]] for k in (i, j))
        assert found.dtw_km[row] == pytest.approx(plain_dtw(a, b), rel=1e-9, abs=1e-9)
        assert found.frechet_km[row] == pytest.approx(plain_frechet(a, b), rel=1e-9, abs=1e-9)
        assert found.hausdorff_km[row] == pytest.approx(plain_hausdorff(a, b), rel=1e-9, abs=1e-9)
        assert found.edr[row] == plain_edr(a, b)
        swapped = [[p[::-1] for p in path] for path in (a, b)]
        assert found.edr_public[row] == plain_edr(*swapped)
