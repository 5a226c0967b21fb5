"""Walks over adjacency edges by loops, for the CPU, where index tensors cost several passes."""

import numpy as np

from hoserkd.engine.compiled import compiled


@compiled
def mark_senders(offset, source, roads, seen):  # type: ignore[no-untyped-def]
    """Mark every road that sends to one of `roads`."""
    for road in roads:
        for edge in range(offset[road], offset[road + 1]):
            seen[source[edge]] = True


@compiled
def edges_into(offset, source, attr, roads, row):  # type: ignore[no-untyped-def]
    """Return (offset, target, source, attr) of the edges into `roads`, sources as `row` has them.

    Targets are positions in `roads`.
    """
    out_offset = np.zeros(len(roads) + 1, np.int64)
    for place in range(len(roads)):
        count = offset[roads[place] + 1] - offset[roads[place]]
        out_offset[place + 1] = out_offset[place] + count
    total = out_offset[-1]
    out_target, out_source = np.empty(total, np.int64), np.empty(total, np.int64)
    out_attr = np.empty((total, 2), attr.dtype)
    edge = 0
    for place in range(len(roads)):
        for number in range(offset[roads[place]], offset[roads[place] + 1]):
            out_target[edge] = place
            out_source[edge] = row[source[number]]
            out_attr[edge, 0], out_attr[edge, 1] = attr[number, 0], attr[number, 1]
            edge += 1
    return out_offset, out_target, out_source, out_attr


@compiled
def edges_by_source(source, rows):  # type: ignore[no-untyped-def]
    """Return (offset, edge): the edges that leave each source row, in order."""
    offset = np.zeros(rows + 1, np.int64)
    for row in source:
        offset[row + 1] += 1
    for row in range(rows):
        offset[row + 1] += offset[row]
    place = offset[:-1].copy()
    edge = np.empty(len(source), np.int64)
    for number in range(len(source)):
        row = source[number]
        edge[place[row]] = number
        place[row] += 1
    return offset, edge
