"""Kinds of trips by which an evaluation is broken down."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from hoserkd.engine.config import Scenario
from hoserkd.engine.geo import great_circle_m
from hoserkd.engine.metrics.packed import destinations, origins
from hoserkd.engine.metrics.pairwise import od_keys
from hoserkd.engine.types import TrajectorySet

DAY_S = 86400
EPOCH_WEEKDAY = 3
"""1970-01-01 was a Thursday; Monday is 0."""


@dataclass(frozen=True, slots=True)
class TripEnds:
    """Where and when trips begin, and where they go."""

    origin: Int64[np.ndarray, " N"]
    destination: Int64[np.ndarray, " N"]
    departure_s: Int64[np.ndarray, " N"]


@dataclass(frozen=True, slots=True)
class Places:
    """What is central, far and known, learnt from the real trips."""

    centroid_lonlat: Float64[np.ndarray, "R 2"]
    centre_lonlat: Float64[np.ndarray, "2"]
    centre_km: float
    long_km: float
    cell: Int64[np.ndarray, " R"]
    seen: Int64[np.ndarray, " k"]
    """Sorted keys of the pairs of cells that training trips join."""


def learn_places(
    real: TrajectorySet,
    train: TrajectorySet,
    centroid_lonlat: Float64[np.ndarray, "R 2"],
    cell: Int64[np.ndarray, " R"],
    scenario: Scenario,
) -> Places:
    """Return the places by which trips are told apart."""
    start, end = centroid_lonlat[origins(real)], centroid_lonlat[destinations(real)]
    ends = np.concatenate([start, end])
    centre = np.median(ends, axis=0)
    away = great_circle_m(ends, np.broadcast_to(centre, ends.shape)) / 1000
    crow = great_circle_m(start, end) / 1000
    return Places(
        centroid_lonlat=centroid_lonlat,
        centre_lonlat=centre,
        centre_km=float(np.quantile(away, scenario.centre_share)),
        long_km=scenario.long_km if scenario.long_km is not None else float(np.median(crow)),
        cell=cell,
        seen=np.unique(od_keys(origins(train), destinations(train), cell)),
    )


def _within(hour: Float64[np.ndarray, " N"], spans: tuple[tuple[float, float], ...]) -> np.ndarray:
    inside = np.zeros(len(hour), dtype=bool)
    for first, last in spans:
        inside |= (hour >= first) & (hour < last)
    return inside


def scenario_masks(
    ends: TripEnds, places: Places, scenario: Scenario
) -> dict[str, Bool[np.ndarray, " N"]]:
    """Return, for each scenario by name, which trips belong to it."""
    masks: dict[str, np.ndarray] = {}
    weekday = (ends.departure_s // DAY_S + EPOCH_WEEKDAY) % 7
    weekend = weekday >= 5
    hour = (ends.departure_s % DAY_S) / 3600
    start = places.centroid_lonlat[ends.origin]
    end = places.centroid_lonlat[ends.destination]
    if "day" in scenario.by:
        masks["weekday"], masks["weekend"] = ~weekend, weekend
    if "hour" in scenario.by:
        peak = ~weekend & _within(hour, scenario.peak_hours)
        masks["peak"], masks["off-peak"] = peak, ~peak
    if "area" in scenario.by:
        centre = np.broadcast_to(places.centre_lonlat, start.shape)
        near = [great_circle_m(x, centre) / 1000 <= places.centre_km for x in (start, end)]
        masks["centre"], masks["suburb"] = near[0] & near[1], ~near[0] & ~near[1]
        masks["to centre"], masks["from centre"] = ~near[0] & near[1], near[0] & ~near[1]
    if "length" in scenario.by:
        long = great_circle_m(start, end) / 1000 > places.long_km
        masks["short"], masks["long"] = ~long, long
    if "novelty" in scenario.by:
        seen = np.isin(od_keys(ends.origin, ends.destination, places.cell), places.seen)
        masks["seen OD"], masks["unseen OD"] = seen, ~seen
    for name, spans in scenario.hours.items():
        masks[name] = _within(hour, spans)
    for name, days in scenario.days.items():
        masks[name] = np.isin(weekday, days)
    for name, (lon, lat, km) in scenario.areas.items():
        middle = np.broadcast_to(np.array([lon, lat]), start.shape)
        first, last = (great_circle_m(x, middle) / 1000 <= km for x in (start, end))
        masks[name] = first | last
    return masks
