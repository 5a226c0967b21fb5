"""What the dashboard shows at one moment: frozen records, made by plain functions.

No widget reads the store and no record here knows a widget, so that both can be tested alone.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hoserkd.store.elsewhere import OtherStore

if TYPE_CHECKING:
    from hoserkd.store.records import QuarantineRecord
    from hoserkd.tui.judgements import Judgement
    from hoserkd.tui.mapping import MapData
    from hoserkd.tui.studies import Study

CURVE_POINTS = 300
"""Points of a drawn curve at most; a terminal has no room for more."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run as the table of runs shows it. None: not known, or not told by this kind of run."""

    run_id: str
    name: str
    kind: str
    profile: str
    status: str
    tags: tuple[str, ...] = ()
    seed: int | None = None
    device: str = ""
    started_s: float | None = None
    """Seconds since 1970."""
    duration_s: float | None = None
    """Until the end, or until now."""
    step: int | None = None
    total_steps: int | None = None
    epoch: int | None = None
    optimiser_steps_per_s: float | None = None
    trips_per_s: float | None = None
    val_accuracy: float | None = None
    loss: float | None = None
    loss_kl: float | None = None
    eta_s: float | None = None

    @property
    def live(self) -> bool:
        """Tell whether the run is still at work."""
        return self.status == "running"

    @property
    def progress(self) -> float | None:
        """Share of the steps that are done, 0 to 1; a finished run has done all."""
        if self.status == "finished":
            return 1.0
        if not self.total_steps or self.step is None:
            return None
        return min(self.step / self.total_steps, 1.0)


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric over the optimiser steps, thinned to what can be drawn."""

    name: str
    step: tuple[float, ...]
    value: tuple[float, ...]

    @property
    def last(self) -> float | None:
        """The newest value."""
        return self.value[-1] if self.value else None


@dataclass(frozen=True, slots=True)
class Setting:
    """A resolved setting of a run, and whether it is what its profile says."""

    key: str
    value: str
    profile_value: str | None
    """None: the profile says the same."""

    @property
    def differs(self) -> bool:
        """Tell whether the run was started with another value than its profile's."""
        return self.profile_value is not None


@dataclass(frozen=True, slots=True)
class RunDetail:
    """One run as its own page shows it."""

    row: RunRow
    curves: Mapping[str, Curve] = field(default_factory=dict)
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    """Mean milliseconds a part of a step, over the newest samples."""
    settings: tuple[Setting, ...] = ()
    log: tuple[str, ...] = ()
    """Newest notes, one line each."""
    evaluations: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """The state of the store itself."""

    directory: str
    database_bytes: int
    spool_bytes: int
    files_bytes: int
    """Of all runs: checkpoints, models, trips, reports, spools."""
    free_bytes: int
    """On the disk that holds the store."""
    schema_version: int | None
    """None: the database could not be read."""
    runs_by_status: Mapping[str, int]
    behind_s: float = 0.0
    """Seconds by which the database is behind the newest event; the dashboard itself is not."""
    leftovers_bytes: int = 0
    """Of removals and repairs; `runs gc` clears them away."""
    largest: tuple[tuple[str, int], ...] = ()
    """(run, bytes) of the runs that take most room, the largest first."""
    quarantine: "tuple[QuarantineRecord, ...]" = ()
    """Files of runs that cannot be read, wholly or in part."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that the visible page needs, as of one moment."""

    runs: tuple[RunRow, ...] = ()
    details: Mapping[str, RunDetail] = field(default_factory=dict)
    """Of the selected and the compared runs, by run id."""
    studies: "tuple[Study, ...]" = ()
    judgements: "tuple[Judgement, ...]" = ()
    map: "MapData | None" = None
    map_missing: str = ""
    """Why there is no map of the chosen run, where it belongs to a city."""
    other_stores: tuple[OtherStore, ...] = ()
    """Of this user; looked for where the store holds no run."""
    store: StoreHealth | None = None
    news: tuple[str, ...] = ()
    """What to tell the user once."""
    trouble: str | None = None
    """Why the store could not be read this time."""


def thinned(name: str, points: Sequence[tuple[float, float]], most: int = CURVE_POINTS) -> Curve:
    """Return a curve of at most `most` points that keeps every bucket's lowest and highest value.

    Args:
        name: the metric's name.
        points: (step, value) in the order of the steps; what is not a number is left out.
        most: an even number of points.
    """
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    if len(finite) > most:
        buckets = most // 2
        kept: list[tuple[float, float]] = []
        for bucket in range(buckets):
            start = bucket * len(finite) // buckets
            part = finite[start:(bucket + 1) * len(finite) // buckets]
            extremes = {min(part, key=_value), max(part, key=_value)}
            kept += sorted(extremes)
        # The newest value is what a reader looks for at the right edge.
        kept[-1] = finite[-1]
        finite = kept
    return Curve(name, tuple(step for step, _ in finite), tuple(value for _, value in finite))


def _value(point: tuple[float, float]) -> float:
    return point[1]


def curves_of(rows: Iterable[tuple[int, str, float]]) -> dict[str, Curve]:
    """Return the curve of every metric in `rows` of (step, name, value)."""
    by_name: dict[str, list[tuple[float, float]]] = {}
    for step, name, value in rows:
        by_name.setdefault(name, []).append((step, value))
    return {name: thinned(name, sorted(points)) for name, points in sorted(by_name.items())}


def time_left_s(step: int | None, total_steps: int | None,
                pace_per_s: float | None) -> float | None:
    """Return the seconds to go at the present speed."""
    if step is None or not total_steps or not pace_per_s or pace_per_s <= 0:
        return None
    return max(total_steps - step, 0) / pace_per_s


def flat_settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as dotted keys and texts."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = _text(value)
    return flat


def settings_against(config: Mapping[str, Any],
                     profile: Mapping[str, Any] | None) -> tuple[Setting, ...]:
    """Return a run's settings, those that differ from its profile first.

    Args:
        config: the run's resolved settings.
        profile: the same of its profile alone; None: the profile is not known here.
    """
    base = flat_settings(profile) if profile is not None else None
    settings = []
    for key, value in flat_settings(config).items():
        theirs = base.get(key) if base is not None else None
        settings.append(Setting(key, value, theirs if theirs != value else None))
    return tuple(sorted(settings, key=lambda setting: (not setting.differs, setting.key)))


def settings_diff(details: Sequence[RunDetail]) -> list[tuple[str, list[str]]]:
    """Return (key, value of each run) of the settings in which the runs differ."""
    tables = [{setting.key: setting.value for setting in detail.settings} for detail in details]
    keys = sorted({key for table in tables for key in table})
    rows = [(key, [table.get(key, "-") for table in tables]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    return str(value)
