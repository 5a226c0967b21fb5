"""Tables for other programs: points of trips, and lines as GeoParquet.

Point tables have one row a road: `traj_id`, `source`, `datetime` (the data's wall clock, without
a zone), `lng`, `lat` (the road's centroid), `road_id`. movingpandas and scikit-mobility read them
by naming these columns.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from hoserkd.engine.files import replacing
from hoserkd.engine.geo import cut_at_antimeridian, wrapped_lonlat
from hoserkd.engine.metrics.evaluation import Evaluation
from hoserkd.engine.types import TrajectorySet
from hoserkd.report.geojson import DECIMALS, described, trip_shape
from hoserkd.text import no_formula

WKB_LINE = 2
WKB_LINES = 5
GEO_VERSION = "1.1.0"


def point_table(found: Evaluation) -> pa.Table:
    """Return the points of every generated trip and of every pair's real trip.

    Ids of real trips start with `real-`, so that an id is one trip in the whole table.
    """
    partners = np.unique(found.rating.pairs[:, 1])
    parts = [
        _points(found, found.rating.trips, np.arange(len(found.rating.trips)),
                [str(query) for query in found.rating.query.tolist()], found.name),
        _points(found, found.truth.trips, partners,
                [f"real-{trip}" for trip in partners.tolist()], "real"),
    ]
    return pa.concat_tables(parts)


def _points(
    found: Evaluation, trips: TrajectorySet, chosen: np.ndarray, names: list[str], source: str
) -> pa.Table:
    network = found.truth.network
    count = np.diff(trips.offset)[chosen]
    first = np.repeat(np.asarray(trips.offset)[chosen], count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    road = np.asarray(trips.road)[first + within]
    entered = np.asarray(trips.entered_at_s)[first + within]
    lonlat = np.round(wrapped_lonlat(network.centroid_lonlat[road]), DECIMALS)
    return pa.table({
        "traj_id": pa.array(np.repeat(np.array(names, dtype=object), count), pa.string()),
        "source": pa.array([source] * len(road), pa.string()),
        "datetime": pa.array(entered.astype("datetime64[s]")),
        "lng": lonlat[:, 0],
        "lat": lonlat[:, 1],
        "road_id": network.road_id[road],
    })


def write_points(found: Evaluation, path: Path) -> None:
    """Write the point table as .csv or .parquet, whole or not at all."""
    table = point_table(found)
    with replacing(path) as file:
        if path.suffix == ".csv":
            source = pa.array(map(no_formula, table["source"].to_pylist()), pa.string())
            place = table.column_names.index("source")
            pa_csv.write_csv(table.set_column(place, "source", source), file)
        else:
            pq.write_table(table, file, compression="zstd")


def write_geoparquet(found: Evaluation, path: Path) -> None:
    """Write generated trips and their real partners as lines: GeoParquet 1.1, WKB, WGS 84."""
    rows: list[dict[str, Any]] = []
    lines: list[bytes] = []
    kinds = {"LineString"}
    box = np.array([np.inf, np.inf, -np.inf, -np.inf])
    pair_of = {int(trip): k for k, trip in enumerate(found.rating.pairs[:, 0])}
    sides = [(found.name, found.rating.trips, index, pair_of.get(index), query)
             for index, query in enumerate(found.rating.query.tolist())]
    sides += [("real", found.truth.trips, trip, k, trip)
              for k, trip in enumerate(found.rating.pairs[:, 1].tolist())]
    for source, trips, index, pair, name in sides:
        shape = trip_shape(found.truth.network, trips, index)
        parts = cut_at_antimeridian(shape)
        lines.append(_wkb(parts))
        kinds |= {"MultiLineString"} if len(parts) > 1 else set()
        corners = np.concatenate(parts)
        box = np.concatenate([np.minimum(box[:2], corners.min(axis=0)),
                              np.maximum(box[2:], corners.max(axis=0))])
        rows.append({"traj_id": name, "source": source, "pair": pair,
                     **described(found, trips, index)})
    table = pa.Table.from_pylist(rows).append_column("geometry", pa.array(lines, pa.binary()))
    geo = {"version": GEO_VERSION, "primary_column": "geometry", "columns": {"geometry": {
        "encoding": "WKB", "geometry_types": sorted(kinds), "bbox": box.tolist()}}}
    with replacing(path) as file:
        pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), file,
                       compression="zstd")


def _wkb(parts: list[np.ndarray]) -> bytes:
    """Return a line, or the parts of one, as well-known binary."""
    if len(parts) == 1:
        return _wkb_line(parts[0])
    return struct.pack("<BII", 1, WKB_LINES, len(parts)) + b"".join(map(_wkb_line, parts))


def _wkb_line(lonlat: np.ndarray) -> bytes:
    """Return a line as well-known binary; one point is given twice, as a line needs two."""
    points = lonlat if len(lonlat) > 1 else np.repeat(lonlat, 2, axis=0)
    return struct.pack("<BII", 1, WKB_LINE, len(points)) + points.astype("<f8").tobytes()
