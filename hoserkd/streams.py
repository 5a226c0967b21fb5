"""The standard streams of the process, made fit for whatever the shell or the batch system gave.

A stream may be closed (`>&-`), its reader may leave (`| head`), its terminal may go away, and its
encoding may lack characters. None of these is a reason for a command to fail.
"""

import contextlib
import errno
import io
import os
import stat
import sys
from typing import Any

_READER_GONE = (errno.EPIPE, errno.EBADF)
_STDIN, _STDOUT, _STDERR = 0, 1, 2


class LastingFile(io.FileIO):
    """The file behind a stream; what is written after its reader has left is discarded.

    A disk that takes no more is told once, as OSError; later writes are discarded too, so that
    the interpreter does not meet the same error again when it closes the stream.
    """

    def __init__(self, number: int, *, dispensable: bool) -> None:
        """Wrap the open file `number`, which stays open when this is closed.

        Args:
            dispensable: Whether every failed write is ignored: nobody can be told of a failing
                stderr.
        """
        super().__init__(number, "w", closefd=False)
        self._ignored: tuple[int, ...] = _READER_GONE
        # A terminal that was closed answers EIO; of a disk that would be an error worth telling.
        if stat.S_ISCHR(os.fstat(number).st_mode):
            self._ignored += (errno.EIO,)
        self._dispensable = dispensable
        self._lost = False

    def write(self, data: Any, /) -> int:
        """Write the bytes, or drop them where nobody will read them.

        Raises:
            OSError: The first time that a disk does not take them.
        """
        if not self._lost:
            try:
                return super().write(data) or 0
            except OSError as error:
                self._lost = True
                if not (self._dispensable or error.errno in self._ignored):
                    error.filename = "standard output"
                    raise
        return len(data)


def prepare_streams() -> None:
    """Give the process three open streams that no command can stumble over.

    Closed descriptors are opened on the null device first: else the next file that is opened, a
    run's log for instance, would get number 1 or 2 and with it what libraries print.
    """
    for number in (_STDIN, _STDOUT, _STDERR):
        _occupy(number)
    if sys.stdin is None:
        sys.stdin = open(_STDIN, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = _lasting(sys.stdout, _STDOUT, "replace", dispensable=False)
    sys.stderr = _lasting(sys.stderr, _STDERR, "backslashreplace", dispensable=True)


def _occupy(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        # The lowest free number is taken, and those below are in use: it is `number`.
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _lasting(stream: Any, number: int, errors: str, *, dispensable: bool) -> Any:
    """Return a text stream on the descriptor, in the encoding of the one that it replaces."""
    encoding = "utf-8"
    if stream is not None:
        encoding = stream.encoding or encoding
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    file = LastingFile(number, dispensable=dispensable)
    terminal = os.isatty(number)
    return io.TextIOWrapper(io.BufferedWriter(file), encoding, errors,
                            line_buffering=terminal or dispensable)


def encodable(text: str, stream: Any) -> bool:
    """Return whether the stream's encoding has every character of the text."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
