"""Run stores that this user has besides the one in use, so that an empty one can name them."""

import contextlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hoserkd.engine.files import parse_json, write_json
from hoserkd.store.recorder import RUN_FILE

REMEMBERED = "stores.json"
"""File in the home folder: the stores elsewhere that runs were begun in, the newest first."""
MOST_REMEMBERED = 20
RUNS = "runs"


@dataclass(frozen=True, slots=True)
class OtherStore:
    """A run store that holds runs."""

    directory: Path
    runs: int

    @property
    def data_dir(self) -> Path | None:
        """Return the data folder beside it, as in a home folder or a demo; None: there is none."""
        beside = self.directory.parent
        return beside if (beside / "cities").is_dir() else None

    @property
    def count(self) -> str:
        """Return the number of its runs in words."""
        return f"{self.runs} run{'' if self.runs == 1 else 's'}"

    @property
    def options(self) -> str:
        """Return the options that name it on a command line."""
        words = ["--store", str(self.directory)]
        if self.data_dir is not None:
            words += ["--data-dir", str(self.data_dir)]
        return shlex.join(words)


def other_stores(home: Path, current: Path) -> tuple[OtherStore, ...]:
    """Return the user's stores with runs but the one in use: those under home, then remembered."""
    found: dict[Path, OtherStore] = {}
    for directory in (*_under(home), *_remembered(home)):
        place = directory.resolve()
        if place != current.resolve() and place not in found:
            count = _count(place / RUNS)
            if count:
                found[place] = OtherStore(place, count)
    return tuple(found.values())


def remember_store(home: Path, store: Path) -> None:
    """Remember that runs were begun in a store outside the home folder's usual places.

    A home that cannot be written remembers nothing: this serves a hint and may not stop a run.
    """
    place = store.absolute()
    if place in (each.absolute() for each in _under(home)):
        return
    known = _remembered(home)
    if known[:1] == [place]:
        return
    kept = [place, *(each for each in known if each != place and _count(each / RUNS))]
    with contextlib.suppress(OSError):
        write_json(home / REMEMBERED, [str(each) for each in kept[:MOST_REMEMBERED]])


def _under(home: Path) -> Iterator[Path]:
    yield home / "store"
    with contextlib.suppress(OSError):
        yield from sorted(path.parent for path in home.glob(f"*/store/{RUNS}"))


def _remembered(home: Path) -> list[Path]:
    try:
        known = parse_json((home / REMEMBERED).read_bytes())
    except (OSError, ValueError):
        return []
    return [Path(each) for each in known if isinstance(each, str)] if isinstance(
        known, list) else []


def _count(runs: Path) -> int:
    try:
        return sum((runs / entry.name / RUN_FILE).is_file() for entry in os.scandir(runs))
    except OSError:
        return 0
