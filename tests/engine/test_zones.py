import io
import sys
from pathlib import Path

import numpy as np
import pytest

from hoserkd.engine.city.zones import (
    count_zone_transitions,
    partition_roads,
    read_partition,
    read_zone_transitions,
)
from hoserkd.errors import ConfigError, DataError


def ring(roads: int) -> tuple[np.ndarray, np.ndarray]:
    here = np.arange(roads, dtype=np.int32)
    return here, np.roll(here, -1)


def test_partition_of_a_ring_is_balanced_and_the_same_again() -> None:
    first = partition_roads(120, *ring(120), zones=6, method="metis", seed=3)
    again = partition_roads(120, *ring(120), zones=6, method="metis", seed=3)
    assert np.array_equal(first, again)
    assert np.bincount(first).tolist() == pytest.approx([20] * 6, abs=2)


@pytest.mark.parametrize(("zones", "found"), [(1, 1), (5, 5), (300, 5)])
def test_partition_has_at_most_as_many_zones_as_roads(zones: int, found: int) -> None:
    zone = partition_roads(5, *ring(5), zones=zones, method="metis", seed=0)
    assert len(np.unique(zone)) == zone.max() + 1 <= found


def test_partition_of_roads_without_relations_uses_every_id_below_its_number() -> None:
    none = np.zeros(0, np.int32)
    zone = partition_roads(40, none, none, zones=7, method="metis", seed=0)
    assert len(np.unique(zone)) == zone.max() + 1


def test_kahip_without_the_package_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kahip", None)
    with pytest.raises(ConfigError, match="not installed"):
        partition_roads(20, *ring(20), zones=3, method="kahip", seed=0)


@pytest.mark.parametrize("seed", range(5))
def test_transitions_equal_the_plain_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    zone = rng.integers(0, 4, 30).astype(np.int32)
    trips = [rng.integers(0, 30, rng.integers(2, 9)) for _ in range(20)]
    plain = np.zeros((4, 4), np.int64)
    for trip in trips:
        for a, b in zip(zone[trip], zone[trip[1:]], strict=False):
            plain[a, b] += a != b
    offset = np.cumsum([0, *map(len, trips)])
    counted = count_zone_transitions(zone, 4, offset, np.concatenate(trips).astype(np.int32))
    assert np.array_equal(counted, plain)


def test_partition_file_is_read_a_zone_a_line(tmp_path: Path) -> None:
    path = tmp_path / "road_network_partition"
    path.write_bytes(b"\xef\xbb\xbf2\r\n0\r\n1\r\n\r\n")
    assert read_partition(path, 3).tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [("1\n2\n", "2 lines, but the city has 3 roads"), ("1\nx\n-1\n", ":2: 'x' is no zone id"),
     ("1\n1\n99999999\n", ":3: '99999999' is no zone id"), ("", "0 lines")],
)
def test_bad_partition_file_is_an_error_with_the_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "road_network_partition"
    path.write_text(text)
    with pytest.raises(DataError) as raised:
        read_partition(path, 3)
    assert said in raised.value.message


def npy(values: object, **options: bool) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(values), **options)
    return file.getvalue()


def test_transition_file_of_floats_is_read_as_counts(tmp_path: Path) -> None:
    path = tmp_path / "zone_trans_mat.npy"
    path.write_bytes(npy([[0.0, 3.0], [1.0, 0.0]]))
    assert read_zone_transitions(path, 2).tolist() == [[0, 3], [1, 0]]


class Boom:
    def __reduce__(self) -> tuple[object, ...]:
        return (sys.exit, ("a pickle was run",))


@pytest.mark.parametrize(
    "content",
    [b"", b"\x93NUMPY", b"not numpy at all", npy([1, 2, 3]), npy([[1, 2, 3], [1, 2, 3]]),
     npy([[1]]), npy([[0.5, 0], [0, 0]]), npy([[-1, 0], [0, 0]]), npy([[np.nan, 0], [0, 0]]),
     npy([["a", "b"], ["c", "d"]]), npy([[1, 2], [3, 4]])[:-8], npy([[1e300, 2], [3, 4]]),
     npy(np.array([[Boom(), None], [None, None]], object), allow_pickle=True)],
)
def test_bad_transition_file_is_an_error_and_runs_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "zone_trans_mat.npy"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"zone_trans_mat\.npy"):
        read_zone_transitions(path, 2)


def test_transition_file_that_claims_a_huge_shape_is_refused_at_once(tmp_path: Path) -> None:
    head = npy(np.zeros((2, 2)))
    path = tmp_path / "zone_trans_mat.npy"
    path.write_bytes(head.replace(b"(2, 2), }", b"(99999999, 99999999), }", 1))
    with pytest.raises(DataError):
        read_zone_transitions(path, 2)
