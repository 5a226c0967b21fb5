"""JSON from files that anybody may have written: bounded in size, depth and numbers.

Every JSON file is read here and nowhere else, so that a file which one command accepts is a file
that every other command can read.
"""

import errno
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
# Possessive throughout: one pass and no stack, whatever the text. A string that never ends takes
# the rest of the text with it, else each of its quotes would be tried again.
_NO_BRACKET = re.compile(rf'[^\[\]{{}}"]++|{_STRING}', re.DOTALL)
_ODD_NUMBER = re.compile(r"[0-9]{19}|[0-9][eE]\+?[0-9]{3}")
"""What every whole number over 64 bits and every fraction over a double contains."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """How much one JSON text may hold."""

    size: int = 16 << 20
    """Bytes. Of what hoserkd writes, only the manifest of a bundle of 20,000 files comes near."""
    values: int = 2_000_000
    """Counted by commas and brackets: an empty list takes 3 bytes in a file and 64 in memory."""
    depth: int = 64
    """Levels of lists and objects. Hoserkd's own files have 8 at most; code that walks a document
    by recursion, here or in a library, ends at a few hundred."""


LIMITS = JsonLimits()


def parse_json(text: str | bytes, limits: JsonLimits = LIMITS, *, non_finite: bool = False) -> Any:
    """Return what a JSON text from outside holds.

    Args:
        text: Bytes are UTF-8.
        limits: Of size and depth.
        non_finite: Accept `NaN` and `Infinity`, which are no JSON but which Python writes.

    Raises:
        ValueError: It is no JSON, exceeds the limits, gives a key of an object twice, holds a
            number beyond 64 bits or a string that is no Unicode.
    """
    if len(text) > limits.size:
        raise ValueError(f"it is longer than {limits.size:,} bytes")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"byte {error.start} is not UTF-8") from None
    if sum(map(text.count, ",[{")) > limits.values:
        raise ValueError(f"it holds more than {limits.values:,} values")
    if _depth(text, limits.depth) > limits.depth:
        raise ValueError(f"it nests deeper than {limits.depth} levels")
    # Callbacks for numbers cost time in large files, so they are used only where one looks odd.
    odd = _ODD_NUMBER.search(text) is not None
    value = json.loads(
        text, object_pairs_hook=_object, parse_constant=None if non_finite else _refuse_constant,
        parse_int=_int if odd else None, parse_float=_float if odd else None)
    if _SURROGATE.search(text) is not None:
        _check_unicode(value)
    return value


def read_json(path: Path, limits: JsonLimits = LIMITS, *, non_finite: bool = False) -> Any:
    """Return what a JSON file holds; see `parse_json`.

    Raises:
        OSError: it cannot be read, or is no plain file.
        ValueError: see `parse_json`.
    """
    with open_plain(path) as file:
        return parse_json(file.read(limits.size + 1), limits, non_finite=non_finite)


def read_json_object(
    path: Path, limits: JsonLimits = LIMITS, *, non_finite: bool = False
) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else, or see `read_json`.
    """
    value = read_json(path, limits, non_finite=non_finite)
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {type(value).__name__}")
    return value


def open_plain(path: Path) -> IO[bytes]:
    """Open a file to read; never waits, as one would for the writer of a named pipe.

    Raises:
        OSError: it cannot be opened, or is no plain file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def finite(value: Any) -> Any:
    """Return `value` with null in the place of numbers that JSON cannot hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def _depth(text: str, enough: int) -> int:
    """Return how deeply a text nests; of few brackets only how deeply it might."""
    most = text.count("[") + text.count("{")
    if most <= enough:
        return most
    return max(accumulate(map(_STEP.__getitem__, _NO_BRACKET.sub("", text))), default=0)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Readers differ in which one they take, so a file could mean two things.
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"it gives the key {twice[:40]!r} twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"it holds {name}, which is no JSON number")


def _int(text: str) -> int:
    if len(text) <= 20 and -(2**63) <= (value := int(text)) < 2**64:
        return value
    raise ValueError(f"it holds the number {text[:12]}... of {len(text)} digits: over 64 bits")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"it holds the number {text[:24]}, beyond the range of a double")
    return value


def _check_unicode(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair, which is no Unicode") from None
