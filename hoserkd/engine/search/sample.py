"""Paths drawn road by road from the model's probabilities."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int8, Int32, Int64

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
FIRST_CAPACITY = 128
STREAMS_APART = 1 << 40
"""Between the random streams of two attempts at one query."""


class Walks(NamedTuple):
    """What a drawn path keeps beside its nodes."""

    destination: Int32[np.ndarray, " B"]
    stream: Int64[np.ndarray, " B"]
    """Which stream of random numbers the path draws from."""
    last: Int32[np.ndarray, " B"]
    """The node drawn last."""
    nearest: Float64[np.ndarray, " B"]
    nearest_node: Int32[np.ndarray, " B"]
    outcome: Int8[np.ndarray, " B"]


@compiled
def _mix(bits: np.uint64) -> np.uint64:
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@compiled
def uniform(seed: int, stream: int, step: int) -> float:
    """Return a number in [0, 1) that depends on the arguments alone (splitmix64)."""
    bits = _mix(_mix(_mix(np.uint64(seed)) ^ np.uint64(stream)) ^ np.uint64(step))
    return float(bits >> np.uint64(11)) / 9007199254740992.0


@compiled
def draw(
    log_prob: Float32[np.ndarray, " k"], allowed: Bool[np.ndarray, " k"], temperature: float,
    top_p: float, chance: float,
) -> int:
    """Return one of the allowed candidates, -1 if there is none.

    Of the probabilities at that temperature only the largest are kept that together hold `top_p`;
    `chance` in [0, 1) decides among them.
    """
    weight = np.zeros(len(log_prob))
    highest = -np.inf
    for k in range(len(log_prob)):
        if allowed[k]:
            highest = max(highest, log_prob[k])
    if highest == -np.inf:
        return -1
    for k in range(len(log_prob)):
        if allowed[k]:
            weight[k] = np.exp((log_prob[k] - highest) / temperature)
    order = np.argsort(-weight, kind="mergesort")
    enough = top_p * weight.sum()
    kept, mass = 0, 0.0
    while kept < len(order) and (kept == 0 or mass < enough):
        mass += weight[order[kept]]
        kept += 1
    target = chance * mass
    for i in range(kept):
        target -= weight[order[i]]
        if target < 0:
            return int(order[i])
    return int(order[0])


@compiled
def _start_all(
    tree: Tree, state: Walks, slot: Int32[np.ndarray, " S"], stream: Int64[np.ndarray, " S"],
    origin: Int64[np.ndarray, " S"], destination: Int64[np.ndarray, " S"],
    centroid: Float64[np.ndarray, "R 3"],
) -> None:
    for i in range(len(slot)):
        s = slot[i]
        start_tree(tree, s, origin[i])
        state.destination[s] = destination[i]
        state.stream[s] = stream[i]
        state.last[s] = 0
        state.nearest[s] = squared_chord(centroid, origin[i], destination[i])
        state.nearest_node[s] = 0
        state.outcome[s] = RUNNING


@compiled
def _absorb(
    tree: Tree, state: Walks, slot: Int32[np.ndarray, " M"], offset: Int64[np.ndarray, " M+1"],
    road: Int32[np.ndarray, " K"], log_prob: Float32[np.ndarray, " K"],
    travel_time_s: Int32[np.ndarray, " K"], centroid: Float64[np.ndarray, "R 3"], seed: int,
    temperature: float, top_p: float, forbid_loops: bool,
) -> None:
    for i in range(len(slot)):
        s, first, last = slot[i], offset[i], offset[i + 1]
        node = state.last[s]
        allowed = np.ones(last - first, np.bool_)
        if forbid_loops:
            for k in range(first, last):
                allowed[k - first] = not on_path(tree, s, node, road[k])
        chance = uniform(seed, state.stream[s], tree.used[s])
        choice = draw(log_prob[first:last], allowed, temperature, top_p, chance)
        if choice < 0:
            state.outcome[s] = DEAD_END
            continue
        k = first + choice
        state.last[s] = add_node(tree, s, road[k], node, tree.clock_s[s, node] + travel_time_s[k],
                                 tree.log_prob[s, node] + log_prob[k])
        distance = squared_chord(centroid, road[k], state.destination[s])
        if distance < state.nearest[s]:
            state.nearest[s] = distance
            state.nearest_node[s] = state.last[s]


@compiled
def _settle(tree: Tree, state: Walks, slot: Int32[np.ndarray, " S"], max_steps: int) -> None:
    """Mark the outcome of each walk that has ended."""
    for i in range(len(slot)):
        s = slot[i]
        if tree.road[s, state.last[s]] == state.destination[s]:
            state.outcome[s] = REACHED
        elif state.outcome[s] == RUNNING and tree.used[s] > max_steps:
            state.outcome[s] = OUT_OF_STEPS


class Sample:
    """Drawn paths, one a slot."""

    def __init__(self, candidates: Candidates, centroid: Float64[np.ndarray, "R 3"],
                 queries: Queries, *, slots: int, max_steps: int, temperature: float, top_p: float,
                 forbid_loops: bool, seed: int, attempts: int = 1) -> None:
        self.tree = build_tree(slots, FIRST_CAPACITY)
        roads = len(candidates.offset) - 1
        self.rows_needed = min(max_steps, roads) if forbid_loops else max_steps
        self._state = Walks(
            np.zeros(slots, np.int32), np.zeros(slots, np.int64), np.zeros(slots, np.int32),
            np.zeros(slots), np.zeros(slots, np.int32), np.zeros(slots, np.int8))
        self._centroid = centroid
        self._queries = queries
        self._max_steps = max_steps
        self._attempts = attempts
        self._numbers = queries.numbers
        self._attempt = np.zeros(len(queries), np.int64)
        self._settings = (seed, temperature, top_p, forbid_loops)

    @property
    def slots(self) -> int:
        """Searches that fit."""
        return len(self.tree.used)

    def start(self, slot: Int32[np.ndarray, " S"], index: Int64[np.ndarray, " S"]) -> None:
        """Begin the paths of queries `index` in `slot`."""
        stream = self._numbers[index] + self._attempt[index] * STREAMS_APART
        _start_all(self.tree, self._state, slot, stream, self._queries.origin[index],
                   self._queries.destination[index], self._centroid)

    def select(self, slot: Int32[np.ndarray, " S"]) -> Selection:
        """Choose the last road of each path."""
        _settle(self.tree, self._state, slot, self._max_steps)
        going = self._state.outcome[slot] == RUNNING
        return Selection(slot[going], self._state.last[slot[going]], slot[~going])

    @property
    def foreseen(self) -> int:
        """Return 0: nothing is expanded ahead."""
        return 0

    def look_ahead(self, selection: Selection, room: int) -> Selection:
        """Name no node: the next road is not known before it is drawn."""
        nothing = np.empty(0, np.int32)
        return Selection(nothing, nothing, nothing)

    def absorb(self, selection: Selection, expansion: Expansion, answer: Continuation) -> None:
        """Draw the next road of each path."""
        if int(self.tree.used.max()) + 1 > self.tree.capacity:
            self.tree = grow_tree(self.tree, 2 * self.tree.capacity)
        _absorb(self.tree, self._state, selection.slot, expansion.candidate_offset,
                expansion.candidate_road, answer.log_prob, answer.travel_time_s, self._centroid,
                *self._settings)

    def again(self, query: int) -> bool:
        """Return whether the query has attempts left, and count one."""
        self._attempt[query] += 1
        return bool(self._attempt[query] < self._attempts)

    def answer(self, slot: int) -> Answer:
        """Return the path, cut where it came nearest if it did not arrive."""
        last = int(self._state.last[slot])
        # A limit of time may end a walk before `select` saw that its last road is the destination.
        arrived = self.tree.road[slot, last] == self._state.destination[slot]
        # Never the nearest node of an arrival: the opposite direction has the same centroid.
        node = last if arrived else int(self._state.nearest_node[slot])
        road, clock_s = read_path(self.tree, slot, node)
        return Answer(road, clock_s, float(self.tree.log_prob[slot, node]),
                      "reached" if arrived else REASONS[self._state.outcome[slot]])
