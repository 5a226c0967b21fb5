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
LOWEST = np.float32(-3e38)
"""Below any score; fast arithmetic does not know infinity."""


class Relative(NamedTuple):
    """The weights of the two relative terms, a head's width each (ENGINE.md 5.3)."""

    key_distance: Float32[np.ndarray, " h"]
    key_interval: Float32[np.ndarray, " h"]
    value_distance: Float32[np.ndarray, " h"]
    value_interval: Float32[np.ndarray, " h"]
    value_bias: Float32[np.ndarray, " h"]


def relative_weights(attention: RelativeAttention) -> Relative:
    """Return the weights of a block's relative terms."""
    key = attention.relative_position_emb_k.weight.detach().numpy()
    value = attention.relative_position_emb_v
    weight = value.weight.detach().numpy()
    columns = (key[:, 0], key[:, 1], weight[:, 0], weight[:, 1], value.bias.detach().numpy())
    return Relative(*(np.ascontiguousarray(column) for column in columns))


@compiled_fast
def relations(
    offset: Int64[np.ndarray, " M+1"], history: Int32[np.ndarray, " H"],
    row_road: Int32[np.ndarray, " N"], row_elapsed_min: Float32[np.ndarray, " N"],
    point_m: Float64[np.ndarray, "R 3"],
) -> tuple[Float32[np.ndarray, " H"], Float32[np.ndarray, " H"]]:
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


class Past(NamedTuple):
    """The histories of M nodes, packed: memory rows and how the node lies to each."""

    offset: Int64[np.ndarray, " M+1"]
    row: Int32[np.ndarray, " L"]
    """The node's own row first."""
    distance: Float32[np.ndarray, " L"]
    interval: Float32[np.ndarray, " L"]


@compiled_fast
def attend(
    qkv: Float32[np.ndarray, "P 3 H h"], keys: Float32[np.ndarray, "N H h"],
    values: Float32[np.ndarray, "N H h"], past: Past, relative: Relative,
    out: Float32[np.ndarray, "P H h"],
) -> None:
    """Write each node's keys and values to its row, and what it gathers into `out`.

    The loops index whole arrays: slices would hide from the compiler that they are contiguous.
    """
    longest = 0
    for i in range(len(past.offset) - 1):
        longest = max(longest, past.offset[i + 1] - past.offset[i])
    share = np.empty(longest, np.float32)
    for i in range(len(past.offset) - 1):
        own = past.row[past.offset[i]]
        for head in range(keys.shape[1]):
            for c in range(keys.shape[2]):
                keys[own, head, c] = qkv[i, 1, head, c]
                values[own, head, c] = qkv[i, 2, head, c]
            _share(qkv, keys, past, relative, i, head, share)
            _mix(values, past, relative, i, head, share, out)


@compiled_fast
def _share(
    qkv: Float32[np.ndarray, "P 3 H h"], keys: Float32[np.ndarray, "N H h"], past: Past,
    relative: Relative, i: int, head: int, share: Float32[np.ndarray, " T"],
) -> None:
    """Write how a head of node `i` shares its attention among the node's history."""
    part = keys.shape[2]
    first, count = past.offset[i], past.offset[i + 1] - past.offset[i]
    by_distance = np.float32(0)
    by_interval = np.float32(0)
    for c in range(part):
        by_distance += qkv[i, 0, head, c] * relative.key_distance[c]
        by_interval += qkv[i, 0, head, c] * relative.key_interval[c]
    scale = np.float32(1 / math.sqrt(part))
    highest = LOWEST
    for j in range(count):
        row = past.row[first + j]
        total = np.float32(0)
        for c in range(part):
            total += qkv[i, 0, head, c] * keys[row, head, c]
        total += by_distance * past.distance[first + j] + by_interval * past.interval[first + j]
        share[j] = total * scale
        highest = max(highest, share[j])
    mass = np.float32(0)
    for j in range(count):
        share[j] = math.exp(share[j] - highest)
        mass += share[j]
    for j in range(count):
        share[j] /= mass


@compiled_fast
def _mix(
    values: Float32[np.ndarray, "N H h"], past: Past, relative: Relative, i: int, head: int,
    share: Float32[np.ndarray, " T"], out: Float32[np.ndarray, "P H h"],
) -> None:
    """Write the shared values and relative terms of a head of node `i`."""
    part = values.shape[2]
    first, count = past.offset[i], past.offset[i + 1] - past.offset[i]
    near = np.float32(0)
    recent = np.float32(0)
    for j in range(count):
        near += share[j] * past.distance[first + j]
        recent += share[j] * past.interval[first + j]
    for c in range(part):
        out[i, head, c] = (relative.value_bias[c] + near * relative.value_distance[c]
                           + recent * relative.value_interval[c])
    for j in range(count):
        row, weight = past.row[first + j], share[j]
        for c in range(part):
            out[i, head, c] += weight * values[row, head, c]
