"""One try of one reader: what may come of it, and what is a fault."""

import contextlib
import functools
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from readers import READERS
from watch import watching

from hoserkd.errors import HoserkdError

SECONDS = 10
"""An input of a few kilobytes that takes longer counts as a hang."""
FOUND = Path(__file__).resolve().parent / "found"
"""Inputs that once broke a reader, `found/READER/what-it-was`; tried in every test run."""


class FaultError(AssertionError):
    """A reader did what no file may make it do."""


class Slow(BaseException):
    """The time is up. No `except Exception` on the way may swallow it."""


def attempt(name: str, data: bytes) -> bool:
    """Give the bytes to a reader; return whether it took them.

    Raises:
        FaultError: it raised something that is no HoserkdError, took too long, started a command or
            wrote elsewhere.
    """
    folder = Path(tempfile.mkdtemp(prefix="hoserkd-try-"))
    try:
        warm(name)
        with watching(folder) as offences, _time_limit(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            taken = _taken(name, data, folder)
        if offences:
            raise FaultError(f"{name}: {'; '.join(offences[:3])}")
        return taken
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def warm(name: str) -> None:
    """Read the good files once, unwatched: the workshop writes, and compiled loops are loaded."""
    for seed in READERS[name].seeds():
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(HoserkdError):
            READERS[name].read(seed, Path(folder))


def _taken(name: str, data: bytes, folder: Path) -> bool:
    try:
        READERS[name].read(data, folder)
    except HoserkdError as error:
        if not error.message:
            raise FaultError(f"{name}: an error without words") from error
        return False
    except Slow as error:
        raise FaultError(f"{name}: over {SECONDS} s") from error
    except Exception as error:
        raise FaultError(f"{name}: {type(error).__name__}: {error}") from error
    return True


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise Slow

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def found_inputs() -> list[Path]:
    """Return the inputs that once broke a reader."""
    return sorted(path for path in FOUND.glob("*/*") if path.is_file())
