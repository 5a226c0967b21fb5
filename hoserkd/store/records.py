"""What the store gives out: frozen records, never live rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from hoserkd.engine.bounded_json import parse_json
from hoserkd.engine.identity import MadeFrom

if TYPE_CHECKING:
    # A list of runs needs neither, and both cost a tenth of a second.
    import numpy as np
    from jaxtyping import Float64, Int64

Status = Literal["running", "finished", "stopped", "failed", "dead"]
"""`dead`: its writer is gone and never said how it ended."""
ENDED: tuple[Status, ...] = ("finished", "stopped", "failed")


def settings_of(config_json: str) -> dict[str, Any]:
    """Return a run's settings out of their text.

    Raises:
        ValueError: it is no JSON object.
    """
    found = parse_json(config_json, non_finite=True)
    if not isinstance(found, dict):
        raise ValueError("its settings are no JSON object")
    return found


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run: what it is, where it comes from, how far it got."""

    run_id: str
    name: str
    kind: str
    """`train`, `train-teacher`, `tune`, `study`, `generate`, `evaluate`, ..."""
    profile: str
    status: Status
    started_at: datetime
    """UTC."""
    ended_at: datetime | None
    updated_at: datetime
    """Time of the last event that the store has seen."""
    message: str
    """Why it ended, where that needs saying."""
    tags: tuple[str, ...]
    notes: str
    parents: tuple[str, ...]
    """Ids of the runs that it builds on."""
    study: str
    """Study that it is a trial of; empty for none."""
    config_json: str
    config_sha256: str
    data_sha256: str
    """Hash of the prepared city; empty where none is involved."""
    made_from: MadeFrom
    """City, teacher and student that it was made from, with their hashes and places."""
    git_revision: str
    """Commit of hoserkd's own checkout, with `+` where files differ; empty if not from one."""
    versions: Mapping[str, str]
    device: str
    seed: int | None
    argv: tuple[str, ...]
    host: str
    pid: int
    step: int
    total_steps: int | None
    epoch: int | None
    job: str
    """What it was last busy with: "training", "searching"."""
    done: int | None
    total: int | None
    best_name: str
    """Metric by which its best epoch was chosen; empty before the first epoch."""
    best_value: float | None
    best_step: int | None
    last_metrics: Mapping[str, float]
    """Figures of the newest step; NaN where they were not finite."""
    last_epoch: Mapping[str, float]
    """Figures of the newest epoch."""
    directory: str

    def settings(self) -> dict[str, Any]:
        """Return the settings that it was begun with, section by section."""
        return settings_of(self.config_json)

    @property
    def progress(self) -> float | None:
        """Share of the work done, 0 to 1; None where the end is not known."""
        if self.status == "finished":
            return 1.0
        done, total = (self.step, self.total_steps) if self.total_steps else (self.done, self.total)
        return min(done / total, 1.0) if total and done is not None else None

    @property
    def duration_s(self) -> float:
        """Seconds from the start to the end, or to the last event."""
        return ((self.ended_at or self.updated_at) - self.started_at).total_seconds()


@dataclass(frozen=True, slots=True)
class Series:
    """One metric or timing over the steps of a run, in the order of the steps."""

    step: "Int64[np.ndarray, ' N']"
    at_s: "Float64[np.ndarray, ' N']"
    """Seconds since 1970, UTC."""
    value: "Float64[np.ndarray, ' N']"
    """NaN where the recorded figure was not finite."""


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch's figures."""

    epoch: int
    step: int
    at: datetime
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """A judgement of a run: a split judged at its end, or a whole `evaluate`."""

    label: str
    """`test` for the judged split, else what the evaluation was called."""
    at: datetime
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ArtifactRecord:
    """A file that a run made."""

    path: str
    """Relative to the run's folder where it lies inside."""
    kind: str
    at: datetime
    size: int | None
    step: int | None
    sha256: str | None
    """Hash of the content where it was recorded: of a teacher or student what decides its answers,
    else of the file."""


@dataclass(frozen=True, slots=True)
class NoteRecord:
    """Something that a run told its user."""

    at: datetime
    level: str
    message: str


@dataclass(frozen=True, slots=True)
class QuarantineRecord:
    """A file of a run that cannot be read, wholly or in part."""

    run_id: str
    file: str
    """`run.json`: the run is not shown at all."""
    lines: int
    """Lines of the spool that are no events and were left out; 0: the whole file."""
    byte: int | None
    """Where the first of these lines begins."""
    reason: str
    """What is wrong with it."""


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a `sync` did."""

    runs: int
    """Runs whose spools held something new."""
    events: int
    skipped: bool
    """Another process was busy with the database; what is new waits in the spools."""
