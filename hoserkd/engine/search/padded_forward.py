"""One token a node on any device: histories gathered and padded to the longest of a batch."""

from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int, Int32, Int64
from torch import Tensor

from hoserkd.engine.search.candidates import LONGEST_STEP_S, log_softmax
from hoserkd.engine.search.queries import Continuation, Expansion
from hoserkd.engine.student.features import candidate_features, clock_features
from hoserkd.engine.student.hoser import Hoser, NetworkEncoding
from hoserkd.engine.student.navigator import CandidateRows
from hoserkd.engine.student.relative_attention import Relation, RelativeAttention
from hoserkd.engine.student.tables import NetworkTables
from hoserkd.engine.types import NavigatorOutput, TimeStatistics

FIRST_ROWS = 1024


class PaddedForward:
    """Continues paths, with the keys and values of expanded nodes in tensors of the device."""

    def __init__(self, model: Hoser, encoding: NetworkEncoding, tables: NetworkTables,
                 times: TimeStatistics) -> None:
        self._model = model
        self._encoding = encoding
        self._tables = tables
        self._times = times
        self._width = 2 * model.config.hidden_dim
        layers = len(model.trajectory_encoder.blocks)
        self._table = torch.empty(2 * layers, 0, self._width, device=tables.device)
        self._road = torch.empty(0, dtype=torch.int64, device=tables.device)
        self._elapsed_min = torch.empty(0, device=tables.device)

    def expand(self, expansion: Expansion, rows: int) -> Continuation:
        """Return what follows each node; all memory rows in use are below `rows`."""
        if rows > len(self._road):
            self._grow(max(FIRST_ROWS, 2 * len(self._road), rows))
        road, destination = self._put(expansion.road), self._put(expansion.destination)
        state = self._states(expansion, road)
        found = candidate_features(self._tables, road, destination, self._tables.max_candidates,
                                   len(expansion.candidate_road))
        output = cast(NavigatorOutput, self._model.navigator(
            state, self._encoding.road_zone[destination], self._encoding.keys,
            CandidateRows(found.step, found.road, found.distance, found.angle)))
        times = self._times
        seconds = torch.expm1(output.travel_time * times.log1p_std + times.log1p_mean)
        whole = seconds.clamp(0, LONGEST_STEP_S).round().to(torch.int32)
        return Continuation(log_softmax(output.logits.cpu().numpy(), expansion.candidate_offset),
                            whole.cpu().numpy())

    def _states(
        self, expansion: Expansion, road: Int[Tensor, " M"]
    ) -> Float[Tensor, "M c"]:
        encoder = self._model.trajectory_encoder
        time_of_day, elapsed_min = clock_features(
            self._put(expansion.entered_at_s), self._put(expansion.departure_s),
            self._tables.features)
        padded, length = _padded(expansion.history_offset, expansion.history)
        rows = self._put(padded)
        self._road[rows[:, 0]] = road
        self._elapsed_min[rows[:, 0]] = elapsed_min
        relation = self._relation(rows, self._put(length))
        x: Tensor = encoder.embed_points(self._encoding.spatial[road], time_of_day)
        for layer, block in enumerate(encoder.blocks):
            qkv = block.attn.c_attn(block.ln_1(x))
            x = block.finish(x, block.attn.output(
                self._gather(layer, block.attn, qkv, rows, relation)))
        return x

    def _relation(
        self, rows: Int[Tensor, "M L"], length: Int[Tensor, " M"]
    ) -> Relation:
        point = self._tables.point_m[self._road[rows]]
        metres = (point - point[:, :1]).norm(dim=2).to(torch.float32)
        clock = self._elapsed_min[rows]
        minutes = (clock - clock[:, :1]).abs()
        beyond = torch.arange(rows.shape[1], device=rows.device) >= length[:, None]
        return Relation(metres.clamp(max=1000)[:, None, None] / 1000,
                        minutes.clamp(max=5)[:, None, None] / 5, beyond[:, None, None])

    def _gather(
        self, layer: int, attention: RelativeAttention, qkv: Float[Tensor, "M 3*c"],
        rows: Int[Tensor, "M L"], relation: Relation,
    ) -> Float[Tensor, "M c"]:
        """Keep the keys and values of a block's new nodes; return what its heads gather."""
        keys, values = self._table[2 * layer], self._table[2 * layer + 1]
        keys[rows[:, 0]] = qkv[:, self._width:2 * self._width]
        values[rows[:, 0]] = qkv[:, 2 * self._width:]
        past = keys[rows]
        query = attention.project(qkv[:, None])[0]
        _, key, value = attention.project(torch.cat([past, past, values[rows]], dim=2))
        return attention.mix(query, key, value, relation).squeeze(1)

    def _put(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(self._tables.device)

    def _grow(self, rows: int) -> None:
        longer = rows - len(self._road)
        self._table = torch.nn.functional.pad(self._table, (0, 0, 0, longer))
        self._road = torch.nn.functional.pad(self._road, (0, longer))
        self._elapsed_min = torch.nn.functional.pad(self._elapsed_min, (0, longer))


def _padded(
    offset: Int64[np.ndarray, " M+1"], history: Int32[np.ndarray, " H"]
) -> tuple[Int64[np.ndarray, "M L"], Int64[np.ndarray, " M"]]:
    """Return the packed rows padded with each node's own row, and how many are real."""
    length = np.diff(offset)
    position = np.arange(length.max())
    real = position < length[:, None]
    place = np.where(real, offset[:-1, None] + position, offset[:-1, None])
    return history[place].astype(np.int64), length
