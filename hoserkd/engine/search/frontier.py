"""The nodes and queues of all running searches, in flat arrays.

A slot is a place for one running search. A node is a road entered at a time along one path; its
parent is the node before it. Nothing here knows the model: see `incremental`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from hoserkd.engine.search.compiled import compiled


class Tree(NamedTuple):
    """Nodes of all slots: one row a slot, one column a node; node 0 is the origin."""

    used: Int32[np.ndarray, " B"]
    """Nodes in each slot."""
    road: Int32[np.ndarray, "B C"]
    parent: Int32[np.ndarray, "B C"]
    """-1 for node 0."""
    clock_s: Int64[np.ndarray, "B C"]
    """Seconds since the departure at which the road is entered."""
    log_prob: Float32[np.ndarray, "B C"]
    row: Int32[np.ndarray, "B C"]
    """Memory row of the node's keys and values; -1 before it is expanded."""
    child: Int32[np.ndarray, "B C"]
    """First of a node's children, one a candidate, if they were made ahead of need; else -1."""

    @property
    def capacity(self) -> int:
        """Nodes for which a slot has room."""
        return int(self.road.shape[1])


def build_tree(slots: int, capacity: int) -> Tree:
    """Return empty slots. Memory is touched only as nodes are added."""
    shape = (slots, capacity)
    return Tree(np.zeros(slots, np.int32), np.empty(shape, np.int32), np.empty(shape, np.int32),
                np.empty(shape, np.int64), np.empty(shape, np.float32), np.empty(shape, np.int32),
                np.empty(shape, np.int32))


def grow(table: np.ndarray, capacity: int) -> np.ndarray:
    """Return a copy of a (B, C) table with room for `capacity` columns."""
    grown = np.empty((table.shape[0], capacity), table.dtype)
    grown[:, :table.shape[1]] = table
    return grown


def grow_tree(tree: Tree, capacity: int) -> Tree:
    """Return the same nodes with room for `capacity` of them in each slot."""
    return Tree(tree.used, *(grow(table, capacity) for table in tree[1:]))


@compiled
def add_node(tree: Tree, slot: int, road: int, parent: int, clock_s: int,
             log_prob: np.float32) -> int:
    """Append a node to `slot` and return its number."""
    node = int(tree.used[slot])
    tree.road[slot, node] = road
    tree.parent[slot, node] = parent
    tree.clock_s[slot, node] = clock_s
    tree.log_prob[slot, node] = log_prob
    tree.row[slot, node] = -1
    tree.child[slot, node] = -1
    tree.used[slot] = node + 1
    return node


@compiled
def start_tree(tree: Tree, slot: int, origin: int) -> None:
    """Make `slot` hold the origin alone."""
    tree.used[slot] = 0
    add_node(tree, slot, origin, -1, 0, np.float32(0.0))


@compiled
def path_length(tree: Tree, slot: int, node: int) -> int:
    """Return the number of roads from the origin to `node`, both counted."""
    length = 0
    while node >= 0:
        length += 1
        node = tree.parent[slot, node]
    return length


@compiled
def on_path(tree: Tree, slot: int, node: int, road: int) -> bool:
    """Return whether the path to `node` enters `road`."""
    while node >= 0:
        if tree.road[slot, node] == road:
            return True
        node = tree.parent[slot, node]
    return False


@compiled
def read_path(
    tree: Tree, slot: int, node: int
) -> tuple[Int32[np.ndarray, " P"], Int64[np.ndarray, " P"]]:
    """Return the roads and clocks of the path to `node`, origin first."""
    length = path_length(tree, slot, node)
    road = np.empty(length, np.int32)
    clock_s = np.empty(length, np.int64)
    while node >= 0:
        length -= 1
        road[length] = tree.road[slot, node]
        clock_s[length] = tree.clock_s[slot, node]
        node = tree.parent[slot, node]
    return road, clock_s


@compiled
def claim_rows(tree: Tree, slot: Int32[np.ndarray, " M"], node: Int32[np.ndarray, " M"],
               rows: Int32[np.ndarray, " F"]) -> None:
    """Give each node the memory row at its place in `rows`."""
    for i in range(len(slot)):
        tree.row[slot[i], node[i]] = rows[i]


@compiled
def rows_of(tree: Tree, slot: int) -> Int32[np.ndarray, " H"]:
    """Return the memory rows that the nodes of `slot` hold."""
    rows = np.empty(tree.used[slot], np.int32)
    found = 0
    for node in range(tree.used[slot]):
        if tree.row[slot, node] >= 0:
            rows[found] = tree.row[slot, node]
            found += 1
    return rows[:found]


@compiled
def histories(
    tree: Tree, slot: Int32[np.ndarray, " M"], node: Int32[np.ndarray, " M"]
) -> tuple[Int64[np.ndarray, " M+1"], Int32[np.ndarray, " H"]]:
    """Return the memory rows of each node and its ancestors, nearest first, packed."""
    offset = np.zeros(len(slot) + 1, np.int64)
    for i in range(len(slot)):
        offset[i + 1] = offset[i] + path_length(tree, slot[i], node[i])
    rows = np.empty(offset[-1], np.int32)
    for i in range(len(slot)):
        position, current = offset[i], node[i]
        while current >= 0:
            rows[position] = tree.row[slot[i], current]
            position += 1
            current = tree.parent[slot[i], current]
    return offset, rows


@compiled
def pack_candidates(
    offset: Int64[np.ndarray, " R+1"], candidate: Int32[np.ndarray, " E"],
    road: Int32[np.ndarray, " M"],
) -> tuple[Int64[np.ndarray, " M+1"], Int32[np.ndarray, " K"]]:
    """Return the candidates of each road, packed."""
    packed = np.zeros(len(road) + 1, np.int64)
    for i in range(len(road)):
        packed[i + 1] = packed[i] + offset[road[i] + 1] - offset[road[i]]
    roads = np.empty(packed[-1], np.int32)
    for i in range(len(road)):
        roads[packed[i]:packed[i + 1]] = candidate[offset[road[i]]:offset[road[i] + 1]]
    return packed, roads


class Queue(NamedTuple):
    """A binary heap a slot: the node with the smallest key first."""

    size: Int32[np.ndarray, " B"]
    key: Float32[np.ndarray, "B C"]
    node: Int32[np.ndarray, "B C"]


def build_queue(slots: int, capacity: int) -> Queue:
    """Return empty queues."""
    shape = (slots, capacity)
    return Queue(np.zeros(slots, np.int32), np.empty(shape, np.float32), np.empty(shape, np.int32))


def grow_queue(queue: Queue, capacity: int) -> Queue:
    """Return the same queues with room for `capacity` nodes each."""
    return Queue(queue.size, grow(queue.key, capacity), grow(queue.node, capacity))


@compiled
def _sift_towards_root(queue: Queue, slot: int, start: int, position: int) -> None:
    """Move the item at `position` up, at most to `start`, while its key is strictly smaller."""
    key, node = queue.key[slot, position], queue.node[slot, position]
    while position > start:
        above = (position - 1) >> 1
        if not key < queue.key[slot, above]:
            break
        queue.key[slot, position] = queue.key[slot, above]
        queue.node[slot, position] = queue.node[slot, above]
        position = above
    queue.key[slot, position] = key
    queue.node[slot, position] = node


@compiled
def push(queue: Queue, slot: int, key: np.float32, node: int) -> None:
    """Add `node` to the queue of `slot`."""
    end = queue.size[slot]
    queue.key[slot, end] = key
    queue.node[slot, end] = node
    queue.size[slot] = end + 1
    _sift_towards_root(queue, slot, 0, end)


@compiled
def pop(queue: Queue, slot: int) -> int:
    """Remove the node with the smallest key from the queue of `slot` and return it.

    Of equal keys the one comes first that Python's `heapq` would give, on which the public search
    is built: the order is that of the same swaps.
    """
    size = queue.size[slot] - 1
    queue.size[slot] = size
    key, node = queue.key[slot, size], queue.node[slot, size]
    if size == 0:
        return int(node)
    best = queue.node[slot, 0]
    position, child = 0, 1
    while child < size:
        right = child + 1
        if right < size and not queue.key[slot, child] < queue.key[slot, right]:
            child = right
        queue.key[slot, position] = queue.key[slot, child]
        queue.node[slot, position] = queue.node[slot, child]
        position = child
        child = 2 * position + 1
    queue.key[slot, position] = key
    queue.node[slot, position] = node
    _sift_towards_root(queue, slot, 0, position)
    return int(best)


@compiled
def reachable(offset: Int64[np.ndarray, " R+1"], candidate: Int32[np.ndarray, " E"], origin: int,
              destination: int) -> bool:
    """Return whether a path of candidates leads from `origin` to `destination`."""
    seen = np.zeros(len(offset) - 1, np.bool_)
    waiting = np.empty(len(offset) - 1, np.int32)
    waiting[0] = origin
    seen[origin] = True
    first, last = 0, 1
    while first < last:
        road = waiting[first]
        first += 1
        if road == destination:
            return True
        for k in range(offset[road], offset[road + 1]):
            if not seen[candidate[k]]:
                seen[candidate[k]] = True
                waiting[last] = candidate[k]
                last += 1
    return False


@compiled
def squared_chord(points: Float64[np.ndarray, "R 3"], a: int, b: int) -> float:
    """Return the squared chord between two points on the unit sphere; grows with the distance."""
    x = points[a, 0] - points[b, 0]
    y = points[a, 1] - points[b, 1]
    z = points[a, 2] - points[b, 2]
    return float(x * x + y * y + z * z)
