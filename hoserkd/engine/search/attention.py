"""Attention of a new node over its ancestors, whose keys and values lie in memory rows.

The compiled form of `student.relative_attention` for one query a path: it reads the rows where
they lie, and answers each node alone, so that no answer depends on the rest of a batch.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from hoserkd.engine.search.compiled import compiled_fast
from hoserkd.engine.student.relative_attention import RelativeAttention

FAR_M = 1000.0
LONG_MIN = 5.0


class Relative(NamedTuple):
    """The weights of the two relative terms, a head's width each (ENGINE.md 5.3)."""

    key_distance: Float32[np.ndarray, "h"]
    key_interval: Float32[np.ndarray, "h"]
    value_distance: Float32[np.ndarray, "h"]
    value_interval: Float32[np.ndarray, "h"]
    value_bias: Float32[np.ndarray, "h"]


def relative_weights(attention: RelativeAttention) -> Relative:
    """Return the weights of a block's relative terms."""
    key = attention.relative_position_emb_k.weight.detach().numpy()
    value = attention.relative_position_emb_v
    weight = value.weight.detach().numpy()
    columns = (key[:, 0], key[:, 1], weight[:, 0], weight[:, 1], value.bias.detach().numpy())
    return Relative(*(np.ascontiguousarray(column) for column in columns))


@compiled_fast
def relations(
    offset: Int64[np.ndarray, "M+1"], history: Int32[np.ndarray, "H"],
    row_road: Int32[np.ndarray, "N"], row_elapsed_min: Float32[np.ndarray, "N"],
    point_m: Float64[np.ndarray, "R 3"],
) -> tuple[Float32[np.ndarray, "H"], Float32[np.ndarray, "H"]]:
    """Return the relative distance and interval between each node and those of its history."""
    distance = np.empty(len(history), np.float32)
    interval = np.empty(len(history), np.float32)
    for i in range(len(offset) - 1):
        own = history[offset[i]]
        here, now = row_road[own], row_elapsed_min[own]
        for j in range(offset[i], offset[i + 1]):
            there = row_road[history[j]]
            x = point_m[here, 0] - point_m[there, 0]
            y = point_m[here, 1] - point_m[there, 1]
            z = point_m[here, 2] - point_m[there, 2]
            metres = math.sqrt(x * x + y * y + z * z)
            minutes = abs(now - row_elapsed_min[history[j]])
            distance[j] = min(metres, FAR_M) / FAR_M
            interval[j] = min(minutes, np.float32(LONG_MIN)) / np.float32(LONG_MIN)
    return distance, interval


@compiled_fast
def attend(
    qkv: Float32[np.ndarray, "M 3c"], keys: Float32[np.ndarray, "N c"],
    values: Float32[np.ndarray, "N c"], offset: Int64[np.ndarray, "M+1"],
    history: Int32[np.ndarray, "H"], distance: Float32[np.ndarray, "H"],
    interval: Float32[np.ndarray, "H"], relative: Relative, heads: int,
    out: Float32[np.ndarray, "M c"],
) -> None:
    """Write each node's keys and values to its row, and what it gathers into `out`."""
    width = keys.shape[1]
    part = width // heads
    for i in range(len(offset) - 1):
        own = history[offset[i]]
        keys[own] = qkv[i, width:2 * width]
        values[own] = qkv[i, 2 * width:3 * width]
        rows = history[offset[i]:offset[i + 1]]
        for head in range(heads):
            low, high = head * part, (head + 1) * part
            score = _scores(qkv[i, low:high], keys, low, rows, distance[offset[i]:],
                            interval[offset[i]:], relative)
            _gather(score, values, low, rows, distance[offset[i]:], interval[offset[i]:], relative,
                    out[i, low:high])


@compiled_fast
def _scores(
    query: Float32[np.ndarray, "h"], keys: Float32[np.ndarray, "N c"], low: int,
    rows: Int32[np.ndarray, "T"], distance: Float32[np.ndarray, "T"],
    interval: Float32[np.ndarray, "T"], relative: Relative,
) -> Float32[np.ndarray, "T"]:
    """Return the share of attention that each row of the history gets."""
    scale = np.float32(1 / math.sqrt(len(query)))
    by_distance = np.float32(0)
    by_interval = np.float32(0)
    for c in range(len(query)):
        by_distance += query[c] * relative.key_distance[c]
        by_interval += query[c] * relative.key_interval[c]
    score = np.empty(len(rows), np.float32)
    highest = np.float32(-np.inf)
    for j in range(len(rows)):
        total = by_distance * distance[j] + by_interval * interval[j]
        row = rows[j]
        for c in range(len(query)):
            total += query[c] * keys[row, low + c]
        score[j] = total * scale
        highest = max(highest, score[j])
    mass = np.float32(0)
    for j in range(len(rows)):
        score[j] = math.exp(score[j] - highest)
        mass += score[j]
    for j in range(len(rows)):
        score[j] /= mass
    return score


@compiled_fast
def _gather(
    share: Float32[np.ndarray, "T"], values: Float32[np.ndarray, "N c"], low: int,
    rows: Int32[np.ndarray, "T"], distance: Float32[np.ndarray, "T"],
    interval: Float32[np.ndarray, "T"], relative: Relative, out: Float32[np.ndarray, "h"],
) -> None:
    """Write the weighted values and relative terms of one head into `out`."""
    near = np.float32(0)
    recent = np.float32(0)
    for c in range(len(out)):
        out[c] = relative.value_bias[c]
    for j in range(len(rows)):
        near += share[j] * distance[j]
        recent += share[j] * interval[j]
        row = rows[j]
        for c in range(len(out)):
            out[c] += share[j] * values[row, low + c]
    for c in range(len(out)):
        out[c] += near * relative.value_distance[c] + recent * relative.value_interval[c]
