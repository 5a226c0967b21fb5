"""Many searches advance together: each round all of them go through one model call.

What a search answers does not depend on its company: a strategy keeps every search in its own slot,
and an expander answers each node of a batch on its own.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Int32, Int64

from hoserkd.engine.search.frontier import (
    Tree,
    claim_rows,
    histories,
    pack_candidates,
    rows_of,
)
from hoserkd.engine.search.queries import Answer, Continuation, Expansion, Queries
from hoserkd.engine.types import Candidates

FULL_ROUND = 64
"""So many nodes cost little more than one: a round with fewer takes others that may be needed."""


class Selection(NamedTuple):
    """What a strategy wants done: nodes to expand, and slots whose search is over."""

    slot: Int32[np.ndarray, " M"]
    node: Int32[np.ndarray, " M"]
    finished: Int32[np.ndarray, " F"]

    def __add__(self, other: "Selection") -> "Selection":  # type: ignore[override]
        """Return both selections as one."""
        return Selection(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


class Strategy(Protocol):
    """A way to search: best-first, beam or drawing. Holds all its searches, a slot each."""

    tree: Tree

    @property
    def slots(self) -> int:
        """Searches that fit."""
        ...

    @property
    def rows_needed(self) -> int:
        """The most nodes that one search can have expanded."""
        ...

    def start(self, slot: Int32[np.ndarray, " S"], index: Int64[np.ndarray, " S"]) -> None:
        """Begin the searches of queries `index` in `slot`."""
        ...

    def select(self, slot: Int32[np.ndarray, " S"]) -> Selection:
        """Choose what to expand next in each of `slot`."""
        ...

    def look_ahead(self, selection: Selection, room: int) -> Selection:
        """Name at most `room` nodes that are likely to be selected soon after `selection`."""
        ...

    @property
    def foreseen(self) -> int:
        """Nodes so far that needed no expansion when their turn came: it was made ahead."""
        ...

    def absorb(self, selection: Selection, expansion: Expansion, answer: Continuation) -> None:
        """Take in what the model said."""
        ...

    def answer(self, slot: int) -> Answer:
        """Return the path of a search that is over."""
        ...

    def again(self, query: int) -> bool:
        """Return whether a query whose search did not arrive is to be searched once more."""
        ...


class Expander(Protocol):
    """Continues paths, remembering each expanded node in a memory row until it is released."""

    def claim(self, count: int) -> Int32[np.ndarray, " M"] | None:
        """Return `count` free rows, or None if memory has no room for them."""
        ...

    def release(self, rows: Int32[np.ndarray, " M"]) -> None:
        """Give rows back."""
        ...

    def reserve(self, rows: int) -> None:
        """Make sure that at least `rows` rows fit at once."""
        ...

    def expand(self, expansion: Expansion) -> Continuation:
        """Say what follows each node."""
        ...


class Rounds:
    """Runs the searches of many queries through a strategy and an expander."""

    def __init__(self, strategy: Strategy, expander: Expander, candidates: Candidates,
                 queries: Queries, search_limit_s: float = math.inf) -> None:
        """Make no search start yet; each that takes longer than the limit ends where it stands."""
        self._strategy = strategy
        self._expander = expander
        self._candidates = candidates
        self._queries = queries
        self._running = np.full(strategy.slots, -1, np.int64)
        self._search_limit_s = search_limit_s
        self._began_s = np.zeros(strategy.slots)
        self._crowded = False
        self._selected = 0
        expander.reserve(strategy.rows_needed)

    @property
    def expansions(self) -> int:
        """Nodes of which the searches wanted to know what follows, so far."""
        return self._selected + self._strategy.foreseen

    def run(
        self, waiting: deque[int], halt: Callable[[], bool] = lambda: False
    ) -> Iterator[list[tuple[int, Answer]]]:
        """Yield after each round the (query, answer) pairs of the searches that ended in it.

        Args:
            waiting: Queries yet to be searched; others may take from it meanwhile. Each must have
                a known origin and destination that differ.
            halt: Asked every round; once true, the running searches end where they stand.
        """
        while waiting or (self._running >= 0).any():
            if halt():
                yield self._finish(np.flatnonzero(self._running >= 0).astype(np.int32), None)
                return
            ended = self._finish(self._overdue(), None)
            self._admit(waiting)
            ready = np.flatnonzero(self._running >= 0).astype(np.int32)
            selections: list[Selection] = []
            while len(ready):
                selections.append(self._strategy.select(ready))
                ended += self._finish(selections[-1].finished, waiting)
                ready = self._admit(waiting)
            if selections:
                self._advance(_join(selections), waiting)
            yield ended

    def _admit(self, waiting: deque[int]) -> Int32[np.ndarray, " S"]:
        """Start waiting queries in all idle slots, if memory allows; return those slots."""
        self._crowded = self._crowded and bool((self._running >= 0).any())
        if self._crowded:
            return np.empty(0, np.int32)
        idle = np.flatnonzero(self._running < 0).astype(np.int32)
        index = np.array(_take(waiting, len(idle)), np.int64)
        idle = idle[:len(index)]
        if len(idle):
            self._running[idle] = index
            self._began_s[idle] = time.monotonic()
            self._strategy.start(idle, index)
        return idle

    def _overdue(self) -> Int32[np.ndarray, " F"]:
        """Return the slots whose search has lasted too long."""
        if self._search_limit_s == math.inf:
            return np.empty(0, np.int32)
        lasted_s = time.monotonic() - self._began_s
        late = (self._running >= 0) & (lasted_s > self._search_limit_s)
        return np.flatnonzero(late).astype(np.int32)

    def _finish(
        self, finished: Int32[np.ndarray, " F"], waiting: deque[int] | None
    ) -> list[tuple[int, Answer]]:
        """Free the slots of searches that are over and return those that are answered."""
        ended = []
        for slot in finished.tolist():
            query, answer = int(self._running[slot]), self._strategy.answer(slot)
            self._empty(slot)
            self._crowded = False
            if waiting is not None and answer.reason != "reached" and self._strategy.again(query):
                waiting.append(query)
            else:
                ended.append((query, answer))
        return ended

    def _empty(self, slot: int) -> None:
        self._expander.release(rows_of(self._strategy.tree, slot))
        self._running[slot] = -1

    def _advance(self, selection: Selection, waiting: deque[int]) -> None:
        """Expand the selected nodes and let the strategy take in the result."""
        wanted, rows = selection, None
        if 0 < len(wanted.slot) < FULL_ROUND:
            selection = wanted + self._strategy.look_ahead(wanted, FULL_ROUND - len(wanted.slot))
            rows = self._expander.claim(len(selection.slot))
        if rows is None:
            selection = wanted
            rows = self._expander.claim(len(selection.slot))
        while rows is None:
            selection = wanted = self._put_back_youngest(wanted, waiting)
            rows = self._expander.claim(len(selection.slot))
        if not len(rows):
            return
        claim_rows(self._strategy.tree, selection.slot, selection.node, rows)
        expansion = self._expansion(selection)
        self._selected += len(wanted.slot)
        self._strategy.absorb(selection, expansion, self._expander.expand(expansion))

    def _put_back_youngest(self, selection: Selection, waiting: deque[int]) -> Selection:
        """Drop the search that began last; it starts anew when there is room."""
        slot = int(self._running.argmax())
        waiting.appendleft(int(self._running[slot]))
        self._empty(slot)
        self._crowded = True
        keep = selection.slot != slot
        return Selection(selection.slot[keep], selection.node[keep], selection.finished)

    def _expansion(self, selection: Selection) -> Expansion:
        tree, slot, node = self._strategy.tree, selection.slot, selection.node
        query = self._running[slot]
        road = tree.road[slot, node]
        departure_s = self._queries.departure_s[query]
        history_offset, history = histories(tree, slot, node)
        candidate_offset, candidate_road = pack_candidates(
            self._candidates.offset, self._candidates.road, road)
        return Expansion(road, self._queries.destination[query].astype(np.int32),
                         departure_s + tree.clock_s[slot, node], departure_s,
                         history_offset, history, candidate_offset, candidate_road)


def _take(waiting: deque[int], most: int) -> list[int]:
    """Return up to `most` waiting queries; another thread may take some at the same time."""
    taken: list[int] = []
    try:
        while len(taken) < most:
            taken.append(waiting.popleft())
    except IndexError:
        pass
    return taken


def _join(selections: list[Selection]) -> Selection:
    if len(selections) == 1:
        return selections[0]
    return Selection(*(np.concatenate(part) for part in zip(*selections, strict=True)))
