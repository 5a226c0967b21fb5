"""Every distinct context of a split, asked once: the trie of windows, and how to walk it.

The context of step i is [SOT, t_{i-w+1} .. t_i]; at a trip's start it is shorter. Contexts that
share a prefix share the hidden states, keys and values of that prefix, position by position, so
each distinct prefix costs one token (ENGINE.md section 5.6).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hoserkd.engine.teacher.lmtad import LMTAD, Ancestors, LevelCache

Visit = Callable[[int, int, int, Tensor], None]
"""Called with (depth, first node, end node, hidden states) for each run of nodes of a level."""


@dataclass(frozen=True, slots=True)
class Level:
    """The distinct prefixes of d tokens after SOT, ordered by their parent, then their token."""

    token: Int[Tensor, " n"]
    parent: Int[Tensor, " n"]
    """Node of the level above; 0, SOT, on the first."""
    child: Int[Tensor, " n+1"]
    """First child of each node in the level below; its children are the run up to the next's."""
    row: Int[Tensor, " n+1"]
    """First row (see `Contexts`) of each node."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """The distinct (context, road) pairs that a split's steps ask about, ordered by node."""

    road: Int[Tensor, " M"]
    depth: Int[Tensor, " M"]
    """Tokens of the context, SOT not counted."""
    shorter: Int[Tensor, " M"] | None
    """Row of the same steps' context without its oldest token, -1 at depth 1; None: the trie
    serves one window alone."""
    step_row: Int[Tensor, " S"]
    """Row of each step's longest context."""


@dataclass(frozen=True, slots=True)
class PrefixTrie:
    """Levels 1 to the window; SOT, the root, is not stored."""

    levels: tuple[Level, ...]

    @property
    def nodes(self) -> int:
        """Distinct prefixes, the root not counted."""
        return sum(len(level.token) for level in self.levels)


@dataclass(frozen=True, slots=True)
class _Starts:
    """Steps at which windows begin, and where the walk of each has got to."""

    step: Int[Tensor, " A"]
    node: Int[Tensor, " A"]


def build_trie(token: Int[Tensor, " S"], road: Int[Tensor, " S"], step_offset: Int[Tensor, " N+1"],
               window: int, *, every_window: bool = False) -> tuple[PrefixTrie, Contexts]:
    """Return the trie of all contexts of all steps, and the rows to ask about.

    Args:
        token: Grid token of each step's road, trip by trip.
        road: The step's road; it decides the candidates.
        step_offset: First step of each trip.
        window: Tokens after SOT.
        every_window: Hold the contexts of each window from 1 to `window`, not of `window` alone
            (a few per cent more nodes: the short windows at the trips' ends).
    """
    length = step_offset.diff()
    position = torch.arange(len(token), device=token.device) - torch.repeat_interleave(
        step_offset[:-1], length, output_size=len(token))
    remaining = torch.repeat_interleave(length, length, output_size=len(token)) - position
    rows = _Rows(road, len(token))
    base = int(token.max()) + 1 if len(token) else 1
    begins = torch.ones_like(token, dtype=torch.bool)
    if not every_window:
        begins = (remaining >= window) | (position == 0)
    step = begins.nonzero().squeeze(1)
    starts = _Starts(step, torch.zeros_like(step))
    levels: list[tuple[Tensor, Tensor, Tensor]] = []
    for depth in range(1, window + 1):
        alive = remaining[starts.step] >= depth
        step, node = starts.step[alive], starts.node[alive]
        last = step + depth - 1
        known, node = torch.unique(node * base + token[last], return_inverse=True)
        starts = _Starts(step, node)
        # A context shorter than the window is a whole one only where its trip has no more.
        asked = torch.ones_like(alive[alive])
        if not every_window and depth < window:
            asked = position[step] == 0
        row_offset = rows.add(depth, last[asked], node[asked], len(known))
        levels.append((known % base, known // base, row_offset))
    trie = PrefixTrie(tuple(
        Level(tokens, parents, _run_starts(levels[d + 1][1] if d + 1 < window else parents[:0],
                                           len(tokens)), offset)
        for d, (tokens, parents, offset) in enumerate(levels)))
    return trie, rows.contexts(every_window)


class _Rows:
    """Collects (context, road) rows level by level."""

    def __init__(self, road: Tensor, steps: int) -> None:
        self._road = road
        self._roads = int(road.max()) + 1 if steps else 1
        self._count = 0
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self._step_row = torch.full((steps,), -1, dtype=torch.int64, device=road.device)

    def add(self, depth: int, step: Tensor, node: Tensor, nodes: int) -> Tensor:
        """Add the rows of `step`, which stand at `node`; return each node's first row."""
        known, row = torch.unique(node * self._roads + self._road[step], return_inverse=True)
        row += self._count
        shorter = torch.full_like(known, -1)
        shorter[row - self._count] = self._step_row[step]
        self._step_row[step] = row
        self._parts.append((known % self._roads, torch.full_like(known, depth), shorter))
        offset = _run_starts(known // self._roads, nodes) + self._count
        self._count += len(known)
        return offset

    def contexts(self, every_window: bool) -> Contexts:
        """Return all rows."""
        road, depth, shorter = (torch.cat(part) for part in zip(*self._parts, strict=True))
        return Contexts(road, depth, shorter if every_window else None, self._step_row)


def _run_starts(owner: Int[Tensor, " n"], owners: int) -> Int[Tensor, " m+1"]:
    """Return where each owner's run begins in a sorted list of owners."""
    edges = torch.arange(owners + 1, device=owner.device)
    return torch.searchsorted(owner, edges)


def subtree_sizes(trie: PrefixTrie) -> Int[Tensor, " n"]:
    """Return the nodes under each node of the first level, itself counted."""
    below = torch.zeros(0, dtype=torch.int64, device=trie.levels[0].token.device)
    for level in reversed(trie.levels):
        total = torch.cat([below.new_zeros(1), below.cumsum(0)])
        below = 1 + total[level.child[1:]] - total[level.child[:-1]]
    return below


@dataclass(frozen=True, slots=True)
class _Past:
    """A run of evaluated nodes of one level, with what stands before them."""

    first: int
    cache: LevelCache
    ancestors: tuple[Ancestors, ...]
    """Positions 0 to the level's, the run itself not included."""


@torch.no_grad()
def walk_trie(model: LMTAD, trie: PrefixTrie, sot_id: int, visit: Visit, *, batch_size: int,
              first: int = 0, end: int | None = None) -> None:
    """Evaluate every node once, level by level inside runs of at most `batch_size` nodes.

    Runs are followed depth first, so keys and values of at most one run a level are held.

    Args:
        model: In evaluation mode.
        trie: What to walk.
        sot_id: Token of the root.
        visit: Is given the hidden states of each run.
        batch_size: Largest run.
        first: First node of level 1 whose subtree is walked.
        end: One after the last; None: to the end.
    """
    device = trie.levels[0].token.device
    _, root = model.extend(torch.tensor([sot_id], device=device), [])
    last = len(trie.levels[0].token) if end is None else end
    _walk(model, trie, visit, batch_size, 0, (first, last), _Past(0, root, ()))


def _walk(model: LMTAD, trie: PrefixTrie, visit: Visit, batch_size: int, above: int,
          span: tuple[int, int], past: _Past) -> None:
    """Evaluate the nodes `span` of level `above + 1`, all of whose parents are in `past`."""
    level = trie.levels[above]
    for first in range(span[0], span[1], batch_size):
        end = min(first + batch_size, span[1])
        parent = level.parent[first:end] - past.first
        ancestors = (*(Ancestors(a.cache, a.index[parent]) for a in past.ancestors),
                     Ancestors(past.cache, parent))
        hidden, cache = model.extend(level.token[first:end], ancestors)
        visit(above + 1, first, end, hidden)
        if above + 1 < len(trie.levels):
            children = (int(level.child[first]), int(level.child[end]))
            _walk(model, trie, visit, batch_size, above + 1, children,
                  _Past(first, cache, ancestors))


def ragged_index(first: Int[Tensor, " Q"], length: Int[Tensor, " Q"], total: int | None = None
                 ) -> tuple[Int[Tensor, " K"], Int[Tensor, " K"]]:
    """Return, for runs [first, first + length), every element's index and its run's number.

    Args:
        first: Where each run begins.
        length: How long it is.
        total: Sum of the lengths; None: found out, which waits for the device.
    """
    runs = torch.arange(len(length), device=length.device)
    owner = torch.repeat_interleave(runs, length, output_size=total)
    before = length.cumsum(0) - length
    inside = torch.arange(len(owner), device=length.device) - before[owner]
    return first[owner] + inside, owner


def candidate_logits(model: LMTAD, hidden: Float[Tensor, "n C"], owner: Int[Tensor, " k"],
                     cell: Int[Tensor, " k"], chunk: int = 1 << 15) -> Float[Tensor, " k"]:
    """Return the logits of candidate cells: `cell[j]` asked of `hidden[owner[j]]`.

    Goes by chunks, since each candidate gathers two rows of the model's width.
    """
    parts = [model.logits(hidden[owner[i:i + chunk]], cell[i:i + chunk])
             for i in range(0, len(owner), chunk)]
    return torch.cat(parts) if parts else hidden.new_zeros(0)
