"""The processes that work on a study: who they are, and whether they still live.

Processes of one machine are looked up directly. Those of others, which no lock and no process
list reaches on every storage, write a sign of life into the study from time to time.
"""

import contextlib
import os
import platform
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import optuna

BEAT_S = 30.0
"""Pause between two signs of life."""
CLOCK_S = 5.0
"""A system that sets its clock moves the times at which its processes began."""
PREFIX = "worker:"


@dataclass(frozen=True, slots=True)
class Worker:
    """One process that works, or worked, on a study."""

    id: str
    host: str
    place: str
    """Same for processes that see each other's process numbers."""
    pid: int
    started: float
    """When the process began, by its own machine."""
    beat: float
    """Its last sign of life, seconds since 1970."""
    ended: bool = False
    """It said that it is leaving."""

    def lives(self, now: float, patience_s: float) -> bool:
        """Return whether it is still at work."""
        if self.ended:
            return False
        if self.place == this_place():
            started = process_started(self.pid)
            return started is not None and abs(started - self.started) < CLOCK_S
        return now - self.beat < patience_s


class Registration:
    """This process as a worker of a study; signs of life come from a thread of their own."""

    def __init__(self, study: optuna.Study, beat_s: float = BEAT_S) -> None:
        self._study = study
        self._beat_s = beat_s
        self._closing = threading.Event()
        pid = os.getpid()
        self.worker = Worker(secrets.token_hex(6), platform.node(), this_place(), pid,
                             process_started(pid) or 0.0, time.time())
        self._tell()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="tune-worker")
        self._thread.start()

    def close(self) -> None:
        """Say that this process is leaving."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._thread.join()
        self._tell(ended=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()

    def _beat(self) -> None:
        while not self._closing.wait(self._beat_s):
            try:
                self._tell()
            except Exception:  # noqa: BLE001 - a storage out of reach: the next beat may pass
                continue

    def _tell(self, ended: bool = False) -> None:
        w = self.worker
        self._study.set_user_attr(PREFIX + w.id, {
            "host": w.host, "place": w.place, "pid": w.pid, "started": w.started,
            "beat": time.time(), "ended": ended})


def workers_of(attributes: Mapping[str, Any]) -> dict[str, Worker]:
    """Return all workers that ever registered, by id, from a study's attributes."""
    return {key.removeprefix(PREFIX): Worker(key.removeprefix(PREFIX), **value)
            for key, value in attributes.items() if key.startswith(PREFIX)}


def this_place() -> str:
    """Return a name for the machine, its present boot and the space of its process numbers."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return "/".join(parts)


def process_started(pid: int) -> float | None:
    """Return when a process of this machine began; None: there is none, or a zombie."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(process.create_time())
    except psutil.Error:
        return None
