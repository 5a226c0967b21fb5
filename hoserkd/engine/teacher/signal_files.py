"""A teacher's signal on disk, beside the city that it was computed for.

    CITY/signals/<teacher>-<city>-<context>-<dtype>/<split>/
        meta.json       whole hashes of teacher and city, context, counts, how good the teacher is
        logits.npy      raw candidate logits, row by row
        row_offset.npy  (M+1) first logit of each row
        step_row.npy    (S) row of each step's longest context; absent for full contexts
        row_depth.npy, row_shorter.npy  (M) only where every shorter window is served too

The folder's name holds hashes of all that decides its content, so a stale signal is never found.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Int, Shaped, UInt8

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import Window
from hoserkd.engine.files import read_json_object
from hoserkd.errors import TeacherError

DTYPES = ("float16", "float32")
MAX_WINDOW = 8
META = "meta.json"
NPY_HEADER_BYTES = 128
AskedWindow = Window | Literal["every"]
"""A window, `full`, or `every`: each window from 1 to 8 at once."""


class Hashed(Protocol):
    """A teacher or its card."""

    @property
    def sha256(self) -> str: ...


@dataclass(frozen=True, slots=True)
class SignalFiles:
    """The arrays of one split, memory mapped."""

    directory: Path
    meta: dict[str, Any]
    logits: Shaped[np.ndarray, " K"]
    row_offset: Int[np.ndarray, " M+1"]
    step_row: Int[np.ndarray, " S"] | None
    row_depth: UInt8[np.ndarray, " M"] | None
    row_shorter: Int[np.ndarray, " M"] | None


def context_name(window: AskedWindow) -> str:
    """Return the word for a context in folder names: `window-4`, `windows-1-8` or `full`."""
    if window == "every":
        return f"windows-1-{MAX_WINDOW}"
    return "full" if window == "full" else f"window-{window}"


def signal_directory(city: City, teacher: Hashed, window: AskedWindow, dtype: str = "float16"
                     ) -> Path:
    """Return the folder where `precompute` puts this teacher's signal for this city."""
    key = f"{teacher.sha256[:16]}-{city.sha256[:16]}-{context_name(window)}-{dtype}"
    return city.directory / "signals" / key


def find_signal(city: City, teacher: Hashed, split: str, window: Window, dtype: str = "float16"
                ) -> SignalFiles | None:
    """Return a stored signal that serves a window, or None.

    One made for `every` window serves any; the wanted number type comes first.
    """
    for directory in _candidates(city, teacher, window, dtype):
        if (directory / split / META).is_file():
            return open_signal(directory / split, city, teacher)
    return None


def _candidates(city: City, teacher: Hashed, window: Window, dtype: str) -> Iterator[Path]:
    for kind in sorted(DTYPES, key=lambda name: name != dtype):
        yield signal_directory(city, teacher, window, kind)
        if window != "full":
            yield signal_directory(city, teacher, "every", kind)


def open_signal(directory: Path, city: City, teacher: Hashed) -> SignalFiles:
    """Map the arrays of a stored split.

    Raises:
        TeacherError: They are damaged, or belong to another teacher or city.
    """
    try:
        meta = read_json_object(directory / META)
        arrays = {name: _load(directory / f"{name}.npy")
                  for name in ("logits", "row_offset", "step_row", "row_depth", "row_shorter")}
        if meta["teacher_sha256"] != teacher.sha256 or meta["city_sha256"] != city.sha256:
            raise ValueError("made for another teacher or city")
        logits, row_offset = arrays.pop("logits"), arrays.pop("row_offset")
        if logits is None or row_offset is None or len(logits) != max(int(row_offset[-1]), 1):
            raise ValueError("arrays are missing or cut short")
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise TeacherError(f"{directory}: damaged signal: {error}",
                           hint="delete the folder and run `hoserkd precompute` again") from error
    return SignalFiles(directory, meta, logits, row_offset, **arrays)


def _load(path: Path) -> np.ndarray[Any, Any] | None:
    if not path.exists():
        return None
    empty = path.stat().st_size <= NPY_HEADER_BYTES  # which cannot be mapped
    array: np.ndarray[Any, Any] = np.load(path, mmap_mode=None if empty else "r",
                                          allow_pickle=False)
    return array
