"""Wrapped checkpoints are taken wherever a student is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from five_roads import SMOKE

WRAPPED = {
    "ddp": lambda s: {f"module.{name}": value for name, value in s.items()},
    "compiled": lambda s: {f"_orig_mod.{name}": value for name, value in s.items()},
    "wrapped": lambda s: {"state_dict": s},
    "checkpoint_latest": lambda s: {"epoch": 3, "model_state_dict": s},
    "legacy": lambda s: s,
}


@pytest.fixture
def best(tiny: Path, run_cli: Callable[..., Any]) -> Path:
    """Return the public form of the trained student."""
    done = run_cli("runs", "export", "x", "--hoser", "best.pth")
    assert done.exit_code == 0, done.stderr
    return next(tiny.rglob("best.pth"))


def test_every_wrapping_makes_the_same_trips(best: Path, run_cli: Callable[..., Any]) -> None:
    state = torch.load(best, weights_only=True)
    made = []
    for name, wrap in WRAPPED.items():
        path = best.with_name(f"{name}.pth")
        torch.save(wrap(state), path, _use_new_zipfile_serialization=name != "legacy")
        done = run_cli("generate", "--model", path, *SMOKE, "--od", "test", "--num", "1",
                       "-o", f"{name}.csv")
        assert done.exit_code == 0, done.stderr
        made.append(Path(f"{name}.csv").read_text())
    assert made == [made[0]] * len(made)


def test_a_wrapped_student_starts_a_training_and_is_judged(
    best: Path, run_cli: Callable[..., Any]
) -> None:
    path = best.with_name("ddp.pth")
    torch.save(WRAPPED["ddp"](torch.load(best, weights_only=True)), path)
    done = run_cli("train", *SMOKE, "--no-distill", "--max-steps", "1", "--init-from", path,
                   "--quiet")
    assert done.exit_code == 0, done.stderr
    done = run_cli("evaluate", "--model", path, *SMOKE, "--set", "evaluate.bootstrap=0")
    assert done.exit_code == 0, done.stderr
