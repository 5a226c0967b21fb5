from collections import Counter, deque

import numpy as np
import pytest
from search_reference import (
    TableExpander,
    random_candidates,
    random_centroids,
    table_model,
)

from hoserkd.engine.search.queries import Queries
from hoserkd.engine.search.rounds import Rounds
from hoserkd.engine.search.sample import Sample, draw, uniform

ROADS = 60
CANDIDATES = random_candidates(ROADS, 4, seed=1)
CENTROID = random_centroids(ROADS, seed=2)
MODEL = table_model(CANDIDATES, seed=3)


def queries(count, seed=4):
    draws = np.random.default_rng(seed)
    pairs = np.array([draws.choice(ROADS, 2, replace=False) for _ in range(count)])
    return Queries(pairs[:, 0], pairs[:, 1], draws.integers(0, 10**9, count))


def search(asked, slots, seed=0, order=None, max_steps=200, temperature=1.0, top_p=1.0,
           forbid_loops=True):
    strategy = Sample(CANDIDATES, CENTROID, asked, slots=slots, max_steps=max_steps,
                      temperature=temperature, top_p=top_p, forbid_loops=forbid_loops, seed=seed)
    order = np.arange(len(asked)) if order is None else order
    rounds = Rounds(strategy, TableExpander(MODEL), CANDIDATES, asked)
    return dict(pair for ended in rounds.run(deque(order.tolist())) for pair in ended)


def test_sample_paths_follow_candidates_and_say_their_probability():
    asked = queries(80)
    for i, answer in search(asked, 16).items():
        roads, clocks = answer.road.tolist(), answer.clock_s.tolist()
        total = 0.0
        for n in range(1, len(roads)):
            first = CANDIDATES.offset[roads[n - 1]]
            reachable = CANDIDATES.road[first:CANDIDATES.offset[roads[n - 1] + 1]].tolist()
            log_prob, seconds = MODEL(roads[:n], clocks[:n], int(asked.destination[i]))
            taken = reachable.index(roads[n])
            total += log_prob[taken]
            assert clocks[n] == clocks[n - 1] + seconds[taken]
        assert answer.log_prob == pytest.approx(total, abs=1e-5)
        assert roads[0] == asked.origin[i]
        assert (answer.reason == "reached") == (roads[-1] == asked.destination[i])
        assert len(set(roads)) == len(roads)


@pytest.mark.parametrize("slots", [1, 7, 256])
def test_sample_depends_on_the_seed_and_not_on_the_batch(slots):
    asked = queries(60)
    expected = search(asked, 3, seed=5)
    answers = search(asked, slots, seed=5, order=np.random.default_rng(slots).permutation(60))
    other = search(asked, slots, seed=6)
    assert all(answers[i].road.tolist() == expected[i].road.tolist() for i in range(60))
    assert any(answers[i].road.tolist() != other[i].road.tolist() for i in range(60))


def test_sample_with_loops_allowed_walks_until_its_steps_are_used_up():
    answers = search(queries(80), 16, max_steps=30, forbid_loops=False)
    assert {"reached", "max steps"} <= {answer.reason for answer in answers.values()}


def test_draw_at_temperature_follows_the_tempered_probabilities():
    log_prob = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    allowed = np.array([True, True, True])
    drawn = Counter(draw(log_prob, allowed, 2.0, 1.0, uniform(1, i, 0)) for i in range(20000))
    weight = np.sqrt([0.5, 0.3, 0.2])
    for k, share in enumerate(weight / weight.sum()):
        assert drawn[k] / 20000 == pytest.approx(share, abs=0.015)


def test_draw_with_top_p_keeps_the_smallest_set_that_holds_the_mass():
    log_prob = np.log(np.array([0.2, 0.5, 0.3], np.float32))
    every = np.array([True, True, True])
    chances = np.linspace(0, 0.9999, 200)
    assert {draw(log_prob, every, 1.0, 0.7, c) for c in chances} == {1, 2}
    assert {draw(log_prob, every, 1.0, 0.4, c) for c in chances} == {1}
    assert {draw(log_prob, np.array([True, False, True]), 1.0, 1.0, c) for c in chances} == {0, 2}
    assert draw(log_prob, np.zeros(3, bool), 1.0, 1.0, 0.5) == -1


def test_uniform_is_even_and_differs_between_streams():
    numbers = np.array([uniform(3, i, j) for i in range(100) for j in range(100)])
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert np.histogram(numbers, 10, (0, 1))[0] == pytest.approx(np.full(10, 1000), abs=130)
    assert len(set(numbers.tolist())) == len(numbers)
