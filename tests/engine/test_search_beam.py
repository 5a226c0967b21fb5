from collections import deque

import numpy as np
import pytest
from search_reference import (
    TableExpander,
    plain_beam,
    random_candidates,
    random_centroids,
    table_model,
)

from hoserkd.engine.search.beam import Beam
from hoserkd.engine.search.queries import Queries
from hoserkd.engine.search.rounds import Rounds
from hoserkd.engine.types import Candidates

ROADS = 60
CANDIDATES = random_candidates(ROADS, 4, seed=1)
CENTROID = random_centroids(ROADS, seed=2)
MODEL = table_model(CANDIDATES, seed=3)


def queries(count, seed=4):
    draw = np.random.default_rng(seed)
    pairs = np.array([draw.choice(ROADS, 2, replace=False) for _ in range(count)])
    return Queries(pairs[:, 0], pairs[:, 1], draw.integers(0, 10**9, count))


def search(asked, slots, order=None, max_steps=5000, width=4, normalised=False):
    expander = TableExpander(MODEL)
    strategy = Beam(CANDIDATES, CENTROID, asked, slots=slots, max_steps=max_steps, width=width,
                    normalised=normalised)
    order = np.arange(len(asked)) if order is None else order
    rounds = Rounds(strategy, expander, CANDIDATES, asked)
    answers = dict(pair for ended in rounds.run(deque(order.tolist())) for pair in ended)
    assert not expander.memory
    return answers


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize(("width", "max_steps"), [(1, 5000), (4, 5000), (4, 3), (9, 5000)])
def test_beam_gives_what_the_plain_beam_gives(width, max_steps, normalised):
    asked = queries(60)
    answers = search(asked, 16, width=width, max_steps=max_steps, normalised=normalised)
    for i, answer in answers.items():
        roads, clocks, log_prob = plain_beam(
            MODEL, CANDIDATES, CENTROID, int(asked.origin[i]), int(asked.destination[i]), max_steps,
            width, normalised)
        assert answer.road.tolist() == roads
        assert answer.clock_s.tolist() == clocks
        assert answer.log_prob == pytest.approx(log_prob, abs=1e-6)
        assert (answer.reason == "reached") == (roads[-1] == asked.destination[i])
        assert len(set(roads)) == len(roads)


@pytest.mark.parametrize("slots", [1, 7, 256])
def test_beam_answers_do_not_depend_on_the_batch_or_the_order(slots):
    asked = queries(60)
    expected = search(asked, 3)
    answers = search(asked, slots, order=np.random.default_rng(slots).permutation(60))
    for i, answer in answers.items():
        assert answer.road.tolist() == expected[i].road.tolist()
        assert answer.reason == expected[i].reason


def test_beam_with_only_loops_left_ends_in_a_dead_end_at_the_nearest_road():
    ring = Candidates(np.array([0, 1, 2, 3, 3]), np.array([1, 2, 0], np.int32))
    centroid = random_centroids(4, seed=0)
    asked = Queries(np.array([0]), np.array([3]), np.array([0]))
    strategy = Beam(ring, centroid, asked, slots=1, max_steps=50, width=2)
    rounds = Rounds(strategy, TableExpander(table_model(ring, 0)), ring, asked)
    [(_, answer)] = [pair for ended in rounds.run(deque([0])) for pair in ended]
    nearest = int(((centroid[:3] - centroid[3]) ** 2).sum(1).argmin())
    assert answer.reason == "dead end"
    assert answer.road.tolist() == list(range(nearest + 1))
