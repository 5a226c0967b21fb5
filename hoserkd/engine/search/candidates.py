"""Features and probabilities of the candidates of many nodes, compiled.

The same as `student.features.candidate_features` without a limit on the number of candidates, as
in the public search.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from hoserkd.engine.geo import EARTH_RADIUS_M
from hoserkd.engine.search.compiled import compiled
from hoserkd.engine.student.tables import NetworkTables

TURN = 2 * math.pi


class Places(NamedTuple):
    """Where roads are and where they lead."""

    centroid_rad: Float64[np.ndarray, "R 2"]
    end_lonlat: Float64[np.ndarray, "R 2"]
    candidate_offset: Int64[np.ndarray, "R+1"]
    candidate_bearing: Float64[np.ndarray, "K"]
    skewed: bool
    """True in `aaai2025`, where the bearing formula takes longitudes for latitudes."""


def places_of(tables: NetworkTables) -> Places:
    """Return the tables' arrays; the tables must be on the CPU."""
    return Places(tables.centroid_rad.numpy(), tables.end_lonlat.numpy(),
                  tables.candidate_offset.numpy(), tables.candidate_bearing.numpy(),
                  tables.features == "aaai2025")


@compiled
def _great_circle_m(centroid_rad: Float64[np.ndarray, "R 2"], a: int, b: int) -> float:
    lat_a, lat_b = centroid_rad[a, 1], centroid_rad[b, 1]
    across = math.sin((centroid_rad[b, 0] - centroid_rad[a, 0]) / 2)
    along = math.sin((lat_b - lat_a) / 2)
    chord = along * along + math.cos(lat_a) * math.cos(lat_b) * across * across
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(min(chord, 1.0)))


@compiled
def _bearing(places: Places, road: int, destination: int) -> float:
    start, end = places.end_lonlat[road], places.end_lonlat[destination]
    if places.skewed:
        shrink = math.cos(math.pi / 180 * start[0])
        angle = math.atan2(end[0] - start[0], shrink * (end[1] - start[1]))
    else:
        turn = math.radians(end[0]) - math.radians(start[0])
        lat, lat_end = math.radians(start[1]), math.radians(end[1])
        northing = (math.cos(lat) * math.sin(lat_end)
                    - math.sin(lat) * math.cos(lat_end) * math.cos(turn))
        angle = math.atan2(math.sin(turn) * math.cos(lat_end), northing)
    return angle + TURN if angle < 0 else angle


@compiled
def compiled_features(
    places: Places, road: Int32[np.ndarray, "M"], destination: Int32[np.ndarray, "M"],
    offset: Int64[np.ndarray, "M+1"], candidate: Int32[np.ndarray, "K"],
) -> tuple[Float32[np.ndarray, "K"], Float32[np.ndarray, "K"]]:
    """Return distance and angle of packed candidates (ENGINE.md section 2)."""
    distance = np.empty(len(candidate), np.float32)
    angle = np.empty(len(candidate), np.float32)
    for i in range(len(road)):
        nearest = np.float32(np.inf)
        ahead = _bearing(places, road[i], destination[i])
        first = places.candidate_offset[road[i]]
        for k in range(offset[i], offset[i + 1]):
            metres = np.float32(_great_circle_m(places.centroid_rad, candidate[k], destination[i]))
            nearest = min(nearest, metres)
            distance[k] = metres
            turn = abs(places.candidate_bearing[first + k - offset[i]] - ahead)
            angle[k] = np.float32(min(turn, TURN - turn) / math.pi)
        for k in range(offset[i], offset[i + 1]):
            distance[k] = math.log1p((distance[k] - nearest) / np.float32(100))
    return distance, angle


@compiled
def log_softmax(
    logits: Float32[np.ndarray, "K"], offset: Int64[np.ndarray, "M+1"]
) -> Float32[np.ndarray, "K"]:
    """Return the log of each node's probabilities over its own candidates."""
    log_prob = np.empty(len(logits), np.float32)
    for i in range(len(offset) - 1):
        highest = np.float32(-np.inf)
        for k in range(offset[i], offset[i + 1]):
            highest = max(highest, logits[k])
        mass = 0.0
        for k in range(offset[i], offset[i + 1]):
            mass += math.exp(logits[k] - highest)
        shift = highest + math.log(mass)
        for k in range(offset[i], offset[i + 1]):
            log_prob[k] = logits[k] - shift
    return log_prob
