"""A run's append-only spool: one JSON line an event, one write a line, one writer at a time.

A line counts as committed when `write` has returned: it then survives the death of the writer.
The writer holds a lock on the file, which is how others know that it lives.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from hoserkd.engine.bounded_json import finite, open_plain
from hoserkd.engine.files import cut_torn_tail
from hoserkd.errors import StoreError
from hoserkd.store.events import LINE, parse_event
from hoserkd.text import utf8_values

SPOOL = "events.jsonl"
FSYNC_S = 1.0
"""A power cut loses at most so many seconds; a killed process loses nothing."""
MOST_WAITING = 10_000
"""Events that are kept for a disk that takes none; of more, the oldest are lost."""
LOCK_PATIENCE_S = 1.0
"""Longer than anybody holds the lock only to look whether a writer lives."""
_SURROGATE = "\\ud"
"""What may begin the half of a character in JSON: DuckDB refuses a line with one."""
SHOWN = 1000
"""Bytes that are kept of a line too long to be an event."""
HEARD_S = 60.0
"""A run of another machine that was heard of within so long is at work; it writes every 10 s."""


class Spool:
    """The one writer of a spool."""

    def __init__(self, path: Path) -> None:
        """Open `path`, take its lock, cut a torn last line and go on counting.

        Raises:
            StoreError: another process writes it.
        """
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._mutex = threading.Lock()
        self._closing = threading.Event()
        self._dirty = False
        self._waiting: deque[bytes] = deque(maxlen=MOST_WAITING)
        if not lock_within(self._descriptor, fcntl.LOCK_EX, LOCK_PATIENCE_S):
            os.close(self._descriptor)
            raise StoreError(
                f"{path}: another process is writing this run",
                hint="wait for it, or stop it; `hoserkd runs list` shows what runs",
            )
        self._size = cut_torn_tail(self._descriptor)
        self._seq = _last_seq(self._descriptor, self._size)
        _OPEN.add(self)
        self._flusher = threading.Thread(target=self._flush_often, daemon=True, name="spool-fsync")
        self._flusher.start()

    def append(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Write one event; committed when this returns.

        Raises:
            OSError: it is not written: it waits in memory and goes out with a later one, in
                order. The file is as it was before.
        """
        with self._mutex:
            self._seq += 1
            record = {"seq": self._seq, "t": round(time.time(), 3), "type": kind, **fields}
            self._waiting.append((_encode(record) + "\n").encode())
            self._drain()

    def flush(self) -> None:
        """Bring what was written, and what waits, to the disk itself.

        Raises:
            OSError: the disk does not take it.
        """
        with self._mutex:
            self._drain()
        if self._dirty:
            self._dirty = False
            try:
                os.fsync(self._descriptor)
            except OSError:
                self._dirty = True
                raise

    def close(self) -> None:
        """Flush, stop the flusher and give the lock back.

        Raises:
            OSError: the last events are lost; the lock is given back all the same.
        """
        if self._closing.is_set():
            return
        self._closing.set()
        self._flusher.join()
        try:
            self.flush()
        finally:
            _OPEN.discard(self)
            os.close(self._descriptor)

    def let_go(self) -> None:
        """Close the file in a forked child, which would otherwise keep the lock alive."""
        self._closing.set()
        os.close(self._descriptor)
        # The number may soon mean another file of the child's.
        self._descriptor = -1

    def _flush_often(self) -> None:
        while not self._closing.wait(FSYNC_S):
            # Whoever appends hears of a full disk; here is only the next try.
            with contextlib.suppress(OSError):
                self.flush()

    def _drain(self) -> None:
        while self._waiting:
            self._write(self._waiting[0])
            self._waiting.popleft()

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            os.ftruncate(self._descriptor, self._size)
            error.filename = str(self.path)
            raise
        if written != len(line):
            os.ftruncate(self._descriptor, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._size += written
        self._dirty = True


def append_to(path: Path, kind: str, fields: Mapping[str, Any]) -> None:
    """Write one event to a spool that nobody writes.

    Raises:
        StoreError: somebody does, or it cannot be written.
    """
    spool = Spool(path)
    try:
        spool.append(kind, fields)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error}") from error
    finally:
        spool.close()


_OPEN: "weakref.WeakSet[Spool]" = weakref.WeakSet()


def _let_go_of_all() -> None:
    for spool in list(_OPEN):
        spool.let_go()
    _OPEN.clear()


os.register_at_fork(after_in_child=_let_go_of_all)


def is_written(path: Path) -> bool:
    """Return whether a process that lives holds the spool `path`."""
    try:
        # Without O_NONBLOCK a named pipe would keep us waiting for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except PermissionError:
        # Another user's: it cannot be told, and a live run must not be taken for a dead one.
        return True
    except OSError:
        return False
    try:
        return not lock_within(descriptor, fcntl.LOCK_SH, 0.0)
    finally:
        os.close(descriptor)


def is_at_work(path: Path, host: str) -> bool:
    """Return whether the process that writes the spool `path` lives, here or on another machine.

    Args:
        host: The machine that writes it. Not every network passes another machine's lock on, so
            what was written there lately counts as well: a run at work writes every few seconds.
    """
    if is_written(path):
        return True
    if host == socket.gethostname():
        return False
    try:
        return time.time() - path.stat().st_mtime < HEARD_S
    except OSError:
        return False


def read_lines(path: Path, offset: int, limit: int) -> tuple[bytes, int]:
    """Return the whole lines of `path` from byte `offset`, about `limit` bytes at most.

    Returns:
        The lines with their line ends, and the offset behind them. A line longer than `limit`
        is returned whole; of one longer than any event only the beginning, which is none.
    """
    with open_plain(path) as file:
        file.seek(offset)
        data = file.read(limit)
        while data and b"\n" not in data and len(data) < LINE.size:
            more = file.read(limit)
            if not more:
                break
            data += more
        if data and b"\n" not in data and len(data) >= LINE.size:
            end = _behind_line(file)
            return (b"", offset) if end is None else (data[:SHOWN] + b"\n", end)
    end = data.rfind(b"\n") + 1
    return data[:end], offset + end


def _behind_line(file: IO[bytes]) -> int | None:
    """Return the offset behind the next line end; None: there is none."""
    while data := file.read(1 << 20):
        found = data.find(b"\n")
        if found >= 0:
            return file.tell() - len(data) + found + 1
    return None


def tail_events(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Return the events of a spool from byte `offset` and the offset to go on from.

    For those who watch a run as it happens; lines that are not JSON are left out.
    """
    data, end = read_lines(path, offset, 1 << 24)
    return list(parse_lines(data)), end


def parse_lines(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the events of whole lines, leaving out what is damaged."""
    for line in data.split(b"\n"):
        if line:
            with contextlib.suppress(ValueError):
                yield parse_event(line)


def lock_within(descriptor: int, kind: int, patience_s: float) -> bool:
    """Take a lock of this kind, as `fcntl` names it; tell whether it could be had in time."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def _last_seq(descriptor: int, size: int) -> int:
    reach = 1 << 16
    while size:
        start = max(0, size - reach)
        events = list(parse_lines(os.pread(descriptor, size - start, start)))
        if events:
            return max(int(event["seq"]) for event in events)
        if start == 0:
            break
        reach *= 8
    return 0


def _encode(record: Mapping[str, Any]) -> str:
    try:
        line = json.dumps(record, allow_nan=False, separators=(",", ":"))
    except ValueError:
        line = json.dumps(finite(record), separators=(",", ":"))
    if _SURROGATE in line:
        line = json.dumps(utf8_values(finite(record)), separators=(",", ":"))
    return line
