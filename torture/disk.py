"""Real disks that refuse: a full one, a read-only one, one of another user's, one that loses files.

Made with small tmpfs mounts, which only root may make; elsewhere the faults at every call
(torture.points) stand in for them.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torture import wholeness
from torture.forks import asked, run_command
from torture.kills import finished
from torture.ledger import Ledger, Tally
from torture.points import clear
from torture.shim import Fault, Mode
from torture.town import JOBS, Home, Stage, Town

STRANGER = 65534
ROOMS = (0.05, 0.35, 0.7, 0.95)
"""Shares of the room that a command needs which the full disk has."""
SLOW_US = 20_000
BLOCK = 4096


def can_mount(folder: Path) -> bool:
    """Return whether this process may mount a tmpfs."""
    try:
        with mounted(folder / "try", "size=1m"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def mounted(place: Path, options: str) -> Iterator[Path]:
    """Give a small disk of its own at `place`."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True,
                   capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def full_disks(town: Town, ledger: Ledger, names: list[str]) -> None:
    """Run every command on a disk with too little room; then make room and go on."""
    for name in names:
        stage, tally = town.stage(name), Tally("a full disk", name)
        needed = _room(town, stage)
        for share in ROOMS:
            size = _size(stage.before.path) + int(needed * share)
            shutil.rmtree(town.folder / "trial", ignore_errors=True)
            with mounted(town.folder / "trial", f"size={max(size, BLOCK)}") as place:
                shutil.copytree(stage.before.path, place, dirs_exist_ok=True, symlinks=True)
                home = Home(place)
                ending = run_command(stage.job.first(home), place)
                wrong = clear(ending)
                subprocess.run(["mount", "-o", "remount,size=1g", place], check=True)
                wrong += asked(wholeness.faults, place) + finished(home, stage)
            tally.judge(f"room for {share:.0%} of {needed:,} bytes", wrong)
        ledger.enter(tally)


def forbidden_folders(town: Town, ledger: Ledger, names: list[str]) -> None:
    """Run every command in a folder of another user's, and on a read-only disk."""
    for kind in ("another user's folder", "a read-only disk"):
        for name in names:
            stage, tally = town.stage(name), Tally(kind, name)
            home = town.trial(stage)
            argv = stage.job.first(home)
            if kind == "a read-only disk":
                with _read_only(home.path):
                    ending = run_command(argv, home.path)
            else:
                for path in (town.folder, home.path):
                    path.chmod(0o755)
                ending = run_command(argv, home.path, user=STRANGER)
            wrong = clear(ending)
            if ending.code == 0 and name != "ingest":
                wrong.append("it says that all went well")
            tally.judge(kind, wrong + finished(home, stage))
            ledger.enter(tally)


def vanished_files(town: Town, ledger: Ledger, names: list[str]) -> None:
    """Take away, one by one, each file that a command starts from."""
    for name in names:
        stage, tally = town.stage(name), Tally("a vanished file", name)
        files = [path.relative_to(stage.before.path)
                 for path in sorted(stage.before.path.rglob("*")) if path.is_file()]
        for file in files[:: max(1, len(files) // 12)]:
            home = town.trial(stage)
            (home.path / file).unlink()
            ending = run_command(stage.job.first(home), home.path)
            tally.judge(f"without {file}", clear(ending))
        ledger.enter(tally)


def slow_disk(town: Town, ledger: Ledger, names: list[str]) -> None:
    """Let every change to a file take 20 ms; all must end as ever."""
    for name in names:
        stage = town.stage(name)
        tally = Tally("a slow disk", name, more={"calls": stage.calls})
        home = town.trial(stage)
        ending = run_command(stage.job.first(home), home.path,
                             fault=Fault(Mode.DELAY, delay_us=SLOW_US))
        wrong = [] if ending.code == 0 else [f"exit code {ending.code}"]
        tally.more["command_s"] = round(ending.seconds, 1)
        tally.judge("20 ms a call", wrong + finished(home, stage))
        ledger.enter(tally)


def all_disks(town: Town, ledger: Ledger, names: list[str] | None = None) -> None:
    """Try every kind of disk on every command."""
    wanted = list(names or JOBS)
    if os.getuid() == 0 and can_mount(town.folder):
        full_disks(town, ledger, wanted)
        forbidden_folders(town, ledger, wanted)
    vanished_files(town, ledger, wanted)
    slow_disk(town, ledger, wanted)


@contextmanager
def _read_only(place: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", place, place], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def _room(town: Town, stage: Stage) -> int:
    """Return how many bytes more a command leaves behind."""
    home = town.trial(stage)
    before = _size(home.path)
    ending = run_command(stage.job.first(home), home.path)
    if ending.code != 0:
        raise RuntimeError(ending.stderr)
    return max(_size(home.path) - before, BLOCK)


def _size(folder: Path) -> int:
    """Return the bytes that a folder takes on a tmpfs, where a file fills whole blocks."""
    return sum(-(-path.stat().st_size // BLOCK) * BLOCK
               for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
