"""The folders of the runs: made, named, labelled, and looked over without opening their files."""

import contextlib
import fcntl
import hashlib
import os
import pwd
import re
import secrets
import shutil
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hoserkd.engine.bounded_json import read_json_object
from hoserkd.engine.files import write_json
from hoserkd.errors import StoreError
from hoserkd.store.events import check_labels
from hoserkd.store.recorder import RUN_FILE, read_header
from hoserkd.store.records import RunRecord
from hoserkd.store.references import check_name
from hoserkd.store.spool import SPOOL, is_at_work

LABELS_FILE = "labels.json"
DELETED = ".deleted-"
"""Begins the name of a run's folder that is being removed."""
MOST_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Folder:
    """What is known of a run's folder without opening its files."""

    run_id: str
    path: Path
    size: int
    """Of the spool, in bytes."""
    written_ns: int
    """Time of the newest event, by the file system's clock."""
    labels_stamp: int
    """Modification time of the labels in ns; 0 where there are none."""


def scan_folders(runs: Path) -> dict[str, Folder]:
    """Return the run folders by id: those with a header."""
    found = {}
    for entry in os.scandir(runs) if runs.is_dir() else ():
        if not os.access(f"{entry.path}/{RUN_FILE}", os.R_OK):
            continue
        spool = _stat(f"{entry.path}/{SPOOL}")
        found[entry.name] = Folder(entry.name, Path(entry.path), spool.size, spool.stamp,
                                   _stat(f"{entry.path}/{LABELS_FILE}").stamp)
    return found


def stamp_of(folders: Iterable[Folder]) -> str:
    """Return a text that changes when any of the runs gains an event or a label."""
    digest = hashlib.sha256()
    for folder in folders:
        digest.update(f"{folder.run_id} {folder.size} {folder.labels_stamp};".encode())
    return digest.hexdigest()


def lag_s(folders: Iterable[Folder], database: Path) -> float:
    """Return by how many seconds the database is behind the newest event of any of the runs."""
    newest = max((folder.written_ns for folder in folders), default=0)
    filled = database.stat().st_mtime_ns if database.exists() else 0
    return max(0.0, (newest - filled) / 1e9)


def is_written_somewhere(folder: Path) -> bool:
    """Return whether a process writes the run of this folder, here or on another machine."""
    try:
        host = str(read_header(folder)["host"])
    except (OSError, ValueError, KeyError):
        host = socket.gethostname()
    return is_at_work(folder / SPOOL, host)


def check_removable(folder: Path) -> None:
    """Check that this user may remove a run's folder with all that is in it.

    Raises:
        StoreError: it belongs to somebody else, or a folder in it cannot be written to.
    """
    for place in (folder.parent, folder, *(path for path in folder.rglob("*") if path.is_dir())):
        if not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
            raise StoreError(f"{place}: may not be changed by this user, so {folder.name} stays",
                             hint=f"it belongs to {owner_of(folder)}, who can remove it")
    if not is_mine(folder):
        raise StoreError(f"{folder}: belongs to {owner_of(folder)}, who can remove it")


def is_mine(path: Path) -> bool:
    """Return whether this user owns a file or folder; a link itself, not what it points to."""
    return path.lstat().st_uid == os.geteuid()


def owner_of(path: Path) -> str:
    """Return the name of a file's owner, or the number where the name is not known."""
    number = path.lstat().st_uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def remove_folder(folder: Path) -> None:
    """Remove a run's folder; the new name hides what is half removed from everybody.

    If nothing of it can be removed it gets its name back.

    Raises:
        StoreError: it cannot be removed.
    """
    check_removable(folder)
    gone = folder.with_name(f"{DELETED}{folder.name}")
    held = sum(1 for _ in folder.rglob("*"))
    try:
        folder.rename(gone)
        shutil.rmtree(gone)
    except OSError as error:
        if gone.exists() and sum(1 for _ in gone.rglob("*")) == held:
            gone.rename(folder)
        raise StoreError(f"{folder}: cannot be removed: {error.strerror}",
                         hint=f"it belongs to {owner_of(folder.parent)}") from error


def make_folder(runs: Path, now_s: float) -> Path:
    """Make the folder of a run that begins at `now_s` and return it; its name is the run's id.

    Raises:
        StoreError: there can be no folder at that place.
    """
    stamp = datetime.fromtimestamp(now_s, UTC).strftime("%Y%m%d-%H%M%S")
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreError(f"{runs}: cannot hold runs: it, or a folder above it, is a file or a link "
                         "to nothing", hint="name another folder with --store") from error
    for _ in range(MOST_DRAWS):
        folder = runs / f"{stamp}-{secrets.token_hex(2)}"
        # Another run of the same second may have drawn the same digits.
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise StoreError(f"{runs}: {MOST_DRAWS} names of runs of this second are taken",
                     hint="try again in a second")


def default_name(kind: str, profile: str, folder: Path) -> str:
    """Return `kind-profile-xxxx` with the digits of the run's id."""
    words = re.sub(r"[^A-Za-z0-9_.+=-]+", "-", f"{kind}-{profile}")
    return f"{words[:80]}-{folder.name.rpartition('-')[2]}"


def read_labels(folder: Path) -> dict[str, Any]:
    """Return the name, tags and notes that were given after the start; empty if none.

    Raises:
        ValueError: the file is damaged; says how.
    """
    try:
        return check_labels(read_json_object(folder / LABELS_FILE))
    except OSError:
        return {}


def write_labels(
    folder: Path, run: RunRecord, *, name: str | None, add: Sequence[str],
    remove: Sequence[str], notes: str | None,
) -> None:
    """Change a run's name, tags and notes; changes made at the same time do not undo each other.

    Raises:
        UsageError: a name or tag holds odd characters.
    """
    with _locked(folder / ".labels.lock"):
        labels = {"name": run.name, "tags": list(run.tags), "notes": run.notes,
                  **read_labels(folder)}
        tags = [tag for tag in labels["tags"] if tag not in remove]
        labels["tags"] = tags + [check_name(tag) for tag in add if tag not in tags]
        if name is not None:
            labels["name"] = check_name(name)
        if notes is not None:
            labels["notes"] = notes
        write_json(folder / LABELS_FILE, labels)


@dataclass(frozen=True, slots=True)
class _Stat:
    size: int
    stamp: int


def _stat(path: str) -> _Stat:
    try:
        found = os.stat(path)  # noqa: PTH116 - a thousand of them count
    except OSError:
        return _Stat(0, 0)
    return _Stat(found.st_size, found.st_mtime_ns)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
