"""One token a node on a CPU: matrix products by torch, all else in compiled loops.

Every node's numbers are computed on their own and in one order, so a node is answered to the bit
the same whatever else is in its batch.
"""

import math
from typing import cast

import numpy as np
import torch
from jaxtyping import Float32, Int32, Int64
from torch import Tensor, nn
from torch.nn import functional

from hoserkd.engine.search.attention import Past, attend, relations, relative_weights
from hoserkd.engine.search.candidates import (
    candidate_logits,
    compiled_features,
    head_of,
    log_softmax,
    places_of,
    travel_seconds,
)
from hoserkd.engine.search.compiled import compiled
from hoserkd.engine.search.products import ROW_MULTIPLE, Product
from hoserkd.engine.search.queries import Continuation, Expansion
from hoserkd.engine.student.features import DAY_S
from hoserkd.engine.student.hoser import Hoser, NetworkEncoding
from hoserkd.engine.student.tables import NetworkTables
from hoserkd.engine.student.trajectory_encoder import Block
from hoserkd.engine.types import TimeStatistics

FIRST_ROWS = 1 << 15
"""Rows at the start: memory is touched only as they are used, while a larger arena is a copy."""
Norm = tuple[list[int], Tensor, Tensor, float]
"""Shape, weight, bias and epsilon of a LayerNorm."""


class CompiledForward:
    """Continues paths, with the keys and values of expanded nodes in arenas."""

    def __init__(self, model: Hoser, encoding: NetworkEncoding, tables: NetworkTables,
                 times: TimeStatistics) -> None:
        encoder, navigator = model.trajectory_encoder, model.navigator
        self._heads = model.config.heads
        self._width = 2 * model.config.hidden_dim
        self._spatial = encoding.spatial.numpy()
        self._frequency = encoder.temporal_encoder.freqs.detach()
        self._wraps = tables.features == "aaai2025"
        self._point_m = tables.point_m.numpy()
        self._blocks = [_Weights(block) for block in encoder.blocks]
        self._query = Product(navigator.q_proj.weight[:, :self._width], None)
        self._time = _linear(navigator.time_estimator_linear_1)
        self._places = places_of(tables)
        self._head = head_of(navigator, encoding, times)
        part = self._width // self._heads
        self._memory = [np.empty((0, 2, self._heads, part), np.float32) for _ in self._blocks]
        self._road = np.empty(0, np.int32)
        self._elapsed_min = np.empty(0, np.float32)

    def expand(self, expansion: Expansion, rows: int) -> Continuation:
        """Return what follows each node; all memory rows in use are below `rows`."""
        if rows > len(self._road):
            self._grow(max(FIRST_ROWS, 2 * len(self._road), rows))
        state = self._states(expansion)
        query = self._query(state).numpy()
        hidden = functional.gelu(self._time(state)).numpy()
        offset, road = expansion.candidate_offset, expansion.candidate_road
        distance, angle = compiled_features(
            self._places, expansion.road, expansion.destination, offset, road)
        logits = candidate_logits(
            query, expansion.destination, offset, road, distance, angle, self._head)
        return Continuation(log_softmax(logits, offset),
                            travel_seconds(hidden, offset, road, self._head))

    def _states(self, expansion: Expansion) -> Tensor:
        """Return the trajectory encoder's states of the new nodes, padded with idle rows."""
        offset, history = expansion.history_offset, expansion.history
        x = self._embed(expansion)
        past = Past(offset, history, *relations(
            offset, history, self._road, self._elapsed_min, self._point_m))
        gathered = torch.zeros(len(x), self._width)
        by_head = gathered.numpy().reshape(len(x), self._heads, -1)
        for layer, block in enumerate(self._blocks):
            qkv = block.qkv(torch.layer_norm(x, *block.norm_1))
            attend(qkv.numpy().reshape(len(x), 3, self._heads, -1), self._memory[layer], past,
                   block.relative, by_head)
            x += block.gathered(gathered)
            wide = block.widen(torch.layer_norm(x, *block.norm_2))
            x += block.narrow(functional.gelu(wide))
        return x

    def _embed(self, expansion: Expansion) -> Tensor:
        """Return the first states, and note each node's road and clock in its memory row."""
        padded = len(expansion) + -len(expansion) % ROW_MULTIPLE
        x = torch.zeros(padded, self._width)
        time_of_day = torch.zeros(padded)
        place_nodes(
            expansion.road, expansion.entered_at_s, expansion.departure_s,
            expansion.history_offset, expansion.history, self._wraps, self._spatial, self._road,
            self._elapsed_min, x.numpy(), time_of_day.numpy())
        half, waves = self._width // 2, len(self._frequency)
        phase = time_of_day[:, None] * self._frequency
        scale = math.sqrt(1 / (4 * waves))
        torch.mul(phase.cos(), scale, out=x[:, half:half + waves])
        torch.mul(phase.sin_(), scale, out=x[:, half + waves:])
        return x

    def _grow(self, rows: int) -> None:
        self._memory = [_longer(table, rows) for table in self._memory]
        self._road = _longer(self._road, rows)
        self._elapsed_min = _longer(self._elapsed_min, rows)


class _Weights:
    """The linear maps of one block, ready to multiply."""

    def __init__(self, block: Block) -> None:
        self.norm_1, self.norm_2 = _norm(block.ln_1), _norm(block.ln_2)
        self.qkv = _linear(block.attn.c_attn)
        self.relative = relative_weights(block.attn)
        self.gathered = _linear(block.attn.c_proj)
        self.widen = _linear(cast(nn.Linear, block.mlp[0]))
        self.narrow = _linear(cast(nn.Linear, block.mlp[2]))


def _norm(module: nn.LayerNorm) -> Norm:
    return (list(module.normalized_shape), module.weight.detach(), module.bias.detach(),
            module.eps)


def _linear(module: nn.Linear) -> Product:
    return Product(module.weight, module.bias)


def _longer(table: np.ndarray, rows: int) -> np.ndarray:
    longer = np.empty((rows, *table.shape[1:]), table.dtype)
    longer[:len(table)] = table
    return longer


@compiled
def place_nodes(
    road: Int32[np.ndarray, " M"], entered_at_s: Int64[np.ndarray, " M"],
    departure_s: Int64[np.ndarray, " M"], offset: Int64[np.ndarray, " M+1"],
    history: Int32[np.ndarray, " H"], wraps: bool, spatial: Float32[np.ndarray, "R d"],
    row_road: Int32[np.ndarray, " N"], row_elapsed_min: Float32[np.ndarray, " N"],
    x: Float32[np.ndarray, "P c"], time_of_day: Float32[np.ndarray, " P"],
) -> None:
    """Write each node's spatial embedding, time of day, and what its memory row says of it.

    The clock is that of `student.features.clock_features`, to the bit.
    """
    for i in range(len(road)):
        x[i, :spatial.shape[1]] = spatial[road[i]]
        second = entered_at_s[i] % DAY_S
        minutes = float(second // 3600) * 60 + second % 3600 // 60 + (second % 60) / 60
        day = np.float32(minutes / 1440)
        if (departure_s[i] // DAY_S + 3) % 7 >= 5:
            day = np.float32(-1) if second == 0 and not wraps else -day
        time_of_day[i] = day
        own = history[offset[i]]
        row_road[own] = road[i]
        elapsed = day * np.float32(1440) if wraps else (entered_at_s[i] - departure_s[i]) / 60
        row_elapsed_min[own] = np.float32(elapsed)
