"""What a split asks a teacher, cut into pieces that can be answered one by one.

A row is a thing asked about once: a distinct (context, road) pair for windows, a step for full
contexts.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from hoserkd.engine.config import Window
from hoserkd.engine.teacher.full_context import batches_of_spans, full_hidden
from hoserkd.engine.teacher.prefix_trie import (
    build_trie,
    ragged_index,
    subtree_sizes,
    walk_trie,
)
from hoserkd.engine.teacher.storage import Teacher

CONTEXTS_PER_PIECE = 1 << 15
"""About so many contexts are asked between two marks of progress."""
Keep = Callable[[Int[Tensor, " m"], Float[Tensor, "m C"]], None]
"""Takes rows and the hidden state that answers each."""


class Questions(Protocol):
    """All rows of a split, and how to ask about a piece of them."""

    @property
    def row_road(self) -> Int[Tensor, " M"]:
        """The road whose candidates each row asks about."""

    @property
    def sizes(self) -> Int64[np.ndarray, " P"]:
        """Contexts of each piece."""

    def arrays(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """Return what leads from a step to its row."""

    def ask(self, piece: int, teacher: Teacher, batch_size: int, keep: Keep) -> None:
        """Put a piece to the teacher."""


class WindowQuestions:
    """The distinct windows of a split, as a trie; a piece is a run of subtrees of its root."""

    def __init__(self, token: Int[Tensor, " S"], road: Int[Tensor, " S"],
                 step_offset: Int64[np.ndarray, " N+1"], window: int, *, every_window: bool
                 ) -> None:
        """Build the trie; see `build_trie`."""
        offset = torch.as_tensor(step_offset, device=token.device)
        self.trie, self._contexts = build_trie(token, road, offset, window,
                                               every_window=every_window)
        below = subtree_sizes(self.trie).cpu().numpy()
        self._cuts = _cut(below)
        self._sizes = np.add.reduceat(below, self._cuts[:-1]) if len(below) else below

    @property
    def row_road(self) -> Int[Tensor, " M"]:
        """The road whose candidates each row asks about."""
        return self._contexts.road

    @property
    def sizes(self) -> Int64[np.ndarray, " P"]:
        """Nodes of each piece."""
        return self._sizes

    def arrays(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """Return the row of each step and, for every window, of each shorter context."""
        found = {"step_row": _array(self._contexts.step_row, np.int32)}
        if self._contexts.shorter is not None:
            found["row_depth"] = _array(self._contexts.depth, np.uint8)
            found["row_shorter"] = _array(self._contexts.shorter, np.int32)
        return found

    def ask(self, piece: int, teacher: Teacher, batch_size: int, keep: Keep) -> None:
        """Walk a piece's subtrees."""

        def visit(depth: int, first: int, end: int, hidden: Tensor) -> None:
            row = self.trie.levels[depth - 1].row[first:end + 1]
            index, owner = ragged_index(row[:-1], row.diff())
            keep(index, hidden[owner])

        walk_trie(teacher.model, self.trie, teacher.sot_id, visit, batch_size=batch_size,
                  first=int(self._cuts[piece]), end=int(self._cuts[piece + 1]))


class FullQuestions:
    """Every step with its whole history; a piece is a batch of trips of like length."""

    def __init__(self, token: Int[Tensor, " S"], road: Int[Tensor, " S"],
                 step_offset: Int64[np.ndarray, " N+1"],
                 block_size: int, batch_tokens: int) -> None:
        """Cut the trips into batches of at most `batch_tokens` tokens."""
        self._token, self._road = token, road
        self._batches = list(batches_of_spans(step_offset, block_size, batch_tokens))

    @property
    def row_road(self) -> Int[Tensor, " S"]:
        """The road of each step."""
        return self._road

    @property
    def sizes(self) -> Int64[np.ndarray, " P"]:
        """Tokens of each piece."""
        return np.array([sum(s.length for s in batch) for batch in self._batches], dtype=np.int64)

    def arrays(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """Return nothing: a row is a step."""
        return {}

    def ask(self, piece: int, teacher: Teacher, batch_size: int, keep: Keep) -> None:
        """Put a piece's trips through the teacher."""
        keep(*full_hidden(teacher.model, self._token, teacher.sot_id, self._batches[piece]))


def plain_tokens(step_offset: Int64[np.ndarray, " N+1"], window: Window) -> int:
    """Return how many tokens asking about each step by itself would evaluate, SOT counted."""
    length = np.diff(step_offset)
    if window == "full":
        return int((length * (length + 3) // 2).sum())
    short = np.minimum(length, window)
    return int((length * (window + 1)).sum() - (short * (2 * window - short - 1) // 2).sum())


def _cut(below: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " P+1"]:
    """Cut level 1 where the subtrees so far make a piece."""
    piece = (np.cumsum(below) - 1) // CONTEXTS_PER_PIECE
    starts = np.flatnonzero(np.diff(piece, prepend=-1))
    return np.append(starts, len(below))


def _array(tensor: Tensor, dtype: Any) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = tensor.cpu().numpy().astype(dtype)
    return array
