"""Tables for other programs: points of trips, and lines as GeoParquet.

Point tables have one row a road: `traj_id`, `source`, `datetime` (with the city's offset from UTC,
or the wall clock without a zone where that is not known), `lng`, `lat` (the road's centroid),
`road_id`. movingpandas and scikit-mobility read them by naming these columns.
"""

import json
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from jaxtyping import Int64

from hoserkd.engine.clock import arrow_type, instants, iso_times, utc_offsets_s
from hoserkd.engine.files import replacing
from hoserkd.engine.geo import cut_at_antimeridian, wrapped_lonlat
from hoserkd.engine.metrics.evaluation import Evaluation
from hoserkd.engine.types import TrajectorySet
from hoserkd.report.geojson import DECIMALS, real_id, trip_rows, trip_shape, trip_spans
from hoserkd.text import no_formula

_SCHEMA = pa.schema([
    ("traj_id", pa.string()), ("source", pa.string()), ("pair", pa.int64()),
    ("reached", pa.bool_()), ("reason", pa.string()), ("origin", pa.int64()),
    ("destination", pa.int64()), ("od", pa.string()), ("roads", pa.int64()),
    ("length_m", pa.float64()),
])
WKB_LINE = 2
WKB_LINES = 5
GEO_VERSION = "1.1.0"


def point_table(found: Evaluation) -> pa.Table:
    """Return the points of every generated trip and of every pair's real trip.

    The ids are those of all exports (`trip_rows`): an id is one trip in the whole table.
    """
    partners = np.unique(found.rating.pairs[:, 1])
    parts = [
        _points(found, found.rating.trips, np.arange(len(found.rating.trips)),
                [str(query) for query in found.rating.query.tolist()], found.name),
        _points(found, found.truth.trips, partners,
                [real_id(trip) for trip in partners.tolist()], "real"),
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
        "datetime": pa.array(instants(entered, _offsets_s(found, trips, chosen)),
                             arrow_type(network.timezone)),
        "lng": lonlat[:, 0],
        "lat": lonlat[:, 1],
        "road_id": network.road_id[road],
    })


def _offsets_s(
    found: Evaluation, trips: TrajectorySet, chosen: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, " m"] | None:
    """Return the offset from UTC of each point: the one at the start of its trip."""
    starts = np.asarray(trips.entered_at_s)[np.asarray(trips.offset)[chosen]]
    offset_s = utc_offsets_s(found.truth.network.timezone, starts)
    return None if offset_s is None else np.repeat(offset_s, np.diff(trips.offset)[chosen])


def _as_text(table: pa.Table, found: Evaluation) -> pa.Table:
    """Return the table for CSV: times as ISO 8601, no cell that a spreadsheet would run."""
    utc_s = table["datetime"].cast(pa.int64()).to_numpy()
    partners = np.unique(found.rating.pairs[:, 1])
    parts = [_offsets_s(found, found.rating.trips, np.arange(len(found.rating.trips))),
             _offsets_s(found, found.truth.trips, partners)]
    known = [part for part in parts if part is not None]
    offset_s = np.concatenate(known) if known else None
    texts = {
        "datetime": iso_times(utc_s if offset_s is None else utc_s + offset_s, offset_s),
        "source": map(no_formula, table["source"].to_pylist()),
    }
    for name, values in texts.items():
        table = table.set_column(table.column_names.index(name), name,
                                 pa.array(values, pa.string()))
    return table


def write_points(found: Evaluation, path: Path) -> None:
    """Write the point table as .csv or .parquet, whole or not at all."""
    table = point_table(found)
    with replacing(path) as file:
        if path.suffix == ".csv":
            pa_csv.write_csv(_as_text(table, found), file)
        else:
            pq.write_table(table, file, compression="zstd")


def write_geoparquet(found: Evaluation, path: Path) -> None:
    """Write generated trips and their real partners as lines: GeoParquet 1.1, WKB, WGS 84."""
    network, rows = found.truth.network, trip_rows(found)
    lines: list[bytes] = []
    kinds = {"LineString"}
    box = np.array([np.inf, np.inf, -np.inf, -np.inf])
    for row in rows:
        parts = cut_at_antimeridian(trip_shape(network, row.trips, row.index))
        lines.append(_wkb(parts))
        kinds |= {"MultiLineString"} if len(parts) > 1 else set()
        corners = np.concatenate(parts)
        box = np.concatenate([np.minimum(box[:2], corners.min(axis=0)),
                              np.maximum(box[2:], corners.max(axis=0))])
    table = pa.Table.from_pylist([row.properties for row in rows], _SCHEMA)
    spans, offset_s = trip_spans(rows, network.timezone)
    for side, name in enumerate(("start", "end")):
        table = table.append_column(name, pa.array(
            instants(spans[:, side], offset_s), arrow_type(network.timezone)))
    table = table.append_column("geometry", pa.array(lines, pa.binary()))
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
