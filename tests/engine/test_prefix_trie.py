import numpy as np
import pytest
import torch
from toy_teacher import toy_model

from hoserkd.engine.teacher.full_context import batches_of_spans, full_hidden
from hoserkd.engine.teacher.prefix_trie import (
    build_trie,
    candidate_logits,
    ragged_index,
    subtree_sizes,
    walk_trie,
)
from hoserkd.engine.teacher.questions import plain_tokens

SOT = 32


def random_trips(seed: int, roads: int = 12, cells: int = 5, trips: int = 25, longest: int = 12):
    """Return token, road (S) and offset (N+1) of random trips."""
    generator = torch.Generator().manual_seed(seed)
    length = torch.randint(1, longest, (trips,), generator=generator)
    offset = torch.cat([torch.zeros(1, dtype=torch.long), length.cumsum(0)])
    road = torch.randint(0, roads, (int(offset[-1]),), generator=generator)
    cell = torch.randint(0, cells, (roads,), generator=generator)
    return cell[road], road, offset


def contexts_of(token, offset, windows):
    """Return each step's context at each window, as tuples."""
    trip = torch.searchsorted(offset, torch.arange(len(token)), right=True) - 1
    return {w: [tuple(token[max(int(offset[t]), i - w + 1):i + 1].tolist())
                for i, t in enumerate(trip.tolist())] for w in windows}


def hidden_of_rows(model, trie, contexts, batch_size):
    hidden = torch.full((len(contexts.road), model.dimensions.n_embd), torch.nan)
    visited = []

    def visit(depth, first, end, states):
        visited.append(end - first)
        row = trie.levels[depth - 1].row[first:end + 1]
        index, owner = ragged_index(row[:-1], row.diff())
        hidden[index] = states[owner]

    walk_trie(model, trie, SOT, visit, batch_size=batch_size)
    assert max(visited) <= batch_size
    return hidden, sum(visited)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("window", [1, 2, 4, 8])
def test_trie_holds_exactly_the_distinct_prefixes(window, seed):
    token, road, offset = random_trips(seed)
    asked = contexts_of(token, offset, [window])[window]
    prefixes = {context[:d] for context in asked for d in range(1, len(context) + 1)}
    trie, contexts = build_trie(token, road, offset, window)
    assert trie.nodes == len(prefixes)
    assert len(contexts.road) == len(set(zip(asked, road.tolist(), strict=True)))
    assert int(subtree_sizes(trie).sum()) == trie.nodes


def test_trie_of_every_window_holds_the_prefixes_of_all():
    token, road, offset = random_trips(0)
    asked = contexts_of(token, offset, range(1, 7))
    prefixes = {c[:d] for cs in asked.values() for c in cs for d in range(1, len(c) + 1)}
    trie, contexts = build_trie(token, road, offset, 6, every_window=True)
    assert trie.nodes == len(prefixes)
    assert len(contexts.road) == len({
        (c, r) for cs in asked.values() for c, r in zip(cs, road.tolist(), strict=True)})


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("window", [1, 3, 8])
def test_walk_equals_asking_step_by_step(window, seed):
    token, road, offset = random_trips(seed)
    model = toy_model(SOT + 1, seed=seed)
    trie, contexts = build_trie(token, road, offset, window)
    hidden, visited = hidden_of_rows(model, trie, contexts, batch_size=7)
    assert visited == trie.nodes
    for step, context in enumerate(contexts_of(token, offset, [window])[window]):
        row = contexts.step_row[step]
        assert contexts.road[row] == road[step]
        assert contexts.depth[row] == len(context)
        plain = model(torch.tensor([[SOT, *context]]))[0, -1]
        torch.testing.assert_close(hidden[row], plain, atol=1e-5, rtol=1e-5)


def test_every_shorter_window_is_reached_from_the_longest():
    token, road, offset = random_trips(5)
    model = toy_model(SOT + 1)
    trie, contexts = build_trie(token, road, offset, 5, every_window=True)
    hidden, _ = hidden_of_rows(model, trie, contexts, batch_size=64)
    for window, asked in contexts_of(token, offset, range(1, 6)).items():
        for step, context in enumerate(asked):
            row = contexts.step_row[step]
            while contexts.depth[row] > window:
                row = contexts.shorter[row]
            assert contexts.road[row] == road[step]
            plain = model(torch.tensor([[SOT, *context]]))[0, -1]
            torch.testing.assert_close(hidden[row], plain, atol=1e-5, rtol=1e-5)


def test_walking_by_pieces_equals_walking_at_once():
    token, road, offset = random_trips(2)
    model = toy_model(SOT + 1)
    trie, contexts = build_trie(token, road, offset, 4)
    whole, _ = hidden_of_rows(model, trie, contexts, batch_size=1000)
    pieces = torch.full_like(whole, torch.nan)

    def visit(depth, first, end, states):
        row = trie.levels[depth - 1].row[first:end + 1]
        index, owner = ragged_index(row[:-1], row.diff())
        assert pieces[index].isnan().all()
        pieces[index] = states[owner]

    for node in range(len(trie.levels[0].token)):
        walk_trie(model, trie, SOT, visit, batch_size=8, first=node, end=node + 1)
    torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=1e-5)


def test_trips_of_one_step_make_one_level():
    token, road = torch.tensor([3, 3, 4]), torch.tensor([0, 1, 2])
    trie, contexts = build_trie(token, road, torch.arange(4), 4)
    assert [len(level.token) for level in trie.levels] == [2, 0, 0, 0]
    assert contexts.step_row.tolist() == [0, 1, 2]


def test_no_steps_make_an_empty_trie():
    empty = torch.zeros(0, dtype=torch.long)
    trie, contexts = build_trie(empty, empty, torch.zeros(1, dtype=torch.long), 4)
    assert trie.nodes == 0
    assert len(contexts.road) == 0


@pytest.mark.parametrize("block_size", [24, 6])
def test_full_contexts_equal_asking_step_by_step(block_size):
    token, _, offset = random_trips(1)
    model = toy_model(SOT + 1, block_size=block_size)
    found = torch.full((len(token), 16), torch.nan)
    for batch in batches_of_spans(offset.numpy(), block_size, 40):
        assert len(batch) == 1 or len(batch) * (max(s.length for s in batch) + 1) <= 40
        step, hidden = full_hidden(model, token, SOT, batch)
        assert found[step].isnan().all()
        found[step] = hidden
    for step, context in enumerate(contexts_of(token, offset, [block_size - 1])[block_size - 1]):
        plain = model(torch.tensor([[SOT, *context]]))[0, -1]
        torch.testing.assert_close(found[step], plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [1, 4, 8, "full"])
def test_plain_tokens_are_counted_as_step_by_step_asking_evaluates_them(window):
    token, _, offset = random_trips(3)
    asked = contexts_of(token, offset, [99 if window == "full" else window])
    counted = sum(1 + len(context) for context in next(iter(asked.values())))
    assert plain_tokens(offset.numpy(), window) == counted


def test_candidate_logits_by_chunks_equal_the_whole_head():
    model = toy_model(SOT + 1)
    hidden = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    owner, cell = torch.from_numpy(rng.integers(0, 6, 50)), torch.from_numpy(rng.integers(0, 9, 50))
    torch.testing.assert_close(candidate_logits(model, hidden, owner, cell, chunk=7),
                               model.all_logits(hidden)[owner, cell], atol=1e-5, rtol=1e-5)


def test_ragged_index_counts_through_empty_runs():
    index, owner = ragged_index(torch.tensor([5, 0, 9]), torch.tensor([2, 0, 3]))
    assert index.tolist() == [5, 6, 9, 10, 11]
    assert owner.tolist() == [0, 0, 2, 2, 2]
