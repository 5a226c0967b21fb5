"""`hoserkd prepare`: from CSV files to a prepared city."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hoserkd.commands.completion import complete_city
from hoserkd.commands.context import Context, Profile, open_context
from hoserkd.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hoserkd.engine.prepare import PrepareReport


def prepare(
    profile: str | None = Profile,
    source: Annotated[Path | None, typer.Option(
        help="Folder with roadmap.geo, roadmap.rel, train.csv, val.csv and test.csv.")] = None,
    city: Annotated[str | None, typer.Option(
        metavar="NAME|DIR", autocompletion=complete_city,
        help="Where the prepared city goes; under its name in the data folder if not given.")
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Make the embedded city instead.")] = False,
    force: Annotated[bool, typer.Option(
        "--force", help="Prepare again even if nothing has changed.")] = False,
    strict: Annotated[bool, typer.Option(
        "--strict", help="Make warnings about columns that contradict each other errors.")
    ] = False,
) -> None:
    """Check a city's files and turn them into memory maps.

    Example: hoserkd prepare --profile beijing --source ~/data/Beijing
    """
    if demo and source is not None:
        raise UsageError("--demo and --source exclude each other", hint="give one of them")
    synthetic = True if demo else (False if source is not None else None)
    context = open_context(
        "prepare", profile, {"city.source": source, "city.synthetic": synthetic}
    )
    from hoserkd.engine.places import CITIES
    from hoserkd.engine.prepare import prepare_city

    destination = context.finder(CITIES).destination(city or context.config.city.name)
    report = prepare_city(
        context.config.city,
        _source_folder(context),
        destination,
        force=force,
        observer=context.observer,
        stop=context.stop,
        strict=strict,
    )
    context.console.result(_payload(report), lambda: _render(context, report))


def _source_folder(context: Context) -> Path:
    """Return the folder to read, having made it if the demo city is wanted."""
    config = context.config.city
    if config.synthetic:
        from hoserkd.engine.city.synthetic import make_demo_source

        folder = context.paths.data_dir / "sources" / config.name
        make_demo_source(folder, config.demo_roads, config.demo_trips, config.seed)
        return folder
    if config.source is None:
        raise UsageError(
            "prepare: no source folder is given",
            hint="add --source DIR, set city.source in the profile, or try --demo",
        )
    return config.source.expanduser()


def _payload(report: "PrepareReport") -> dict[str, Any]:
    return {
        "city": report.name,
        "directory": str(report.directory),
        "sha256": report.sha256,
        "changed": report.changed,
        "statistics": report.statistics,
        "rejected": report.rejected,
        "warnings": list(report.warnings),
        "rejected_path": str(report.rejected_path) if report.rejected_path else None,
        "seconds": round(report.seconds, 3),
    }


def _render(context: Context, report: "PrepareReport") -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    found = report.statistics
    roads = [
        ("roads", f"{found['roads']:,}"),
        ("relations", f"{found['relations']:,}"),
        ("adjacent pairs", f"{found['adjacency_edges']:,}"),
        ("classes of road", f"{found['highway_classes']}"),
        ("zones", f"{found['zones']}"),
        ("candidates, mean and most", f"{found['candidates_mean']}, {found['candidates_max']}"),
        ("dead ends", f"{found['dead_ends']:,}"),
        ("strongly connected", f"{found['strongly_connected_share']:.1%}"),
    ]
    trips = [
        (split, f"{row['trips']:,}", f"{row['steps']:,}", f"{row['roads_a_trip_mean']:.1f}",
         f"{row['roads_a_trip_p95']:.0f}", f"{row['roads_a_trip_max']}",
         f"{sum(report.rejected.get(split, {}).values()):,}")
        for split, row in found["splits"].items()
    ]
    parts: list[RenderableType] = [
        context.console.table(f"City {report.name}", ("what", "value"), roads),
        context.console.table(
            "Trips", ("split", "trips", "steps", "roads mean", "p95", "max", "rejected"), trips),
    ]
    bad = [(split, cause, f"{number:,}")
           for split, causes in report.rejected.items() for cause, number in causes.items()]
    if bad:
        parts.append(context.console.table("Rejected", ("split", "cause", "trips"), bad))
        parts.append(Text(f"each with its row: {report.rejected_path}"))
    done = (f"prepared in {report.seconds:.1f} s" if report.changed
            else "unchanged inputs and settings: nothing to do (--force prepares again)")
    parts.append(Text(f"{report.directory}: {done}"))
    return Group(*parts)
