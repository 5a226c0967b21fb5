"""Generated trips as the public evaluators read them.

The notebook of the public HOSER code evaluates both cells as Python lists; the distilling fork
reads the first as JSON and the second as a Python literal. JSON lists are all three. Wall clocks
end in Z, which both require. A trip without roads, which stops the notebook, is left out.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hoserkd.engine.files import replacing
from hoserkd.engine.trips.generated import requested_ids, times_as_text
from hoserkd.engine.types import GeneratedTrips, RoadNetwork
from hoserkd.errors import UsageError

COLUMNS = ("origin_road_id", "destination_road_id", "source_origin_time", "gene_trace_road_id",
           "gene_trace_datetime")
"""The first three are the fork's, and tell what was asked for."""


def check_public_suffix(path: Path) -> None:
    """Raise UsageError if the public form cannot be written to a file of that name."""
    if path.suffix != ".csv":
        raise UsageError(f"{path}: the public columns are written as .csv",
                         hint=f"for instance {path.with_suffix('.csv').name}")


def numbering_caveat(network: RoadNetwork) -> str | None:
    """Return what is to be said where the public evaluators cannot find the city's roads."""
    if np.array_equal(network.road_id, np.arange(network.roads)):
        return None
    return ("the public evaluators look a road up by its place in roadmap.geo, and this city's "
            "ids are not 0 to R - 1: they read the city from the folder of `runs export --hoser`, "
            "whose road_ids.csv translates")


def save_public(path: Path, chunks: Iterable[GeneratedTrips], network: RoadNetwork) -> int:
    """Write trips in the public columns, whole or not at all; return how many were left out.

    Raises:
        UsageError: The suffix is not .csv.
    """
    check_public_suffix(path)
    left_out = 0
    with replacing(path, "w") as file:
        file.write(",".join(COLUMNS) + "\n")
        for trips in chunks:
            rows = _rows(trips, network)
            file.writelines(rows)
            left_out += len(trips) - len(rows)
    return left_out


def _rows(trips: GeneratedTrips, network: RoadNetwork) -> list[str]:
    ends = requested_ids(trips, network).tolist()
    departure = times_as_text(trips.departure_s)
    road = network.road_id[trips.road].tolist()
    entered = times_as_text(trips.entered_at_s)
    offset = trips.offset.tolist()
    rows = []
    for i in np.flatnonzero(np.diff(trips.offset)).tolist():
        part = slice(offset[i], offset[i + 1])
        times = json.dumps(entered[part]).replace('"', '""')
        rows.append(f'{ends[i][0]},{ends[i][1]},{departure[i]},"{json.dumps(road[part])}",'
                    f'"{times}"\n')
    return rows
