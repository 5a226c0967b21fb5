"""Reading untrusted `.safetensors` files in bounded time and memory."""

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER_BYTES = 1 << 20
"""A tensor takes about 100 bytes of the header: a student has 60, a teacher of 128 layers 900. The
library itself would parse 100 MB, which costs half a minute and a gigabyte."""


def check_header(path: Path) -> None:
    """Check the size of the header before any of it is parsed.

    Raises:
        OSError: the file cannot be read.
        SafetensorError: it has no header, or too large a one.
    """
    with path.open("rb") as file:
        # The format begins with the header's length, little-endian in eight bytes.
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise SafetensorError(
            f"its header claims {length:,} bytes, at most {MAX_HEADER_BYTES:,} are read")


def read_weights(path: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Return the tensors on the CPU and the metadata.

    Raises:
        OSError, SafetensorError, ValueError: the file is missing, damaged or too large.
    """
    check_header(path)
    with safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return weights, file.metadata() or {}


def count_weights(path: Path) -> int:
    """Return how many numbers the tensors hold, without reading them.

    Raises:
        OSError, SafetensorError: the file is missing, damaged or too large.
    """
    check_header(path)
    total = 0
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118
            count = 1
            for size in file.get_slice(name).get_shape():
                count *= size
            total += count
    return total
