import pytest
import torch
from random_city import random_network

from hoserkd.engine.student.fused_attention import fused_attention
from hoserkd.engine.student.graph_layers import gathered_messages
from hoserkd.engine.student.surroundings import whole_network
from hoserkd.engine.student.tables import build_network_tables

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def edges():
    return whole_network(build_network_tables(random_network(), "geographic", CPU)).first


def inputs(edges, dtype, seed=0, width=5):
    torch.manual_seed(seed)
    rows = len(edges.offset) - 1
    shapes = ((rows, width), (rows, width), (width, 2), (width,))
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("seed", range(2))
def test_fused_attention_equals_the_gathered_form_with_its_gradients(edges, dtype, tolerance, seed):
    parts = inputs(edges, dtype, seed)
    fused, gathered = fused_attention(*parts, edges), gathered_messages(*parts, edges)
    torch.testing.assert_close(fused, gathered, rtol=tolerance, atol=tolerance)
    weight = torch.randn_like(fused)
    for ours, plain in zip(
        torch.autograd.grad((fused * weight).sum(), parts),
        torch.autograd.grad((gathered * weight).sum(), parts),
        strict=True,
    ):
        torch.testing.assert_close(ours, plain, rtol=20 * tolerance, atol=20 * tolerance)


def test_gradients_of_fused_attention_are_the_numerical_ones():
    tables = build_network_tables(random_network(roads=6), "geographic", CPU)
    edges = whole_network(tables).first
    parts = inputs(edges, torch.float64, width=3)
    assert torch.autograd.gradcheck(lambda *p: fused_attention(*p, edges), parts)


def test_fused_attention_gives_the_same_bits_on_any_number_of_threads(edges):
    parts = inputs(edges, torch.float32)
    found = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            out = fused_attention(*parts, edges)
            found.append((out, *torch.autograd.grad(out.sum(), parts)))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_fused_attention_lets_a_value_that_is_not_a_number_show(edges):
    parts = inputs(edges, torch.float32)
    with torch.no_grad():
        parts[0][3, 1] = torch.nan
    out = fused_attention(*parts, edges)
    touched = torch.zeros(len(out), dtype=torch.bool)
    touched[edges.target[edges.source == 3]] = True
    assert torch.equal(out[:, 1].isnan(), touched)
