"""What a report is made of: records in, strings out; no store, no clock, no network."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64

from hoserkd.engine.metrics.comparison import Comparison
from hoserkd.engine.metrics.evaluation import Evaluation
from hoserkd.engine.metrics.statistics import Figure


@dataclass(frozen=True, slots=True)
class Curve:
    """One figure over the steps or epochs of a training."""

    x: Float64[np.ndarray, " n"]
    y: Float64[np.ndarray, " n"]


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """One judged set of trips and where it comes from."""

    evaluation: Evaluation
    source: str
    """The file of the generated trips, as the reader may find it."""
    run_id: str = ""
    """The run that made the model; empty for a bare file."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Hashes, device, revision, versions: name and value."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Resolved settings of the run, by dotted key."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """Training curves by metric name (`train_loss`, `val_accuracy`, ...)."""
    made: bool = True
    """Whether a model is known to have made the trips; those of other files may be recorded."""

    @property
    def name(self) -> str:
        """What the run is called in the report."""
        return self.evaluation.name


@dataclass(frozen=True, slots=True)
class SeedGroup:
    """Runs that differ in their seed alone."""

    name: str
    members: tuple[str, ...]
    mean: dict[str, Figure]
    """Mean over the seeds; low and high are the least and the largest seed's value."""
    spread: dict[str, float]
    """Standard deviation over the seeds, by metric."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that a page shows."""

    title: str
    runs: tuple[JudgedRun, ...]
    """At least one; all judged against the same city and split."""
    comparisons: tuple[Comparison, ...] = ()
    groups: tuple[SeedGroup, ...] = ()
    unlike: tuple[str, ...] = ()
    """Sentences on what the sets of trips do not have in common though they are compared."""
    commands: tuple[str, ...] = ()
    """Command lines that make the same again."""
    made: str = ""
    """When and with what, in words."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """What the evaluation itself ran on: package and version."""
    real_trips: bool = True
    """Whether page and exports may hold recorded trips; without, they hold generated ones alone."""

    @property
    def first(self) -> Evaluation:
        """The evaluation that stands first."""
        return self.runs[0].evaluation
