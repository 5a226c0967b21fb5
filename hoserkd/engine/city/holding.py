"""Keeping a city's content folder while somebody reads it.

A city that is prepared again gets a new content folder. The old one is removed when its last reader
is done: readers hold a shared lock on the folder itself, which goes with their process, and only
who gets the exclusive lock may remove it.
"""

import contextlib
import fcntl
import os
import shutil
from pathlib import Path


class Hold:
    """A shared lock on a folder, until this object is gone."""

    def __init__(self, directory: Path) -> None:
        """Take the lock.

        Raises:
            OSError: the folder is not there or cannot be opened.
        """
        self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        # Not every file system has locks; without them nobody removes the folder either.
        with contextlib.suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def __del__(self) -> None:
        descriptor = self.__dict__.pop("_descriptor", None)
        if descriptor is not None:
            os.close(descriptor)


def remove_unless_held(directory: Path) -> bool:
    """Remove a folder that nobody reads, and return whether it is gone."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return not directory.exists()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory, ignore_errors=True)
    except OSError:
        # Somebody reads it, or the file system has no locks and nobody can know.
        return False
    finally:
        os.close(descriptor)
    return not directory.exists()
