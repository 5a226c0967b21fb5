"""What the engine reports while it works, and who listens.

Only these records leave a running engine function; printing, recording and plotting are the
listeners' business (see `hoserkd.console` and `hoserkd.store`).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Progress:
    """Part of a long job is done."""

    job: str
    """What is being done, in the user's words: "reading train.csv", "searching"."""
    done: int
    total: int | None
    """None: the end is not known."""
    unit: str
    """Plural noun of what is counted: "trips", "contexts", "steps"."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Figures worth showing beside the bar."""


@dataclass(frozen=True, slots=True)
class StepDone:
    """One optimiser step of a training is done."""

    step: int
    """Optimiser steps so far, 1 after the first."""
    epoch: int
    """Running epoch, 0 for the first."""
    total_steps: int
    metrics: Mapping[str, float]
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds a part (data, transfer, forward, teacher, backward, optimiser); empty except at
    sampled steps."""


@dataclass(frozen=True, slots=True)
class EpochDone:
    """A pass over the training trips with its validation is done, or several passes with one."""

    epoch: int
    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SplitJudged:
    """A trained model has been judged on a whole split."""

    split: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A checkpoint is on disk, whole."""

    path: str
    kind: Literal["best", "last"]
    step: int


@dataclass(frozen=True, slots=True)
class Rewound:
    """A resumed run goes on from `step`; what was recorded after it is void."""

    step: int
    judged: int | None = None
    """Step up to which epochs have been judged, if not up to `step`: one that ended with it may
    have to be judged again."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something the user should know."""

    message: str
    level: Literal["info", "warning"] = "info"


Event = Progress | StepDone | EpochDone | SplitJudged | CheckpointSaved | Rewound | Note


class Observer(Protocol):
    """Listens to a running engine function. `notify` must be quick and must not raise."""

    def notify(self, event: Event) -> None: ...


class Silent:
    """Hears nothing."""

    def notify(self, event: Event) -> None:
        """Drop the event."""


class Broadcast:
    """Passes every event to each of several observers, in order."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)

    def notify(self, event: Event) -> None:
        """Pass `event` on."""
        for observer in self._observers:
            observer.notify(event)


StopRequested = Callable[[], bool]
"""Asked at safe points; True means: save what resumes and raise `InterruptedRunError`."""


def never_stop() -> bool:
    """Return False: the stop request of a function that nobody can interrupt."""
    return False
