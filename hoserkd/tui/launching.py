"""Starting runs from the dashboard: separate processes that outlive it."""

import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PREPARE = "prepare the city"
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "train, distilled": ("train", "--distill"),
    "train, vanilla": ("train", "--no-distill"),
    "train a teacher": ("train-teacher",),
    "ask the teacher (precompute)": ("precompute",),
    "tune": ("tune",),
    "study": ("study",),
    PREPARE: ("prepare",),
}
NAMED = ("train", "train-teacher", "study")
"""Commands that take `--name`."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A run that the user wants started."""

    command: str
    """A key of `COMMANDS`."""
    profile: str
    name: str = ""
    overrides: str = ""
    """`key=value` words."""


def launch_words(launch: Launch) -> list[str]:
    """Return the command line, without places.

    Raises:
        ValueError: the overrides are not `key=value` words.
    """
    words = ["hoserkd", *COMMANDS[launch.command], "--profile", launch.profile]
    if launch.name and COMMANDS[launch.command][0] in NAMED:
        words += ["--name", launch.name]
    for word in shlex.split(launch.overrides):
        if "=" not in word:
            raise ValueError(f"{word}: expected key=value")
        words += ["--set", word]
    return words


class Starter:
    """Starts processes in sessions of their own and hears of those that fail."""

    def __init__(self, store: Path, data_dir: Path) -> None:
        self._places = ["--store", str(store), "--data-dir", str(data_dir)]
        self._logs = store / "logs"
        self._started: list[tuple[str, Path, subprocess.Popen[bytes]]] = []

    def start(self, words: list[str]) -> Path:
        """Start `hoserkd ...` and return the file that holds what it prints."""
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{time.strftime('%Y%m%d-%H%M%S')}-{words[1]}.log"
        line = [sys.executable, "-m", "hoserkd", *words[1:], "-v", *self._places]
        with log.open("ab") as output:
            process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=output,
                                       stderr=output, start_new_session=True)
        self._started.append((shlex.join(words), log, process))
        return log

    def failures(self) -> list[str]:
        """Return what to tell of processes that have failed since the last call."""
        told, left = [], []
        for title, log, process in self._started:
            code = process.poll()
            if code is None:
                left.append((title, log, process))
            elif code not in (0, 130):
                told.append(f"{title} failed: {last_line(log)} (see {log})")
        self._started = left
        return told


def last_line(log: Path) -> str:
    """Return the error line of a log, else its last line."""
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or ["it said nothing"])[-1]
