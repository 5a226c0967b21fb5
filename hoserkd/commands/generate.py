"""`hoserkd generate`: trips for OD pairs and departures, from a trained student."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hoserkd.commands.completion import one_of
from hoserkd.commands.context import Context, open_context, session
from hoserkd.commands.model_files import ModelFile, city_of, open_model_file
from hoserkd.commands.options import Device, Force, Profile, Run, RunCity
from hoserkd.commands.places import find_paths
from hoserkd.commands.processes import joined_processes
from hoserkd.errors import InterruptedRunError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hoserkd.engine.events import Observer
    from hoserkd.engine.search.quality import Quality
    from hoserkd.engine.training.distributed import Ranks
    from hoserkd.engine.trips.parts import TripParts
    from hoserkd.engine.types import GeneratedTrips
    from hoserkd.store.records import RunRecord

SHOWN = ("completion", "trips_per_s", "expansions_per_trip", "roads_per_trip", "length_ratio",
         "revisit_share", "log_prob", "snapped_m", "snapped_max_m")
"""Figures that the terminal shows."""
FAR_M = 200.0
"""A point farther than this from every road gives a warning."""


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
    city: str | None = RunCity,
    od: Annotated[str, typer.Option(
        metavar="train|test|test-trips|zones:LIST|FILE",
        help="OD pairs and departures: drawn from a split's trips, each test trip's own, all "
             "pairs of zones (3,17,20 or all), or a file with origin,destination,departure or "
             "origin_lon,origin_lat,destination_lon,destination_lat,departure.")] = "test",
    num: Annotated[int | None, typer.Option(
        min=1, help="Requests; without it each once, of train and test at most generate.num. "
                    "More than a split has trips repeats them.")] = None,
    search: Annotated[str | None, typer.Option(metavar="astar|beam|sample|greedy")] = None,
    per_od: Annotated[int | None, typer.Option(
        min=1, help="Trips for each OD pair, with --search sample.")] = None,
    guide: Annotated[bool | None, typer.Option(
        "--guide/--no-guide", help="astar: look ahead; faster, but other paths.")] = None,
    time_limit: Annotated[float | None, typer.Option(
        metavar="SECONDS", help="End all searches then, where they stand.")] = None,
    search_limit: Annotated[float | None, typer.Option(
        metavar="SECONDS", help="End a search that takes longer where it stands.")] = None,
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", metavar="FILE.csv|.parquet|.geojson|.kepler.geojson",
        help="Default: in the run's folder.")] = None,
    columns: Annotated[str, typer.Option(
        metavar="own|public", autocompletion=one_of("own", "public"),
        help="public: a CSV as the public evaluators read it.")] = "own",
    show: Annotated[int | None, typer.Option(
        min=0, metavar="N", help="Draw the N-th trip, counted from 0, as a map.")] = None,
    force: bool = Force,
    device: str | None = Device,
) -> None:
    """Generate trips with a trained student.

    Without --run and --model the latest training's best student is used. A generation that was
    stopped goes on where it was when the same command comes again. Several processes share the
    work: torchrun --nproc-per-node 2 --no-python -- hoserkd generate.

    Example: hoserkd generate --run distilled --od test --num 500
    """
    if run is not None and model is not None:
        raise UsageError("--run and --model exclude each other", hint="give one of them")
    reference = None if model is not None else _training_of(run or "latest")
    opened = None if model is None else open_model_file(find_paths(session().options), model)
    context = open_context(
        "generate", profile,
        {"generate.search": search, "generate.num": num, "generate.trips_per_od": per_od,
         "generate.guide": guide, "generate.time_limit_s": time_limit,
         "generate.search_time_limit_s": search_limit, "device": device},
        run=reference, stored=None if opened is None else opened.stored)
    _check_columns(output, columns)
    found = _find_model(context, reference, opened, city)
    if output is not None:
        _check_output(output, od, [found.file, model], force)
    with joined_processes(context.config.device) as ranks:
        job = GenerateJob(context, found, od, num, ranks, columns)
        if ranks.first:
            job.record(output, show)
        else:
            job.help()


def _check_columns(output: Path | None, columns: str) -> None:
    """Refuse columns that are none, and an output that they cannot be written to."""
    from hoserkd.engine.trips.generated import check_suffix
    from hoserkd.engine.trips.public_form import check_public_suffix

    if columns not in ("own", "public"):
        raise UsageError(f"--columns knows own and public, not {columns}")
    if columns == "public":
        if output is None:
            raise UsageError("--columns public needs --output FILE.csv",
                             hint="the trips in a run's folder keep their own columns, which say "
                                  "more")
        check_public_suffix(output)
    elif output is not None:
        check_suffix(output)


def _check_output(output: Path, od: str, models: Sequence[Path | None], force: bool) -> None:
    """Refuse an output that is an input or a file of the user's, before anything is searched."""
    from hoserkd.engine.outputs import check_outputs
    from hoserkd.engine.trips.generated import snapping_path
    from hoserkd.engine.trips.maker import note_path

    path = output.expanduser()
    written = [path, snapping_path(path), note_path(path)]
    check_outputs([one for one in written if one is not None],
                  inputs=[Path(od).expanduser(), *models], force=force)


def _training_of(reference: str) -> str:
    """Return the id of the training run that `reference` names."""
    from hoserkd.commands.context import open_store

    return open_store().run(reference, kind="train").run_id


def _find_model(
    context: Context, run: str | None, opened: ModelFile | None, city: str | None
) -> Model:
    if opened is None:
        record = context.store.run(run or "latest", kind="train")
        return Model(Path(record.directory) / "best.safetensors", context.city_dir(city), record)
    return Model(opened.file, city_of(context, opened, city), None)


class GenerateJob:
    """One generation: its queries, and this process's share of them."""

    def __init__(
        self, context: Context, found: Model, od: str, num: int | None, ranks: "Ranks",
        columns: str,
    ) -> None:
        from hoserkd.engine.city.storage import load_city
        from hoserkd.engine.files import file_sha256
        from hoserkd.engine.generate import draw_queries
        from hoserkd.engine.identity import student_identity
        from hoserkd.engine.student.storage import load_student
        from hoserkd.engine.trips.maker import trips_maker

        config = context.config
        self.context = context
        self.found = found
        self.od = od
        self.ranks = ranks
        self.public = columns == "public"
        self.town = load_city(found.city, config.city.timezone)
        context.tell_other_city(self.town)
        # The hash first: a training may replace the file in between (see `Bench.student`).
        self.model_sha256 = file_sha256(found.file) if found.file.is_file() else None
        self.student = load_student(found.file, self.town)
        queries = draw_queries(self.town, od, num, config.seed, most=config.generate.num,
                               most_away_m=config.generate.max_snap_m)
        if od in ("train", "test") and len(queries) > len(self.town.split(od)):
            context.console.note(
                f"{len(queries):,} requests are more than the {len(self.town.split(od)):,} {od} "
                "trips: each is taken several times")
        self.queries = queries.repeat(config.generate.trips_per_od)
        name = None if found.run is None else found.run.name
        identity = student_identity(self.student, found.file, name)
        self.maker = trips_maker(identity, self.town, self.queries, od, config.generate,
                                 config.seed)

    def help(self) -> None:
        """Search this process's share; the first process puts all together."""
        from hoserkd.engine.events import Silent

        path = self.ranks.from_first(None)
        assert path is not None
        self._search(path, Silent())

    def record(self, output: Path | None, show: int | None) -> None:
        """Search within a run, write the file and show how it went."""
        from hoserkd.engine.files import file_sha256
        from hoserkd.engine.search.quality import Quality, may_revisit
        from hoserkd.engine.trips.generated import save_snapping

        context, run = self.context, self.found.run
        made_from = context.made_from(self.town, student=self.maker.student)
        with context.start_run("generate", parents=() if run is None else (run.run_id,),
                               made_from=made_from) as recorder:
            home = recorder.directory if run is None else Path(run.directory)
            path = self._place(output, home / "generated").absolute()
            self.ranks.from_first(path)
            snapping, watch, began = self._snapping(), _Watch(), time.perf_counter()
            parts = self._search(path, context.observing(recorder, watch))
            settings = context.config.generate
            quality = Quality(self.town.network, may_revisit(
                settings.search, settings.forbid_loops))
            self._save(path, _counted(parts.chunks(), quality))
            snapped = save_snapping(path, self.queries, self.town.network)
            content = file_sha256(path)
            recorder.artifact(path, "export" if self.public else "generated", sha256=content)
            figures = quality.figures() | watch.figures() | snapping
            recorder.evaluation(figures | {"model_sha256": self.model_sha256}, label="generated")
        if run is not None and run.status != "running" and not self.public:
            context.store.attach(run.run_id, path, "generated", content)
        payload = {"run_id": recorder.run_id, "model": self.found.file, "output": path,
                   "made_from": made_from.to_json(),
                   "od": self.od, "search": context.config.generate.search,
                   "trips": quality.trips, "seconds": round(time.perf_counter() - began, 3),
                   "reasons": dict(quality.reasons), "metrics": figures, "snapped": snapped}
        drawing = None if show is None else self._drawing(parts, show)
        parts.remove()
        context.console.result(payload, lambda: _render(context, payload, drawing))

    def _save(self, path: Path, chunks: "Iterator[GeneratedTrips]") -> None:
        """Write the trips in the columns that were asked for."""
        from hoserkd.engine.trips.generated import note_saved, save_chunks
        from hoserkd.engine.trips.public_form import numbering_caveat, save_public

        if not self.public:
            save_chunks(path, chunks, self.town.network, self.maker)
            return
        left_out = save_public(path, chunks, self.town.network)
        note_saved(path, self.town.network, self.maker)
        if left_out:
            self.context.console.note(f"{left_out} trips without roads were left out, which the "
                                      "public evaluators cannot read")
        if caveat := numbering_caveat(self.town.network):
            self.context.console.warn(caveat)

    def _search(self, path: Path, observer: "Observer") -> "TripParts":
        """Answer what is left of this process's share; return the parts of all shares."""
        import torch

        from hoserkd.engine.device import resolve_device
        from hoserkd.engine.generate import generate_trips
        from hoserkd.engine.trips.parts import TripParts

        config, ranks = self.context.config, self.ranks
        parts = TripParts(path, self.maker.sha256, ranks.rank, ranks.world)
        bounds = [len(self.queries) * rank // ranks.world for rank in (ranks.rank, ranks.rank + 1)]
        if parts.trips and ranks.first:
            self.context.console.note(f"{parts.trips:,} trips of an earlier try are kept")
        left = self.queries.select(slice(bounds[0] + parts.trips, bounds[1]))
        try:
            for chunk in generate_trips(
                    self.student, self.town, left, config.generate,
                    device=resolve_device(config.device), seed=config.seed, observer=observer,
                    stop=self.context.stop):
                parts.add(chunk)
        except InterruptedRunError as stopped:
            raise InterruptedRunError(
                f"stopped; {parts.trips:,} trips are kept beside {path}",
                hint="the same command goes on from there") from stopped
        parts.finish()
        ranks.add_up(torch.zeros(1))
        return parts

    def _place(self, output: Path | None, folder: Path) -> Path:
        """Return the file to write, and say what becomes of other trips of that name."""
        from hoserkd.engine.trips.maker import file_stem, other_maker, place_for

        path = output or place_for(folder, self.maker)
        plain = output or folder / f"{file_stem(self.maker)}.csv"
        told = other_maker(plain, self.maker)
        if told is not None:
            self.context.console.note(f"{plain} holds other trips ({told}): " + (
                "they are replaced" if path == plain else f"it stays, these go to {path.name}"))
        return path

    def _snapping(self) -> dict[str, float]:
        """Return how far the points asked for are from the roads taken, and say what is far."""
        away_m = self.queries.snapped_m
        if away_m is None or not len(away_m):
            return {}
        taken = (self.queries.origin >= 0) & (self.queries.destination >= 0)
        limit_m = self.context.config.generate.max_snap_m
        if not taken.all():
            each = self.context.config.generate.trips_per_od
            self.context.console.warn(
                f"{(~taken).sum() // each:,} of {len(taken) // each:,} requests are answered by "
                f"'too far': a point is more than {limit_m:,.0f} m (generate.max_snap_m) from any "
                f"road that a trip can use, the farthest {away_m.max():,.0f} m")
        if not taken.any():
            return {}
        most = float(away_m[taken].max())
        if most > FAR_M:
            self.context.console.warn(f"a point is {most:,.0f} m from the road taken for it")
        return {"snapped_m": float(away_m[taken].mean()), "snapped_max_m": most}

    def _drawing(self, parts: "TripParts", number: int) -> "RenderableType":
        from hoserkd.commands.trip_map import TripMap

        first = 0
        for trips in parts.chunks():
            if number < first + len(trips):
                start, end = trips.offset[number - first:number - first + 2]
                if start == end:
                    return f"trip {number} has no roads: {trips.reason[number - first]}"
                return TripMap(self.town.network, trips.road[start:end])
            first += len(trips)
        return f"there is no trip {number}, only 0 to {first - 1}"


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

    def figures(self) -> dict[str, float]:
        """Return speed and work a trip."""
        names = ("trips_per_s", "expansions_per_trip")
        return {name: self._last[name] for name in names if name in self._last}


def _render(
    context: Context, payload: dict[str, Any], drawing: "RenderableType | None"
) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from hoserkd.engine.metrics.catalogue import BY_NAME

    metrics = payload["metrics"]
    rows: list[tuple[str, Any]] = [("trips", payload["trips"])]
    rows += [(BY_NAME[key].title, share_text(key, metrics[key])) for key in SHOWN
             if key in metrics]
    rows += [(f"ended: {reason}", count) for reason, count in sorted(payload["reasons"].items())]
    title = f"Generated by {payload['search']} for the OD pairs of {payload['od']}"
    parts: list[RenderableType] = [context.console.table(title, ("what", "value"), rows)]
    if drawing is not None:
        parts.append(drawing)
    parts.append(Text(f"{payload['output']}: {payload['trips']} trips in {payload['seconds']} s"))
    return Group(*parts)


def share_text(key: str, value: float) -> str | float:
    """Return a share as a percentage, and any other figure as it is."""
    from hoserkd.engine.metrics.catalogue import BY_NAME

    return f"{value:.1%}" if BY_NAME[key].unit == "share" else value
