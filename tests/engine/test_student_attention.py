import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from hoserkd.engine.student.relative_attention import (
    Relation,
    RelativeAttention,
    View,
    build_layout,
    relate,
)

OFFSET = torch.tensor([0, 3, 4, 11, 13])
LENGTH = OFFSET.diff()


def plain_attention(attention, x, distance, interval, length):
    """One trip's attention with the (T, T, h) tensors of the definition."""
    heads, width = attention.heads, x.shape[1] // attention.heads
    query, key, value = (
        part.view(length, heads, width).transpose(0, 1) for part in attention.c_attn(x).chunk(3, 1)
    )
    pair = torch.stack([distance, interval], dim=-1)
    key = key[:, None] + attention.relative_position_emb_k(pair)
    value = value[:, None] + attention.relative_position_emb_v(pair)
    score = (query[:, :, None] * key).sum(-1) / math.sqrt(width)
    score = score.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
    gathered = (functional.softmax(score, -1)[..., None] * value).sum(2)
    return attention.c_proj(gathered.transpose(0, 1).flatten(1))


def trips(seed: int, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(seed)
    place = torch.randn(13, 3, generator=generator, dtype=dtype) * 400
    clock = torch.rand(13, generator=generator, dtype=dtype) * 12
    x = torch.randn(13, 8, generator=generator, dtype=dtype)
    return place, clock, x


def relation(place, clock, layout):
    place, clock = layout.pad(place), layout.pad(clock[:, None]).squeeze(2)
    later = torch.ones(layout.length, layout.length, dtype=torch.bool).triu(1)
    return Relation(*relate(place, clock, place, clock), later[None, None])


@pytest.mark.parametrize("seed", range(3))
def test_rank_two_attention_equals_the_plain_form_with_its_gradients(seed):
    torch.manual_seed(seed)
    attention = RelativeAttention(8, 2, 0.0).double()
    place, clock, x = trips(seed, torch.float64)
    x.requires_grad_()
    layout = build_layout(OFFSET, 13, 7)
    fast = attention(x, [View(layout, relation(place, clock, layout))])
    slow = []
    for start, length in zip(OFFSET[:-1].tolist(), LENGTH.tolist(), strict=True):
        rows = slice(start, start + length)
        metres = torch.cdist(place[rows], place[rows])
        minutes = (clock[rows, None] - clock[None, rows]).abs()
        slow.append(
            plain_attention(
                attention, x[rows], metres.clamp(max=1000) / 1000, minutes.clamp(max=5) / 5, length
            )
        )
    slow = torch.cat(slow)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)
    inputs = [x, *(p for p in attention.parameters() if p.requires_grad)]
    weight = torch.randn_like(slow)
    for ours, theirs in zip(
        torch.autograd.grad((fast * weight).sum(), inputs),
        torch.autograd.grad((slow * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


def test_bias_of_the_key_term_has_no_effect():
    attention = RelativeAttention(8, 2, 0.0)
    place, clock, x = trips(0, torch.float32)
    layout = build_layout(OFFSET, 13, 7)
    before = attention(x, [View(layout, relation(place, clock, layout))])
    nn.init.normal_(attention.relative_position_emb_k.bias)
    after = attention(x, [View(layout, relation(place, clock, layout))])
    torch.testing.assert_close(after, before)


def test_gradients_of_mixing_are_the_numerical_ones():
    attention = RelativeAttention(4, 2, 0.0).double()
    place, clock, _ = trips(1, torch.float64)
    related = relation(place, clock, build_layout(OFFSET, 13, 7))
    shape = (4, 2, 7, 2)
    parts = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda q, k, v: attention.mix(q, k, v, related), parts)


def test_one_query_with_kept_keys_equals_the_last_row_of_the_whole():
    attention = RelativeAttention(8, 2, 0.0)
    place, clock, x = trips(2, torch.float32)
    layout = build_layout(torch.tensor([0, 13]), 13, 13)
    whole = relation(place, clock, layout)
    query, key, value = attention.project(layout.pad(attention.c_attn(x)))
    rows = attention.mix(query, key, value, whole)
    last = Relation(
        whole.distance[:, :, -1:], whole.interval[:, :, -1:], torch.zeros(1, 1, 1, 13).bool()
    )
    torch.testing.assert_close(attention.mix(query[:, :, -1:], key, value, last)[:, 0], rows[:, -1])
