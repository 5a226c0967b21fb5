"""Files that appear whole or not at all, and hashes of what they hold."""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from hoserkd.engine.bounded_json import finite
from hoserkd.engine.bounded_json import parse_json as parse_json
from hoserkd.engine.bounded_json import read_json as read_json
from hoserkd.engine.bounded_json import read_json_object as read_json_object
from hoserkd.errors import UsageError
from hoserkd.text import utf8_values

CHUNK = 1 << 20
_SURROGATE = re.compile("[\ud800-\udfff]")
LEFT_S = 60.0
"""A temporary file that nobody writes for so long was left by a process that was killed."""


@contextmanager
def replacing(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` that takes its name when the block ends well.

    What killed processes left of the same file is cleared away.

    Raises:
        OSError: it cannot be written; its `filename` is `path`, which is as it was.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_left(path)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.",
                                            suffix=".tmp")
        temporary = Path(name)
        with contextlib.suppress(OSError):  # not every file system has locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        text = "b" not in mode
        # Names of files may hold bytes that are not UTF-8, which a text then shows escaped.
        with os.fdopen(descriptor, mode, encoding="utf-8" if text else None,
                       errors="backslashreplace" if text else None,
                       newline="" if text else None) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            # Still open, and so still locked: nobody takes it for left behind.
            temporary.chmod(0o644)
            temporary.replace(path)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        refused = _refusal(error)
        if refused is None:
            raise
        unnamed = refused.filename is None and refused.errno is not None
        if unnamed or _is_temporary(Path(str(refused.filename)), path):
            refused.filename, refused.filename2 = str(path), None
        if refused is error:
            raise
        raise refused from error


def _refusal(error: BaseException) -> OSError | None:
    """Return what the system said; libraries in C++ wrap it into an error of their own."""
    if isinstance(error, OSError):
        return error
    inner = error.__context__
    return inner if isinstance(error, RuntimeError) and isinstance(inner, OSError) else None


def _is_temporary(file: Path, path: Path) -> bool:
    return file.parent == path.parent and file.name.startswith(f".{path.name}.")


def _clear_left(path: Path) -> None:
    before = time.time() - LEFT_S
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        # It may go away by itself, or belong to another user.
        with contextlib.suppress(OSError):
            if left.stat().st_mtime < before and not _is_locked(left):
                left.unlink(missing_ok=True)


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path` that takes its name when the block ends well.

    Raises:
        UsageError: there is something at `path` already, other than an empty folder.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} already exists", hint="name another folder, or delete it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield staging
        staging.chmod(0o755)
        if path.exists():
            path.rmdir()
        staging.rename(path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; waits for who holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all; numbers that are not finite as null.

    Names of files that are not UTF-8 are written with escapes.
    """
    with replacing(path, "w") as file:
        json.dump(utf8_values(finite(value)), file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def cut_torn_tail(descriptor: int) -> int:
    """Cut what follows the last line end of an open file, and return its size then.

    A process that was killed while it wrote a line leaves such a tail.
    """
    size = os.fstat(descriptor).st_size
    end = size
    while end > 0:
        start = max(0, end - (1 << 16))
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end != size:
        os.ftruncate(descriptor, end)
    return end


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
