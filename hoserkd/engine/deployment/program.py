"""The next-step predictor as a `torch.export` program: a file that runs where hoserkd is not."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import DataConfig
from hoserkd.engine.deployment.next_roads import NextRoadsProgram
from hoserkd.engine.files import replacing
from hoserkd.engine.student.storage import LoadedStudent, network_sha256
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.types import RoadNetwork
from hoserkd.errors import CheckpointError

FORMAT = "hoserkd next roads 1"
ABOUT = "hoserkd.json"
"""Name of the description inside the file, among its `extra_files`."""
MOST_TRIPS = 1 << 20
MOST_ROADS = 1 << 16
TOLERANCE = 1e-5
"""Largest difference of probabilities, and of seconds in parts of themselves, that is let pass."""
CHECKED = ((1, 1), (1, 9), (6, 1), (5, 17))
"""(trips, roads) of the batches on which a program is held to the module."""
INPUTS = {
    "road_id": "int64 (trips, roads): ids as in roadmap.geo, the present road last",
    "entered_at_s": "int64 (trips, roads): seconds since 1970-01-01 of the city's wall clock",
    "length": "int64 (trips): how many roads of each row count",
    "destination_id": "int64 (trips): id of the road where each trip is to end",
}
OUTPUTS = {
    "road_id": "int64 (trips, candidates), the likeliest first; -1: no more candidates",
    "probability": "float64 (trips, candidates)",
    "seconds": "float64 (trips, candidates): how long the present road takes",
}
QUANTILE_OUTPUT = {"quantile_seconds": "float64 (trips, candidates, quantiles), rising"}


@dataclass(frozen=True, slots=True)
class NextRoadsExport:
    """A program and what is known of it."""

    program: ExportedProgram
    about: dict[str, Any]
    largest_difference: float
    """Between the program and the module that it was made of, on trips of several lengths."""


def export_next_roads(
    student: LoadedStudent, city: City, top_k: int | None = None, seed: int = 0
) -> NextRoadsExport:
    """Return the student's next-step predictor as a program for batches of trips of any length.

    Args:
        student: On the CPU.
        top_k: Of more candidates than this the nearest to the destination count; None: as in
            the student's training, 64 where its file does not say.
        seed: Of the random walks on which the program is checked.

    Raises:
        CheckpointError: this version of torch makes a program that answers otherwise.
    """
    if top_k is None:
        top_k = student.meta.data(DataConfig()).candidate_top_k
    network = city.network
    tables = build_network_tables(network, student.meta.config.features, torch.device("cpu"))
    module = NextRoadsProgram(student, tables, torch.from_numpy(network.road_id.copy()), top_k)
    draw = np.random.default_rng(seed)
    trips, roads = Dim("trips", min=1, max=MOST_TRIPS), Dim("roads", min=1, max=MOST_ROADS)
    with torch.no_grad():
        program = torch.export.export(
            module, random_walks(network, 2, 3, draw), strict=False,
            dynamic_shapes=({0: trips, 1: roads}, {0: trips, 1: roads}, {0: trips}, {0: trips}))
    difference = _largest_difference(program, module, network, draw)
    return NextRoadsExport(program, _about(student, city, module), difference)


def save_next_roads(path: str | Path, export: NextRoadsExport) -> None:
    """Write the program with its description, whole or not at all."""
    for module in export.program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            # Whoever gets the program need not know where its maker's Python lies.
            node.meta.pop("stack_trace", None)
    with replacing(Path(path)) as file:
        torch.export.save(export.program, file, extra_files={
            ABOUT: json.dumps(export.about, indent=2, ensure_ascii=False)})


def random_walks(
    network: RoadNetwork, trips: int, roads: int, draw: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return inputs of a program: walks along candidates, their lengths between 1 and `roads`."""
    offset, candidate = network.candidates.offset, network.candidates.road
    road = np.empty((trips, roads), np.int64)
    road[:, 0] = draw.integers(network.roads, size=trips)
    for step in range(1, roads):
        count = np.diff(offset)[road[:, step - 1]]
        chosen = offset[road[:, step - 1]] + draw.integers(np.maximum(count, 1))
        road[:, step] = np.where(count > 0, candidate[np.minimum(chosen, len(candidate) - 1)],
                                 draw.integers(network.roads, size=trips))
    clock = draw.integers(7 * 86400, size=(trips, 1)) + draw.integers(
        90, size=(trips, roads)).cumsum(1)
    length = draw.integers(1, roads, size=trips, endpoint=True)
    length[0] = roads
    destination = network.road_id[draw.integers(network.roads, size=trips)]
    return (torch.from_numpy(network.road_id[road]), torch.from_numpy(clock),
            torch.from_numpy(length), torch.from_numpy(destination.astype(np.int64)))


def _largest_difference(
    program: ExportedProgram, module: NextRoadsProgram, network: RoadNetwork,
    draw: np.random.Generator,
) -> float:
    run, largest = program.module(), 0.0
    for trips, roads in CHECKED:
        asked = random_walks(network, trips, roads, draw)
        with torch.no_grad():
            found, expected = run(*asked), module(*asked)
        largest = max(largest, *(_difference(found[name], expected[name]) for name in expected))
    if not largest <= TOLERANCE:
        raise CheckpointError(
            f"torch {torch.__version__} exports a program that differs by {largest:.2g} from the "
            "student", hint="export with another version of torch")
    return largest


def _difference(found: Tensor, expected: Tensor) -> float:
    scale = expected.double().nan_to_num().abs().clamp(min=1)
    both_nan = found.isnan() & expected.isnan()
    gap = (found.double() - expected.double()).abs() / scale
    return float(gap.masked_fill(both_nan, 0).max())


def _about(student: LoadedStudent, city: City, module: NextRoadsProgram) -> dict[str, Any]:
    meta = student.meta
    quantiles = meta.config.time_quantiles
    return {
        "format": FORMAT,
        "run_id": meta.run_id,
        "city": {"name": city.name, "roads": city.network.roads,
                 "network_sha256": network_sha256(city.network)},
        "features": meta.config.features,
        "candidates": module.candidates,
        "quantiles": list(quantiles or ()),
        "inputs": INPUTS,
        "outputs": OUTPUTS | (QUANTILE_OUTPUT if quantiles else {}),
        "torch": torch.__version__,
    }
