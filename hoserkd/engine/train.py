"""Train one student on one city, vanilla or distilled, from settings to a judged model."""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import EngineConfig
from hoserkd.engine.device import resolve_device, seed_everything
from hoserkd.engine.events import (
    Note,
    Observer,
    Rewound,
    Silent,
    SplitJudged,
    StopRequested,
    never_stop,
)
from hoserkd.engine.identity import Identity, MadeFrom, city_identity, student_identity
from hoserkd.engine.student.hoser import Hoser
from hoserkd.engine.student.storage import (
    LoadedStudent,
    StudentMeta,
    load_student,
    network_sha256,
    new_student,
    save_student,
)
from hoserkd.engine.student.tables import NetworkTables, build_network_tables
from hoserkd.engine.teacher.signal import TeacherSource
from hoserkd.engine.training.acceleration import choose_acceleration, matrix_precision
from hoserkd.engine.training.checkpoint import (
    BEST,
    LAST,
    Checkpoint,
    TrainState,
    load_checkpoint,
    restore_rng,
)
from hoserkd.engine.training.distributed import Ranks
from hoserkd.engine.training.hoser_teacher import check_features
from hoserkd.engine.training.journal import Journal
from hoserkd.engine.training.learner import AUXILIARY, Learner
from hoserkd.engine.training.loop import Feed, Training, fit
from hoserkd.engine.training.optim import Optimiser
from hoserkd.engine.training.resuming import (
    check_teacher,
    differences,
    made_from_of,
    meta_of,
    outputs_of,
    restored_config,
    settings_of,
    tell_changes,
)
from hoserkd.engine.training.schedule import Plan
from hoserkd.engine.training.selection import STUDENT, described
from hoserkd.engine.training.self_distillation import AuxiliaryHeads
from hoserkd.engine.training.timing import PartTimer
from hoserkd.engine.training.validation import judge_split
from hoserkd.engine.trips.batches import TripSource, epoch_batches
from hoserkd.engine.trips.shares import drawn_members
from hoserkd.errors import DataError

memory: Any = importlib.import_module("torch.utils.deterministic")
ALONE = Ranks()
SILENT = Silent()


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training leaves behind."""

    best: Path
    """The student whose epoch is the best by `best_by`."""
    best_epoch: int
    """0 for the first."""
    best_by: str
    """The validation figures that chose it, in the order in which they decide."""
    steps: int
    """Optimiser steps done."""
    metrics: dict[str, float]
    """`val_...` and `test_...` of the best weights."""


@dataclass(frozen=True, slots=True)
class Judges:
    """Judges splits for one training."""

    city: City
    config: EngineConfig
    tables: NetworkTables
    meta: StudentMeta
    amp: torch.dtype | None
    sources: Mapping[str, TeacherSource]
    ranks: Ranks
    observer: Observer
    stop: StopRequested

    def judge(
        self, model: Hoser, split: str, heads: AuxiliaryHeads | None = None
    ) -> dict[str, float]:
        """Return the metrics of a split, without prefix; its KL where the teacher knows it."""
        trips = self.city.split(split)
        source = TripSource(trips, self.tables, self.config.data, self.tables.device)
        size = self.config.train.validation_batch_size
        return judge_split(
            model, self.tables, source, epoch_batches(trips, size, 0, 0, shuffle=False),
            self.meta.times, amp=self.amp, signal=self.sources.get(split),
            distill=self.config.distill, heads=heads, ranks=self.ranks, observer=self.observer,
            stop=self.stop, job=f"judging the {split} split",
        ).metrics


def train_student(
    config: EngineConfig,
    city: City,
    *,
    directory: Path,
    teacher_sources: Mapping[str, TeacherSource] | None = None,
    observer: Observer = SILENT,
    stop: StopRequested = never_stop,
    resume: bool = False,
    init_from: Path | None = None,
    ranks: Ranks = ALONE,
) -> TrainResult:
    """Train a student and judge its best weights on the test split.

    Writes `last.ckpt` (resumes) and `best.safetensors` (the student) into `directory`.

    Args:
        teacher_sources: The teacher's answers by split; `train` is needed to distil, `val` adds
            the KL term to the validation. None: vanilla.
        resume: Continue from `directory/last.ckpt`, to the same bits as without a stop; its
            student and its distillation hold, and changes of `train` are told.
        init_from: Start from these weights, ours or a public `best.pth`, and their dimensions.
        ranks: This process among those that train together.

    Raises:
        InterruptedRunError: `stop` said so; `resume` goes on.
        DivergenceError: a loss or gradient was not a number.
        CheckpointError: the checkpoint or `init_from` belongs to something else.
        ConfigError: the checkpoint has more steps than the settings allow.
        TeacherError: a HOSER that teaches follows another feature convention than the student.
        DataError: the city has no training or validation trips.
    """
    for split in ("train", "val"):
        if len(city.split(split)) == 0:
            raise DataError(f"{city.directory}: the {split} split holds no trips",
                            hint="training needs training and validation trips")
    device, sources = resolve_device(config.device), teacher_sources or {}
    seed_everything(config.seed)
    with deterministic_algorithms(config.train.deterministic, device):
        checkpoint = load_checkpoint(directory / LAST) if resume else None
        if checkpoint is not None:
            config = restored_config(config, city, checkpoint, observer)
            check_teacher(checkpoint, sources.get("train"), observer)
            student = _resumed_student(config, city, checkpoint, directory)
            started_from = made_from_of(checkpoint).student
        else:
            student = _starting_student(config, city, init_from, observer)
            started_from = None if init_from is None else student_identity(student, init_from)
        config = config_of(config, student.meta)
        for source in sources.values():
            check_features(source, config.student)
        student = _made_from(student, city, sources.get("train"), started_from)
        work = _Work(config, city, student, device, sources, ranks,
                     observer if ranks.first else SILENT, stop)
        training = work.training(directory, checkpoint)
        with matrix_precision(work.acceleration.tf32):
            fit(training)
            return work.judged(training, directory)


class _Work:
    """What one call of `train_student` holds."""

    def __init__(
        self, config: EngineConfig, city: City, student: LoadedStudent, device: torch.device,
        sources: Mapping[str, TeacherSource], ranks: Ranks, observer: Observer,
        stop: StopRequested,
    ) -> None:
        self.config = config
        self.city = city
        self.model = student.model.to(device)
        self.meta = student.meta
        self.ranks = ranks
        self.observer = observer
        self.tables = build_network_tables(city.network, config.student.features, device)
        self.sources = sources
        self.acceleration = choose_acceleration(
            config.train, config.student, np.diff(city.split("train").offset) - 1, device)
        self.amp = self.acceleration.amp
        self.judges = Judges(city, config, self.tables, self.meta, self.amp, sources, ranks,
                             observer, stop)
        self.stop = stop

    def training(self, directory: Path, checkpoint: Checkpoint | None) -> Training:
        """Return the training, at its start or where `checkpoint` left it."""
        config, train = self.config, self.config.train
        trips = self.city.split("train")
        source = TripSource(trips, self.tables, config.data, self.tables.device)
        for note in (source.why, self.acceleration.why):
            self.observer.notify(Note(note))
        members = drawn_members(len(trips), config.data)
        if members is not None:
            self.observer.notify(Note(f"training on {len(members):,} of {len(trips):,} trips"))
        feed = Feed(source, trips, train.batch_size, train.accumulation, config.seed, members)
        plan = Plan(train, config.distill, feed.steps_per_epoch)
        timer = PartTimer(self.tables.device, config.profiling.interval)
        heads = self.auxiliary_heads(checkpoint)
        optimiser = Optimiser(self.model, train, self.amp, heads)
        learner = Learner(self.model, self.tables, self.meta.times, optimiser, config.distill,
                          self.sources.get("train"), self.acceleration, self.ranks, timer,
                          heads)
        state = TrainState()
        if checkpoint is not None:
            state = checkpoint.state
            tell_changes(checkpoint, plan, self.observer)
            optimiser.load_state_dict(checkpoint.optimiser)
            restore_rng(checkpoint.rng, self.tables.device)
        # From the first step too: the run may have been killed before its first checkpoint.
        self.observer.notify(Rewound(state.step, state.judged))
        journal = Journal(learner.names, learner.figures, plan.total_steps, timer,
                          self.observer, self.ranks, optimiser.skips_overflow)
        return Training(
            learner, feed, plan, state, journal,
            lambda: self.judges.judge(self.model, "val", heads), self.save_best, directory,
            self._remembered(),
            self.observer, self.stop)

    def _remembered(self) -> dict[str, Any]:
        """Return what a checkpoint remembers of the settings and of what they worked on."""
        remembered = settings_of(self.config, self.city) | {
            "outputs": outputs_of(self.meta), "made_from": self.meta.made_from}
        source = self.sources.get("train")
        return remembered if source is None else remembered | {"signal": source.form}

    def auxiliary_heads(self, checkpoint: Checkpoint | None) -> AuxiliaryHeads | None:
        """Return the heads of self-distillation, with the checkpoint's weights if it has any."""
        distill = self.config.distill
        if not distill.enabled or distill.source != "self":
            return None
        heads = AuxiliaryHeads(self.model, distill.aux_layers).to(self.tables.device)
        if checkpoint is not None:
            heads.load_state_dict({name.removeprefix(AUXILIARY): value
                                   for name, value in checkpoint.model.items()
                                   if name.startswith(AUXILIARY)})
        return heads

    def save_best(self, path: Path, state: TrainState) -> None:
        """Write the present weights as a student."""
        taught = "train" in self.sources or self.config.distill.source == "self"
        distill = self.config.distill if self.config.distill.enabled and taught else None
        save_student(path, self.model, StudentMeta(
            config=self.config.student,
            roads=self.meta.roads,
            highway_types=self.meta.highway_types,
            zones=self.meta.zones,
            times=self.meta.times,
            city_sha256=self.city.sha256,
            run_id=path.parent.name,
            epoch=state.best_epoch,
            step=state.best_step,
            distill=None if distill is None else distill.model_dump(mode="json"),
            metrics={f"val_{name}": value for name, value in state.best_metrics.items()},
            network_sha256=network_sha256(self.city.network),
            candidate_top_k=self.config.data.candidate_top_k,
            best_by=self.config.train.best,
            made_from=self.meta.made_from,
        ))

    def judged(self, training: Training, directory: Path) -> TrainResult:
        """Return the result, with the best weights judged on the test split if it has trips."""
        state, best = training.state, directory / BEST
        assert state.best_epoch is not None
        metrics = {f"val_{name}": value for name, value in state.best_metrics.items()}
        self.ranks.wait()
        if len(self.city.split("test")):
            model = load_student(best, self.city).model.to(self.tables.device)
            found = self.judges.judge(model, "test")
            test = {f"test_{name}": value for name, value in found.items()}
            self.observer.notify(SplitJudged("test", test))
            metrics |= test
        return TrainResult(best, state.best_epoch, described(STUDENT[self.config.train.best]),
                           state.step, metrics)


def starting_config(config: EngineConfig, city: City, init_from: Path | None) -> EngineConfig:
    """Return the settings as they will hold: a file to start from decides what the student is.

    Raises:
        CheckpointError: the file holds no student, or one of another city.
    """
    if init_from is None:
        return config
    return config_of(config, load_student(init_from, city).meta)


def config_of(config: EngineConfig, meta: StudentMeta) -> EngineConfig:
    """Return `config` with what a student file or a checkpoint says of its student."""
    return config.model_copy(update={"student": meta.config, "data": meta.data(config.data)})


def resumed_config(
    config: EngineConfig, city: City, directory: Path, observer: Observer = SILENT
) -> EngineConfig | None:
    """Return the settings with which the training in `directory` goes on; see `restored_config`.

    None where it was stopped before its first checkpoint.
    """
    if not (directory / LAST).is_file():
        return None
    return restored_config(config, city, load_checkpoint(directory / LAST), observer)


def last_train_settings(directory: Path) -> dict[str, Any] | None:
    """Return the section `train` with which the training in `directory` was last continued.

    It may differ from what the run was started with. None: no checkpoint tells it.
    """
    if not (directory / LAST).is_file():
        return None
    found = load_checkpoint(directory / LAST).settings.get("train")
    return found if isinstance(found, dict) else None


def _starting_student(
    config: EngineConfig, city: City, init_from: Path | None, observer: Observer
) -> LoadedStudent:
    if init_from is not None:
        loaded = load_student(init_from, city)
        decided = config_of(config, loaded.meta)
        differing = [each for name in ("student", "data") for each in differences(
            name, getattr(decided, name).model_dump(mode="json"),
            getattr(config, name).model_dump(mode="json"))]
        if differing:
            observer.notify(Note(f"{init_from} decides: " + "; ".join(differing)))
        return loaded
    network = city.network
    meta = StudentMeta(
        config=config.student, roads=network.roads, highway_types=len(network.highway_names),
        zones=network.zones, times=city.times)
    return LoadedStudent(new_student(config.student, network), meta)


def _made_from(
    student: LoadedStudent, city: City, source: TeacherSource | None, started_from: Identity | None
) -> LoadedStudent:
    """Return the student with a description that says what its training is made from."""
    made_from = MadeFrom(city_identity(city), None if source is None else source.identity,
                         started_from)
    return replace(student, meta=replace(student.meta, made_from=made_from.to_json()))


def _resumed_student(
    config: EngineConfig, city: City, checkpoint: Checkpoint, directory: Path
) -> LoadedStudent:
    best = directory / BEST
    old = "outputs" not in checkpoint.settings and best.is_file()
    meta = meta_of(checkpoint, config, city, load_student(best, city).meta if old else None)
    model = Hoser(meta.config, meta.roads, meta.highway_types, meta.zones)
    model.load_state_dict({name: value for name, value in checkpoint.model.items()
                           if not name.startswith(AUXILIARY)})
    return LoadedStudent(model, meta)


@contextmanager
def deterministic_algorithms(wanted: bool, device: torch.device) -> Iterator[None]:
    """Have torch choose algorithms that give the same bits every time, within the block.

    On CUDA a few operations have no such form; they warn and go on.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(wanted, warn_only=device.type == "cuda")
    # Every buffer is written before it is read; filling it first only costs time.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        memory.fill_uninitialized_memory = filled
