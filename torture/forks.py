"""Command lines and functions in children of one warm process, which has imported all of hoserkd.

A start of Python with torch costs seconds; a fork of a process that has them costs milliseconds.
"""

import importlib
import json
import os
import pkgutil
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torture.shim import Fault, Mode, arm, counted, disarm

LONGEST_S = 300.0
"""A child that lives longer hangs, which is a fault of hoserkd's."""
POLL_S = 0.004
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended."""

    code: int
    """Exit code; negative: the signal that ended it."""
    stdout: str
    stderr: str
    cpu_s: float
    seconds: float
    calls: int | None
    """Changes to files under the folder; None: killed before it could say."""
    fatal: str
    """The call at which the fault came."""

    @property
    def killed(self) -> bool:
        """Whether it died of SIGKILL."""
        return self.code == -signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Stroke:
    """A signal that comes after so much work."""

    number: int
    cpu_s: float
    """Processor time of the child: unlike the clock it does not depend on who else works."""


def warm() -> None:
    """Import all that commands import, in this process."""
    import hoserkd
    from hoserkd.store.provenance import provenance

    for module in pkgutil.walk_packages(hoserkd.__path__, "hoserkd."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("duckdb", "optuna", "cmaes", "pyarrow.parquet", "psutil", "numpy.random",
                 "torch._dynamo", "matplotlib.backends.backend_svg", "tensorboard",
                 "encodings.utf_8_sig", "encodings.ascii", "encodings.idna"):
        importlib.import_module(name)
    provenance()


def warm_a_little() -> None:
    """Import what the small works need: a small process forks quickly."""
    for name in ("duckdb", "optuna.storages.journal", "hoserkd.engine.study_journal",
                 "hoserkd.store.runs"):
        importlib.import_module(name)
    importlib.import_module("hoserkd.store.provenance").provenance()


def run_command(
    argv: Sequence[object], folder: Path, *, fault: Fault | None = None,
    stroke: Stroke | None = None, user: int | None = None, longest_s: float = LONGEST_S,
) -> Ending:
    """Run one command line in a child, with `fault` on its files under `folder`.

    Args:
        stroke: Send this signal on the way.
        user: Become this user first.
    """
    words = [str(word) for word in argv]

    def work() -> int:
        from hoserkd.cli import main

        return main(words)

    return run_child(work, folder, fault=fault or Fault(), stroke=stroke, user=user,
                     longest_s=longest_s)


def run_child(
    work: Callable[[], int], folder: Path, *, fault: Fault | None = None,
    stroke: Stroke | None = None, user: int | None = None, longest_s: float = LONGEST_S,
) -> Ending:
    """Call `work` in a child, whose exit code it returns."""
    texts = [os.memfd_create(name) for name in ("out", "err", "calls", "fatal")]
    began = time.monotonic()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _be_child(work, folder, fault or Fault(), texts, user)
    strokes = [stroke] if stroke is not None else []
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            break
        if strokes and _cpu_s(child) >= strokes[0].cpu_s:
            os.kill(child, strokes.pop().number)
        if time.monotonic() - began > longest_s:
            os.kill(child, signal.SIGKILL)
            strokes = []
        time.sleep(POLL_S)
    out, err, calls, fatal = (_take(text) for text in texts)
    return Ending(os.waitstatus_to_exitcode(status), out, err, usage.ru_utime + usage.ru_stime,
                  time.monotonic() - began, int(calls) if calls else None, fatal.strip())


def asked(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `function` returns in a child, through JSON, so that this process stays cold.

    Raises:
        RuntimeError: it raised; the message is its traceback.
    """
    answer = os.memfd_create("answer")

    def work() -> int:
        os.write(answer, json.dumps(function(*arguments)).encode())
        return 0

    ending = run_child(work, Path("/nowhere"))
    text = _take(answer)
    if ending.code != 0:
        raise RuntimeError(ending.stderr[-3000:] or f"ended with {ending.code}")
    return json.loads(text)


def somewhere(chance: random.Random, cpu_s: float) -> float:
    """Return a moment of a work that takes so much processor time."""
    return chance.uniform(0.0, cpu_s)


def _be_child(work: Callable[[], int], folder: Path, fault: Fault, texts: Sequence[int],
              user: int | None) -> None:
    out, err, calls, fatal = texts
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT
                          else signal.SIG_DFL)
        if user is not None:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        arm(folder, fault, fatal)
        code = work()
        sys.stdout.flush()
        os.write(calls, str(counted()).encode())
        disarm()
    except BaseException:  # noqa: BLE001 - the child's end is the parent's to judge
        disarm()
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def _take(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    text = os.pread(descriptor, size, 0).decode(errors="replace")
    os.close(descriptor)
    return text


COUNTING = Fault(Mode.COUNT)
