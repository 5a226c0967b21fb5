"""The embedded demo city, written as the files that any other city comes in."""

import csv
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from hoserkd.engine.city.synthetic_map import DemoMap, build_demo_map
from hoserkd.engine.city.synthetic_trips import DemoTrip, draw_trips
from hoserkd.engine.files import read_json, replacing, write_json
from hoserkd.errors import DataError

VERSION = 1
"""Raised whenever the same settings give another city."""
MAXSPEED_KMH = {
    "motorway": 100, "motorway_link": 60, "primary": 60, "secondary": 50, "tertiary": 40,
    "residential": 30,
}
LANES = {"motorway": 3, "motorway_link": 1, "primary": 2, "secondary": 2, "tertiary": 1,
         "residential": 1}
SPLIT_SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def make_demo_source(directory: Path, roads: int, trips: int, seed: int) -> None:
    """Write the demo city as files of the HOSER format; deterministic for its arguments.

    Drivers do not simply take shortest paths: each has a taste for classes of road and parts of
    town, they avoid what is jammed at that hour, and at weekends they like the river.

    Args:
        directory: gets `roadmap.geo`, `roadmap.rel`, the three splits by time (70/10/20) and
            `demo.json`; appears as a whole. Nothing is done if it holds this very city.
        roads: about how many directed roads; at least 60.
        trips: how many trips over all splits; at least 50.
        seed: seed of everything drawn.

    Raises:
        DataError: the folder cannot be written.
    """
    about = {"version": VERSION, "roads": roads, "trips": trips, "seed": seed}
    if _is_made(directory, about):
        return
    try:
        _make(directory, about)
    except OSError as error:
        raise DataError(
            f"{directory}: cannot be written: {error.strerror or error}",
            hint="make room, or name another place with --data-dir",
        ) from error


def _make(directory: Path, about: dict[str, int]) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        staging.chmod(0o755)
        demo_map = build_demo_map(about["roads"], about["seed"])
        _save_roads(staging, demo_map)
        _save_trips(staging, draw_trips(demo_map, about["trips"], about["seed"]))
        write_json(staging / "demo.json", about)
        _put_in_place(staging, directory, about)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _put_in_place(staging: Path, directory: Path, about: dict[str, int]) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    try:
        staging.rename(directory)
    except OSError:
        # Another process may have just made the same city; anything else is an error.
        if not _is_made(directory, about):
            raise


def _is_made(directory: Path, about: dict[str, int]) -> bool:
    try:
        return bool(read_json(directory / "demo.json") == about)
    except (OSError, ValueError):
        return False


def _save_roads(directory: Path, demo_map: DemoMap) -> None:
    with replacing(directory / "roadmap.geo", "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("geo_id", "type", "coordinates", "highway", "lanes", "tunnel", "bridge",
                         "roundabout", "oneway", "length", "maxspeed", "u", "v"))
        for road, kind in enumerate(demo_map.highway):
            writer.writerow((
                road, "LineString", json.dumps(demo_map.shape[road].tolist()), kind, LANES[kind],
                "", "yes" if demo_map.bridge[road] else "", "", demo_map.oneway[road],
                f"{demo_map.length_m[road]:.3f}", MAXSPEED_KMH[kind],
                int(demo_map.tail[road]), int(demo_map.head[road]),
            ))
    with replacing(directory / "roadmap.rel", "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("rel_id", "type", "origin_id", "destination_id"))
        pairs = zip(demo_map.origin.tolist(), demo_map.destination.tolist(), strict=True)
        writer.writerows((i, "geo", a, b) for i, (a, b) in enumerate(pairs))


def _save_trips(directory: Path, trips: list[DemoTrip]) -> None:
    first = 0
    ends = np.round(np.cumsum(list(SPLIT_SHARES.values())) * len(trips)).astype(int)
    for split, end in zip(SPLIT_SHARES, ends.tolist(), strict=True):
        with replacing(directory / f"{split}.csv", "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("mm_id", "entity_id", "traj_id", "rid_list", "time_list"))
            for number, trip in enumerate(trips[first:end], start=first):
                stamps = np.datetime_as_string(trip.entered_at_s.astype("datetime64[s]"))
                writer.writerow((
                    number, trip.driver, number, f"[{','.join(map(str, trip.road.tolist()))}]",
                    ",".join(f"{stamp}Z" for stamp in stamps.tolist()),
                ))
        first = end
