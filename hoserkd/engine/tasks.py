"""One training of a study, and whoever trains it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hoserkd.engine.config import EngineConfig
from hoserkd.engine.events import Observer, StopRequested


@dataclass(frozen=True, slots=True)
class Task:
    """One training of a study."""

    name: str
    tags: tuple[str, ...]
    """What the study makes it for; the first says its role."""
    config: EngineConfig
    continues: str | None = None
    """Id of the stopped run that it goes on with."""

    @property
    def role(self) -> str:
        """What it is to the study."""
        return self.tags[0]


class Train(Protocol):
    """Trains one task and returns its metrics, `val_...` and `test_...`."""

    def __call__(
        self, task: Task, observer: Observer, stop: StopRequested, started: Callable[[str], None]
    ) -> dict[str, float]:
        """Train; call `started` with the run's id as soon as it has one.

        Raises:
            InterruptedRunError: `stop` said so.
            DivergenceError: the setting does not train.
        """
        ...
