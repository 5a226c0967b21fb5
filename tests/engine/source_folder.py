"""Source folders for tests: written from a few plain values, with anything replaceable."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from hoserkd.engine.config import CityConfig
from hoserkd.engine.events import Event, never_stop
from hoserkd.engine.prepare import PrepareReport, prepare_city

RING = 6
"""Roads of the default city: a ring 0 -> 1 -> ... -> 5 -> 0."""
GEO_COLUMNS = ("geo_id", "type", "coordinates", "highway", "length", "maxspeed")


def quoted(cell: object) -> str:
    """Return a CSV cell."""
    text = str(cell)
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n') else text


def table(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """Return CSV text."""
    return "".join(",".join(quoted(cell) for cell in row) + "\n" for row in [columns, *rows])


def ring_road(index: int, geo_id: object | None = None, **cells: object) -> tuple[object, ...]:
    """Return the roadmap.geo row of a road of the ring, with cells replaced by name."""
    a, b = (10 + 0.01 * (index % RING), 50.0), (10 + 0.01 * ((index + 1) % RING), 50.001)
    row: dict[str, object] = {
        "geo_id": index if geo_id is None else geo_id, "type": "LineString",
        "coordinates": json.dumps([a, b]), "highway": "residential", "length": 100.0 + index,
        "maxspeed": "",
    }
    row.update(cells)
    return tuple(row[name] for name in GEO_COLUMNS)


def trip(roads: list[int], first: str = "2024-01-01T00:00:00", step_s: int = 10) -> tuple[str, str]:
    """Return the rid_list and time_list of a trip with even steps."""
    times = np.datetime64(first) + np.arange(len(roads)) * np.timedelta64(step_s, "s")
    stamps = np.datetime_as_string(times.astype("datetime64[s]"))
    return str(roads).replace(" ", ""), ",".join(f"{stamp}Z" for stamp in stamps)


def trips_table(trips: list[tuple[str, str]]) -> str:
    """Return a trip file with all its columns."""
    rows: list[tuple[object, ...]] = [(i, i, i, r, t) for i, (r, t) in enumerate(trips)]
    return table(("mm_id", "entity_id", "traj_id", "rid_list", "time_list"), rows)


def write_source(directory: Path, **files: str | bytes) -> Path:
    """Write a source folder: the ring and one trip a split, or what `files` says (geo, rel, train,
    val, test, partition)."""
    directory.mkdir(parents=True, exist_ok=True)
    ring: list[tuple[object, ...]] = [(i, "geo", i, (i + 1) % RING) for i in range(RING)]
    content: dict[str, str | bytes] = {
        "geo": table(GEO_COLUMNS, [ring_road(i) for i in range(RING)]),
        "rel": table(("rel_id", "type", "origin_id", "destination_id"), ring),
        **{split: trips_table([trip([0, 1, 2])]) for split in ("train", "val", "test")},
        **files,
    }
    names = {"geo": "roadmap.geo", "rel": "roadmap.rel", "train": "train.csv", "val": "val.csv",
             "test": "test.csv", "partition": "road_network_partition",
             "transitions": "zone_trans_mat.npy"}
    for key, text in content.items():
        (directory / names[key]).write_bytes(text if isinstance(text, bytes) else text.encode())
    return directory


class Listener:
    """Keeps the events it hears."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def notify(self, event: Event) -> None:
        """Keep the event."""
        self.events.append(event)


def prepared(source: Path, directory: Path, **settings: Any) -> PrepareReport:
    """Prepare a source folder with 3 zones and as many bad trips as there are."""
    force = settings.pop("force", False)
    observer = settings.pop("observer", Listener())
    stop = settings.pop("stop", never_stop)
    config = CityConfig(**{"zones": 3, "max_rejected_share": 1.0, **settings})
    return prepare_city(config, source, directory, force=force, observer=observer, stop=stop)
