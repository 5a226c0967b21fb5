"""Matrix products whose rows do not depend on how many there are.

BLAS chooses its loops by the shape of a product, and with them the order of the sums. A search must
be answered to the bit the same in any batch, so every weight is tried out once.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float32
from torch import Tensor

ROW_MULTIPLE = 16
"""Batches are padded to a multiple of so many rows: BLAS treats fewer, or a rest, differently."""
TRIED_ROWS = (16, 32, 64, 96, 128, 176, 192, 256, 384, 512, 1024)


class Product:
    """A linear map: `x @ weight.T + bias`."""

    def __init__(self, weight: Float32[Tensor, "n k"], bias: Float32[Tensor, " n"] | None) -> None:
        weight = weight.detach()
        # Laid out anew, products of few rows gain a fifth; but their sums may be cut differently.
        layouts = (weight.t().contiguous(), weight.t())
        with one_thread():
            steady = [layout for layout in layouts if is_steady(layout)]
        self._weight = (steady or layouts)[0]
        self._whole = bool(steady)
        self._bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()

    def __call__(self, x: Float32[Tensor, "P k"]) -> Float32[Tensor, "P n"]:
        """Return the map of each row; `P` must be a multiple of `ROW_MULTIPLE`."""
        if self._whole:
            return torch.addmm(self._bias, x, self._weight)
        return torch.cat([torch.addmm(self._bias, x[first:first + ROW_MULTIPLE], self._weight)
                          for first in range(0, len(x), ROW_MULTIPLE)])


@contextmanager
def one_thread() -> Iterator[None]:
    """Let this thread multiply alone: a product shared by several is cut by their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def is_steady(weight: Float32[Tensor, "k n"]) -> bool:
    """Return whether products with `weight` are, row by row, the same for any number of rows."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(TRIED_ROWS[-1], len(weight), generator=draw)
    bias = torch.zeros(weight.shape[1])
    whole = torch.addmm(bias, x, weight)
    return all(torch.equal(torch.addmm(bias, x[:rows], weight), whole[:rows])
               for rows in TRIED_ROWS[:-1])
