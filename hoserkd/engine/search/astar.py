"""The public search: best-first over roads by cumulative log-probability (ENGINE.md section 6)."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int8, Int32, Int64

from hoserkd.engine.search.compiled import compiled
from hoserkd.engine.search.frontier import (
    Queue,
    Tree,
    add_node,
    build_queue,
    build_tree,
    grow_queue,
    grow_tree,
    pop,
    push,
    read_path,
    squared_chord,
    start_tree,
)
from hoserkd.engine.search.guide import Guide, no_guide, remaining_cost
from hoserkd.engine.search.queries import Answer, Continuation, Expansion, Queries, Reason
from hoserkd.engine.search.rounds import FULL_ROUND, Selection
from hoserkd.engine.types import Candidates

EXPAND, REACHED, EXHAUSTED, OUT_OF_STEPS = 0, 1, 2, 3
VISITED = np.float32(np.inf)
FIRST_CAPACITY = 512
MOST_AHEAD = 15
"""Nodes of one search that a round may expand ahead of need."""


class BestFirst(NamedTuple):
    """What a best-first search keeps beside its nodes and its queue."""

    destination: Int32[np.ndarray, " B"]
    expansions: Int32[np.ndarray, " B"]
    answer: Int32[np.ndarray, " B"]
    """The node that came nearest so far, or the one that arrived."""
    nearest: Float64[np.ndarray, " B"]
    """Squared chord between that node and the destination."""
    outcome: Int8[np.ndarray, " B"]
    turn: Int32[np.ndarray, " B"]
    """The node whose turn it is to be expanded."""
    ahead: Int32[np.ndarray, " B"]
    """Nodes expanded ahead of need."""
    foreseen: Int64[np.ndarray, " 1"]
    """Of those, in all searches, the ones whose turn came."""
    best: Float32[np.ndarray, "B R"]
    """Highest log-probability with which a road was queued; infinite once it was visited."""
    bound: Float32[np.ndarray, "G R"]
    """What the rest of the way may cost from each road; no rows without a guide."""


@compiled
def _start(tree: Tree, queue: Queue, state: BestFirst, slot: int, origin: int,
           destination: int, guide: Guide) -> None:
    start_tree(tree, slot, origin)
    state.destination[slot] = destination
    state.expansions[slot] = 0
    state.ahead[slot] = 0
    state.answer[slot] = 0
    state.nearest[slot] = np.inf
    state.best[slot, :] = -np.inf
    state.best[slot, origin] = 0.0
    if len(state.bound):
        remaining_cost(guide, destination, state.bound[slot])
        if state.bound[slot, origin] == np.inf:
            state.bound[slot, :] = 0
    queue.size[slot] = 0
    push(queue, slot, np.float32(0.0), 0)


@compiled
def _start_all(tree: Tree, queue: Queue, state: BestFirst, slot: Int32[np.ndarray, " S"],
               origin: Int64[np.ndarray, " S"], destination: Int64[np.ndarray, " S"],
               guide: Guide) -> None:
    for i in range(len(slot)):
        _start(tree, queue, state, slot[i], origin[i], destination[i], guide)


@compiled
def _offer(tree: Tree, queue: Queue, state: BestFirst, slot: int, node: int) -> None:
    """Queue a node if it is strictly likelier than its road's entry so far."""
    road, log_prob = tree.road[slot, node], tree.log_prob[slot, node]
    if log_prob > state.best[slot, road]:
        state.best[slot, road] = log_prob
        ahead = state.bound[slot, road] if len(state.bound) else np.float32(0)
        push(queue, slot, ahead - log_prob, node)


@compiled
def _next_node(
    tree: Tree, queue: Queue, state: BestFirst, slot: int, offset: Int64[np.ndarray, " R+1"],
    centroid: Float64[np.ndarray, "R 3"], max_steps: int,
) -> tuple[int, int]:
    """Visit queued roads up to the next one that can be expanded; return (outcome, node)."""
    destination = state.destination[slot]
    while queue.size[slot] > 0:
        if state.expansions[slot] >= max_steps:
            return OUT_OF_STEPS, -1
        node = pop(queue, slot)
        road = tree.road[slot, node]
        if state.best[slot, road] == VISITED:
            continue
        state.best[slot, road] = VISITED
        if road == destination:
            state.answer[slot] = node
            return REACHED, node
        distance = squared_chord(centroid, road, destination)
        if distance < state.nearest[slot]:
            state.nearest[slot] = distance
            state.answer[slot] = node
        if offset[road + 1] == offset[road]:
            continue
        state.expansions[slot] += 1
        first = tree.child[slot, node]
        if first < 0:
            state.turn[slot] = node
            return EXPAND, node
        state.foreseen[0] += 1
        for child in range(first, first + offset[road + 1] - offset[road]):
            _offer(tree, queue, state, slot, child)
    return EXHAUSTED, -1


@compiled
def _select(
    tree: Tree, queue: Queue, state: BestFirst, slot: Int32[np.ndarray, " S"],
    offset: Int64[np.ndarray, " R+1"], centroid: Float64[np.ndarray, "R 3"], max_steps: int,
) -> Int32[np.ndarray, " S"]:
    """Return the node to expand in each slot, -1 where the search is over."""
    chosen = np.empty(len(slot), np.int32)
    for i in range(len(slot)):
        outcome, node = _next_node(tree, queue, state, slot[i], offset, centroid, max_steps)
        state.outcome[slot[i]] = outcome
        chosen[i] = node if outcome == EXPAND else -1
    return chosen


@compiled
def _look_ahead(
    tree: Tree, queue: Queue, state: BestFirst, slot: Int32[np.ndarray, " S"],
    offset: Int64[np.ndarray, " R+1"], each: int, limit: int,
) -> tuple[Int32[np.ndarray, " M"], Int32[np.ndarray, " M"]]:
    """Return (slots, nodes): from the front of each queue what its search may want soon."""
    slots = np.empty(len(slot) * each, np.int32)
    nodes = np.empty(len(slot) * each, np.int32)
    found = 0
    for s in slot:
        chosen = 0
        for place in range(min(queue.size[s], 4 * each)):
            node = queue.node[s, place]
            road = tree.road[s, node]
            stale = state.best[s, road] != tree.log_prob[s, node]
            over = road == state.destination[s] or offset[road + 1] == offset[road]
            if chosen == each or state.ahead[s] == limit:
                break
            if not stale and not over and tree.child[s, node] < 0:
                slots[found], nodes[found] = s, node
                state.ahead[s] += 1
                chosen += 1
                found += 1
    return slots[:found], nodes[:found]


@compiled
def _absorb(
    tree: Tree, queue: Queue, state: BestFirst, slot: Int32[np.ndarray, " M"],
    node: Int32[np.ndarray, " M"], offset: Int64[np.ndarray, " M+1"], road: Int32[np.ndarray, " K"],
    log_prob: Float32[np.ndarray, " K"], travel_time_s: Int32[np.ndarray, " K"],
) -> None:
    """Add the candidates of each node; queue those of the nodes whose turn it is."""
    for i in range(len(slot)):
        s = slot[i]
        now = node[i] == state.turn[s]
        if not now:
            tree.child[s, node[i]] = tree.used[s]
        for k in range(offset[i], offset[i + 1]):
            total = tree.log_prob[s, node[i]] + log_prob[k]
            if not now or total > state.best[s, road[k]]:
                clock_s = tree.clock_s[s, node[i]] + travel_time_s[k]
                child = add_node(tree, s, road[k], node[i], clock_s, total)
                if now:
                    _offer(tree, queue, state, s, child)


class AStar:
    """Best-first searches, one a slot."""

    def __init__(self, candidates: Candidates, centroid: Float64[np.ndarray, "R 3"],
                 queries: Queries, *, slots: int, max_steps: int,
                 guide: Guide | None = None) -> None:
        roads = len(candidates.offset) - 1
        self.tree = build_tree(slots, FIRST_CAPACITY)
        self._most_ahead = min(max_steps, roads)
        self.rows_needed = 2 * self._most_ahead
        self._queue = build_queue(slots, FIRST_CAPACITY)
        self._state = BestFirst(
            np.zeros(slots, np.int32), np.zeros(slots, np.int32), np.zeros(slots, np.int32),
            np.zeros(slots), np.zeros(slots, np.int8), np.zeros(slots, np.int32),
            np.zeros(slots, np.int32), np.zeros(1, np.int64), np.empty((slots, roads), np.float32),
            np.empty((slots if guide else 0, roads), np.float32))
        self._guide = guide or no_guide()
        self._candidates = candidates
        self._centroid = centroid
        self._queries = queries
        self._max_steps = max_steps

    @property
    def slots(self) -> int:
        """Searches that fit."""
        return len(self.tree.used)

    def start(self, slot: Int32[np.ndarray, " S"], index: Int64[np.ndarray, " S"]) -> None:
        """Begin the searches of queries `index` in `slot`."""
        _start_all(self.tree, self._queue, self._state, slot, self._queries.origin[index],
                   self._queries.destination[index], self._guide)

    def select(self, slot: Int32[np.ndarray, " S"]) -> Selection:
        """Choose the likeliest road not yet visited in each of `slot`."""
        node = _select(self.tree, self._queue, self._state, slot, self._candidates.offset,
                       self._centroid, self._max_steps)
        going = node >= 0
        return Selection(slot[going], node[going], slot[~going])

    @property
    def foreseen(self) -> int:
        """Nodes whose expansion had been made when their turn came."""
        return int(self._state.foreseen[0])

    def look_ahead(self, selection: Selection, room: int) -> Selection:
        """Name nodes at the front of the queues of the selected slots."""
        each = min(MOST_AHEAD, room // len(selection.slot))
        slot, node = _look_ahead(self.tree, self._queue, self._state, selection.slot,
                                 self._candidates.offset, each, self._most_ahead)
        return Selection(slot, node, np.empty(0, np.int32))

    def absorb(self, selection: Selection, expansion: Expansion, answer: Continuation) -> None:
        """Queue the candidates of the roads whose turn it is, and keep those of the others."""
        most = int(np.diff(expansion.candidate_offset).max())
        self._make_room(most if len(selection.slot) > FULL_ROUND else most * (1 + MOST_AHEAD))
        _absorb(self.tree, self._queue, self._state, selection.slot, selection.node,
                expansion.candidate_offset, expansion.candidate_road, answer.log_prob,
                answer.travel_time_s)

    def again(self, query: int) -> bool:
        """Return False: another search would end the same."""
        return False

    def answer(self, slot: int) -> Answer:
        """Return the path that arrived, or the one whose end came nearest."""
        node = int(self._state.answer[slot])
        road, clock_s = read_path(self.tree, slot, node)
        return Answer(road, clock_s, float(self.tree.log_prob[slot, node]), self._reason(slot))

    def _reason(self, slot: int) -> Reason:
        outcome = self._state.outcome[slot]
        if outcome == EXHAUSTED:
            return "dead end" if self.tree.used[slot] == 1 else "unreachable"
        if outcome == EXPAND:
            return "time limit"
        return "reached" if outcome == REACHED else "max steps"

    def _make_room(self, most: int) -> None:
        """Double the slots' room where the next candidates might not fit."""
        if int(self.tree.used.max()) + most > self.tree.capacity:
            capacity = 2 * self.tree.capacity + most
            self.tree = grow_tree(self.tree, capacity)
            self._queue = grow_queue(self._queue, capacity)
