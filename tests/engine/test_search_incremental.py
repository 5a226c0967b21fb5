from collections import deque
from itertools import pairwise

import numpy as np
import pytest
import torch
from random_city import SATURDAY_S, random_network
from search_reference import TableExpander, plain_astar, plain_student, random_centroids

from hoserkd.engine.config import StudentConfig
from hoserkd.engine.search.astar import AStar
from hoserkd.engine.search.attention import Past, Relative, attend, exp_of_negative
from hoserkd.engine.search.candidates import compiled_features, places_of
from hoserkd.engine.search.compiled_forward import CompiledForward
from hoserkd.engine.search.frontier import pack_candidates
from hoserkd.engine.search.incremental import incremental_students
from hoserkd.engine.search.memory import RowPool
from hoserkd.engine.search.padded_forward import PaddedForward
from hoserkd.engine.search.queries import Queries
from hoserkd.engine.search.rounds import Rounds
from hoserkd.engine.student.features import candidate_features
from hoserkd.engine.student.storage import new_student
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.types import TimeStatistics
from hoserkd.errors import CheckpointError

TIMES = TimeStatistics(3.4, 0.5)
ROADS = 40
CPU = torch.device("cpu")
DEPARTURE_S = SATURDAY_S - 60
"""A minute before midnight: the aaai2025 clock wraps, and its day differs from the trip's."""


def student(features, seed=0):
    torch.manual_seed(seed)
    config = StudentConfig(hidden_dim=32, road_id_dim=16, attribute_dim=4, features=features)
    network = random_network(ROADS, seed=seed)
    model = new_student(config, network).eval()
    with torch.no_grad():
        for block in model.trajectory_encoder.blocks:
            block.attn.relative_position_emb_k.weight.mul_(4)
            block.attn.relative_position_emb_v.weight.mul_(4)
        model.navigator.v_proj.weight.mul_(20)
    return network, model, build_network_tables(network, features, CPU)


def incremental_student(*arguments, **options):
    return incremental_students(*arguments, **options)[0]


class Held:
    """Answers incrementally, and holds every answer to the plain one."""

    def __init__(self, expander, plain):
        self.expander, self.plain, self.deepest = expander, TableExpander(plain), 0

    def claim(self, count):
        return self.expander.claim(count)

    def release(self, rows):
        self.expander.release(rows)

    def reserve(self, rows):
        self.expander.reserve(rows)

    def expand(self, expansion):
        found, expected = self.expander.expand(expansion), self.plain.expand(expansion)
        np.testing.assert_allclose(found.log_prob, expected.log_prob, atol=2e-5)
        assert found.travel_time_s.tolist() == expected.travel_time_s.tolist()
        self.deepest = max(self.deepest, int(np.diff(expansion.history_offset).max()))
        return found


def queries(count):
    draw = np.random.default_rng(3)
    pairs = np.array([draw.choice(ROADS, 2, replace=False) for _ in range(count)])
    return Queries(pairs[:, 0], pairs[:, 1], np.full(count, DEPARTURE_S))


def run(network, asked, expander, slots):
    strategy = AStar(network.candidates, random_centroids(ROADS, 1), asked, slots=slots,
                     max_steps=5000)
    rounds = Rounds(strategy, expander, network.candidates, asked)
    return dict(pair for ended in rounds.run(deque(range(len(asked)))) for pair in ended)


@pytest.mark.parametrize("forward", [CompiledForward, PaddedForward])
@pytest.mark.parametrize("features", ["geographic", "aaai2025"])
def test_incremental_student_equals_the_full_forward_at_every_expansion(features, forward):
    network, model, tables = student(features)
    expander = incremental_student(model, tables, TIMES, forward=forward)
    held = Held(expander, plain_student(model, tables, TIMES, DEPARTURE_S))
    run(network, queries(12), held, slots=5)
    assert held.deepest > 6


def test_incremental_student_in_a_search_finds_what_the_plain_search_finds():
    network, model, tables = student("geographic")
    asked, plain = queries(15), plain_student(model, tables, TIMES, DEPARTURE_S)
    answers = run(network, asked, incremental_student(model, tables, TIMES), slots=6)
    for i, answer in answers.items():
        roads, clocks, log_prob = plain_astar(
            plain, network.candidates, random_centroids(ROADS, 1), int(asked.origin[i]),
            int(asked.destination[i]), 5000)
        assert answer.road.tolist() == roads
        assert answer.clock_s.tolist() == clocks
        assert answer.log_prob == pytest.approx(log_prob, abs=1e-4)


def test_incremental_student_answers_to_the_bit_the_same_in_any_batch():
    network, model, tables = student("geographic")
    asked = queries(40)
    expected = run(network, asked, incremental_student(model, tables, TIMES), slots=3)
    for slots in (1, 7, 40):
        answers = run(network, asked, incremental_student(model, tables, TIMES), slots)
        assert all(answers[i].road.tolist() == expected[i].road.tolist() for i in expected)
        assert all(answers[i].log_prob == expected[i].log_prob for i in expected)


def test_attention_of_a_node_is_to_the_bit_the_same_in_any_batch_and_memory():
    draw = np.random.default_rng(0)
    rows, heads, part = 2000, 2, 128
    memory = draw.standard_normal((rows, 2, heads, part)).astype(np.float32)
    relative = Relative(*(0.1 * draw.standard_normal(part).astype(np.float32) for _ in range(5)))
    for _ in range(60):
        length = draw.integers(1, 60, draw.integers(5, 80))
        offset = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
        nodes = len(length)
        row = draw.integers(nodes, rows, offset[-1]).astype(np.int32)
        row[offset[:-1]] = draw.permutation(nodes)
        distance, interval = draw.random((2, offset[-1])).astype(np.float32)
        qkv = draw.standard_normal((nodes, 3, heads, part)).astype(np.float32)
        together, alone = np.zeros((nodes, heads, part), np.float32), np.zeros((1, heads, part),
                                                                              np.float32)
        attend(qkv, memory, Past(offset, row, distance, interval), relative, together)
        for i, (a, b) in enumerate(pairwise(offset)):
            past = Past(np.array([0, b - a]), row[a:b].copy(), distance[a:b].copy(),
                        interval[a:b].copy())
            attend(qkv[i:i + 1].copy(), memory, past, relative, alone)
            assert np.array_equal(alone[0], together[i])


def test_exponential_of_the_attention_is_that_of_float64():
    x = np.concatenate([-np.geomspace(1e-8, 80, 4000), [0.0, -87.0, -1e30]]).astype(np.float32)
    found = np.array([exp_of_negative(value) for value in x], np.float64)
    exact = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(found[:-1], exact[:-1], rtol=4e-7)
    assert 0 <= found[-1] < 1e-37


def test_incremental_student_with_broken_weights_is_refused():
    _, model, tables = student("geographic")
    with torch.no_grad():
        model.road_network_encoder.road_id_emb.weight[3, 0] = float("nan")
    with pytest.raises(CheckpointError, match="not numbers"):
        incremental_student(model, tables, TIMES)


def test_row_pool_hands_out_no_row_twice_and_no_more_than_its_limit():
    pool, held, draw = RowPool(100), set(), np.random.default_rng(0)
    for _ in range(300):
        rows = pool.claim(int(draw.integers(0, 30)))
        if rows is not None:
            assert not held & set(rows.tolist())
            held |= set(rows.tolist())
            assert max(held, default=0) < pool.made <= 100
        back = draw.permutation(sorted(held))[:int(draw.integers(0, 30))].astype(np.int32)
        pool.release(back)
        held -= set(back.tolist())
    assert pool.claim(101) is None


@pytest.mark.parametrize("features", ["geographic", "aaai2025"])
def test_compiled_features_equal_those_of_training(features):
    network, _, tables = student(features)
    draw = np.random.default_rng(1)
    road, destination = draw.integers(0, ROADS, (2, 200)).astype(np.int32)
    offset, candidate = pack_candidates(network.candidates.offset, network.candidates.road, road)
    distance, angle = compiled_features(places_of(tables), road, destination, offset, candidate)
    expected = candidate_features(tables, torch.from_numpy(road).long(),
                                  torch.from_numpy(destination).long(), 64)
    assert candidate.tolist() == expected.road.tolist()
    several = np.repeat(np.diff(offset) > 1, np.diff(offset))
    np.testing.assert_allclose(distance[several], expected.distance[several], atol=1e-6)
    np.testing.assert_allclose(angle[several], expected.angle[several], atol=1e-6)
    assert 100 < several.sum() < len(several)
