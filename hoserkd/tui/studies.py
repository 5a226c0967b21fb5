"""Studies as the dashboard shows them: their trainings, and what their own records say of them.

What is best, what mattered and how many trials there are is not worked out here: a study writes
it beside its run (`tune.json`, `study.json`) whenever a trial has changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hoserkd.engine.files import read_json_object
from hoserkd.tui.snapshot import Curve, RunRow

DOCUMENTS = {"tune": Path("tune/tune.json"), "study": Path("study/study.json")}
"""By the kind of the run that stands for the study: where it writes how the study is."""
ACCURACY = "accuracy"


@dataclass(frozen=True, slots=True)
class Told:
    """What a study has written of one trial."""

    number: int
    state: str
    """complete, pruned, failed, running or waiting."""
    value: float | None
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """What a study has written of itself (docs/json.md)."""

    objective: str = ACCURACY
    """What trials are ranked by."""
    summary: tuple[str, ...] = ()
    best: int | None = None
    """Number of the best trial; None where no trial beats vanilla."""
    importances: Mapping[str, float] = field(default_factory=dict)
    """Each parameter's share of the objective's variation, the largest first."""
    best_so_far: tuple[tuple[float, float], ...] = ()
    """(number, best figure) after each searched trial that was completed."""
    trials: Mapping[str, Told] = field(default_factory=dict)
    """By the run that trained them."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One training of a study."""

    run_id: str
    name: str
    role: str
    """What the study made it for: its first tag."""
    status: str
    """Of the run; of a trial that has ended, what the study says: complete, pruned or failed."""
    epoch: int | None
    value: float | None
    """The study's objective, as the study records it; of a run at work, its best accuracy."""
    parameters: Mapping[str, Any]
    """What the study searches, by name. Empty for vanilla and for what is not recorded yet."""
    number: int | None = None
    """Among the study's trials, 0 for vanilla; None: a final run, or not recorded yet."""


@dataclass(frozen=True, slots=True)
class Study:
    """A study and its trainings, in the order in which they were started."""

    name: str
    status: str
    trials: tuple[Trial, ...]
    record: StudyRecord = StudyRecord()

    @property
    def parameters(self) -> tuple[str, ...]:
        """What is searched."""
        return tuple(dict.fromkeys(name for trial in self.trials for name in trial.parameters))

    def best_so_far(self) -> Curve:
        """Return the best figure of the searched trials after each that was completed."""
        points = self.record.best_so_far
        return Curve("best so far", tuple(x for x, _ in points), tuple(y for _, y in points))

    def each(self) -> Curve:
        """Return the figure of each trial that has one."""
        points = [(float(t.number), t.value) for t in self.trials
                  if t.number is not None and t.value is not None]
        return Curve("trial", tuple(x for x, _ in points), tuple(y for _, y in points))


def studies_of(rows: Sequence[RunRow], studies: Mapping[str, str],
               records: Mapping[str, StudyRecord]) -> tuple[Study, ...]:
    """Return the studies, the newest first.

    Args:
        rows: all runs, the newest first.
        studies: study of each run that belongs to one.
        records: what studies have written of themselves, by name.
    """
    names = list(dict.fromkeys(studies[row.run_id] for row in rows if row.run_id in studies))
    return tuple(_study(name, [row for row in reversed(rows) if studies.get(row.run_id) == name],
                        records.get(name, StudyRecord())) for name in names)


def read_record(path: Path) -> StudyRecord:
    """Return what a study has written of itself; nothing where it cannot be read."""
    try:
        return record_of(read_json_object(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Of another version, or damaged: the study's trainings are shown without it.
        return StudyRecord()


def record_of(document: Mapping[str, Any]) -> StudyRecord:
    """Return the record of a study's document, of a tuning study or of one that compares arms."""
    objective = str(next(iter(document.get("objectives", ())), ACCURACY))
    best = document.get("best") or {}
    return StudyRecord(
        objective, tuple(str(line) for line in document.get("summary", ())),
        None if "number" not in best else int(best["number"]),
        {str(name): float(share) for name, share in
         document.get("importances", {}).get(objective, {}).items()},
        tuple((float(point["number"]), float(point["value"]))
              for point in document.get("best_so_far", ())),
        {str(trial["run_id"]): _told(trial, objective)
         for trial in document.get("trials", ()) if trial["run_id"]})


def _told(trial: Mapping[str, Any], objective: str) -> Told:
    value = trial["values"].get(objective)
    return Told(int(trial["number"]), str(trial["state"]),
                None if value is None else float(value), dict(trial["params"]))


def _study(name: str, rows: Sequence[RunRow], record: StudyRecord) -> Study:
    whole = [row for row in rows if row.kind in DOCUMENTS]
    trials = tuple(_trial(row, record) for row in rows if row.kind == "train")
    working = any(row.live for row in rows)
    status = whole[-1].status if whole and not working else "running" if working else "finished"
    return Study(name, status, trials, record)


def _trial(row: RunRow, record: StudyRecord) -> Trial:
    role, told = row.tags[0] if row.tags else "", record.trials.get(row.run_id)
    own = row.val_accuracy if record.objective == ACCURACY else None
    if told is None:
        return Trial(row.run_id, row.name, role, row.status, row.epoch, own, {})
    return Trial(row.run_id, row.name, role, row.status if row.live else told.state, row.epoch,
                 own if told.value is None else told.value, told.parameters, told.number)
