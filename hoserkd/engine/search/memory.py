"""Numbers of memory rows: one a node that has been expanded and may still be a path's part."""

import numpy as np
from jaxtyping import Int32


class RowPool:
    """Hands out row numbers, the last given back or the lowest that were never used."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.made = 0
        """Rows that were ever handed out: all are below this."""
        self._free = np.empty(0, np.int32)
        self._spare = 0

    def claim(self, count: int) -> Int32[np.ndarray, " M"] | None:
        """Return `count` free rows, or None if that would make more than `limit`."""
        fresh = max(0, count - self._spare)
        if self.made + fresh > self.limit:
            return None
        reused = self._free[self._spare - (count - fresh):self._spare]
        rows = np.concatenate([reused, np.arange(self.made, self.made + fresh, dtype=np.int32)])
        self._spare -= count - fresh
        self.made += fresh
        return rows

    def release(self, rows: Int32[np.ndarray, " M"]) -> None:
        """Take rows back."""
        end = self._spare + len(rows)
        if end > len(self._free):
            self._free = np.concatenate([self._free[:self._spare],
                                         np.empty(2 * end - self._spare, np.int32)])
        self._free[self._spare:end] = rows
        self._spare = end
