"""The observer that records a run."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hoserkd.engine.bounded_json import read_json_object
from hoserkd.engine.events import (
    CheckpointSaved,
    EpochDone,
    Event,
    Note,
    Progress,
    Rewound,
    SplitJudged,
    StepDone,
)
from hoserkd.engine.files import write_json
from hoserkd.errors import InterruptedRunError, describe_error, refused_error
from hoserkd.store.events import check_header
from hoserkd.store.machine import SAMPLE_S, MachineSampler
from hoserkd.store.mirror import Mirror
from hoserkd.store.records import Status
from hoserkd.store.spool import SPOOL, Spool
from hoserkd.text import plain

RUN_FILE = "run.json"
SETTINGS_FILE = "settings.json"
PROGRESS_S = 1.0
"""Progress of one job is written at most so often."""


class RunRecorder:
    """Writes one run's events to its spool. As a context manager it also records the ending.

    `notify` costs microseconds and never raises: on a full disk events wait for room, and the
    training goes on; the first failure is told through `on_failure`.
    """

    def __init__(
        self,
        directory: Path,
        header: Mapping[str, Any],
        *,
        on_failure: Callable[[str], None] | None = None,
        on_finish: Callable[[], object] | None = None,
        sample_s: float = SAMPLE_S,
    ) -> None:
        self.run_id: str = header["run_id"]
        self.name: str = header["name"]
        self.directory = directory
        self.failure: OSError | None = None
        """The first thing that could not be recorded."""
        self._header = dict(header)
        self._on_failure = on_failure
        self._on_finish = on_finish
        self._spool = Spool(directory / SPOOL)
        self._ended = False
        self._told: dict[str, float] = {}
        self._mirrors: list[Mirror] = []
        self._sampler = MachineSampler(self.system, sample_s)

    def begin(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Write the first event of this process's share of the run: `start` or `resume`."""
        self._append(kind, fields)
        self._flush()

    def mirror(self, mirror: Mirror) -> None:
        """Pass events on to `mirror`, and close it at the end."""
        self._mirrors.append(mirror)

    def notify(self, event: Event) -> None:
        """Record `event`."""
        for mirror in self._mirrors:
            mirror.notify(event)
        match event:
            case StepDone():
                fields: dict[str, Any] = {"step": event.step, "epoch": event.epoch,
                                          "total": event.total_steps, "m": dict(event.metrics)}
                if event.timings_ms:
                    fields["ms"] = dict(event.timings_ms)
                self._append("step", fields)
            case Progress():
                self._progress(event)
            case EpochDone():
                self._append("epoch", {"step": event.step, "epoch": event.epoch,
                                       "m": dict(event.metrics)})
            case SplitJudged():
                self._append("evaluation", {"label": event.split, "payload": dict(event.metrics)})
            case CheckpointSaved():
                self.artifact(event.path, f"checkpoint-{event.kind}", step=event.step)
                self._flush()
            case Rewound():
                judged = {} if event.judged is None else {"judged": event.judged}
                self._append("rewind", {"step": event.step, **judged})
            case Note():
                self._append("note", {"level": event.level, "message": event.message})

    def artifact(self, path: Path | str, kind: str, step: int | None = None,
                 sha256: str | None = None) -> None:
        """Record a file that the run made, with the hash of its content where that is known."""
        self._append("artifact",
                     artifact_fields(Path(path), kind, self.directory, step, sha256))

    def evaluation(self, payload: Mapping[str, Any], label: str = "evaluation") -> None:
        """Record a judgement."""
        self._append("evaluation", {"label": label, "payload": plain(payload)})

    def trial(self, number: int, state: str, values: Mapping[str, float],
              params: Mapping[str, Any], *, trained: str, epochs: int, message: str) -> None:
        """Record how a trial of a study stands; the newest word on a number counts.

        Args:
            values: By objective.
            trained: Id of the run that trains it; empty before it has one.
            message: Why it failed.
        """
        self._append("trial", {"number": number, "state": state, "m": dict(values),
                               "payload": plain(params), "path": trained, "epoch": epochs,
                               "message": message})

    def system(self, metrics: Mapping[str, float]) -> None:
        """Record figures of the machine: CPU, memory, GPU."""
        self._append("system", {"m": dict(metrics)})

    def finish(self, status: Status, message: str = "") -> None:
        """Record the ending and let the spool go; what follows is not recorded."""
        if self._ended:
            return
        self._sampler.close()
        self._append("end", {"status": status, "message": message})
        self._ended = True
        try:
            self._spool.flush()
            write_json(self.directory / RUN_FILE, {
                **self._header, "status": status, "message": message,
                # The clock may have been set back meanwhile.
                "ended_at": max(time.time(), self._header.get("started_at", 0.0))})
        except OSError as error:
            self._failed(error)
        try:
            self._spool.close()
        except OSError as error:
            self._failed(error)
        # After the run's own record: a tracker may keep us waiting, and the user may not wait.
        for mirror in self._mirrors:
            mirror.close()
        if self._on_finish is not None:
            self._on_finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if error is None:
            self.finish("finished")
        elif isinstance(error, InterruptedRunError | KeyboardInterrupt):
            self.finish("stopped", str(error) or "interrupted")
        else:
            self.finish("failed", describe_error(error))

    def _progress(self, event: Progress) -> None:
        now = time.monotonic()
        finished = event.total is not None and event.done >= event.total
        if not finished and now - self._told.get(event.job, -PROGRESS_S) < PROGRESS_S:
            return
        self._told[event.job] = now
        self._append("progress", {"job": event.job, "done": event.done, "all": event.total,
                                  "unit": event.unit, "m": dict(event.metrics)})

    def _append(self, kind: str, fields: Mapping[str, Any]) -> None:
        if self._ended:
            return
        try:
            self._spool.append(kind, fields)
        except OSError as error:
            self._failed(error)

    def _flush(self) -> None:
        try:
            self._spool.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        if self.failure is None:
            self.failure = error
            if self._on_failure is not None:
                self._on_failure(f"run {self.run_id}: not everything could be recorded so far: "
                                 f"{refused_error(error).message}")


def read_header(directory: Path) -> dict[str, Any]:
    """Return what `run.json` says.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged; says how.
    """
    return check_header(read_json_object(directory / RUN_FILE), directory.name)


def artifact_fields(
    path: Path, kind: str, directory: Path, step: int | None = None, sha256: str | None = None
) -> dict[str, Any]:
    """Return what an `artifact` event says about a file; inside the run's folder it is relative."""
    inside = path.is_relative_to(directory)
    return {"path": str(path.relative_to(directory) if inside else path), "kind": kind,
            "size": path.stat().st_size if path.is_file() else None, "step": step,
            **({"sha256": sha256} if sha256 else {})}
