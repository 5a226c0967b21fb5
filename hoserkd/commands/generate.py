"""`hoserkd generate`: trips for OD pairs and departures, from a trained student."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hoserkd.commands.context import Context, open_context
from hoserkd.commands.options import City, Device, Profile, Run
from hoserkd.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hoserkd.engine.search.quality import Quality
    from hoserkd.engine.types import GeneratedTrips
    from hoserkd.store.records import RunRecord

ARCHIVES = (".zip", ".zst")
SHOWN = (
    ("reached_share", "reached"),
    ("trips_per_s", "trips/s"),
    ("expansions_per_trip", "expansions a trip"),
    ("roads_per_trip", "roads a trip"),
    ("length_ratio", "length / shortest way"),
    ("revisit_share", "trips that enter a road twice"),
    ("time_backwards_share", "trips whose clock runs back"),
    ("log_prob", "log-probability, mean"),
)


@dataclass(frozen=True)
class Model:
    """Where the student and its city are, and which run made it."""

    file: Path
    city: Path
    run: "RunRecord | None"


def generate(
    profile: str | None = Profile,
    run: str | None = Run,
    model: Annotated[Path | None, typer.Option(
        metavar="FILE|BUNDLE", help="A student file, a public best.pth, or a bundle.")] = None,
    city: str | None = City,
    od: Annotated[str, typer.Option(
        metavar="train|test|test-trips|FILE.csv",
        help="OD pairs and departures: drawn from a split's trips, each test trip's own, or a "
             "file with origin,destination,departure.")] = "test",
    num: Annotated[int | None, typer.Option(
        min=1, help="Trips to generate; test-trips and files: all if not given.")] = None,
    search: Annotated[str | None, typer.Option(metavar="astar|beam|sample|greedy")] = None,
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", metavar="FILE.csv|.parquet|.geojson",
        help="Default: in the run's folder.")] = None,
    device: str | None = Device,
) -> None:
    """Generate trips with a trained student.

    Without --run and --model the latest training's best student is used.

    Example: hoserkd generate --run distilled --od test --num 500
    """
    if run is not None and model is not None:
        raise UsageError("--run and --model exclude each other", hint="give one of them")
    chosen = run if run or model else "latest"
    reference = _training_of(chosen) if chosen else None
    context = open_context(
        "generate", profile,
        {"generate.search": search, "generate.num": num, "device": device}, run=reference)
    found = _find_model(context, reference, model, city)
    _generate(context, found, od, num, output)


def _training_of(reference: str) -> str:
    """Return the id of the training run that `reference` names."""
    from hoserkd.commands.context import open_store

    return open_store().run(reference, kind="train").run_id


def _find_model(
    context: Context, run: str | None, model: Path | None, city: str | None
) -> Model:
    if model is None:
        record = context.store.run(run or "latest", kind="train")
        return Model(Path(record.directory) / "best.safetensors", context.city_dir(city), record)
    if model.suffix not in ARCHIVES:
        return Model(model.expanduser(), context.city_dir(city), None)
    from hoserkd.engine.bundle import open_bundle

    bundle = open_bundle(model.expanduser(), context.paths.data_dir / "bundles")
    inside = bundle.city if city is None else None
    return Model(bundle.model, inside or context.city_dir(city), None)


def _generate(
    context: Context, found: Model, od: str, num: int | None, output: Path | None
) -> None:
    from hoserkd.engine.city.storage import load_city
    from hoserkd.engine.device import resolve_device
    from hoserkd.engine.generate import draw_queries, generate_trips
    from hoserkd.engine.search.quality import Quality
    from hoserkd.engine.student.storage import load_student
    from hoserkd.engine.trips.generated import check_suffix, save_chunks

    config = context.config
    device = resolve_device(config.device)
    if output is not None:
        check_suffix(output)
    town = load_city(found.city)
    student = load_student(found.file, town)
    drawn = num if num is not None or od not in ("train", "test") else config.generate.num
    queries = draw_queries(town, od, drawn, config.seed)
    parents = () if found.run is None else (found.run.run_id,)
    with context.start_run("generate", parents=parents, data_sha256=town.sha256,
                           device=device.type) as recorder:
        home = recorder.directory if found.run is None else Path(found.run.directory)
        word = od if od in ("train", "test", "test-trips") else Path(od).stem
        path = output or home / "generated" / f"{word}-{config.generate.search}.csv"
        began = time.perf_counter()
        quality, watch = Quality(town.network), _Watch()
        trips = generate_trips(
            student, town, queries, config.generate, device=device, seed=config.seed,
            observer=context.observing(recorder, watch), stop=context.stop)
        save_chunks(path, _counted(trips, quality), town.network)
        seconds = time.perf_counter() - began
        recorder.artifact(path, "generated")
        figures = quality.figures() | watch.figures(quality.trips)
        recorder.evaluation(figures, label="generated")
    payload = {"run_id": recorder.run_id, "model": found.file, "output": path, "od": od,
               "search": config.generate.search, "trips": quality.trips,
               "seconds": round(seconds, 3), "reasons": dict(quality.reasons), "metrics": figures}
    context.console.result(payload, lambda: _render(context, payload))


def _counted(
    chunks: "Iterator[GeneratedTrips]", quality: "Quality"
) -> "Iterator[GeneratedTrips]":
    for trips in chunks:
        quality.add(trips)
        yield trips


class _Watch:
    """Keeps the last figures that the search reports."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def notify(self, event: Any) -> None:
        """Keep the figures of a progress report."""
        self._last = dict(getattr(event, "metrics", self._last))

    def figures(self, trips: int) -> dict[str, float]:
        """Return speed and work a trip."""
        names = ("trips_per_s", "expansions_per_trip")
        return {name: self._last[name] for name in names if trips and name in self._last}


def _render(context: Context, payload: dict[str, Any]) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    metrics = payload["metrics"]
    rows: list[tuple[str, Any]] = [("trips", payload["trips"])]
    rows += [(title, metrics[key]) for key, title in SHOWN if key in metrics]
    rows += [(f"ended: {reason}", count) for reason, count in sorted(payload["reasons"].items())]
    title = f"Generated by {payload['search']} for the OD pairs of {payload['od']}"
    return Group(context.console.table(title, ("what", "value"), rows),
                 Text(f"{payload['output']}: {payload['trips']} trips in {payload['seconds']} s"))
