"""Trips of an evaluation for other programs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hoserkd.errors import UsageError
from hoserkd.text import file_stem

if TYPE_CHECKING:
    from hoserkd.engine.metrics.evaluation import Evaluation
    from hoserkd.report.records import Report

EXPORTS = ("geojson", "kepler", "points-csv", "points-parquet", "geoparquet")


def check_exports(kinds: Sequence[str]) -> tuple[str, ...]:
    """Return the kinds, each once.

    Raises:
        UsageError: one is not known.
    """
    for kind in kinds:
        if kind not in EXPORTS:
            raise UsageError(f"--export knows {', '.join(EXPORTS)}, not {kind}",
                             hint="it may be given several times, each with one of them")
    return tuple(dict.fromkeys(kinds))


def export_trips(report: "Report", folder: Path, kind: str) -> dict[str, Path]:
    """Write every run's trips in one form and return the files by kind and run."""
    written = {}
    for run in report.runs:
        stem = file_stem(Path(run.name).name)
        for label, path in _export(run.evaluation, folder / stem, kind).items():
            written[f"{label} {run.name}"] = path
    return written


def _export(found: "Evaluation", stem: Path, kind: str) -> dict[str, Path]:
    def beside(end: str) -> Path:
        return stem.with_name(stem.name + end)

    if kind == "geojson":
        return {f"geojson-{part}": _write_geojson(found, beside(f"-{part}.geojson"), part)
                for part in ("trips", "roads")}
    if kind == "kepler":
        from hoserkd.engine.trips.generated import save_generated

        path = beside("-trips.kepler.geojson")
        save_generated(path, found.generated, found.truth.network)
    elif kind == "geoparquet":
        from hoserkd.report.points import write_geoparquet

        path = beside("-trips.geoparquet")
        write_geoparquet(found, path)
    else:
        from hoserkd.report.points import write_points

        path = beside(f"-points.{kind.removeprefix('points-')}")
        write_points(found, path)
    return {kind: path}


def _write_geojson(found: "Evaluation", path: Path, part: str) -> Path:
    import json

    from hoserkd.engine.files import replacing
    from hoserkd.report.geojson import road_features, trip_features

    features = trip_features(found) if part == "trips" else road_features(found)
    with replacing(path, "w") as file:
        json.dump(features, file, separators=(",", ":"))
    return path
