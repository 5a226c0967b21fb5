"""Beam search: the W likeliest paths of each length go on, none of them in a loop."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int8, Int32, Int64

from hoserkd.engine.search.compiled import compiled
from hoserkd.engine.search.frontier import (
    Tree,
    add_node,
    build_tree,
    grow_tree,
    on_path,
    read_path,
    squared_chord,
    start_tree,
)
from hoserkd.engine.search.queries import Answer, Continuation, Expansion, Queries, Reason
from hoserkd.engine.search.rounds import Selection
from hoserkd.engine.types import Candidates

RUNNING, REACHED, DEAD_END, OUT_OF_STEPS = 0, 1, 2, 3
REASONS: tuple[Reason, ...] = ("time limit", "reached", "dead end", "max steps")
FIRST_CAPACITY = 256


class Beams(NamedTuple):
    """What a beam search keeps beside its nodes."""

    destination: Int32[np.ndarray, " B"]
    steps: Int32[np.ndarray, " B"]
    live: Int32[np.ndarray, "B W"]
    """Nodes that go on, likeliest first."""
    live_count: Int32[np.ndarray, " B"]
    live_score: Float32[np.ndarray, " B"]
    """Score of the likeliest of them."""
    arrived: Int32[np.ndarray, " B"]
    """Best node on the destination; -1 before there is one."""
    arrived_score: Float32[np.ndarray, " B"]
    arrivals: Int32[np.ndarray, " B"]
    nearest: Float64[np.ndarray, " B"]
    """Smallest squared chord to the destination so far."""
    nearest_node: Int32[np.ndarray, " B"]
    outcome: Int8[np.ndarray, " B"]


def _build_beams(slots: int, width: int) -> Beams:
    return Beams(
        destination=np.zeros(slots, np.int32), steps=np.zeros(slots, np.int32),
        live=np.zeros((slots, width), np.int32), live_count=np.zeros(slots, np.int32),
        live_score=np.zeros(slots, np.float32), arrived=np.zeros(slots, np.int32),
        arrived_score=np.zeros(slots, np.float32), arrivals=np.zeros(slots, np.int32),
        nearest=np.zeros(slots), nearest_node=np.zeros(slots, np.int32),
        outcome=np.zeros(slots, np.int8))


@compiled
def _start_all(
    tree: Tree, state: Beams, slot: Int32[np.ndarray, " S"], origin: Int64[np.ndarray, " S"],
    destination: Int64[np.ndarray, " S"], centroid: Float64[np.ndarray, "R 3"],
) -> None:
    for i in range(len(slot)):
        s = slot[i]
        start_tree(tree, s, origin[i])
        state.destination[s] = destination[i]
        state.steps[s] = 0
        state.live[s, 0] = 0
        state.live_count[s] = 1
        state.live_score[s] = 0.0
        state.arrived[s] = -1
        state.arrived_score[s] = -np.inf
        state.arrivals[s] = 0
        state.nearest[s] = squared_chord(centroid, origin[i], destination[i])
        state.nearest_node[s] = 0
        state.outcome[s] = RUNNING


@compiled
def _outcome(state: Beams, s: int, max_steps: int, normalised: bool) -> int:
    """Return why the search of slot `s` is over, or RUNNING.

    A path's log-probability only falls as it grows, so an arrival that beats all live paths stays
    the best; a mean over its steps may rise, so with those as many arrivals as beams are awaited.
    """
    arrived = state.arrived[s] >= 0
    beaten = (state.arrivals[s] >= state.live.shape[1] if normalised
              else state.arrived_score[s] >= state.live_score[s])
    if arrived and (beaten or state.live_count[s] == 0 or state.steps[s] >= max_steps):
        return REACHED
    if state.live_count[s] == 0:
        return DEAD_END
    return OUT_OF_STEPS if state.steps[s] >= max_steps else RUNNING


@compiled
def _select(
    state: Beams, slot: Int32[np.ndarray, " S"], max_steps: int, normalised: bool
) -> tuple[Int32[np.ndarray, " M"], Int32[np.ndarray, " M"]]:
    """Return (slot, node) of all live nodes of searches that go on; mark the others' outcome."""
    slots = np.empty(len(slot) * state.live.shape[1], np.int32)
    nodes = np.empty(len(slot) * state.live.shape[1], np.int32)
    found = 0
    for i in range(len(slot)):
        s = slot[i]
        state.outcome[s] = _outcome(state, s, max_steps, normalised)
        if state.outcome[s] != RUNNING:
            continue
        state.steps[s] += 1
        for j in range(state.live_count[s]):
            slots[found] = s
            nodes[found] = state.live[s, j]
            found += 1
    return slots[:found], nodes[:found]


class Pool(NamedTuple):
    """The best continuations of one search so far, best first."""

    score: Float32[np.ndarray, " W"]
    parent: Int32[np.ndarray, " W"]
    candidate: Int64[np.ndarray, " W"]
    """Index among the packed candidates."""


@compiled
def _offer(pool: Pool, found: int, score: np.float32, parent: int, candidate: int) -> int:
    """Put a continuation in its place among the `found` best; of equal ones the first leads."""
    place = found
    while place > 0 and score > pool.score[place - 1]:
        place -= 1
    if place == len(pool.score):
        return found
    last = min(found, len(pool.score) - 1)
    for j in range(last, place, -1):
        pool.score[j] = pool.score[j - 1]
        pool.parent[j] = pool.parent[j - 1]
        pool.candidate[j] = pool.candidate[j - 1]
    pool.score[place] = score
    pool.parent[place] = parent
    pool.candidate[place] = candidate
    return last + 1


@compiled
def _extend(
    tree: Tree, state: Beams, s: int, pool: Pool, found: int, road: Int32[np.ndarray, " K"],
    log_prob: Float32[np.ndarray, " K"], travel_time_s: Int32[np.ndarray, " K"],
    centroid: Float64[np.ndarray, "R 3"],
) -> None:
    """Make nodes of the best continuations; those that arrive go on no more."""
    destination = state.destination[s]
    live = 0
    for j in range(found):
        parent, k = pool.parent[j], pool.candidate[j]
        node = add_node(tree, s, road[k], parent, tree.clock_s[s, parent] + travel_time_s[k],
                        tree.log_prob[s, parent] + log_prob[k])
        if road[k] == destination:
            state.arrivals[s] += 1
            if pool.score[j] > state.arrived_score[s]:
                state.arrived_score[s] = pool.score[j]
                state.arrived[s] = node
            continue
        distance = squared_chord(centroid, road[k], destination)
        if distance < state.nearest[s]:
            state.nearest[s] = distance
            state.nearest_node[s] = node
        if live == 0:
            state.live_score[s] = pool.score[j]
        state.live[s, live] = node
        live += 1
    state.live_count[s] = live


@compiled
def _absorb(
    tree: Tree, state: Beams, slot: Int32[np.ndarray, " M"], node: Int32[np.ndarray, " M"],
    offset: Int64[np.ndarray, " M+1"], road: Int32[np.ndarray, " K"],
    log_prob: Float32[np.ndarray, " K"], travel_time_s: Int32[np.ndarray, " K"],
    centroid: Float64[np.ndarray, "R 3"], normalised: bool,
) -> None:
    width = state.live.shape[1]
    pool = Pool(np.empty(width, np.float32), np.empty(width, np.int32), np.empty(width, np.int64))
    i = 0
    while i < len(slot):
        s, found = slot[i], 0
        while i < len(slot) and slot[i] == s:
            for k in range(offset[i], offset[i + 1]):
                if not on_path(tree, s, node[i], road[k]):
                    score = tree.log_prob[s, node[i]] + log_prob[k]
                    if normalised:
                        score /= np.float32(state.steps[s])
                    found = _offer(pool, found, score, node[i], k)
            i += 1
        _extend(tree, state, s, pool, found, road, log_prob, travel_time_s, centroid)


class Beam:
    """Beam searches, one a slot. With a width of 1 this is the greedy path."""

    def __init__(self, candidates: Candidates, centroid: Float64[np.ndarray, "R 3"],
                 queries: Queries, *, slots: int, max_steps: int, width: int,
                 normalised: bool = False) -> None:
        self.tree = build_tree(slots, FIRST_CAPACITY)
        self.rows_needed = width * min(max_steps, len(candidates.offset) - 1)
        self._state = _build_beams(slots, width)
        self._centroid = centroid
        self._queries = queries
        self._max_steps = max_steps
        self._normalised = normalised

    @property
    def slots(self) -> int:
        """Searches that fit."""
        return len(self.tree.used)

    def start(self, slot: Int32[np.ndarray, " S"], index: Int64[np.ndarray, " S"]) -> None:
        """Begin the searches of queries `index` in `slot`."""
        _start_all(self.tree, self._state, slot, self._queries.origin[index],
                   self._queries.destination[index], self._centroid)

    def select(self, slot: Int32[np.ndarray, " S"]) -> Selection:
        """Choose all live paths of each of `slot`."""
        slots, nodes = _select(self._state, slot, self._max_steps, self._normalised)
        return Selection(slots, nodes, slot[self._state.outcome[slot] != RUNNING])

    @property
    def foreseen(self) -> int:
        """Return 0: nothing is expanded ahead."""
        return 0

    def look_ahead(self, selection: Selection, room: int) -> Selection:
        """Name no node: a beam names all its nodes at once."""
        nothing = np.empty(0, np.int32)
        return Selection(nothing, nothing, nothing)

    def absorb(self, selection: Selection, expansion: Expansion, answer: Continuation) -> None:
        """Keep the best continuations of each search."""
        width = self._state.live.shape[1]
        if int(self.tree.used.max()) + width > self.tree.capacity:
            self.tree = grow_tree(self.tree, 2 * self.tree.capacity + width)
        _absorb(self.tree, self._state, selection.slot, selection.node,
                expansion.candidate_offset, expansion.candidate_road, answer.log_prob,
                answer.travel_time_s, self._centroid, self._normalised)

    def again(self, query: int) -> bool:
        """Return False: another search would end the same."""
        return False

    def answer(self, slot: int) -> Answer:
        """Return the best path that arrived, or the one whose end came nearest."""
        reason = REASONS[self._state.outcome[slot]]
        arrived = int(self._state.arrived[slot])
        node = arrived if arrived >= 0 else int(self._state.nearest_node[slot])
        road, clock_s = read_path(self.tree, slot, node)
        return Answer(road, clock_s, float(self.tree.log_prob[slot, node]),
                      "reached" if arrived >= 0 else reason)
