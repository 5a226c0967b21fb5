import pytest
import torch
from torch.nn import functional as F
from toy_teacher import toy_model

from hoserkd.engine.teacher.lmtad import LMTAD, Ancestors, LMTADDimensions


def test_names_of_the_weights_are_the_public_ones():
    model = LMTAD(LMTADDimensions(20, 8, 1, 2, 4))
    assert set(model.state_dict()) == {
        "transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.weight",
        "lm_head.weight", *(f"transformer.h.0.{part}.weight" for part in (
            "ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"))}


def test_head_is_the_token_embedding():
    model = LMTAD(LMTADDimensions(20, 8, 1, 2, 4))
    assert model.lm_head.weight is model.token_embedding
    assert sum(p.numel() for p in model.parameters()) == 20 * 4 + 8 * 4 + 12 * 16 + 3 * 4


def plain_forward(model: LMTAD, tokens: torch.Tensor) -> torch.Tensor:
    """GPT-2 written out, one sequence and one head at a time."""
    size, state = model.dimensions, model.state_dict()
    width, head = size.n_embd, size.n_embd // size.n_head
    x = state["transformer.wte.weight"][tokens]
    x = x + state["transformer.wpe.weight"][: len(tokens)]
    mask = torch.ones(len(tokens), len(tokens)).triu(1).bool()
    for i in range(size.n_layer):
        w = {k.split(f"h.{i}.")[1]: v for k, v in state.items() if f"h.{i}." in k}
        qkv = F.layer_norm(x, (width,), w["ln_1.weight"]) @ w["attn.c_attn.weight"].T
        q, k, v = qkv.split(width, dim=1)
        mixed = []
        for h in range(size.n_head):
            part = slice(h * head, (h + 1) * head)
            score = (q[:, part] @ k[:, part].T / head**0.5).masked_fill(mask, -torch.inf)
            mixed.append(score.softmax(1) @ v[:, part])
        x = x + torch.cat(mixed, 1) @ w["attn.c_proj.weight"].T
        y = F.layer_norm(x, (width,), w["ln_2.weight"]) @ w["mlp.c_fc.weight"].T
        y = y * 0.5 * (1 + torch.erf(y / 2**0.5))
        x = x + y @ w["mlp.c_proj.weight"].T
    return F.layer_norm(x, (width,), state["transformer.ln_f.weight"])


@pytest.mark.parametrize("seed", range(3))
def test_forward_equals_the_transformer_written_out(seed):
    model = toy_model(31, seed=seed, layers=seed + 1, heads=4)
    tokens = torch.randint(0, 31, (2, 9), generator=torch.Generator().manual_seed(seed))
    for sequence, hidden in zip(tokens, model(tokens), strict=True):
        torch.testing.assert_close(hidden, plain_forward(model, sequence), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_extending_token_by_token_equals_forward(length):
    model = toy_model(31)
    tokens = torch.randint(0, 31, (5, length), generator=torch.Generator().manual_seed(length))
    past = []
    for position in range(length):
        hidden, cache = model.extend(tokens[:, position], past)
        torch.testing.assert_close(hidden, model(tokens[:, :position + 1])[:, -1],
                                   atol=1e-5, rtol=1e-5)
        past.append(Ancestors(cache, torch.arange(5)))


def test_extending_shared_prefixes_gathers_the_right_ones():
    model = toy_model(31)
    _, root = model.extend(torch.tensor([30]), [])
    _, first = model.extend(torch.tensor([4, 9]), [Ancestors(root, torch.tensor([0, 0]))])
    parent = torch.tensor([1, 0, 1])
    hidden, _ = model.extend(torch.tensor([7, 7, 8]), [
        Ancestors(root, torch.zeros(3, dtype=torch.long)), Ancestors(first, parent)])
    whole = torch.tensor([[30, 9, 7], [30, 4, 7], [30, 9, 8]])
    torch.testing.assert_close(hidden, model(whole)[:, -1], atol=1e-5, rtol=1e-5)


def test_padding_on_the_right_changes_nothing():
    model = toy_model(31)
    tokens = torch.randint(0, 31, (1, 6), generator=torch.Generator().manual_seed(0))
    padded = torch.cat([tokens, torch.full((1, 5), 28)], dim=1)
    torch.testing.assert_close(model(padded)[:, :6], model(tokens), atol=1e-6, rtol=1e-6)


def test_logits_of_chosen_tokens_equal_the_whole_heads():
    model = toy_model(31)
    hidden = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    token = torch.tensor([3, 0, 30, 7])
    whole = model.all_logits(hidden)
    torch.testing.assert_close(model.logits(hidden, token), whole[torch.arange(4), token],
                               atol=1e-5, rtol=1e-5)


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(ValueError, match="25 tokens"):
        toy_model(31)(torch.zeros(1, 25, dtype=torch.long))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="divide"):
        LMTAD(LMTADDimensions(20, 8, 1, 3, 4))
