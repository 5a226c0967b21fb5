"""Pieces of hoserkd's work so small that a fault can be tried at each of their calls."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

STEPS = 6


@dataclass(frozen=True, slots=True)
class Small:
    """A piece of work, what it finds, and what must hold after any mishap."""

    name: str
    prepare: Callable[[Path], None]
    work: Callable[[Path], None]
    check: Callable[[Path], list[str]]
    """Goes on as hoserkd would, without faults, and returns what is wrong."""


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _old_file(folder: Path) -> None:
    from hoserkd.engine.files import write_json

    _empty(folder)
    write_json(folder / "file.json", {"state": "old"})


def _write_file(folder: Path) -> None:
    from hoserkd.engine.files import write_json

    write_json(folder / "file.json", {"state": "new", "filling": "x" * 20_000})


def _check_file(folder: Path) -> list[str]:
    state = json.loads((folder / "file.json").read_bytes())["state"]
    _write_file(folder)
    again = json.loads((folder / "file.json").read_bytes())["state"]
    return [f"state {state}, then {again}"] * (state not in ("old", "new") or again != "new")


def _record(folder: Path) -> None:
    from hoserkd.engine.events import StepDone
    from hoserkd.store.runs import RunStore

    with RunStore(folder / "store").create_run("train", "torture", "run") as run:
        for step in range(1, STEPS + 1):
            run.notify(StepDone(step, 0, STEPS, {"loss": 1.0 / step}))


def _check_record(folder: Path) -> list[str]:
    """Whole lines from the first on, no gap, and a store that says just the same."""
    from torture import wholeness

    return wholeness.faults(folder)


def _recorded(folder: Path) -> None:
    """Leave three runs whose records nobody has read in yet, one of them rewound."""
    from hoserkd.engine.events import EpochDone, Rewound, StepDone
    from hoserkd.store.runs import RunStore

    _empty(folder)
    store = RunStore(folder / "store")
    for number in range(3):
        run = store.create_run("train", "torture", f"run-{number}")
        for step in [*range(1, STEPS), *range(STEPS // 2, STEPS)]:
            if step == STEPS // 2:
                run.notify(Rewound(STEPS // 2 - 1))
            run.notify(StepDone(step, 0, STEPS, {"loss": 1.0 / step, "lr": 0.1}))
        run.notify(EpochDone(0, STEPS, {"val_accuracy": 0.5}))
        run.finish("finished")
    for file in (folder / "store").glob("hoserkd.duckdb*"):
        file.unlink()


def _ingest(folder: Path) -> None:
    from hoserkd.errors import StoreError
    from hoserkd.store.runs import RunStore

    try:
        RunStore(folder / "store").runs()
    except StoreError as error:
        raise OSError(error.message) from error


def _check_ingest(folder: Path) -> list[str]:
    from hoserkd.store.runs import RunStore
    from torture import wholeness

    found = [run.step for run in RunStore(folder / "store").runs()]
    return wholeness.faults(folder) + [f"steps {found}"] * (found != [STEPS] * 3)


def _two_trials(folder: Path) -> None:
    from hoserkd.engine.study_journal import StudyJournal

    _empty(folder)
    StudyJournal(folder / "study.log").append_logs([{"op": 0}, {"op": 1}])


def _more_trials(folder: Path) -> None:
    from hoserkd.engine.study_journal import StudyJournal

    journal = StudyJournal(folder / "study.log")
    for op in (2, 4):
        journal.append_logs([{"op": op}, {"op": op + 1}])


def _check_trials(folder: Path) -> list[str]:
    from hoserkd.engine.study_journal import StudyJournal

    journal = StudyJournal(folder / "study.log")
    before = [log["op"] for log in journal.read_logs(0)]
    journal.append_logs([{"op": 9}])
    after = [log["op"] for log in StudyJournal(folder / "study.log").read_logs(0)]
    good = before[:2] == [0, 1] and before == list(range(len(before))) and after == [*before, 9]
    return [] if good else [f"entries {before}, then {after}"]


SMALL = (
    Small("replace a file", _old_file, _write_file, _check_file),
    Small("record a run", _empty, _record, _check_record),
    Small("ingest three runs", _recorded, _ingest, _check_ingest),
    Small("append to a study", _two_trials, _more_trials, _check_trials),
)
