"""The file under a tuning study: lines that several processes append, and any of them may die."""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from hoserkd.engine.bounded_json import LIMITS, open_plain, parse_json
from hoserkd.engine.files import cut_torn_tail


class StudyJournal(JournalFileBackend):  # type: ignore[misc]
    """Optuna's journal under a lock that goes with the process that holds it.

    Optuna's own lock is a file, for which others wait half a minute after its maker was killed;
    and a line that a kill or a full disk cut short would spoil the next one, and the study.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._offsets = {0: 0}
        """Offset behind each entry, by number."""

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the entries from a number on; a torn last line is not one yet.

        Raises:
            ValueError: a line is no entry; names it.
        """
        number = log_number_from if log_number_from in self._offsets else 0
        with open_plain(self._path) as file:
            file.seek(self._offsets[number])
            while (line := file.readline(LIMITS.size + 1)).endswith(b"\n"):
                number += 1
                self._offsets[number] = file.tell()
                if number > log_number_from:
                    yield self._entry(line, number)
        if len(line) > LIMITS.size:
            raise ValueError(f"line {number + 1} is longer than {LIMITS.size:,} bytes")

    def _entry(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            # Optuna writes the NaN of a trial that diverged.
            entry = parse_json(line, non_finite=True)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if not isinstance(entry, dict):
            raise ValueError(f"line {number} is no entry of a journal")
        return entry

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries, all or none.

        Raises:
            OSError: the disk does not take them; the file is as it was.
        """
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        # Unbuffered: on a full disk no rest may come after the cut.
        with self._path.open("r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = cut_torn_tail(file.fileno())
            file.seek(end)
            data = "".join(lines).encode()
            try:
                while data:
                    data = data[file.write(data) or 0:]
                os.fsync(file.fileno())
            except OSError as error:
                file.truncate(end)
                error.filename = str(self._path)
                raise
