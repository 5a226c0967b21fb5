"""The file under a tuning study: lines that several processes append, and any of them may die."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from hoserkd.engine.files import cut_torn_tail


class StudyJournal(JournalFileBackend):  # type: ignore[misc]
    """Optuna's journal under a lock that goes with the process that holds it.

    Optuna's own lock is a file, for which others wait half a minute after its maker was killed;
    and a line that a kill or a full disk cut short would spoil the next one, and the study.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

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
