"""The library that kills or refuses at the n-th change to a file: built, loaded, armed."""

import ctypes
import enum
import errno
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
VARIABLE = "TORTURE_SHIM"


class Mode(enum.IntEnum):
    """What happens at the chosen moment; the numbers are those of shim.c."""

    COUNT = 0
    KILL = 1
    """The process dies before the call."""
    TEAR = 2
    """It dies after half of a write; before any other call."""
    REFUSE_ONCE = 3
    REFUSE_ON = 4
    """That call and all after it fail; with ENOSPC only those that need room."""
    DELAY = 5
    """Every call waits."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to one process."""

    mode: Mode = Mode.COUNT
    at: int = 0
    """Number of the call, from 1."""
    error: int = errno.ENOSPC
    delay_us: int = 0


def compiler() -> str | None:
    """Return the C compiler, if there is one."""
    return shutil.which("cc") or shutil.which("gcc")


def restart_with_shim(module: str) -> None:
    """Start `python -m module` again with the library loaded, unless it is; returns then."""
    if VARIABLE in os.environ:
        return
    found = compiler()
    if found is None or sys.platform != "linux":
        sys.exit("torture: needs Linux and a C compiler (cc), for the faults at every call")
    library = Path(tempfile.mkdtemp(prefix="torture-shim-")) / "shim.so"
    subprocess.run([found, "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    environment = os.environ | {"LD_PRELOAD": str(library), VARIABLE: str(library)}
    os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], environment)


def arm(folder: Path, fault: Fault, trace: int = -1) -> None:
    """Let `fault` come over this process's work on files under `folder`.

    Args:
        trace: Open file that the fatal call is named in.
    """
    _library().torture_arm(os.fsencode(folder), ctypes.c_long(fault.at), int(fault.mode),
                           fault.error, ctypes.c_long(fault.delay_us), trace)


def counted() -> int:
    """Return how many calls there have been since `arm`."""
    _library().torture_count.restype = ctypes.c_long
    return int(_library().torture_count())


def disarm() -> None:
    """Let everything pass from now on."""
    _library().torture_disarm()


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(os.environ[VARIABLE])
