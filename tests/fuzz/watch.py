"""Watches what the interpreter is asked to do while a stranger's file is read."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.startfile",
          "subprocess.Popen", "pty.spawn", "socket.connect", "socket.bind", "pickle.find_class",
          "webbrowser.open", "ctypes.dlopen")
"""Audit events of commands, connections and code out of a file; none is a reader's business."""
CHANGES = {"os.remove": 1, "os.rmdir": 1, "os.mkdir": 2, "os.rename": 2, "os.link": 2,
           "os.symlink": 2, "os.chmod": 2, "os.truncate": 9, "shutil.rmtree": 1,
           "shutil.move": 9, "shutil.copyfile": 9}
"""Events that change files, each with the place of the open folder that its paths start from."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class _Watch:
    """The one audit hook of the process: it cannot be taken away, only told to rest."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.offences: list[str] = []

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.folder is None:
            return
        if event in STARTS:
            self.offences.append(f"{event} {arguments!r:.200}")
        elif event in CHANGES or (event == "open" and _opens_for_writing(arguments)):
            self.offences += [f"{event} {path:.200}" for path in _paths(event, arguments)
                              if not self._allowed(path)]

    def _allowed(self, path: str) -> bool:
        folder = self.folder or ""
        whole = os.path.realpath(path)
        return whole == os.devnull or (whole + os.sep).startswith(folder + os.sep)


def _paths(event: str, arguments: tuple[object, ...]) -> list[str]:
    """Return the paths of an event, those relative to an open folder made whole."""
    count = 1 if event == "open" else 2
    named = [os.fsdecode(a) for a in arguments[:count] if isinstance(a, str | bytes | os.PathLike)]
    place = CHANGES.get(event, 9)
    folder = arguments[place] if place < len(arguments) else None
    if not isinstance(folder, int) or folder < 0 or not Path("/proc/self/fd").exists():
        return named
    inside = os.readlink(f"/proc/self/fd/{folder}")  # noqa: PTH115
    return [os.path.join(inside, path) for path in named]  # noqa: PTH118


def _opens_for_writing(arguments: tuple[object, ...]) -> bool:
    _, mode, flags = arguments
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & _WRITES)


_WATCH = _Watch()


@contextmanager
def watching(folder: Path) -> Iterator[list[str]]:
    """Give the list of offences: commands started, code loaded, files changed outside `folder`."""
    if not getattr(sys, "_hoserkd_watch", False):
        sys.addaudithook(_WATCH)
        sys._hoserkd_watch = True  # type: ignore[attr-defined]
    _WATCH.offences = []
    _WATCH.folder = os.path.realpath(folder)
    try:
        yield _WATCH.offences
    finally:
        _WATCH.folder = None
