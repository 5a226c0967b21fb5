import heapq
from collections import deque

import numpy as np
import pytest
from search_reference import (
    TableExpander,
    plain_astar,
    random_candidates,
    random_centroids,
    table_model,
)

from hoserkd.engine.search.astar import AStar
from hoserkd.engine.search.frontier import build_queue, pop, push, reachable
from hoserkd.engine.search.queries import Queries
from hoserkd.engine.search.rounds import Rounds

ROADS = 60
CANDIDATES = random_candidates(ROADS, 4, seed=1)
CENTROID = random_centroids(ROADS, seed=2)
MODEL = table_model(CANDIDATES, seed=3)


def queries(count, seed=4):
    draw = np.random.default_rng(seed)
    pairs = np.array([draw.choice(ROADS, 2, replace=False) for _ in range(count)])
    return Queries(pairs[:, 0], pairs[:, 1], draw.integers(0, 10**9, count))


def search(asked, slots, max_steps=5000, order=None, limit=10**9):
    expander = TableExpander(MODEL, limit)
    strategy = AStar(CANDIDATES, CENTROID, asked, slots=slots, max_steps=max_steps)
    rounds = Rounds(strategy, expander, CANDIDATES, asked)
    order = np.arange(len(asked)) if order is None else order
    answers = dict(pair for ended in rounds.run(deque(order.tolist())) for pair in ended)
    assert not expander.memory
    return answers, expander


@pytest.mark.parametrize("max_steps", [1, 3, 12, 5000])
def test_astar_gives_what_the_plain_search_gives(max_steps):
    asked = queries(80)
    answers, _ = search(asked, slots=7, max_steps=max_steps)
    for i, answer in answers.items():
        roads, clocks, log_prob = plain_astar(
            MODEL, CANDIDATES, CENTROID, int(asked.origin[i]), int(asked.destination[i]), max_steps)
        assert answer.road.tolist() == roads
        assert answer.clock_s.tolist() == clocks
        assert answer.log_prob == pytest.approx(log_prob, abs=1e-6)
        assert (answer.reason == "reached") == (roads[-1] == asked.destination[i])


@pytest.mark.parametrize("slots", [1, 7, 256])
def test_astar_answers_do_not_depend_on_the_batch_or_the_order(slots):
    asked = queries(60)
    expected, _ = search(asked, slots=3)
    answers, _ = search(asked, slots=slots, order=np.random.default_rng(slots).permutation(60))
    assert sorted(answers) == list(range(60))
    for i, answer in answers.items():
        assert answer.road.tolist() == expected[i].road.tolist()
        assert answer.clock_s.tolist() == expected[i].clock_s.tolist()
        assert answer.log_prob == expected[i].log_prob
        assert answer.reason == expected[i].reason


def test_astar_with_little_memory_starts_the_youngest_anew_and_answers_the_same():
    asked = queries(60)
    expected, roomy = search(asked, slots=32)
    answers, tight = search(asked, slots=32, limit=2 * ROADS)
    assert roomy.most > 2 * ROADS
    assert tight.most <= 2 * ROADS
    for i, answer in answers.items():
        assert answer.road.tolist() == expected[i].road.tolist()


@pytest.mark.parametrize("max_steps", [5, 5000])
def test_astar_with_expansions_ahead_of_need_answers_and_counts_the_same(monkeypatch, max_steps):
    asked = queries(40)
    counts, answers = [], []
    for full_round in (0, 64):
        monkeypatch.setattr("hoserkd.engine.search.rounds.FULL_ROUND", full_round)
        strategy = AStar(CANDIDATES, CENTROID, asked, slots=4, max_steps=max_steps)
        rounds = Rounds(strategy, TableExpander(MODEL, 10**9), CANDIDATES, asked)
        found = dict(pair for ended in rounds.run(deque(range(40))) for pair in ended)
        answers.append([(found[i].road.tolist(), found[i].clock_s.tolist(), found[i].log_prob,
                         found[i].reason) for i in range(40)])
        counts.append(rounds.expansions)
        assert (strategy.foreseen > 0) == (full_round > 0)
    assert answers[0] == answers[1]
    assert counts[0] == counts[1]


def test_astar_says_why_a_destination_was_missed():
    asked = queries(80)
    for i, answer in search(asked, slots=16)[0].items():
        origin, destination = int(asked.origin[i]), int(asked.destination[i])
        if reachable(CANDIDATES.offset, CANDIDATES.road, origin, destination):
            assert answer.reason == "reached"
        elif CANDIDATES.offset[origin] == CANDIDATES.offset[origin + 1]:
            assert answer.reason == "dead end"
        else:
            assert answer.reason == "unreachable"
    assert {a.reason for a in search(asked, slots=16, max_steps=2)[0].values()} >= {"max steps"}


def test_queue_with_equal_keys_pops_in_the_order_of_heapq():
    draw = np.random.default_rng(0)
    queue, plain, tied = build_queue(2, 400), [], []

    class Item:
        def __init__(self, node):
            self.node = node

        def __lt__(self, other):
            return False

    for node in range(400):
        key = np.float32(draw.integers(0, 12))
        push(queue, 1, key, node)
        heapq.heappush(plain, (key, Item(node)))
        if node % 3 == 0:
            tied.append((pop(queue, 1), heapq.heappop(plain)[1].node))
    tied += [(pop(queue, 1), heapq.heappop(plain)[1].node) for _ in range(len(plain))]
    assert all(ours == theirs for ours, theirs in tied)
