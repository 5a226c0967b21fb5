"""The trie of a real split holds each distinct prefix once, and nothing else."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from hoserkd.engine.city.grid import Grid
from hoserkd.engine.config import CityConfig
from hoserkd.engine.events import Silent, never_stop
from hoserkd.engine.prepare import prepare_city
from hoserkd.engine.teacher.prefix_trie import build_trie
from hoserkd.engine.teacher.questions import plain_tokens

CELL_DEG = 0.001


def prepared(source, directory):
    from hoserkd.engine.city.storage import load_city

    prepare_city(CityConfig(name="sf"), source, directory, force=False, observer=Silent(),
                 stop=never_stop)
    return load_city(directory)


def steps_of(city, split):
    """Return road, position in the trip and steps left, of every step, and the step offsets."""
    trips = city.split(split)
    inner = np.ones(len(trips.road), dtype=bool)
    inner[trips.offset[1:] - 1] = False
    offset = trips.step_offset()
    length = np.diff(offset)
    position = np.arange(trips.steps) - np.repeat(offset[:-1], length)
    return np.asarray(trips.road)[inner], position, np.repeat(length, length) - position, offset


def counted(token, position, left, window) -> int:
    """Count distinct prefixes of the contexts by a 64-bit hash of each, length by length.

    Two of half a million prefixes share a hash with a probability of 1e-8.
    """
    weight = np.random.default_rng(0).integers(1, 2**63, window, dtype=np.uint64) * 2 + 1
    begins = (left >= window) | (position == 0)
    total = 0
    hashed = np.zeros(len(token), dtype=np.uint64)
    for depth in range(window):
        begins &= left > depth
        step = np.flatnonzero(begins) + depth
        mixed = (token[step].astype(np.uint64) + np.uint64(1)) * weight[depth]
        hashed[begins] += mixed ^ (mixed >> np.uint64(29))
        total += len(np.unique(hashed[begins]))
    return total


def nodes(token, road, offset, window) -> int:
    trie, _ = build_trie(*(torch.from_numpy(np.asarray(x).astype(np.int64))
                           for x in (token, road, offset)), window)
    return trie.nodes


@pytest.mark.real_data
@pytest.mark.parametrize("window", [2, 4, 8])
def test_trie_of_real_trips_has_the_counted_nodes(window, real_data, tmp_path):
    city = prepared(real_data / "san_francisco_mini", tmp_path / "city")
    road, position, left, offset = steps_of(city, "train")
    grid = Grid.covering(np.asarray(city.network.centroid_lonlat), CELL_DEG)
    token = grid.tokens(np.asarray(city.network.centroid_lonlat))[road]
    assert nodes(token, road, offset, window) == counted(token, position, left, window)


@pytest.mark.real_data
@pytest.mark.slow
def test_trie_of_the_whole_training_split_has_the_published_nodes(real_data, tmp_path):
    """The counts that the specification quotes put a road where the mean of its points is.

    The centroid by length, which the teacher's cells follow, gives some others.
    """
    city = prepared(real_data / "san_francisco", tmp_path / "city")
    network = city.network
    road, position, left, offset = steps_of(city, "train")
    assert [plain_tokens(offset, w) for w in (4, 8)] == [19_586_900, 32_561_564]
    mean = np.array([network.shape_lonlat[a:b].mean(axis=0)
                     for a, b in pairwise(network.shape_offset)])
    for lonlat, expected in ((mean, (73_445, 452_590)),
                             (np.asarray(network.centroid_lonlat), (74_357, 456_650))):
        grid = Grid.covering(lonlat, CELL_DEG)
        assert (grid.rows, grid.cols) == (63, 55)
        token = grid.tokens(lonlat)[road]
        for window, wanted in zip((4, 8), expected, strict=True):
            assert nodes(token, road, offset, window) == wanted
            assert counted(token, position, left, window) == wanted
