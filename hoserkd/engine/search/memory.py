"""Keys and values of expanded nodes, one row a node, in arenas that grow as needed."""

from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32, Int64
from torch import Tensor

from hoserkd.engine.search.attention import attend, relations, relative_weights
from hoserkd.engine.search.queries import Expansion
from hoserkd.engine.student.hoser import Hoser
from hoserkd.engine.student.relative_attention import Relation
from hoserkd.engine.student.tables import NetworkTables

FIRST_ROWS = 1024


class RowPool:
    """Hands out row numbers, the lowest that were never used or the last given back."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.made = 0
        self._free = np.empty(0, np.int32)
        self._spare = 0

    def claim(self, count: int) -> Int32[np.ndarray, "M"] | None:
        """Return `count` free rows, or None if that would make more than `limit`."""
        fresh = max(0, count - self._spare)
        if self.made + fresh > self.limit:
            return None
        reused = self._free[self._spare - (count - fresh):self._spare]
        rows = np.concatenate([reused, np.arange(self.made, self.made + fresh, dtype=np.int32)])
        self._spare -= count - fresh
        self.made += fresh
        return rows

    def release(self, rows: Int32[np.ndarray, "M"]) -> None:
        """Take rows back."""
        end = self._spare + len(rows)
        if end > len(self._free):
            self._free = np.concatenate([self._free[:self._spare],
                                         np.empty(2 * end - self._spare, np.int32)])
        self._free[self._spare:end] = rows
        self._spare = end


class Memory(Protocol):
    """Where the keys and values of expanded nodes are kept and attended to."""

    def open(self, expansion: Expansion, elapsed_min: Float32[np.ndarray, "M"], rows: int) -> None:
        """Make ready for the expansion's rows, of which there are fewer than `rows` in all."""
        ...

    def gather(self, layer: int, qkv: Float[Tensor, "P 3c"]) -> Float[Tensor, "P c"]:
        """Keep the keys and values of a block's new nodes; return what its heads gather."""
        ...


def bytes_per_row(model: Hoser) -> int:
    """Return what one expanded node takes."""
    return len(model.trajectory_encoder.blocks) * 2 * 2 * model.config.hidden_dim * 4 + 8


class CompiledMemory:
    """Rows in numpy arrays, read where they lie."""

    def __init__(self, model: Hoser, tables: NetworkTables) -> None:
        blocks = model.trajectory_encoder.blocks
        width = 2 * model.config.hidden_dim
        self._heads = model.config.heads
        self._relative = [relative_weights(block.attn) for block in blocks]
        self._point_m = tables.point_m.numpy()
        self._keys = [np.empty((0, width), np.float32) for _ in blocks]
        self._values = [np.empty((0, width), np.float32) for _ in blocks]
        self._road = np.empty(0, np.int32)
        self._elapsed_min = np.empty(0, np.float32)

    def open(self, expansion: Expansion, elapsed_min: Float32[np.ndarray, "M"], rows: int) -> None:
        """Make ready for the expansion's rows, of which there are fewer than `rows` in all."""
        if rows > len(self._road):
            self._grow(max(FIRST_ROWS, 2 * len(self._road), rows))
        own = expansion.history[expansion.history_offset[:-1]]
        self._road[own] = expansion.road
        self._elapsed_min[own] = elapsed_min
        self._offset, self._history = expansion.history_offset, expansion.history
        self._distance, self._interval = relations(
            self._offset, self._history, self._road, self._elapsed_min, self._point_m)

    def gather(self, layer: int, qkv: Float[Tensor, "P 3c"]) -> Float[Tensor, "P c"]:
        """Keep the keys and values of a block's new nodes; return what its heads gather."""
        gathered = torch.zeros(len(qkv), qkv.shape[1] // 3)
        attend(qkv.numpy(), self._keys[layer], self._values[layer], self._offset, self._history,
               self._distance, self._interval, self._relative[layer], self._heads,
               gathered.numpy())
        return gathered

    def _grow(self, rows: int) -> None:
        self._keys = [_longer(table, rows) for table in self._keys]
        self._values = [_longer(table, rows) for table in self._values]
        self._road = _longer(self._road, rows)
        self._elapsed_min = _longer(self._elapsed_min, rows)


def _longer(table: np.ndarray, rows: int) -> np.ndarray:
    longer = np.empty((rows, *table.shape[1:]), table.dtype)
    longer[:len(table)] = table
    return longer


class PaddedMemory:
    """Rows in tensors of any device, gathered and padded to the longest history of a batch."""

    def __init__(self, model: Hoser, tables: NetworkTables) -> None:
        self._attention = [block.attn for block in model.trajectory_encoder.blocks]
        self._width = 2 * model.config.hidden_dim
        self._point_m = tables.point_m
        self._table = tables.point_m.new_empty((2 * len(self._attention), 0, self._width),
                                               dtype=torch.float32)
        self._road = torch.empty(0, dtype=torch.int64, device=tables.device)
        self._elapsed_min = torch.empty(0, device=tables.device)

    def open(self, expansion: Expansion, elapsed_min: Float32[np.ndarray, "M"], rows: int) -> None:
        """Make ready for the expansion's rows, of which there are fewer than `rows` in all."""
        if rows > len(self._road):
            self._grow(max(FIRST_ROWS, 2 * len(self._road), rows))
        device = self._road.device
        padded, length = _padded(expansion.history_offset, expansion.history)
        self._rows = torch.from_numpy(padded).to(device)
        own = self._rows[:, 0]
        self._road[own] = torch.from_numpy(expansion.road.astype(np.int64)).to(device)
        self._elapsed_min[own] = torch.from_numpy(elapsed_min).to(device)
        point = self._point_m[self._road[self._rows]]
        metres = (point - point[:, :1]).norm(dim=2).to(torch.float32)
        clock = self._elapsed_min[self._rows]
        minutes = (clock - clock[:, :1]).abs()
        beyond = torch.arange(padded.shape[1]) >= torch.from_numpy(length)[:, None]
        self._relation = Relation(metres.clamp(max=1000)[:, None, None] / 1000,
                                  minutes.clamp(max=5)[:, None, None] / 5,
                                  beyond.to(device)[:, None, None])

    def gather(self, layer: int, qkv: Float[Tensor, "P 3c"]) -> Float[Tensor, "P c"]:
        """Keep the keys and values of a block's new nodes; return what its heads gather."""
        attention, count = self._attention[layer], len(self._rows)
        keys, values = self._table[2 * layer], self._table[2 * layer + 1]
        own, width = self._rows[:, 0], self._width
        keys[own] = qkv[:count, width:2 * width]
        values[own] = qkv[:count, 2 * width:]
        past = torch.cat([keys[self._rows], keys[self._rows], values[self._rows]], dim=2)
        query = attention.project(qkv[:count, None])[0]
        _, key, value = attention.project(past)
        gathered = torch.zeros(len(qkv), width, device=qkv.device)
        gathered[:count] = attention.mix(query, key, value, self._relation).squeeze(1)
        return gathered

    def _grow(self, rows: int) -> None:
        longer = rows - len(self._road)
        self._table = torch.nn.functional.pad(self._table, (0, 0, 0, longer))
        self._road = torch.nn.functional.pad(self._road, (0, longer))
        self._elapsed_min = torch.nn.functional.pad(self._elapsed_min, (0, longer))


def _padded(
    offset: Int64[np.ndarray, "M+1"], history: Int32[np.ndarray, "H"]
) -> tuple[Int64[np.ndarray, "M L"], Int64[np.ndarray, "M"]]:
    """Return the packed rows padded with each node's own row, and how many are real."""
    length = np.diff(offset)
    position = np.arange(length.max())
    real = position < length[:, None]
    place = np.where(real, offset[:-1, None] + position, offset[:-1, None])
    return history[place].astype(np.int64), length
