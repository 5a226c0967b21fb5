"""GeoJSON (RFC 7946: longitude and latitude, WGS 84, six decimals) of trips and of road use."""

from typing import Any

import numpy as np
from jaxtyping import Float64

from hoserkd.engine.geo import cut_at_antimeridian
from hoserkd.engine.metrics.evaluation import Evaluation
from hoserkd.engine.types import RoadNetwork, TrajectorySet

DECIMALS = 6


def iso_time(seconds: int) -> str:
    """Return the wall clock of the data as ISO 8601 with the Z that the data bear."""
    return f"{np.datetime64(int(seconds), 's')}Z"


def trip_features(found: Evaluation) -> dict[str, Any]:
    """Return every generated trip, and the real partner of each pair, as a feature collection.

    `pair` is the same number in a generated trip and its real partner.
    """
    features = []
    pair_of = {int(trip): k for k, trip in enumerate(found.rating.pairs[:, 0])}
    for index in range(len(found.rating.trips)):
        query = int(found.rating.query[index])
        properties = {
            "traj_id": query, "source": found.name, "pair": pair_of.get(index),
            "reached": bool(found.generated.reached[query]),
            "reason": found.generated.reason[query],
            "origin": _road_id(found, found.generated.origin[query]),
            "destination": _road_id(found, found.generated.destination[query]),
            **described(found, found.rating.trips, index),
        }
        features.append(_feature(found, found.rating.trips, index, properties))
    for k, partner in enumerate(found.rating.pairs[:, 1].tolist()):
        properties = {"traj_id": partner, "source": "real", "pair": k,
                      **described(found, found.truth.trips, partner)}
        features.append(_feature(found, found.truth.trips, partner, properties))
    return {"type": "FeatureCollection", "generator": "hoserkd", "features": features}


def road_features(found: Evaluation) -> dict[str, Any]:
    """Return every road with its zone and its visits by real and by generated trips."""
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
                "visits_real": int(visits[0][road]), "visits_generated": int(visits[1][road]),
                "share_difference": round(float(share[1][road] - share[0][road]), 9),
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


def _feature(
    found: Evaluation, trips: TrajectorySet, index: int, properties: dict[str, Any]
) -> dict[str, Any]:
    shape = trip_shape(found.truth.network, trips, index)
    return {"type": "Feature", "properties": properties,
            "geometry": geometry(shape)}


def described(found: Evaluation, trips: TrajectorySet, index: int) -> dict[str, Any]:
    """Return split, start and end, number of roads and length in metres of a trip."""
    first, last = int(trips.offset[index]), int(trips.offset[index + 1]) - 1
    length_m = float(found.truth.network.length_m[trips.road[first:last + 1]].sum())
    return {"od": found.od, "start": iso_time(trips.entered_at_s[first]),
            "end": iso_time(trips.entered_at_s[last]), "roads": last - first + 1,
            "length_m": round(length_m, 1)}


def _road_id(found: Evaluation, road: int) -> int | None:
    return int(found.truth.network.road_id[road]) if road >= 0 else None
