"""Zones: balanced parts of the road graph, and how often trips change between them."""

from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int32, Int64
from scipy.sparse import csr_matrix

from hoserkd.engine.city.roadmap import parse_integer
from hoserkd.engine.city.source import Findings, file_size
from hoserkd.engine.city.statistics import BLOCK_TRIPS
from hoserkd.engine.config import MAX_ZONES
from hoserkd.engine.npy import NOT_AN_ARRAY
from hoserkd.engine.types import TrajectorySet
from hoserkd.errors import ConfigError, DataError

KAHIP_STRONG = 2
KAHIP_IMBALANCE = 0.03
MAX_PARTITION_LINE = 64
"""Bytes of a line of `road_network_partition` on average; a zone id has four digits."""


def partition_roads(
    roads: int,
    origin: Int32[np.ndarray, " K"],
    destination: Int32[np.ndarray, " K"],
    *,
    zones: int,
    method: Literal["metis", "kahip"],
    seed: int,
) -> Int32[np.ndarray, " R"]:
    """Return the zone of each road: parts of the unweighted, symmetrised graph of relations.

    Empty parts are dropped and the ids closed up, so there may be fewer than `zones`.

    Raises:
        ConfigError: `kahip` is asked for and not installed.
    """
    zones = min(zones, roads)
    if zones == 1:
        return np.zeros(roads, np.int32)
    if zones == roads:
        return np.arange(roads, dtype=np.int32)
    offset, neighbour = _symmetrised(roads, origin, destination)
    cut = _cut_by_kahip if method == "kahip" else _cut_by_metis
    part = cut(offset, neighbour, zones, seed)
    return np.unique(part, return_inverse=True)[1].astype(np.int32).reshape(-1)


def _symmetrised(
    roads: int, origin: Int32[np.ndarray, " K"], destination: Int32[np.ndarray, " K"]
) -> tuple[Int32[np.ndarray, " R+1"], Int32[np.ndarray, " L"]]:
    apart = origin != destination
    a, b = origin[apart], destination[apart]
    graph = csr_matrix(
        (np.ones(2 * len(a), np.int32), (np.concatenate([a, b]), np.concatenate([b, a]))),
        shape=(roads, roads),
    )
    graph.sum_duplicates()
    return graph.indptr.astype(np.int32), graph.indices.astype(np.int32)


def _cut_by_metis(
    offset: Int32[np.ndarray, " R+1"], neighbour: Int32[np.ndarray, " L"], zones: int, seed: int
) -> Int64[np.ndarray, " R"]:
    import pymetis

    graph = pymetis.CSRAdjacency(adj_starts=offset, adjacent=neighbour)
    options = pymetis.Options(seed=seed % 2**31)
    _, part = pymetis.part_graph(zones, adjacency=graph, options=options, recursive=False)
    # An array of C's long long, which numpy holds for another type than int64.
    return np.asarray(part).astype(np.int64)


def _cut_by_kahip(
    offset: Int32[np.ndarray, " R+1"], neighbour: Int32[np.ndarray, " L"], zones: int, seed: int
) -> Int64[np.ndarray, " R"]:
    try:
        import kahip
    except ImportError as error:
        raise ConfigError(
            "city.partitioner: kahip is asked for, but not installed",
            hint="pip install 'hoserkd[kahip]', or set city.partitioner=metis",
        ) from error
    _, part = kahip.kaffpa(
        [1] * (len(offset) - 1), offset.tolist(), [1] * len(neighbour), neighbour.tolist(),
        zones, KAHIP_IMBALANCE, True, seed % 2**31, KAHIP_STRONG,
    )
    return np.asarray(part, np.int64)


def read_partition(path: Path, roads: int) -> Int32[np.ndarray, " R"]:
    """Return the zones of a `road_network_partition` file: one id a line, in the order of roads.

    Raises:
        DataError: a line is no zone id, or their number is not that of the roads.
    """
    if file_size(path) > MAX_PARTITION_LINE * (roads + 1):
        raise DataError(f"{path}: too large for the zones of {roads:,} roads",
                        hint="each line holds one zone id; is it the right file?")
    try:
        lines = path.read_text("utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) != roads:
        raise DataError(
            f"{path}: {len(lines)} lines, but the city has {roads} roads",
            hint="remove the file to have the zones made, or make it from this roadmap.geo",
        )
    findings = Findings(path)
    values = [parse_integer(line) for line in lines]
    for row, value in enumerate(values, start=1):
        if value is None or not 0 <= value < MAX_ZONES:
            findings.add(row, f"{lines[row - 1][:40]!r} is no zone id from 0 to {MAX_ZONES - 1}")
    findings.raise_if_any(hint="each line holds one zone id")
    return np.array(values, np.int32)


def read_zone_transitions(path: Path, zones: int) -> Int64[np.ndarray, "Z Z"]:
    """Return the counts of a `zone_trans_mat.npy` file.

    Args:
        path: a square matrix of whole numbers; nothing is unpickled.
        zones: one more than the highest zone id in use.

    Raises:
        DataError: the file is damaged or does not fit the zones.
    """
    file_size(path)
    try:
        # As a map first: a header may claim any size, and only the file's own is believed.
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except NOT_AN_ARRAY as error:
        raise DataError(f"{path}: not a plain .npy file: {error}") from error
    hint = "remove the file to have the transitions counted from the training trips"
    if not isinstance(stored, np.ndarray) or stored.ndim != 2 or stored.shape[0] != stored.shape[1]:
        shape = getattr(stored, "shape", "an archive")
        raise DataError(f"{path}: a square matrix is needed, found {shape}", hint=hint)
    if stored.shape[0] < zones or stored.shape[0] > MAX_ZONES or stored.dtype.kind not in "iufb":
        raise DataError(
            f"{path}: {stored.shape[0]} zones of {stored.dtype}, but road_network_partition"
            f" uses {zones} zones",
            hint=hint,
        )
    counts = np.array(stored)
    if not (np.isfinite(counts).all() and (counts >= 0).all() and (counts == np.floor(counts)).all()
            and counts.max(initial=0) < 2**53):
        raise DataError(f"{path}: the counts must be whole numbers from 0 up", hint=hint)
    return counts.astype(np.int64)


def count_zone_transitions(
    zone: Int32[np.ndarray, " R"],
    zones: int,
    offset: Int64[np.ndarray, " N+1"],
    road: Int32[np.ndarray, " P"],
) -> Int64[np.ndarray, "Z Z"]:
    """Return how often the trips change from one zone to another; staying is not counted."""
    at = zone[road]
    change = at[1:] != at[:-1]
    # The last point of a trip and the first of the next are no step.
    inner_ends = offset[1:-1]
    change[inner_ends[(inner_ends > 0) & (inner_ends < len(road))] - 1] = False
    pair = at[:-1][change].astype(np.int64) * zones + at[1:][change]
    used, counts = np.unique(pair, return_counts=True)
    transitions = np.zeros((zones, zones), np.int64)
    transitions.reshape(-1)[used] = counts
    return transitions


def count_trip_transitions(
    zone: Int32[np.ndarray, " R"], zones: int, trips: TrajectorySet
) -> Int64[np.ndarray, "Z Z"]:
    """Return how often the trips of a whole split change from one zone to another."""
    counts = np.zeros((zones, zones), np.int64)
    for first in range(0, len(trips), BLOCK_TRIPS):
        offset = np.asarray(trips.offset[first : first + BLOCK_TRIPS + 1])
        road = np.asarray(trips.road[offset[0] : offset[-1]])
        counts += count_zone_transitions(zone, zones, offset - offset[0], road)
    return counts
