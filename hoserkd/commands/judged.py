"""What `hoserkd evaluate` judges: runs and files, their trips, their models, their past."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoserkd.commands.context import Context
from hoserkd.commands.model_files import open_model_file
from hoserkd.errors import CheckpointError, DataError, UsageError
from hoserkd.placeless import placeless_path, placeless_values

if TYPE_CHECKING:
    import numpy as np
    import torch

    from hoserkd.engine.city.storage import City
    from hoserkd.engine.evaluate import TripJudge
    from hoserkd.engine.events import Observer
    from hoserkd.engine.identity import Identity
    from hoserkd.engine.metrics.evaluation import Split
    from hoserkd.engine.metrics.model import ModelJudgement
    from hoserkd.engine.search.queries import Queries
    from hoserkd.engine.student.storage import LoadedStudent
    from hoserkd.engine.trips.maker import TripsMaker
    from hoserkd.engine.types import GeneratedTrips, TrajectorySet
    from hoserkd.report.records import Curve, JudgedRun, SeedGroup
    from hoserkd.store.records import RunRecord

STEP_CURVES = ("loss", "loss_kl")
MOST_POINTS = 400
"""Points of a curve in the report."""


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to judge."""

    name: str
    file: Path | None
    """The file of trips given; None where a run or a model was given."""
    run: "RunRecord | None"
    model: Path | None = None
    """The student file that makes and is judged by its trips; None: the run's, or none."""
    source: Path | None = None
    """The file that `--model` named: `model` itself, or the bundle that holds it."""


def is_trip_file(path: Path) -> bool:
    """Return whether a word of the command line names a file of trips, there or not."""
    from hoserkd.engine.trips.columns import ending_of

    return ending_of(path) is not None or path.is_file()


def find_targets(
    context: Context, references: Sequence[str], models: Sequence[Path] = ()
) -> list[Target]:
    """Return what the words of the command line name, each under a name of its own.

    Args:
        references: Runs and files of trips.
        models: Student files and bundles.

    Raises:
        DataError: a file does not exist.
        StoreError: no such run.
    """
    from hoserkd.engine.trips.columns import stem_of

    targets: list[Target] = []
    for reference in references:
        path = Path(reference).expanduser()
        if is_trip_file(path):
            if not path.is_file():
                raise DataError(f"{path}: no such file", hint="`hoserkd generate` makes one")
            targets.append(Target(stem_of(path), path, None))
        else:
            run = context.store.run(reference, kind="train")
            model = Path(run.directory) / "best.safetensors"
            targets.append(Target(run.name, None, run, model))
    for path in models:
        file = open_model_file(context.paths, path).file
        targets.append(Target(path.stem, None, None, file, path))
    return [_distinct(target, targets) for target in targets]


def _distinct(target: Target, targets: Sequence[Target]) -> Target:
    """Return the target with a longer name where another bears the same one."""
    twins = [t for t in targets if t.name == target.name]
    if len(twins) == 1:
        return target
    if target.run is not None:
        if sum(t.run is not None and t.run.run_id == target.run.run_id for t in twins) > 1:
            raise UsageError(f"run {target.run.name} is named twice", hint="name it once")
        return replace(target, name=f"{target.name} ({target.run.run_id})")
    return replace(target, name=_tail(_place(target), [_place(t) for t in twins if t.run is None]))


def _place(target: Target) -> Path:
    place = target.source or target.file or target.model
    assert place is not None
    return place.absolute()


def _tail(path: Path, paths: Sequence[Path]) -> str:
    """Return the end of a path that tells it from the others, such as `a/trips.csv`.

    Raises:
        UsageError: it is there twice.
    """
    for count in range(1, len(path.parts)):
        tail = path.parts[-count:]
        if sum(other.parts[-count:] == tail for other in paths) == 1:
            return "/".join(tail)
    raise UsageError(f"{path} is named twice", hint="name it once")


@dataclass(frozen=True, slots=True)
class TakenTrips:
    """Trips to judge, and where they come from."""

    path: Path
    trips: "GeneratedTrips"
    maker: "TripsMaker | None"
    """Who made them; None: the file does not say."""
    model_sha256: str | None = None
    """Hash of the student file that made them; None: the target is a file of trips."""

    @property
    def loopless(self) -> bool:
        """Whether the search that made them is known to enter no road twice."""
        from hoserkd.engine.search.quality import may_revisit

        return self.maker is not None and not may_revisit(
            self.maker.search, self.maker.settings.get("forbid_loops") is not False)


@dataclass(frozen=True, slots=True)
class Bench:
    """Where targets are read, and generated where their trips are missing."""

    context: Context
    city: "City"
    od: "Split"
    device: "torch.device"
    observer: "Observer"
    folder: Path
    """Where trips go that belong to no run."""

    def student(self, target: Target) -> "tuple[LoadedStudent | None, str | None]":
        """Return the run's best student, or that of the file given, and the hash of its file.

        Both are None for a file of trips.

        Raises:
            CheckpointError: the run has none yet, or it is of another city.
        """
        if target.model is None:
            return None, None
        from hoserkd.engine.files import file_sha256
        from hoserkd.engine.student.storage import load_student

        if not target.model.is_file():
            raise CheckpointError(f"run {target.name} has no model yet ({target.model})",
                                  hint="let its training finish an epoch")
        # The hash first: where a training replaces the file in between, its judgement counts as one
        # of earlier weights, and not as one of weights that were never judged.
        content = file_sha256(target.model)
        return load_student(target.model, self.city), content

    def trips(
        self, target: Target, student: "LoadedStudent | None", model_sha256: str | None = None
    ) -> TakenTrips:
        """Return the trips of a target: its file's, or those that its model makes.

        A model's trips are read where a file of its folder holds the very trips that it would make
        now, and generated otherwise.
        """
        if student is None:
            return self._read(target)
        queries = self._queries()
        maker = self._maker(target, student, queries)
        found = self._made_before(target, maker)
        found = found or self._generate(target, student, queries, maker)
        return replace(found, model_sha256=model_sha256)

    def _read(self, target: Target) -> TakenTrips:
        from hoserkd.engine.trips.generated import load_generated
        from hoserkd.engine.trips.maker import read_note

        if target.file is None:
            raise ValueError("a target without a file has a student")
        trips = load_generated(target.file, self.city.network)
        note = read_note(target.file)
        if note is not None and not note.is_of(trips):
            self.context.console.warn(
                f"{target.file}: its trips were changed since they were generated, or are read "
                "for another city; who made them is not known")
            note = None
        return TakenTrips(target.file, trips, None if note is None else note.maker)

    def _queries(self) -> "Queries":
        from hoserkd.engine.generate import draw_queries

        config = self.context.config
        return draw_queries(self.city, self.od, None, config.seed, most=config.generate.num,
                            ).repeat(config.generate.trips_per_od)

    def _maker(self, target: Target, student: "LoadedStudent", queries: "Queries") -> "TripsMaker":
        from hoserkd.engine.identity import student_identity
        from hoserkd.engine.trips.maker import trips_maker

        config, model = self.context.config, target.model or Path(target.name)
        name = model.stem if target.run is None else target.run.name
        return trips_maker(student_identity(student, model, name), self.city, queries, self.od,
                           config.generate, config.seed)

    def _folder(self, target: Target) -> Path:
        return self.folder if target.run is None else Path(target.run.directory) / "generated"

    def _made_before(self, target: Target, maker: "TripsMaker") -> TakenTrips | None:
        """Return the trips of `maker` if a whole file holds them."""
        from hoserkd.engine.trips.generated import load_generated
        from hoserkd.engine.trips.maker import files_made_by

        for path, note in files_made_by(self._folder(target), maker):
            with suppress(DataError):
                trips = load_generated(path, self.city.network)
                if note.is_of(trips):
                    return TakenTrips(path, trips, maker)
        return None

    def _generate(self, target: Target, student: "LoadedStudent", queries: "Queries",
                  maker: "TripsMaker") -> TakenTrips:
        from hoserkd.engine.generate import generate_trips
        from hoserkd.engine.trips.generated import load_generated, save_chunks
        from hoserkd.engine.trips.maker import closest_other, place_for

        config, folder = self.context.config, self._folder(target)
        other = closest_other(folder, maker)
        self.context.console.note(
            (f"{target.name} has no trips for {self.od} ODs" if other is None else
             f"{target.name}: {other[0].name} holds other trips ({other[1]})")
            + f": generating {len(queries):,} by {config.generate.search}")
        path = place_for(folder, maker)
        save_chunks(path, generate_trips(
            student, self.city, queries, config.generate, device=self.device, seed=config.seed,
            observer=self.observer, stop=self.context.stop), self.city.network, maker)
        return TakenTrips(path, load_generated(path, self.city.network), maker)

    def judgement(self, student: "LoadedStudent | None") -> "ModelJudgement | None":
        """Return what the model says step by step about real trips."""
        config = self.context.config
        if student is None or not config.evaluate.model_trips:
            return None
        from hoserkd.engine.metrics.model import judge_model
        from hoserkd.engine.metrics.statistics import Resampling

        how = Resampling(config.evaluate.bootstrap, config.evaluate.confidence, config.seed)
        return judge_model(student, self.city, self.od, config.data, config.evaluate.model_trips,
                           how, device=self.device, observer=self.observer,
                           stop=self.context.stop)


def tell_other_cities(context: Context, targets: Sequence[Target], town: "City") -> None:
    """Warn of runs that were made on another city than the one that they are judged on."""
    from hoserkd.engine.identity import city_identity
    from hoserkd.store.artefacts import recorded_city

    found = city_identity(town)
    for target in targets:
        wanted = None if target.run is None else recorded_city(target.run)
        if wanted not in (None, found):
            context.console.warn(f"run {target.name} was made on {wanted}, and is judged on "
                                 f"{found}")


@dataclass(frozen=True, slots=True)
class TeacherJudge:
    """Scores trips by a teacher."""

    identity: "Identity"
    score: "TripJudge"


def trip_judge(
    context: Context, city: "City", reference: str, device: "torch.device", observer: "Observer"
) -> TeacherJudge:
    """Return what scores trips by the teacher that `reference` names.

    Raises:
        TeacherError: no such teacher, or one of another place.
    """
    from hoserkd.engine.identity import teacher_identity
    from hoserkd.engine.teacher.fit import check_grid_fit
    from hoserkd.engine.teacher.perplexity import score_trips
    from hoserkd.engine.teacher.storage import load_teacher

    place = context.teacher_dir(reference)
    found = load_teacher(place, device)
    check_grid_fit(found.grid, city.network, teacher=reference, city=city.name)

    def judge(trips: "TrajectorySet") -> "tuple[np.ndarray, np.ndarray]":
        scores = score_trips(found, city.network, trips, observer=observer, stop=context.stop)
        return scores.surprise, scores.tokens

    return TeacherJudge(teacher_identity(found.card, place), judge)


def judged_run(
    context: Context, target: Target, evaluation: Any, taken: TakenTrips,
    judge: TeacherJudge | None = None,
) -> "JudgedRun":
    """Return the evaluation with where it comes from, for the report."""
    from hoserkd.engine.files import file_sha256
    from hoserkd.report.records import JudgedRun
    from hoserkd.settings import flatten

    path, maker = taken.path, taken.maker
    facts = {"trips sha256": file_sha256(path)}
    if maker is not None:
        facts |= {"trips made by": str(maker.student), "requests": str(maker.requests),
                  "search": maker.search, "seed of the trips": str(maker.seed)}
    if taken.model_sha256 is not None:
        facts |= {"model sha256": taken.model_sha256}
    if judge is not None:
        facts |= {"perplexity by": str(judge.identity)}
    if target.run is None:
        if target.model is not None:
            facts |= {"model": placeless_path(target.source or target.model)}
        return JudgedRun(evaluation, placeless_path(path), facts=facts, made=maker is not None)
    run = target.run
    facts |= {"trained": run.started_at.strftime("%Y-%m-%d %H:%M UTC"), "device": run.device,
              "profile": run.profile, "revision": run.git_revision or "not from a checkout",
              **{name: str(value) for name, value in run.versions.items()}}
    settings = flatten(run.settings()) | run.made_from.told()
    return JudgedRun(evaluation, placeless_path(path), run.run_id, facts,
                     placeless_values(settings), training_curves(context, run))


def training_curves(context: Context, run: "RunRecord") -> "dict[str, Curve]":
    """Return the figures of the epochs, and the losses of the steps, thinned."""
    import numpy as np

    from hoserkd.report.records import Curve

    epochs = context.store.epochs(run.run_id)
    curves = {}
    for name in dict.fromkeys(name for epoch in epochs for name in epoch.metrics):
        points = [(e.epoch + 1, e.metrics[name]) for e in epochs if name in e.metrics]
        curves[name] = Curve(*np.array(points, dtype=np.float64).T)
    for name, series in context.store.metrics(run.run_id, STEP_CURVES).items():
        kept = np.unique(np.linspace(0, len(series.step) - 1, MOST_POINTS).astype(int))
        if len(series.step):
            curves[name] = Curve(series.step[kept].astype(np.float64), series.value[kept])
    return curves


def seed_groups(targets: Sequence[Target], evaluations: dict[str, Any]) -> "list[SeedGroup]":
    """Return the runs that differ in nothing but the seed, with mean and spread."""
    import statistics

    from hoserkd.engine.metrics.statistics import Figure
    from hoserkd.report.records import SeedGroup
    from hoserkd.settings import flatten

    groups: dict[str, list[Target]] = {}
    for target in targets:
        if target.run is not None:
            settings = flatten(target.run.settings()) | target.run.made_from.told()
            settings.pop("seed", None)
            key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
            groups.setdefault(key, []).append(target)
    found = []
    for members in groups.values():
        if len({t.run.seed for t in members if t.run}) < 2:
            continue
        mean, spread = {}, {}
        judged = [evaluations[t.name].figures for t in members]
        for name in judged[0]:
            values = [f[name].value for f in judged if name in f and f[name].value is not None]
            if len(values) == len(members):
                mean[name] = Figure(statistics.fmean(values), min(values), max(values))
                spread[name] = statistics.stdev(values)
        names = tuple(t.name for t in members)
        found.append(SeedGroup(", ".join(names), names, mean, spread))
    return found
