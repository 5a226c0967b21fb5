"""Breaks hoserkd on purpose for a while, and prints what was tried and what was survived.

    python -m torture [--quick] [--seed N] [--kills N] [--only CASE,...] [--jobs JOB,...]

One JSON line a case on stdout: faults tried, faults survived, and each that was not. Exit code 1
if there is any.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from torture.shim import VARIABLE, restart_with_shim

if TYPE_CHECKING:
    from torture.ledger import Ledger

ON_JOBS = frozenset({"kill", "stop", "death", "refusal", "disk"})
"""Cases that run hoserkd's commands."""
MEMORY = Path("/dev/shm")
CASES = ("small", "kill", "stop", "death", "refusal", "disk", "memory", "worst", "big", "load")


def memory_folder() -> Path | None:
    """Return a folder where a sync costs nothing: a killed process, unlike a power cut, takes
    nothing of what was written with it."""
    return MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None


def main() -> int:
    """Run the cases."""
    options = _options()
    restart_with_shim("torture")
    from torture.ledger import Ledger

    folder = Path(tempfile.mkdtemp(prefix="torture-", dir=options.folder or memory_folder()))
    ledger = Ledger()
    try:
        run_cases(options, folder, ledger)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(Path(os.environ[VARIABLE]).parent, ignore_errors=True)
    ledger.close()
    return 1 if ledger.failed else 0


def run_cases(options: argparse.Namespace, folder: Path, ledger: "Ledger") -> None:
    """Run what the options want: first what a small process can do."""
    from torture.disk import all_disks
    from torture.forks import warm, warm_a_little
    from torture.kills import random_kills, random_stops
    from torture.load import big_store, many_at_once
    from torture.memory import long_run, long_training
    from torture.points import job_deaths, job_refusals, small_points
    from torture.town import JOBS, Town
    from torture.worst import worst_inputs

    quick, wanted = options.quick, options.only.split(",")
    if "small" in wanted:
        warm_a_little()
        small_points(folder, ledger, options.points, options.jobs and options.jobs.split(","))
    kills = options.kills or (3 if quick else 40)
    points = options.points or (3 if quick else 20)
    names = options.jobs.split(",") if options.jobs else list(JOBS)
    if not ON_JOBS.isdisjoint(wanted):
        warm()
        town = Town(folder)
        for name, work in {
            "kill": lambda: random_kills(town, ledger, kills, options.seed, names),
            "stop": lambda: random_stops(town, ledger, max(kills // 4, 2), options.seed, names),
            "death": lambda: job_deaths(town, ledger, points, names),
            "refusal": lambda: job_refusals(town, ledger, points, names),
            "disk": lambda: all_disks(town, ledger, names),
        }.items():
            if name in wanted:
                work()
    if "memory" in wanted:
        long_run(folder, ledger, 10_000 if quick else 100_000)
        long_training(folder, ledger, 200 if quick else 3_000)
    if "worst" in wanted:
        worst_inputs(folder, ledger)
    if "big" in wanted:
        big_store(folder, ledger, *((100, 1000) if quick else ()))
    if "load" in wanted:
        many_at_once(folder, ledger, 10.0 if quick else 600.0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few minutes")
    parser.add_argument("--seed", type=int, default=0, help="of all random moments")
    parser.add_argument("--kills", type=int, help="kills a command; 40, with --quick 3")
    parser.add_argument("--points", type=int,
                        help="calls of each command at which it dies or is refused: 20, or 3; "
                             "of the small works all")
    parser.add_argument("--only", default=",".join(CASES),
                        help=f"cases, with commas; of {', '.join(CASES)}")
    parser.add_argument("--jobs", help="commands, or small works, with commas; all if not given")
    parser.add_argument("--folder", type=Path,
                        help="where all happens; in memory (/dev/shm) if not given")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
