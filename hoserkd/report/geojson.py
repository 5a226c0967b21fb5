"""GeoJSON (RFC 7946: longitude and latitude, WGS 84, six decimals) of trips and of road use."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from hoserkd.engine.clock import iso_times, utc_offsets_s
from hoserkd.engine.geo import cut_at_antimeridian
from hoserkd.engine.metrics.evaluation import Evaluation
from hoserkd.engine.types import RoadNetwork, TrajectorySet

DECIMALS = 6


@dataclass(frozen=True, slots=True)
class TripRow:
    """One trip of an evaluation as every export names and describes it."""

    trips: TrajectorySet
    index: int
    properties: dict[str, Any]
    """All but its times; the same keys for real and for generated trips."""

    @property
    def span_s(self) -> tuple[int, int]:
        """Wall clock at its first and at its last road."""
        first, last = self.trips.offset[self.index], self.trips.offset[self.index + 1] - 1
        return int(self.trips.entered_at_s[first]), int(self.trips.entered_at_s[last])


def real_id(trip: int) -> str:
    """Return the `traj_id` of a real trip; that of a generated one is its request's number."""
    return f"real-{trip}"


def trip_rows(found: Evaluation) -> list[TripRow]:
    """Return every rated trip, then the real partner of each pair.

    `pair` is the same number in a generated trip and its real partner.
    """
    pair_of = {int(trip): k for k, trip in enumerate(found.rating.pairs[:, 0])}
    generated, ids = found.generated, found.truth.network.road_id
    rows = []
    for index, query in enumerate(found.rating.query.tolist()):
        rows.append(TripRow(found.rating.trips, index, {
            "traj_id": str(query), "source": found.name, "pair": pair_of.get(index),
            "reached": bool(generated.reached[query]) if generated.stated else None,
            "reason": generated.reason[query] if generated.stated else None,
            "origin": _road_id(found, generated.origin[query]),
            "destination": _road_id(found, generated.destination[query]),
            **_described(found, found.rating.trips, index)}))
    real = found.truth.trips
    for k, partner in enumerate(found.rating.pairs[:, 1].tolist()):
        ends = real.road[[real.offset[partner], real.offset[partner + 1] - 1]]
        rows.append(TripRow(real, partner, {
            "traj_id": real_id(partner), "source": "real", "pair": k,
            "reached": None, "reason": None,
            "origin": int(ids[ends[0]]), "destination": int(ids[ends[1]]),
            **_described(found, real, partner)}))
    return rows


def trip_spans(
    rows: Sequence[TripRow], timezone: str | None
) -> tuple[Int64[np.ndarray, "N 2"], Int64[np.ndarray, " N"] | None]:
    """Return start and end of trips on the wall clock, and the offset from UTC at each start."""
    spans = np.array([row.span_s for row in rows], np.int64).reshape(-1, 2)
    return spans, utc_offsets_s(timezone, spans[:, 0])


def trip_features(found: Evaluation) -> dict[str, Any]:
    """Return every generated trip, and the real partner of each pair, as a feature collection."""
    rows, network = trip_rows(found), found.truth.network
    spans, offset_s = trip_spans(rows, network.timezone)
    start, end = (iso_times(spans[:, side], offset_s) for side in (0, 1))
    features = [
        {"type": "Feature",
         "properties": {**row.properties, "start": start[n], "end": end[n]},
         "geometry": geometry(trip_shape(network, row.trips, row.index))}
        for n, row in enumerate(rows)]
    return {"type": "FeatureCollection", "generator": "hoserkd", "features": features}


def road_features(found: Evaluation, hidden: Collection[int] = ()) -> dict[str, Any]:
    """Return every road with its zone and its visits by real and by generated trips.

    Args:
        hidden: Roads of which the visits by real trips are not told.
    """
    network = found.truth.network
    visits = [np.bincount(trips.road, minlength=network.roads)
              for trips in (found.truth.trips, found.rating.trips)]
    share = [v / max(v.sum(), 1) for v in visits]
    features = []
    for road in range(network.roads):
        shape = network.shape_lonlat[network.shape_offset[road]:network.shape_offset[road + 1]]
        features.append({
            "type": "Feature",
            "geometry": geometry(shape),
            "properties": {
                "road_id": int(network.road_id[road]), "zone": int(network.zone[road]),
                "highway": network.highway_names[int(network.highway[road])],
                "visits_real": None if road in hidden else int(visits[0][road]),
                "visits_generated": int(visits[1][road]),
                "share_difference": None if road in hidden else round(
                    float(share[1][road] - share[0][road]), 9),
            },
        })
    return {"type": "FeatureCollection", "generator": "hoserkd", "features": features}


def geometry(lonlat: Float64[np.ndarray, "n 2"]) -> dict[str, Any]:
    """Return a line, in parts where it crosses the antimeridian."""
    parts = [coordinates(part) for part in cut_at_antimeridian(lonlat)]
    if len(parts) == 1:
        return {"type": "LineString", "coordinates": parts[0]}
    return {"type": "MultiLineString", "coordinates": parts}


def coordinates(lonlat: Float64[np.ndarray, "n 2"]) -> list[list[float]]:
    """Return positions of a line; one point is given twice, as a line needs two."""
    rounded: list[list[float]] = np.round(lonlat, DECIMALS).tolist()
    return rounded if len(rounded) > 1 else rounded * 2


def trip_shape(
    network: RoadNetwork, trips: TrajectorySet, index: int
) -> Float64[np.ndarray, "n 2"]:
    """Return the shape of a trip along its roads, without repeated points."""
    roads = trips.road[trips.offset[index]:trips.offset[index + 1]].tolist()
    shape = np.concatenate([
        network.shape_lonlat[network.shape_offset[r]:network.shape_offset[r + 1]] for r in roads])
    keep = np.concatenate([[True], (np.diff(shape, axis=0) != 0).any(axis=1)])
    return np.asarray(shape[keep])


def _described(found: Evaluation, trips: TrajectorySet, index: int) -> dict[str, Any]:
    """Return split, number of roads and length in metres of a trip."""
    first, last = int(trips.offset[index]), int(trips.offset[index + 1])
    length_m = float(found.truth.network.length_m[trips.road[first:last]].sum())
    return {"od": found.od, "roads": last - first, "length_m": round(length_m, 1)}


def _road_id(found: Evaluation, road: int) -> int | None:
    return int(found.truth.network.road_id[road]) if road >= 0 else None
