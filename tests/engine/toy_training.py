"""A toy city, a toy teacher and listeners, for the tests of training."""

from pathlib import Path

import numpy as np
import torch
from random_city import random_network, random_walks
from safetensors.torch import load_file
from torch import Tensor

from hoserkd.engine.city.storage import City, save_city
from hoserkd.engine.config import (
    DistillConfig,
    EngineConfig,
    ProfilingConfig,
    StudentConfig,
    TrainConfig,
)
from hoserkd.engine.events import Event
from hoserkd.engine.identity import Identity
from hoserkd.engine.types import StepBatch, TeacherSignal, TimeStatistics

STUDENT = StudentConfig(hidden_dim=16, road_id_dim=8, attribute_dim=2, heads=2, layers=1)


def toy_city(directory: Path, trips: int = 36) -> City:
    """Return a city of 40 roads with random walks in every split."""
    network = random_network()
    splits = {name: random_walks(network, trips=count, seed=seed) for seed, (name, count) in
              enumerate([("train", trips), ("val", 12), ("test", 10)])}
    return save_city(directory, "toy", network, splits, TimeStatistics(3.5, 0.8))


def toy_config(distill: DistillConfig | None = None, student: StudentConfig = STUDENT,
               **train: object) -> EngineConfig:
    """Return settings for a training of a second: 3 epochs of 5 steps, the last of one batch."""
    settings = {"epochs": 3, "batch_size": 4, "accumulation": 2, "learning_rate": 3e-3} | train
    return EngineConfig(
        student=student, train=TrainConfig(**settings), seed=3, device="cpu",
        distill=distill or DistillConfig(enabled=False),
        profiling=ProfilingConfig(interval=2))


class ToyTeacher:
    """Prefers some roads whatever the trip; two of them share a cell here and there."""

    def __init__(self, roads: int = 40, scale: float = 2.0) -> None:
        generator = torch.Generator().manual_seed(5)
        self.cell = torch.randint(0, roads // 2, (roads,), generator=generator)
        self.preference = scale * torch.randn(roads, generator=generator)
        self.identity = Identity("teacher", "toy", f"{roads} {scale}")
        self.form = "toy"
        self.calls = 0
        self.broken_from: int | None = None
        """Call from which the answers are not numbers."""

    def signal(self, batch: StepBatch, step: Tensor) -> TeacherSignal:
        """Answer for the kept candidates of the asked steps."""
        self.calls += 1
        spans = [torch.arange(int(batch.candidate_offset[s]), int(batch.candidate_offset[s + 1]))
                 for s in step.tolist()]
        road = batch.candidate_road[torch.cat(spans)]
        offset = torch.tensor([0, *np.cumsum([len(s) for s in spans])])
        logits = self.preference[self.cell[road]]
        if self.broken_from is not None and self.calls >= self.broken_from:
            logits = logits * torch.nan
        return TeacherSignal(step, offset, logits, self.cell[road])


class Listener:
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def notify(self, event: Event) -> None:
        """Keep `event`."""
        self.events.append(event)

    def of(self, kind: type) -> list:
        """Return the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]


class StopAfter:
    """Asks to stop at the n-th question."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a student file."""
    return load_file(path)


def last_weights(directory: Path) -> dict[str, Tensor]:
    """Return the tensors of a run's last checkpoint."""
    return torch.load(directory / "last.ckpt", weights_only=True)["model"]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Return whether two sets of weights are equal to the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
