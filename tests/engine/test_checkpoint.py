"""The resumable checkpoint returns what was put in, and refuses what is not one."""

import random

import numpy as np
import pytest
import torch

from hoserkd.engine.config import TrainConfig
from hoserkd.engine.training.checkpoint import (
    Checkpoint,
    TrainState,
    load_checkpoint,
    restore_rng,
    rng_state,
    save_checkpoint,
)
from hoserkd.engine.training.optim import Optimiser, decay_groups
from hoserkd.errors import CheckpointError

CPU = torch.device("cpu")


def trained(steps: int, optimiser: Optimiser, model: torch.nn.Module) -> None:
    """Take some steps on random numbers."""
    for _ in range(steps):
        optimiser.backward(model(torch.randn(4, 3)).square().sum())
        optimiser.step(1e-2)


def test_a_checkpoint_comes_back_and_training_goes_on_bit_equal(tmp_path):
    torch.manual_seed(1)
    model = torch.nn.Linear(3, 2)
    optimiser = Optimiser(model, TrainConfig(), None)
    trained(3, optimiser, model)
    state = TrainState(step=3, judged=2, best_epoch=0, best_step=2,
                       best_metrics={"accuracy": 0.5}, sums={"road": 1.25}, epoch_s=3.5)
    save_checkpoint(tmp_path / "last.ckpt", Checkpoint(
        model.state_dict(), optimiser.state_dict(), state, {"seed": 1}, rng_state(CPU)))
    trained(4, optimiser, model)

    back = load_checkpoint(tmp_path / "last.ckpt")
    again = torch.nn.Linear(3, 2)
    again.load_state_dict(back.model)
    resumed = Optimiser(again, TrainConfig(), None)
    resumed.load_state_dict(back.optimiser)
    restore_rng(back.rng, CPU)
    trained(4, resumed, again)
    assert back.state == state
    assert back.settings == {"seed": 1}
    assert torch.equal(model.weight, again.weight)
    assert torch.equal(model.bias, again.bias)


def test_every_generator_is_restored():
    state = rng_state(CPU)
    drawn = (random.random(), np.random.rand(), float(torch.rand(())))  # noqa: NPY002
    restore_rng(state, CPU)
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == drawn  # noqa: NPY002


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_a_checkpoint_error(tmp_path, content):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_checkpoint(path)


def test_a_truncated_checkpoint_is_a_checkpoint_error(tmp_path):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, Checkpoint({"w": torch.ones(500)}, {}, TrainState(), {}, {}))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_checkpoint(path)


def test_a_missing_checkpoint_says_what_to_do(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint") as caught:
        load_checkpoint(tmp_path / "last.ckpt")
    assert "without --resume" in caught.value.hint


def test_another_format_is_refused(tmp_path):
    torch.save({"format": 99}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="expected a checkpoint of format 1, found 99"):
        load_checkpoint(tmp_path / "last.ckpt")


@pytest.mark.parametrize("content", [
    {"format": 1}, {"format": 1, "model": {}, "optimiser": {}, "state": {"unheard": 1},
                    "settings": {}, "rng": {}}])
def test_a_checkpoint_of_other_contents_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="the checkpoint lacks something"):
        load_checkpoint(tmp_path / "last.ckpt")


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (print, ("harm",))

    torch.save({"format": 1, "model": Harmful()}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path / "last.ckpt")


def test_vectors_do_not_decay_and_matrices_do():
    model = torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Linear(3, 2),
                                torch.nn.LayerNorm(2))
    decayed, spared = decay_groups(model.parameters(), 0.1)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert [tuple(p.shape) for p in decayed["params"]] == [(5, 3), (2, 3)]
    assert all(p.dim() == 1 for p in spared["params"])
    assert len(spared["params"]) == 3


def test_the_gradient_is_clipped_to_the_norm_and_reported_before():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 0.0)
    optimiser = Optimiser(model, TrainConfig(clip=0.5, weight_decay=0.0), None)
    optimiser.backward(4 * model(torch.ones(1, 1)).sum())
    assert float(optimiser.step(0.1)) == 4.0
