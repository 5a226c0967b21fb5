"""The road network's pass as one recorded CUDA graph: over all roads its shapes never change.

A training step launches some hundred small kernels for the network alone; a recorded graph is
launched once, forward and once back. Whatever depends on a batch keeps its changing shapes and
stays outside.
"""

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hoserkd.engine.student.hoser import Hoser, NetworkEncoding
from hoserkd.engine.student.tables import NetworkTables


class NetworkPass(nn.Module):
    """The learnt tensors of the encoding of all roads: no arguments, so one fixed shape."""

    def __init__(self, model: Hoser, tables: NetworkTables) -> None:
        super().__init__()
        self.model = model
        self._tables = tables

    def forward(self) -> tuple[Float[Tensor, "..."], ...]:
        """Return the encoding's learnt tensors in the order of their names."""
        return tuple(self.model.encode_network(self._tables).learnt().values())


class RecordedNetwork:
    """Encodes all roads by replaying a recorded graph."""

    def __init__(
        self, model: Hoser, tables: NetworkTables, amp: torch.dtype | None
    ) -> None:
        """Record the pass of `model`, forward and back, on its CUDA device.

        Args:
            amp: Type of mixed precision that the recorded operations use; None: float32.
        """
        with torch.no_grad():
            self._frame = model.encode_network(tables)
        with torch.enable_grad():
            self._names = tuple(model.encode_network(tables).learnt())
        # The graph keeps casts of weights as operations; a cache of them would go stale.
        with torch.autocast("cuda", dtype=amp, enabled=amp is not None, cache_enabled=False):
            self._replay = cast(Callable[[], tuple[Tensor, ...]], torch.cuda.make_graphed_callables(
                NetworkPass(model, tables), (), allow_unused_input=True))

    def encode(self) -> NetworkEncoding:
        """Return the encoding of all roads, valid until the next call."""
        return self._frame.with_learnt(dict(zip(self._names, self._replay(), strict=True)))
