"""The old form of torch's files, before 1.6: five pickles, then the numbers of each storage.

The pickles hold a magic number, a version, the writer's byte order, the saved object and the keys
of its storages. Nothing of the file is run: see `pickles`.
"""

import pickletools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

VERSION = 1001
START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first pickle: torch's magic number."""
PICKLE = b"\x80"
"""How any pickle begins."""

Unpickle = Callable[[bytes], Any]


def is_legacy(path: Path) -> bool:
    """Return whether a file begins as torch's old form does.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(len(START)) == START


def read_legacy(
    path: Path, unpickle: Unpickle, width_of: Callable[[str], int], most: int
) -> tuple[Any, Mapping[str, tuple[int, int]]]:
    """Return the saved object, and of each storage the place of its numbers and their bytes.

    Args:
        unpickle: Makes an object of one pickle, or refuses it.
        width_of: Bytes of a number in the storage with that key, once the object is unpickled.
        most: Longest pickle in bytes.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, or `unpickle` refused it.
    """
    with path.open("rb") as file:
        file.seek(len(START))
        version, system = (unpickle(_next_pickle(file, most)) for _ in range(2))
        if version != VERSION or not isinstance(system, dict):
            raise ValueError(f"it is of version {version!r:.40}, not {VERSION}")
        if system.get("little_endian") is not True:
            raise ValueError("its numbers are big-endian")
        root = unpickle(_next_pickle(file, most))
        keys = unpickle(_next_pickle(file, most))
        if not isinstance(keys, list):
            raise ValueError("it does not say which storages it holds")
        return root, _places(file, keys, width_of)


def _next_pickle(file: IO[bytes], most: int) -> bytes:
    """Return the bytes of the pickle that begins here, and stand behind it."""
    start = file.tell()
    for _, _, position in pickletools.genops(file):
        if position is not None and position - start > most:
            raise ValueError(f"a pickle is longer than {most:,} bytes")
    length = file.tell() - start
    file.seek(start)
    return file.read(length)


def _places(
    file: IO[bytes], keys: list[Any], width_of: Callable[[str], int]
) -> dict[str, tuple[int, int]]:
    at, end = file.tell(), file.seek(0, 2)
    places: dict[str, tuple[int, int]] = {}
    for key in map(str, keys):
        file.seek(at)
        count = int.from_bytes(file.read(8), "little", signed=True)
        length = count * width_of(key)
        if count < 0 or at + 8 + length > end:
            raise ValueError(f"it ends within storage {key:.40}")
        places[key] = at + 8, length
        at += 8 + length
    return places
