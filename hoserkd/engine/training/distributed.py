"""Several processes that train one model: each takes its share of every batch.

The global batch is what the settings say, however many processes there are. Losses are sums
over steps divided by the steps of all processes, and gradients are added up, so that the
weights stay equal everywhere and follow the same curve as one process.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together; alone by default."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def share(self, trips: Int[np.ndarray, " N"]) -> Int[np.ndarray, " n"]:
        """Return this process's part of a batch: every `world`-th trip, so of equal lengths."""
        return trips[self.rank::self.world]

    def shares(self, batches: Sequence[Int[np.ndarray, " _"]]) -> list[Int[np.ndarray, " _"]]:
        """Return this process's parts of several batches, without the empty ones."""
        return [share for trips in batches if len(share := self.share(trips))]

    def add_up(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over the processes."""
        if self.world > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def add_up_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes."""
        if self.world == 1:
            return
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([g.flatten() for g in grads])
        dist.all_reduce(flat)
        pieces = torch.split(flat, [g.numel() for g in grads])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.view_as(parameter)

    def any(self, flag: bool) -> bool:
        """Return whether any process says yes; all must ask."""
        if self.world == 1:
            return flag
        # NCCL moves only what lies on a GPU.
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        said = torch.tensor([float(flag)], device=device)
        dist.all_reduce(said)
        return bool(said.item() > 0)

    def wait(self) -> None:
        """Return when every process has come this far."""
        if self.world > 1:
            dist.barrier()

    def seed_step(self, seed: int, step: int) -> None:
        """Seed what this process draws in an optimiser step (dropout), if there are several.

        Derived from (seed, rank, step), no state has to be kept for each process: a training that
        is resumed draws what an undisturbed one draws, and no two processes drop the same units.
        """
        if self.world > 1:
            words = np.random.SeedSequence([seed, self.rank, step]).generate_state(1, np.uint64)
            torch.manual_seed(int(words[0]))

    def from_first(self, value: T) -> T:
        """Return what the first process gives; what the others give does not matter."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


@contextmanager
def joined(rank: int, world: int, local_rank: int, device: torch.device) -> Iterator[Ranks]:
    """Meet the other processes of a launcher that has set torch's usual variables.

    Args:
        local_rank: Number of this process on its machine, and so of its GPU.
        device: Kind of device that will be computed on.
    """
    if device.type == "cuda":
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo",
                            rank=rank, world_size=world)
    try:
        yield Ranks(rank, world)
    finally:
        dist.destroy_process_group()
