"""`kill -9`, SIGTERM and Ctrl-C at random moments; then the same command, to the end."""

import random
import signal
from collections.abc import Iterable

from torture import wholeness
from torture.forks import Stroke, asked, run_command, somewhere
from torture.ledger import Ledger, Tally
from torture.town import JOBS, Home, Stage, Town, headline

POLITE = (signal.SIGTERM, signal.SIGINT)
MOST_IN_A_ROW = 3
"""Kills before the command is left alone."""
STOP_S = 60.0
"""A command that was asked to stop and goes on for longer does not stop."""


def random_kills(town: Town, ledger: Ledger, kills: int, seed: int,
                 names: Iterable[str] = JOBS) -> None:
    """Kill every command `kills` times, up to three times on its way to one end."""
    for name in names:
        chance = random.Random(f"{seed} {name}")
        stage, tally = town.stage(name), Tally("kill -9", name)
        while tally.faults < kills:
            home = town.trial(stage)
            argv, struck = stage.job.first(home), 0
            for _ in range(chance.randint(1, MOST_IN_A_ROW)):
                stroke = Stroke(signal.SIGKILL, somewhere(chance, stage.cpu_s))
                if not _strike(home, argv, stroke, tally):
                    break
                struck += 1
                argv = stage.job.again(home)
            _finish(home, stage, f"after {struck} kills", tally)
        ledger.enter(tally)


def random_stops(town: Town, ledger: Ledger, stops: int, seed: int,
                 names: Iterable[str] = JOBS) -> None:
    """Ask every command to stop `stops` times; it must say so, leave 130 behind and go on."""
    for name in names:
        chance = random.Random(f"{seed} {name} stop")
        stage, tally = town.stage(name), Tally("SIGTERM and Ctrl-C", name)
        ended = 0
        for number in range(stops):
            home = town.trial(stage)
            stroke = Stroke(POLITE[number % 2], somewhere(chance, stage.cpu_s))
            ending = run_command(stage.job.first(home), home.path, stroke=stroke,
                                 longest_s=STOP_S)
            wrong = asked(wholeness.faults, home.path)
            if ending.code not in (0, 130):
                wrong.insert(0, f"exit code {ending.code}: {headline(ending)}")
            if "Traceback" in ending.stderr:
                wrong.insert(0, f"a traceback: {ending.stderr[-300:]}")
            ended += ending.code == 130
            if ending.code == 130:
                wrong += asked(_not_stopped, home.path)
            tally.judge(f"{stroke}", wrong)
            _finish(home, stage, f"after {stroke}", tally)
        tally.more["stopped"] = ended
        ledger.enter(tally)


def _strike(home: Home, argv: list[str], stroke: Stroke, tally: Tally) -> bool:
    """Run a command and kill it; return whether the kill came before its end."""
    before = wholeness.spools(home.path)
    ending = run_command(argv, home.path, stroke=stroke)
    if not ending.killed:
        return False
    wrong = asked(wholeness.faults, home.path)
    tally.judge(f"{argv[0]} killed at {stroke.cpu_s:.3f} s",
                wrong + wholeness.lost(before, wholeness.spools(home.path)))
    return True


def _finish(home: Home, stage: Stage, fault: str, tally: Tally) -> None:
    """Run the command to its end and hold what came of it against the undisturbed result."""
    if wrong := finished(home, stage):
        tally.failures.append(f"{fault}: {'; '.join(wrong[:3])}")


def finished(home: Home, stage: Stage) -> list[str]:
    """Run a job's command to its end, and return what is wrong then."""
    before = wholeness.spools(home.path)
    argv = stage.job.again(home)
    ending = run_command(argv, home.path)
    if ending.code != 0:
        return [f"`{' '.join(argv[:2])}` ends with {ending.code}: {headline(ending)}"]
    wrong: list[str] = asked(wholeness.faults, home.path)
    wrong += wholeness.lost(before, wholeness.spools(home.path))
    try:
        found = asked(stage.job.result, home.path)
    except RuntimeError as error:
        return [*wrong, str(error)[-400:]]
    return wrong + differences(stage.expected, found)


def differences(expected: object, found: object, where: str = "result") -> list[str]:
    """Return where two plain values differ."""
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = sorted(expected.keys() | found.keys())
        return [line for key in keys for line in differences(
            expected.get(key), found.get(key), f"{where}.{key}")]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return [line for number, pair in enumerate(zip(expected, found, strict=True))
                for line in differences(*pair, f"{where}[{number}]")]
    return [] if expected == found else [
        f"{where} is {str(found)[:80]}, undisturbed {str(expected)[:80]}"]


def _not_stopped(home: str) -> list[str]:
    from pathlib import Path

    from hoserkd.store.runs import RunStore

    store = Path(home) / "store"
    runs = RunStore(store).runs() if store.is_dir() else ()
    return [f"run {run.name} is {run.status}" for run in runs
            if run.status not in ("finished", "stopped")]
