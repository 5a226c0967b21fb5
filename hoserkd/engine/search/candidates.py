"""What the navigator says of the candidates of many nodes, compiled.

The features are those of `student.features.candidate_features`, for all candidates of a road, as
in the public search.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from hoserkd.engine.geo import EARTH_RADIUS_M
from hoserkd.engine.search.compiled import compiled, compiled_fast
from hoserkd.engine.student.hoser import NetworkEncoding
from hoserkd.engine.student.navigator import Navigator
from hoserkd.engine.student.tables import NetworkTables
from hoserkd.engine.types import TimeStatistics

TURN = 2 * math.pi
LONGEST_STEP_S = 1e6
TANH_FLAT = 7.905
"""Beyond this the hyperbolic tangent is 1 in float32."""
TANH_TOP = (4.89352455891786e-03, 6.37261928875436e-04, 1.48572235717979e-05,
            5.12229709037114e-08, -8.60467152213735e-11, 2.00018790482477e-13,
            -2.76076847742355e-16)
TANH_BOTTOM = (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04,
               1.19825839466702e-06)
"""Coefficients of x^1, x^3, ... over x^0, x^2, ...: Eigen's rational tanh, good to a few ulp."""


class Places(NamedTuple):
    """Where roads are and where they lead."""

    centroid_rad: Float64[np.ndarray, "R 2"]
    end_lonlat: Float64[np.ndarray, "R 2"]
    candidate_offset: Int64[np.ndarray, " R+1"]
    candidate_bearing: Float64[np.ndarray, " K"]
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
    places: Places, road: Int32[np.ndarray, " M"], destination: Int32[np.ndarray, " M"],
    offset: Int64[np.ndarray, " M+1"], candidate: Int32[np.ndarray, " K"],
) -> tuple[Float32[np.ndarray, " K"], Float32[np.ndarray, " K"]]:
    """Return distance and angle of packed candidates (ENGINE.md section 2)."""
    distance = np.empty(len(candidate), np.float32)
    angle = np.empty(len(candidate), np.float32)
    for i in range(len(road)):
        if offset[i + 1] - offset[i] < 2:
            # A lone candidate is certain whatever its features.
            distance[offset[i]:offset[i + 1]] = 0
            angle[offset[i]:offset[i + 1]] = 0
            continue
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


class Head(NamedTuple):
    """The navigator's weights and what it knows of roads and zones (see `RoadKeys`)."""

    key: Float32[np.ndarray, "R d"]
    zone_query: Float32[np.ndarray, "Z d"]
    road_zone: Int64[np.ndarray, " R"]
    distance: Float32[np.ndarray, " d"]
    angle: Float32[np.ndarray, " d"]
    score: Float32[np.ndarray, " d"]
    road_time: Float32[np.ndarray, " R"]
    own_time: Float32[np.ndarray, " t"]
    time_bias: np.float32
    log1p_mean: np.float32
    log1p_std: np.float32


def head_of(navigator: Navigator, encoding: NetworkEncoding, times: TimeStatistics) -> Head:
    """Return the arrays of a navigator on the CPU; of its times the point estimate alone."""
    last, point = navigator.time_estimator_linear_3, navigator.point
    own = last.weight.detach()[point, :navigator.time_estimator_linear_1.out_features]
    road_time = encoding.time if navigator.levels is None else encoding.time[:, point].contiguous()
    return Head(
        encoding.key.numpy(), encoding.zone_query.numpy(), encoding.road_zone.numpy(),
        encoding.distance.numpy(), encoding.angle.numpy(),
        navigator.v_proj.weight.detach()[0].numpy(), road_time.numpy(), own.numpy(),
        np.float32(last.bias[point].item()), np.float32(times.log1p_mean),
        np.float32(times.log1p_std))


@compiled_fast
def _tanh(x: np.float32) -> np.float32:
    x = max(min(x, np.float32(TANH_FLAT)), np.float32(-TANH_FLAT))
    s = x * x
    top = np.float32(TANH_TOP[6])
    top = top * s + np.float32(TANH_TOP[5])
    top = top * s + np.float32(TANH_TOP[4])
    top = top * s + np.float32(TANH_TOP[3])
    top = top * s + np.float32(TANH_TOP[2])
    top = top * s + np.float32(TANH_TOP[1])
    top = top * s + np.float32(TANH_TOP[0])
    bottom = np.float32(TANH_BOTTOM[3])
    bottom = bottom * s + np.float32(TANH_BOTTOM[2])
    bottom = bottom * s + np.float32(TANH_BOTTOM[1])
    bottom = bottom * s + np.float32(TANH_BOTTOM[0])
    return x * top / bottom


@compiled_fast
def candidate_logits(
    query: Float32[np.ndarray, "P d"], destination: Int32[np.ndarray, " M"],
    offset: Int64[np.ndarray, " M+1"], candidate: Int32[np.ndarray, " K"],
    distance: Float32[np.ndarray, " K"], angle: Float32[np.ndarray, " K"], head: Head,
) -> Float32[np.ndarray, " K"]:
    """Return v tanh(q + k) of each candidate; of a lone one 0."""
    logits = np.zeros(len(candidate), np.float32)
    goal = np.empty(query.shape[1], np.float32)
    for i in range(len(destination)):
        if offset[i + 1] - offset[i] < 2:
            continue
        zone = head.road_zone[destination[i]]
        for c in range(len(goal)):
            goal[c] = query[i, c] + head.zone_query[zone, c]
        for k in range(offset[i], offset[i + 1]):
            road, far, aside = candidate[k], distance[k], angle[k]
            total = np.float32(0)
            for c in range(len(goal)):
                mixed = goal[c] + head.key[road, c] + far * head.distance[c] + aside * head.angle[c]
                total += head.score[c] * _tanh(mixed)
            logits[k] = total
    return logits


@compiled
def log_softmax(
    logits: Float32[np.ndarray, " K"], offset: Int64[np.ndarray, " M+1"]
) -> Float32[np.ndarray, " K"]:
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


@compiled
def travel_seconds(
    hidden: Float32[np.ndarray, "P t"], offset: Int64[np.ndarray, " M+1"],
    candidate: Int32[np.ndarray, " K"], head: Head,
) -> Int32[np.ndarray, " K"]:
    """Return whole seconds: the time head's log1p taken back, rounded half to even."""
    seconds = np.empty(len(candidate), np.int32)
    for i in range(len(offset) - 1):
        own = head.time_bias
        for c in range(hidden.shape[1]):
            own += hidden[i, c] * head.own_time[c]
        for k in range(offset[i], offset[i + 1]):
            log1p = (own + head.road_time[candidate[k]]) * head.log1p_std + head.log1p_mean
            exact = float(np.float32(math.expm1(log1p)))
            seconds[k] = round(min(max(exact, 0.0), LONGEST_STEP_S))
    return seconds
