"""Several processes that train one model: each takes its share of every batch.

The global batch is what the settings say, however many processes there are. Losses are sums
over steps divided by the steps of all processes, and gradients are added up, so that the
weights stay equal everywhere and follow the same curve as one process.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together; alone by default."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def share(self, trips: Int[np.ndarray, "N"]) -> Int[np.ndarray, "n"]:
        """Return this process's part of a batch: every `world`-th trip, so of equal lengths."""
        return trips[self.rank::self.world]

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
