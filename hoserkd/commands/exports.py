"""Trips of an evaluation for other programs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoserkd.engine.outputs import file_stems
from hoserkd.errors import UsageError

if TYPE_CHECKING:
    from hoserkd.engine.metrics.evaluation import Evaluation
    from hoserkd.report.records import Report

EXPORTS = ("geojson", "kepler", "points-csv", "points-parquet", "geoparquet", "public")


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


ENDS = {
    "geojson": {"geojson-trips": "-trips.geojson", "geojson-roads": "-roads.geojson"},
    "kepler": {"kepler": "-trips.kepler.geojson"},
    "points-csv": {"points-csv": "-points.csv"},
    "points-parquet": {"points-parquet": "-points.parquet"},
    "geoparquet": {"geoparquet": "-trips.geoparquet"},
    "public": {"public": "-public.csv"},
}
"""By export, its files: the kind under which each is recorded, and how its name ends."""


def export_files(
    names: Sequence[str], folder: Path, kinds: Sequence[str]
) -> dict[tuple[str, str], Path]:
    """Return the files of some exports, by file kind and run.

    Args:
        names: Of the runs, each once.
    """
    stems = file_stems(names)
    return {(kind, name): folder / f"{stems[name]}{end}" for export in kinds
            for name in names for kind, end in ENDS[export].items()}


def export_trips(report: "Report", folder: Path, kind: str) -> dict[str, Path]:
    """Write every run's trips in one form and return the files by kind and run."""
    from hoserkd.report.recorded import without_partners

    names = [run.name for run in report.runs if run.made or report.real_trips]
    evaluations = {run.name: run.evaluation if report.real_trips
                   else without_partners(run.evaluation) for run in report.runs}
    files = export_files(names, folder, (kind,))
    for (file_kind, name), path in files.items():
        if file_kind == "geojson-roads" and not report.real_trips:
            _write_roads_without_few(evaluations[name], path)
        else:
            _export(evaluations[name], path, file_kind)
    return {f"{file_kind} {name}": path for (file_kind, name), path in files.items()}


def _export(found: "Evaluation", path: Path, kind: str) -> None:
    if kind.startswith("geojson-"):
        _write_geojson(found, path, kind)
    elif kind == "kepler":
        from hoserkd.engine.trips.generated import save_generated

        save_generated(path, found.generated, found.truth.network)
    elif kind == "public":
        from hoserkd.engine.trips.public_form import save_public

        save_public(path, [found.generated], found.truth.network)
    elif kind == "geoparquet":
        from hoserkd.report.points import write_geoparquet

        write_geoparquet(found, path)
    else:
        from hoserkd.report.points import write_points

        write_points(found, path)


def _write_geojson(found: "Evaluation", path: Path, kind: str) -> None:
    from hoserkd.report.geojson import road_features, trip_features

    _write(path, trip_features(found) if kind == "geojson-trips" else road_features(found))


def _write_roads_without_few(found: "Evaluation", path: Path) -> None:
    """Write the use of the roads but for those that few recorded trips visit."""
    from hoserkd.report.geojson import road_features
    from hoserkd.report.recorded import few_visited

    few = few_visited(found.truth.trips, found.truth.network.roads)
    _write(path, road_features(found, frozenset(few.tolist())))


def _write(path: Path, features: dict[str, Any]) -> None:
    import json

    from hoserkd.engine.files import replacing

    with replacing(path, "w") as file:
        json.dump(features, file, separators=(",", ":"))
