"""Writers for other trackers: TensorBoard files, and W&B runs that need no network."""

import json
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hoserkd.errors import UsageError

if TYPE_CHECKING:
    from hoserkd.engine.config import EngineConfig


SETTINGS = "settings"
"""Name of the text that holds a run's settings."""
ELAPSED = "elapsed_s"
"""Axis of what belongs to no optimiser step, such as `system/*`: seconds since the run's start."""
EVENT_SUFFIX = ".hoserkd"
"""How the names of our event files end, which tells them from those of other programs."""


class Tracker(Protocol):
    """Where figures go that other tools are to show."""

    def scalars(self, values: Mapping[str, float], step: int, at_s: float) -> None:
        """Write figures of one step; `at_s` is seconds since 1970."""

    def clocked(self, values: Mapping[str, float], elapsed_s: float, at_s: float) -> None:
        """Write figures that belong to no step; `elapsed_s` is since the start of the run."""

    def text(self, name: str, text: str) -> None:
        """Write something to read."""

    def close(self) -> None:
        """Bring everything to the disk."""


class TensorBoardTracker:
    """Event files as TensorBoard reads them, written without torch or TensorFlow."""

    def __init__(self, folder: Path) -> None:
        _need("tensorboard")
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._event: Any = event_pb2.Event
        self._summary: Any = summary_pb2
        self._writer: Any = EventFileWriter(str(folder), filename_suffix=EVENT_SUFFIX)
        self._at_s: float | None = None

    def scalars(self, values: Mapping[str, float], step: int, at_s: float) -> None:
        """Write one event with all figures."""
        self._at_s = at_s
        summary = self._summary.Summary(value=[
            self._summary.Summary.Value(tag=name, simple_value=value)
            for name, value in values.items()])
        self._writer.add_event(self._event(wall_time=at_s, step=step, summary=summary))

    def clocked(self, values: Mapping[str, float], elapsed_s: float, at_s: float) -> None:
        """Write one event whose step is the whole seconds since the start of the run."""
        self.scalars(values, int(elapsed_s), at_s)

    def text(self, name: str, text: str) -> None:
        """Write a text for the text tab."""
        from tensorboard.plugins.text.summary_v2 import text_pb

        # The time of the figures before it: one of 1970 would stretch TensorBoard's axis.
        at_s = time.time() if self._at_s is None else self._at_s
        self._writer.add_event(self._event(wall_time=at_s, step=0, summary=text_pb(name, text)))

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WandbTracker:
    """A W&B run, offline unless asked otherwise; `wandb sync` can upload it later."""

    def __init__(self, folder: Path, *, run_id: str, name: str, project: str,
                 config: Mapping[str, Any], tags: tuple[str, ...] = (), online: bool = False,
                 argv: Sequence[str] = ()) -> None:
        """Begin the run.

        Args:
            argv: Command line that W&B is to show; empty: this process's.
        """
        _need("wandb")
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        with _command_line(argv or sys.argv):
            self._run: Any = wandb.init(
                project=project, id=run_id, name=name, dir=str(folder), config=dict(config),
                tags=list(tags), mode="online" if online else "offline", reinit="create_new",
                settings=wandb.Settings(silent=True, console="off", x_disable_stats=True,
                                        program="hoserkd"))
        self._run.define_metric("*", step_metric="step")
        self._clocked: set[str] = set()

    def scalars(self, values: Mapping[str, float], step: int, at_s: float) -> None:
        """Log one row; its own counter continues, since epochs come after later steps."""
        self._run.log({**values, "step": step, "_timestamp": at_s})

    def clocked(self, values: Mapping[str, float], elapsed_s: float, at_s: float) -> None:
        """Log one row whose axis is the time since the start of the run."""
        for name in values.keys() - self._clocked:
            self._run.define_metric(name, step_metric=ELAPSED)
            self._clocked.add(name)
        self._run.log({**values, ELAPSED: elapsed_s, "_timestamp": at_s})

    def text(self, name: str, text: str) -> None:
        """Keep a text in the run's summary."""
        self._run.summary[name] = text

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


@contextmanager
def _command_line(argv: Sequence[str]) -> Iterator[None]:
    """Let W&B, which reads `sys.argv` and has no setting for it, see this command line."""
    own = sys.argv
    sys.argv = list(argv)
    try:
        yield
    finally:
        sys.argv = own


def wait_for_wandb() -> None:
    """Return when W&B's own process has written what finished runs logged."""
    import wandb

    wandb.teardown()


def mirror_opener(kind: str, run: Any, config: "EngineConfig") -> Callable[[], Tracker]:
    """Return what opens the tracker `kind` for a run that begins, in the run's own folder.

    Args:
        run: The run's recorder.

    Raises:
        UsageError: the tracker is not installed.
    """
    _need(kind)
    folder = run.directory / kind
    if kind == "tensorboard":
        return lambda: _with_settings(TensorBoardTracker(folder), config)
    return lambda: WandbTracker(
        folder, run_id=run.run_id, name=run.name, project=config.tracking.project,
        config=config.model_dump(mode="json"), online=config.tracking.online)


def check_trackers(kinds: Sequence[str]) -> None:
    """See that the trackers are installed, before a run begins.

    Raises:
        UsageError: one is not.
    """
    for kind in kinds:
        _need(kind)


def _with_settings(tracker: Tracker, config: "EngineConfig") -> Tracker:
    tracker.text(SETTINGS, settings_text(config.model_dump(mode="json")))
    return tracker


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return the settings as TensorBoard's text tab shows them: indented code."""
    return textwrap.indent(json.dumps(settings, indent=2), "    ")


def _need(package: str) -> None:
    if find_spec(package) is None:
        raise UsageError(f"{package} is not installed",
                         hint=f"pip install 'hoserkd[{package}]'")
