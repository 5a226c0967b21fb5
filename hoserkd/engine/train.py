"""Train one student on one city, vanilla or distilled, from settings to a judged model."""

import importlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import DistillConfig, EngineConfig, StudentConfig
from hoserkd.engine.config_base import field_findings
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
from hoserkd.engine.training.journal import Journal
from hoserkd.engine.training.learner import AUXILIARY, Learner
from hoserkd.engine.training.loop import Feed, Training, fit
from hoserkd.engine.training.optim import Optimiser
from hoserkd.engine.training.schedule import Plan
from hoserkd.engine.training.self_distillation import AuxiliaryHeads
from hoserkd.engine.training.timing import PartTimer
from hoserkd.engine.training.validation import judge_split
from hoserkd.engine.trips.batches import TripSource, epoch_batches
from hoserkd.engine.trips.shares import drawn_members
from hoserkd.errors import CheckpointError, DataError

memory: Any = importlib.import_module("torch.utils.deterministic")
ALONE = Ranks()
SILENT = Silent()


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training leaves behind."""

    best: Path
    """The student with the best validation accuracy."""
    best_epoch: int
    """0 for the first."""
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
        self, model: Hoser, split: str, temperature: float, heads: AuxiliaryHeads | None = None
    ) -> dict[str, float]:
        """Return the metrics of a split, without prefix; its KL where the teacher knows it."""
        trips = self.city.split(split)
        source = TripSource(trips, self.tables, self.config.data, self.tables.device)
        size = self.config.train.validation_batch_size
        return judge_split(
            model, self.tables, source, epoch_batches(trips, size, 0, 0, shuffle=False),
            self.meta.times, amp=self.amp, signal=self.sources.get(split),
            distill=self.config.distill, temperature=temperature, heads=heads, ranks=self.ranks,
            observer=self.observer, stop=self.stop, job=f"judging the {split} split",
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
        resume: Go on from `directory/last.ckpt`; its distillation settings hold.
        init_from: Start from these weights, ours or a public `best.pth`, and their dimensions.
        ranks: This process among those that train together.

    Raises:
        InterruptedRunError: `stop` said so; `resume` goes on.
        DivergenceError: a loss or gradient was not a number.
        CheckpointError: the checkpoint or `init_from` belongs to something else.
        DataError: the city has no training or validation trips.
    """
    for split in ("train", "val"):
        if len(city.split(split)) == 0:
            raise DataError(f"{city.directory}: the {split} split holds no trips",
                            hint="training needs training and validation trips")
    device = resolve_device(config.device)
    seed_everything(config.seed)
    with deterministic_algorithms(config.train.deterministic, device):
        checkpoint = load_checkpoint(directory / LAST) if resume else None
        if checkpoint is not None:
            config = restored_config(config, city, checkpoint, observer)
        student = _starting_student(config, city, checkpoint, init_from, observer)
        config = config.model_copy(update={"student": student.meta.config})
        work = _Work(config, city, student, device, teacher_sources or {}, ranks,
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
            optimiser.load_state_dict(checkpoint.optimiser)
            restore_rng(checkpoint.rng, self.tables.device)
        # From the first step too: the run may have been killed before its first checkpoint.
        self.observer.notify(Rewound(state.step, state.judged))
        if self.ranks.rank:
            # Weights start equal everywhere, but no two processes drop the same units.
            torch.manual_seed(hash((config.seed, self.ranks.rank, state.step)))
        journal = Journal(learner.names, learner.figures, plan.total_steps, timer,
                          self.observer, self.ranks, optimiser.skips_overflow)
        return Training(
            learner, feed, plan, state, journal,
            lambda values: self.judges.judge(self.model, "val", values.temperature, heads),
            self.save_best, directory, settings_of(config, self.city),
            train.checkpoint_every, self.observer, self.stop)

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
        ))

    def judged(self, training: Training, directory: Path) -> TrainResult:
        """Return the result, with the best weights judged on the test split if it has trips."""
        state, best = training.state, directory / BEST
        assert state.best_epoch is not None
        metrics = {f"val_{name}": value for name, value in state.best_metrics.items()}
        self.ranks.wait()
        if len(self.city.split("test")):
            model = load_student(best, self.city).model.to(self.tables.device)
            found = self.judges.judge(model, "test", self.config.distill.temperature)
            test = {f"test_{name}": value for name, value in found.items()}
            self.observer.notify(SplitJudged("test", test))
            metrics |= test
        return TrainResult(best, state.best_epoch, state.step, metrics)


def settings_of(config: EngineConfig, city: City) -> dict[str, Any]:
    """Return what a checkpoint remembers of the settings, as plain values."""
    return {
        "distill": config.distill.model_dump(mode="json"),
        "teacher": config.teacher.name,
        "student": config.student.model_dump(mode="json"),
        "fixed": {
            "city": city.sha256,
            "seed": config.seed,
            "train.batch_size": config.train.batch_size,
            "train.accumulation": config.train.accumulation,
            "data.candidate_top_k": config.data.candidate_top_k,
            "data.train_share": config.data.train_share,
            "data.share_seed": config.data.share_seed,
        },
    }


def starting_config(config: EngineConfig, city: City, init_from: Path | None) -> EngineConfig:
    """Return the settings as they will hold: a file to start from decides what the student is.

    Raises:
        CheckpointError: the file holds no student, or one of another city.
    """
    if init_from is None:
        return config
    return config.model_copy(update={"student": load_student(init_from, city).meta.config})


def resumed_config(
    config: EngineConfig, city: City, directory: Path, observer: Observer = SILENT
) -> EngineConfig | None:
    """Return the settings with which the training in `directory` goes on; see `restored_config`.

    None where it was stopped before its first checkpoint.
    """
    if not (directory / LAST).is_file():
        return None
    return restored_config(config, city, load_checkpoint(directory / LAST), observer)


def restored_config(
    config: EngineConfig, city: City, checkpoint: Checkpoint, observer: Observer = SILENT
) -> EngineConfig:
    """Return `config` with the checkpoint's distillation, teacher and student settings.

    Where they differ from what `config` says, a warning tells so.

    Raises:
        CheckpointError: the city, the seed or the batches differ, so that the order of trips
            would be another.
    """
    stored, asked = checkpoint.settings, settings_of(config, city)
    wrong = [f"{key} was {value}, now {asked['fixed'][key]}"
             for key, value in stored["fixed"].items() if asked["fixed"][key] != value]
    if wrong:
        raise CheckpointError("the run cannot be resumed with other settings: " + "; ".join(wrong),
                              hint="give the settings of its start, or start a new run")
    differing = _differences("distill", stored["distill"], asked["distill"])
    try:
        student = StudentConfig.model_validate(stored["student"])
        distill = DistillConfig.model_validate(stored["distill"])
    except ValidationError as error:
        raise CheckpointError("the run's checkpoint has settings that are not this version's: "
                              + "; ".join(field_findings(error)),
                              hint="use the version of hoserkd that made it") from error
    differing += _differences("student", student.model_dump(mode="json"), asked["student"])
    if stored["teacher"] != asked["teacher"]:
        differing.append(f"teacher.name is {stored['teacher']}, not {asked['teacher']}")
    if differing:
        observer.notify(Note("the resumed run keeps its settings: " + "; ".join(differing),
                             level="warning"))
    return config.model_copy(update={
        "distill": distill,
        "student": student,
        "teacher": config.teacher.model_copy(update={"name": stored["teacher"]}),
    })


def _differences(section: str, stored: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    return [f"{section}.{key} is {json.dumps(value)}, not {json.dumps(asked.get(key))}"
            for key, value in stored.items() if asked.get(key) != value]


def _starting_student(
    config: EngineConfig, city: City, checkpoint: Checkpoint | None, init_from: Path | None,
    observer: Observer,
) -> LoadedStudent:
    if checkpoint is None and init_from is not None:
        loaded = load_student(init_from, city)
        differing = _differences("student", loaded.meta.config.model_dump(mode="json"),
                                 config.student.model_dump(mode="json"))
        if differing:
            observer.notify(Note(f"{init_from} decides: " + "; ".join(differing)))
        return loaded
    model = new_student(config.student, city.network)
    if checkpoint is not None:
        model.load_state_dict({name: value for name, value in checkpoint.model.items()
                               if not name.startswith(AUXILIARY)})
    network = city.network
    return LoadedStudent(model, StudentMeta(
        config=config.student, roads=network.roads, highway_types=len(network.highway_names),
        zones=network.zones, times=city.times))


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
