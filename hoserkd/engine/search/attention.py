"""Attention of a new node over its ancestors, whose keys and values lie in memory rows.

The compiled form of `student.relative_attention` for one query a path: it reads the rows where
they lie, and answers each node alone, so that no answer depends on the rest of a batch. Sums
whose order the compiler may choose stand in loops that write nothing: of a loop that
writes, it may keep two versions and choose by where the arrays happen to lie.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from hoserkd.engine.search.compiled import compiled, compiled_fast
from hoserkd.engine.student.relative_attention import RelativeAttention

FAR_M = 1000.0
LONG_MIN = 5.0
LOWEST = np.float32(-3e38)
"""Below any score; fast arithmetic does not know infinity."""
EXP_POLYNOMIAL = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2,
                  1.6666665459e-1, 5.0000001201e-1)
HALVES = np.float32(2) ** -np.arange(128, dtype=np.float32)


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


@compiled
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


@compiled
def attend(
    qkv: Float32[np.ndarray, "P 3 H h"], memory: Float32[np.ndarray, "N 2 H h"],
    past: Past, relative: Relative, out: Float32[np.ndarray, "P H h"],
) -> None:
    """Write each node's keys and values to its row, and what it gathers into `out`.

    A row holds all keys before all values and is read from end to end, which memory likes. The
    loops index whole arrays: slices would hide from the compiler that they are contiguous.
    """
    longest = 0
    for i in range(len(past.offset) - 1):
        longest = max(longest, past.offset[i + 1] - past.offset[i])
    share = np.empty((memory.shape[2], longest), np.float32)
    for i in range(len(past.offset) - 1):
        own = past.row[past.offset[i]]
        for head in range(memory.shape[2]):
            for c in range(memory.shape[3]):
                memory[own, 0, head, c] = qkv[i, 1, head, c]
                memory[own, 1, head, c] = qkv[i, 2, head, c]
        _score(qkv, memory, past, relative, i, share)
        _weigh(past, relative, i, share, out)
        for j in range(past.offset[i + 1] - past.offset[i]):
            row = past.row[past.offset[i] + j]
            for head in range(memory.shape[2]):
                weight = share[head, j]
                for c in range(memory.shape[3]):
                    out[i, head, c] += weight * memory[row, 1, head, c]


@compiled_fast
def _score(
    qkv: Float32[np.ndarray, "P 3 H h"], memory: Float32[np.ndarray, "N 2 H h"], past: Past,
    relative: Relative, i: int, share: Float32[np.ndarray, "H T"],
) -> None:
    """Write what each head of node `i` makes of each node of its history."""
    heads, part = memory.shape[2], memory.shape[3]
    first, count = past.offset[i], past.offset[i + 1] - past.offset[i]
    scale = np.float32(1 / math.sqrt(part))
    for head in range(heads):
        by_distance = np.float32(0)
        by_interval = np.float32(0)
        for c in range(part):
            by_distance += qkv[i, 0, head, c] * relative.key_distance[c]
            by_interval += qkv[i, 0, head, c] * relative.key_interval[c]
        for j in range(count):
            share[head, j] = (by_distance * past.distance[first + j]
                              + by_interval * past.interval[first + j])
    for j in range(count):
        row = past.row[first + j]
        for head in range(heads):
            total = np.float32(0)
            for c in range(part):
                total += qkv[i, 0, head, c] * memory[row, 0, head, c]
            share[head, j] = (share[head, j] + total) * scale


@compiled
def _weigh(
    past: Past, relative: Relative, i: int, share: Float32[np.ndarray, "H T"],
    out: Float32[np.ndarray, "P H h"],
) -> None:
    """Turn the scores of node `i` into shares of 1, and begin `out` with the relative terms."""
    first, count = past.offset[i], past.offset[i + 1] - past.offset[i]
    for head in range(share.shape[0]):
        highest = LOWEST
        for j in range(count):
            highest = max(highest, share[head, j])
        mass = np.float32(0)
        for j in range(count):
            share[head, j] = exp_of_negative(share[head, j] - highest)
            mass += share[head, j]
        near = np.float32(0)
        recent = np.float32(0)
        for j in range(count):
            share[head, j] /= mass
            near += share[head, j] * past.distance[first + j]
            recent += share[head, j] * past.interval[first + j]
        for c in range(out.shape[2]):
            out[i, head, c] = (relative.value_bias[c] + near * relative.value_distance[c]
                               + recent * relative.value_interval[c])


@compiled
def exp_of_negative(x: np.float32) -> np.float32:
    """Return e^x of x <= 0 within 3e-7 of itself, in steps that a compiler can do side by side.

    The power is split into one of two, from a table, and a rest in [-ln 2 / 2, ln 2 / 2], whose
    polynomial is that of the Cephes library.
    """
    x = max(x, np.float32(-87))
    twos: np.float32 = np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
    rest: np.float32 = x - twos * np.float32(0.693359375) + twos * np.float32(2.12194440e-4)
    y = np.float32(EXP_POLYNOMIAL[0])
    y = y * rest + np.float32(EXP_POLYNOMIAL[1])
    y = y * rest + np.float32(EXP_POLYNOMIAL[2])
    y = y * rest + np.float32(EXP_POLYNOMIAL[3])
    y = y * rest + np.float32(EXP_POLYNOMIAL[4])
    y = y * rest + np.float32(EXP_POLYNOMIAL[5])
    y = y * rest * rest + rest + np.float32(1)
    return y * np.float32(HALVES[-int(twos)])
