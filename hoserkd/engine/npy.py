"""Writing `.npy` files so that no error of the disk is lost.

`np.save` writes large arrays past Python's buffers and forgets what the last flush came to: on a
full disk it can leave a short file and raise nothing.
"""

import os
from pathlib import Path
from tokenize import TokenError
from typing import IO, Self
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Shaped

NPY_HEADER_BYTES = 128
NOT_AN_ARRAY = (
    OSError, ValueError, EOFError, SyntaxError, TypeError, KeyError, OverflowError, MemoryError,
    RecursionError, TokenError, BadZipFile,
)
"""What numpy raises at a file that is no array: it parses the header as Python's literals."""


def write_npy(file: IO[bytes], values: Shaped[np.ndarray, "..."]) -> None:
    """Write an array to an open file."""
    # ascontiguousarray makes a scalar a row.
    contiguous = np.ascontiguousarray(values).reshape(values.shape)
    header = np.lib.format.header_data_from_array_1_0(contiguous)
    np.lib.format.write_array_header_1_0(file, header)
    file.write(contiguous.tobytes())


def save_npy(path: Path, values: Shaped[np.ndarray, "..."]) -> None:
    """Write an array to a file, down to the disk; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_npy(file, values)
        file.flush()
        os.fsync(file.fileno())


class ArrayWriter:
    """Writes one `.npy` file piece by piece; the length becomes known at the end."""

    def __init__(self, path: Path, dtype: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._dtype = np.dtype(dtype)
        self._file = path.open("wb")
        self._file.write(bytes(NPY_HEADER_BYTES))
        self.length = 0

    def append(self, values: Shaped[np.ndarray, " n"]) -> None:
        """Append values, converted to the file's type."""
        self._file.write(np.ascontiguousarray(values, self._dtype).data)
        self.length += len(values)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Write the header and flush the file to the disk."""
        with self._file:
            said = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.length,)}
            magic = b"\x93NUMPY\x01\x00" + (NPY_HEADER_BYTES - 10).to_bytes(2, "little")
            text = repr(said).encode().ljust(NPY_HEADER_BYTES - 11) + b"\n"
            self._file.seek(0)
            self._file.write(magic + text)
            self._file.flush()
            os.fsync(self._file.fileno())
