"""A made-up city of Beijing's size, written as the files that `hoserkd prepare` reads."""

import csv
import json
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.made_up import made_up_network, made_up_trips
from hoserkd.engine.types import RoadNetwork, TrajectorySet

BEIJING_TRIPS = {"train": 629_380, "val": 89_912, "test": 179_823}
SHAPE_POINTS = 5
CLASSES = ("motorway", "trunk", "primary", "secondary", "tertiary", "residential")
PIECE_TRIPS = 50_000


def write_beijing_source(directory: Path, share: float = 1.0, seed: int = 0) -> dict[str, int]:
    """Write roadmap.geo, roadmap.rel and the splits; return the trips and points written.

    Args:
        directory: gets the files.
        share: share of Beijing's trips; the roads are always 40,000.
        seed: seed of the city and of its trips.
    """
    directory.mkdir(parents=True, exist_ok=True)
    network = made_up_network(seed=seed)
    _write_roads(directory, network)
    points = 0
    trips = {split: round(share * number) for split, number in BEIJING_TRIPS.items()}
    for split, number in trips.items():
        with (directory / f"{split}.csv").open("w", newline="") as file:
            file.write("mm_id,entity_id,traj_id,rid_list,time_list\n")
            for first in range(0, number, PIECE_TRIPS):
                seed += 1
                piece = made_up_trips(network, min(PIECE_TRIPS, number - first), seed)
                points += len(piece.road)
                file.writelines(_trip_lines(piece, first))
    return {"trips": sum(trips.values()), "points": points}


def _write_roads(directory: Path, network: RoadNetwork) -> None:
    share = np.linspace(0, 1, SHAPE_POINTS)[:, None]
    with (directory / "roadmap.geo").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("geo_id", "type", "coordinates", "highway", "lanes", "oneway", "length",
                         "maxspeed"))
        for road in range(network.roads):
            a, b = network.start_lonlat[road], network.end_lonlat[road]
            shape = np.concatenate([[a], a + (b - a) * share[1:-1], [b]]).round(7).tolist()
            kind = CLASSES[int(network.highway[road]) % len(CLASSES)]
            writer.writerow((road, "LineString", json.dumps(shape), kind, 2, False,
                             f"{network.length_m[road]:.3f}", 40))
    offset = network.candidates.offset
    origin = np.repeat(np.arange(network.roads), np.diff(offset)).tolist()
    with (directory / "roadmap.rel").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("rel_id", "type", "origin_id", "destination_id"))
        pairs = zip(origin, network.candidates.road.tolist(), strict=True)
        writer.writerows((i, "geo", a, b) for i, (a, b) in enumerate(pairs))


def _trip_lines(trips: TrajectorySet, first: int) -> list[str]:
    stamps = np.datetime_as_string(trips.entered_at_s.astype("datetime64[s]")).tolist()
    roads = list(map(str, trips.road.tolist()))
    ends = trips.offset.tolist()
    return [
        f'{first + k},{k % 997},{first + k},"[{",".join(roads[a:b])}]",'
        f'"{",".join(f"{stamp}Z" for stamp in stamps[a:b])}"\n'
        for k, (a, b) in enumerate(pairwise(ends))
    ]
