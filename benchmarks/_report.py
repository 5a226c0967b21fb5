"""What the benchmarks share: timing, work in a process of its own, and the printed answer.

Each case is one JSON line on stdout, a table of all cases goes to stderr.
"""

import argparse
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")
REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison of ours with the plain form."""

    case: str
    ours_s: float
    plain_s: float | None
    """None: the plain form was not run."""
    peak_mb: float | None
    """Most memory that ours held, interpreter and libraries included; None: not measured."""
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """How many times as long the plain form takes."""
        return self.plain_s / self.ours_s if self.plain_s is not None else None

    def as_dict(self) -> dict[str, Any]:
        """Return the case's figures, rounded, by name."""
        figures = {"ours_s": self.ours_s, "plain_s": self.plain_s, "ratio": self.ratio,
                   "peak_mb": self.peak_mb, **self.more}
        return {"case": self.case, **{
            name: float(f"{value:.4g}") if isinstance(value, float) else value
            for name, value in figures.items()
        }}


class Report:
    """Prints the cases of one benchmark as they come, and the table at the end."""

    def __init__(self, benchmark: str) -> None:
        self._benchmark = benchmark
        self._cases: list[Case] = []

    def add(
        self,
        case: str,
        ours_s: float,
        plain_s: float | None = None,
        peak_mb: float | None = None,
        **more: Any,
    ) -> None:
        """Print one case as a JSON line; `more` holds figures of this benchmark alone."""
        made = Case(case, ours_s, plain_s, peak_mb, more)
        self._cases.append(made)
        print(json.dumps({"benchmark": self._benchmark, **made.as_dict()}), flush=True)

    def finish(self) -> None:
        """Print the table of all cases on stderr."""
        rows = [case.as_dict() for case in self._cases]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        texts = [columns] + [["" if row.get(c) is None else str(row[c]) for c in columns]
                             for row in rows]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        print(f"\n{self._benchmark}", file=sys.stderr)
        for line in texts:
            cells = (text.ljust(width) for text, width in zip(line, widths, strict=True))
            print("  ".join(cells).rstrip(), file=sys.stderr)


def arguments(description: str) -> argparse.Namespace:
    """Return the command line of a benchmark: `quick` is all there is."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes, a minute at most")
    return parser.parse_args()


def timed(work: Callable[[], Result], repeats: int = 1, warmup: int = 0) -> tuple[float, Result]:
    """Return the shortest time of several calls in seconds, and what the last one returned."""
    for _ in range(warmup):
        work()
    best = float("inf")
    for _ in range(max(repeats, 1)):
        began = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - began)
    return best, result


@dataclass(frozen=True, slots=True)
class Apart:
    """What work in a process of its own came to."""

    seconds: float
    """Of the call alone, imports not counted."""
    peak_mb: float
    """Most memory of that process, in MB of 10^6 bytes."""
    value: Any
    """What the function returned, through JSON."""


def run_apart(module: str, function: str, **arguments: Any) -> Apart:
    """Call `module.function(**arguments)` in a new process, so that its memory is its own.

    Arguments and value must be plain JSON. stderr passes through; the function prints nothing.
    """
    command = [sys.executable, "-m", "benchmarks._report", module, function, json.dumps(arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    return Apart(**json.loads(done.stdout.splitlines()[-1]))


def peak_mb() -> float:
    """Return the most memory that this process has held, in MB; 0 where the system does not say."""
    # Not getrusage: its figure survives exec, so it would hold the parent's memory too.
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0.0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def _child() -> None:
    module, function, given = sys.argv[1:4]
    work = getattr(importlib.import_module(module), function)
    began = time.perf_counter()
    value = work(**json.loads(given))
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb(), "value": value}))


if __name__ == "__main__":
    _child()
