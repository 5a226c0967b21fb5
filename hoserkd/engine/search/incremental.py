"""The student, one road at a time: a path grows by one token, not by a new forward pass.

A node's state depends on its ancestors only through their keys and values, which are remembered, so
one token through the trajectory encoder gives exactly what the whole path would (ENGINE.md 5.7).
"""

import numpy as np
import torch
from jaxtyping import Int32

from hoserkd.engine.search.compiled_forward import CompiledForward
from hoserkd.engine.search.memory import RowPool
from hoserkd.engine.search.padded_forward import PaddedForward
from hoserkd.engine.search.queries import Continuation, Expansion
from hoserkd.engine.student.hoser import Hoser
from hoserkd.engine.student.tables import NetworkTables
from hoserkd.engine.types import TimeStatistics
from hoserkd.errors import CheckpointError

DEFAULT_MEMORY_BYTES = 1 << 31
Forward = CompiledForward | PaddedForward


class IncrementalStudent:
    """Continues paths with a student, remembering each expanded node."""

    def __init__(self, forward: Forward, rows: int) -> None:
        """Remember at most `rows` nodes at once."""
        self._pool = RowPool(rows)
        self._forward = forward

    def claim(self, count: int) -> Int32[np.ndarray, " M"] | None:
        """Return `count` free rows, or None if memory has no room for them."""
        return self._pool.claim(count)

    def release(self, rows: Int32[np.ndarray, " M"]) -> None:
        """Give rows back."""
        self._pool.release(rows)

    def reserve(self, rows: int) -> None:
        """Make sure that at least `rows` rows fit at once."""
        self._pool.limit = max(self._pool.limit, rows)

    @torch.no_grad()
    def expand(self, expansion: Expansion) -> Continuation:
        """Return probabilities and times of what follows each node."""
        return self._forward.expand(expansion, self._pool.made)


@torch.no_grad()
def incremental_students(
    model: Hoser, tables: NetworkTables, times: TimeStatistics, count: int = 1,
    memory_bytes: int = DEFAULT_MEMORY_BYTES, forward: type[Forward] | None = None,
) -> list[IncrementalStudent]:
    """Return students that can work side by side, with one encoding of the road network.

    Args:
        memory_bytes: Bound of what the expanded nodes of each may take.
        forward: How tokens are computed; None: compiled on a CPU, padded elsewhere.

    Raises:
        CheckpointError: The weights give embeddings that are not numbers.
    """
    encoding = model.eval().encode_network(tables)
    if not bool(encoding.road.isfinite().all() & encoding.key.isfinite().all()):
        raise CheckpointError("the student's weights give embeddings that are not numbers",
                              hint="use an earlier checkpoint, or train again")
    if forward is None:
        forward = CompiledForward if tables.device.type == "cpu" else PaddedForward
    rows = memory_bytes // bytes_per_row(model)
    return [IncrementalStudent(forward(model, encoding, tables, times), rows)
            for _ in range(count)]


def bytes_per_row(model: Hoser) -> int:
    """Return what one expanded node takes: keys and values of every block, road and clock."""
    return len(model.trajectory_encoder.blocks) * 2 * 2 * model.config.hidden_dim * 4 + 8
