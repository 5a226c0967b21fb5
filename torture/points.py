"""Every change to a file in turn: the process dies there, or the disk refuses there.

Where random moments would take years to meet the narrow gap between two calls, this meets each.
"""

import errno
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from torture import wholeness
from torture.forks import Ending, asked, run_child, run_command
from torture.kills import finished
from torture.ledger import Ledger, Tally
from torture.shim import Fault, Mode
from torture.small import SMALL, Small
from torture.town import JOBS, Town

REFUSALS = {"no space": (Mode.REFUSE_ON, errno.ENOSPC), "an error": (Mode.REFUSE_ONCE, errno.EIO),
            "no permission": (Mode.REFUSE_ON, errno.EACCES)}


def spread(calls: int, points: int | None) -> Sequence[int]:
    """Return the numbers of some calls, evenly from the first to the last; None: of all."""
    if points is None or points >= calls:
        return range(1, calls + 1)
    return sorted({1 + round(i * (calls - 1) / (points - 1)) for i in range(points)})


def small_points(folder: Path, ledger: Ledger, points: int | None = None,
                 names: Iterable[str] | None = None) -> None:
    """Kill, tear and refuse at every call of the small works, or at so many of them."""
    for small in (each for each in SMALL if names is None or each.name in names):
        kinds = {"death": Fault(Mode.KILL), "half a write": Fault(Mode.TEAR)}
        kinds |= {name: Fault(mode, error=number) for name, (mode, number) in REFUSALS.items()}
        asked(small.prepare, folder / "before")
        calls = _small(small, folder, Fault()).calls or 0
        for name, kind in kinds.items():
            tally = Tally(f"{name} at every call", small.name, more={"calls": calls})
            for at in spread(calls, points):
                ending = _small(small, folder, Fault(kind.mode, at, kind.error))
                said = [] if ending.code in (-9, 0) else clear(ending)
                tally.judge(f"call {at} ({ending.fatal})",
                            said + asked(small.check, folder / "small"))
            ledger.enter(tally)


def _small(small: Small, folder: Path, fault: Fault) -> Ending:
    place = folder / "small"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder / "before", place)

    def work() -> int:
        from hoserkd.errors import HoserkdError

        try:
            small.work(place)
        except (OSError, HoserkdError) as error:
            os.write(2, f"error: {error}\n".encode())
            return 1
        return 0

    return run_child(work, place, fault=fault)


def job_deaths(town: Town, ledger: Ledger, points: int | None, names: Iterable[str] = JOBS
               ) -> None:
    """Let every command die at its calls, in the middle of a write where it is one."""
    for name in names:
        stage = town.stage(name)
        tally = Tally("death at a call", name, more={"calls": stage.calls})
        for number, at in enumerate(spread(stage.calls, points)):
            home = town.trial(stage)
            mode = (Mode.TEAR, Mode.KILL)[number % 2]
            ending = run_command(stage.job.first(home), home.path, fault=Fault(mode, at))
            wrong = asked(wholeness.faults, home.path)
            tally.judge(f"call {at} ({ending.fatal})", wrong + finished(home, stage))
        ledger.enter(tally)


def job_refusals(town: Town, ledger: Ledger, points: int | None, names: Iterable[str] = JOBS
                 ) -> None:
    """Refuse room, permission and health at the calls of every command, then take it back."""
    for name in names:
        stage = town.stage(name)
        for refusal, (mode, error) in REFUSALS.items():
            tally = Tally(f"{refusal} from a call on" if mode is Mode.REFUSE_ON
                          else f"{refusal} at a call", name, more={"calls": stage.calls})
            for at in spread(stage.calls, points):
                home = town.trial(stage)
                ending = run_command(stage.job.first(home), home.path,
                                     fault=Fault(mode, at, error))
                wrong = clear(ending) + asked(wholeness.faults, home.path)
                tally.judge(f"call {at} ({ending.fatal})", wrong + finished(home, stage))
            ledger.enter(tally)


def clear(ending: Ending) -> list[str]:
    """Return what is wrong with the way a refusal was told."""
    if ending.code == 0:
        return []  # the call was not needed: what a cache could not keep, say
    if ending.code not in (1, 2):
        return [f"exit code {ending.code}: {ending.stderr[-300:]}"]
    errors = [line for line in ending.stderr.splitlines() if line.startswith("error: ")]
    wrong = [] if len(errors) == 1 else [f"{len(errors)} lines of error: {ending.stderr[-300:]}"]
    if "Traceback" in ending.stderr or "Exception ignored" in ending.stderr:
        wrong.append(f"a traceback: {ending.stderr[-400:]}")
    return wrong

