"""One job: train LM-TAD on a city's trips, from nothing to an export that can be used at once.

    TEACHER/weights.safetensors, teacher.json   the best epoch so far: an export like any other
    TEACHER/last.ckpt                           all that going on needs

`last.ckpt` holds tensors and plain values only. A run that goes on from it ends with the same
weights, to the bit, as one that was never stopped.
"""

import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from hoserkd.engine.city.grid import Grid
from hoserkd.engine.city.storage import City
from hoserkd.engine.config import EngineConfig, TrainConfig
from hoserkd.engine.config_base import MAX_PARAMETERS
from hoserkd.engine.device import autocast, resolve_amp, resolve_device, seed_everything
from hoserkd.engine.events import (
    CheckpointSaved,
    EpochDone,
    Observer,
    Rewound,
    SplitJudged,
    StepDone,
    StopRequested,
)
from hoserkd.engine.files import replacing
from hoserkd.engine.teacher.anomaly import judge_anomalies
from hoserkd.engine.teacher.export import OWN_CHECKPOINT
from hoserkd.engine.teacher.lmtad import LMTAD, LMTADDimensions
from hoserkd.engine.teacher.perplexity import next_token_loss
from hoserkd.engine.teacher.sequences import TokenTrips, token_batches, token_trips
from hoserkd.engine.teacher.storage import (
    CARD,
    WEIGHTS,
    TeacherCard,
    add_to_card,
    load_card,
    load_teacher,
    save_teacher,
)
from hoserkd.engine.training.acceleration import compiles, decided, matrix_precision
from hoserkd.engine.training.checkpoint import UNREADABLE, restore_rng, rng_state
from hoserkd.engine.training.optim import Optimiser
from hoserkd.engine.training.schedule import learning_rate
from hoserkd.errors import ConfigError, DivergenceError, InterruptedRunError, TeacherError

LAST = "last.ckpt"
RESUMABLE = ("n_layer", "n_head", "n_embd", "dropout", "block_size", "cell_size_deg", "epochs",
             "batch_tokens", "learning_rate", "weight_decay", "warmup_share", "clip")
"""Settings that have to be the same where a training goes on."""


@dataclass(frozen=True, slots=True)
class TeacherResult:
    """A trained teacher."""

    directory: Path
    card: TeacherCard
    best_epoch: int
    """0 for the first."""
    val_perplexity: float
    """exp of the mean -log p over the tokens of the held-out trips, EOT counted, at that epoch."""
    seconds: float
    """Of this call."""
    trained: bool
    """False: it was finished already with these settings, and nothing was done."""


@dataclass(slots=True)
class _Progress:
    """Where a training stands."""

    epoch: int = 0
    batch: int = 0
    """Batches of the epoch that are done."""
    step: int = 0
    loss_sum: float = 0.0
    """Over the epoch so far."""
    token_sum: int = 0
    reported_loss: float = 0.0
    """Of `loss_sum`, what the reports of steps have told."""
    reported_tokens: int = 0
    best_epoch: int = -1
    best_loss: float = math.inf
    finished: bool = False


def train_teacher(
    config: EngineConfig,
    city: City,
    directory: Path,
    observer: Observer,
    stop: StopRequested,
    resume: bool = False,
    force: bool = False,
) -> TeacherResult:
    """Train a teacher on the city's training trips and write its export to `directory`.

    Args:
        config: Its `teacher` section; seed, device and `train.amp`, `train.compile`,
            `train.checkpoint_every`.
        city: Prepared; its val trips choose the best epoch.
        directory: Of the export.
        observer: Hears of steps, epochs and checkpoints.
        stop: Asked between steps.
        resume: Go on from `last.ckpt`.
        force: Begin anew over what is there.

    Raises:
        TeacherError: `directory` holds another teacher, or nothing to resume.
        DivergenceError: The loss is no number any more.
        InterruptedRunError: `stop` said so, after the state had been saved.
    """
    start = time.perf_counter()
    state = training_state(config, city, directory, resume=resume, force=force)
    found = None if state == "new" else _read_last(directory / LAST)
    if found is not None and state == "finished":
        progress = _Progress(**found["progress"])
        return TeacherResult(directory, load_card(directory), progress.best_epoch,
                             math.exp(progress.best_loss), 0.0, trained=False)
    training = _Training(config, city, directory, _settings(config, city), observer)
    if found is not None:
        training.restore(found)
    else:
        # From now on the folder says whose it is, whenever this process dies.
        training.save()
    with matrix_precision(training.on_cuda and decided(config.train.tf32, True)):
        result = training.run(stop)
    return replace(result, seconds=time.perf_counter() - start)


def training_state(config: EngineConfig, city: City, directory: Path, *, resume: bool = False,
                   force: bool = False) -> Literal["new", "stopped", "finished"]:
    """Return what `train_teacher` would find: nothing, something to go on with, or its result.

    Raises:
        TeacherError: It would refuse: another teacher is there, or the training that is there
            is neither to be resumed nor replaced, or there is none to resume.
    """
    found = None if force else _read_last(directory / LAST)
    if found is None:
        if resume and not force:
            raise TeacherError(f"{directory} holds no {LAST} to go on from",
                               hint="train without --resume")
        if any((directory / name).exists() for name in (CARD, WEIGHTS)) and not force:
            raise TeacherError(f"{directory} already holds a teacher that was not trained here",
                               hint="choose another --name, or --force to replace it")
        return "new"
    then, now = found["settings"], _settings(config, city)
    differing = [f"{key} was {then.get(key)!r}, is now {value!r}"
                 for key, value in now.items() if then.get(key) != value]
    if differing:
        raise TeacherError(
            f"{directory} holds a teacher of other settings: {'; '.join(differing)}",
            hint="choose another --name, or --force to train it anew")
    if found["progress"]["finished"]:
        return "finished"
    if not resume:
        raise TeacherError(f"{directory} holds a training that was stopped",
                           hint="go on with --resume, or begin anew with --force")
    return "stopped"


def _settings(config: EngineConfig, city: City) -> dict[str, Any]:
    teacher = config.teacher.model_dump(mode="json")
    return {name: teacher[name] for name in RESUMABLE} | {
        "seed": config.seed, "city_sha256": city.sha256}


def _read_last(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, *UNREADABLE) as error:
        raise TeacherError(f"{path}: damaged checkpoint: {str(error).splitlines()[0]}",
                           hint="begin anew with --force") from error
    if not isinstance(content, dict) or content.get("format") != OWN_CHECKPOINT:
        raise TeacherError(f"{path}: not a checkpoint of train-teacher")
    return content


class _Training:
    """The model, its trips and where the training stands."""

    def __init__(self, config: EngineConfig, city: City, directory: Path,
                 settings: dict[str, Any], observer: Observer) -> None:
        self._config, self._directory, self._observer = config, directory, observer
        self._city, self._settings = city, settings
        self._device = resolve_device(config.device)
        self._amp = resolve_amp(config.train.amp, self._device)
        seed_everything(config.seed)
        self._card = _new_card(config, city, directory.name)
        self._train, self._val = _trips(city, self._card, self._device)
        self._model = LMTAD(self._card.dimensions).to(self._device)
        self._forward = self._model
        if compiles(config.train, self._device):
            self._forward = cast(LMTAD, torch.compile(self._model, dynamic=True))
        teacher = config.teacher
        self._optimiser = Optimiser(self._model, TrainConfig(
            learning_rate=teacher.learning_rate, weight_decay=teacher.weight_decay,
            clip=teacher.clip), self._amp)
        self._progress = _Progress()
        self._epoch_steps = len(token_batches(self._train.length, teacher.batch_tokens))
        self._total = teacher.epochs * self._epoch_steps

    @property
    def on_cuda(self) -> bool:
        """Whether it computes on a GPU."""
        return self._device.type == "cuda"

    def restore(self, found: dict[str, Any]) -> None:
        """Go on where a checkpoint says."""
        self._model.load_state_dict(found["model"])
        self._optimiser.load_state_dict(found["optimiser"])
        self._progress = _Progress(**found["progress"])
        restore_rng(found["rng"], self._device)
        self._observer.notify(Rewound(self._progress.step))

    def run(self, stop: StopRequested) -> TeacherResult:
        """Train the epochs that are left."""
        progress, epochs = self._progress, self._config.teacher.epochs
        while progress.epoch < epochs:
            start = time.perf_counter()
            self._epoch(stop)
            self._judge(time.perf_counter() - start)
            progress.epoch += 1
            progress.batch, progress.loss_sum, progress.token_sum = 0, 0.0, 0
            progress.reported_loss, progress.reported_tokens = 0.0, 0
            self.save()
        card = add_to_card(self._directory, {"anomalies": self._judge_anomalies(stop)})
        progress.finished = True
        self.save()
        return TeacherResult(self._directory, card, progress.best_epoch,
                             math.exp(progress.best_loss), 0.0, trained=True)

    def _epoch(self, stop: StopRequested) -> None:
        progress, teacher = self._progress, self._config.teacher
        batches = token_batches(self._train.length, teacher.batch_tokens,
                                (self._config.seed, progress.epoch))
        meter = _Meter(self._device, progress)
        self._model.train()
        every = max(self._config.profiling.interval, 1)
        for batch in batches[progress.batch:]:
            if stop():
                self._take(meter)
                self.save()
                raise InterruptedRunError(
                    f"teacher training stopped after step {progress.step} of {self._total}; the "
                    "state is saved", hint="go on with --resume")
            rate = learning_rate(progress.step, self._total, teacher.learning_rate,
                                 teacher.warmup_share)
            meter.add(*self._step(self._train.batch(batch), rate),
                      int(self._train.length[batch].sum()) - len(batch))
            progress.step += 1
            progress.batch += 1
            last = progress.batch == len(batches)
            if last or progress.step % every == 0:
                self._report(meter, rate)
            if not last and progress.step % self._config.train.checkpoint_every == 0:
                self._take(meter)
                self.save()
        self._take(meter)

    def _step(self, tokens: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """Make one optimiser step; return the summed loss and the gradient's norm."""
        with autocast(self._device, self._amp):
            total = next_token_loss(self._forward, tokens, self._card.pad_id)
        count = (tokens[:, 1:] != self._card.pad_id).sum()
        self._optimiser.backward(total / count)
        norm = self._optimiser.step(rate)
        return total.detach(), norm

    def _report(self, meter: "_Meter", rate: float) -> None:
        progress = self._progress
        loss, norm, speed = meter.window()
        if not math.isfinite(loss):
            raise DivergenceError(
                f"the teacher's loss is {loss} at step {progress.step}; the best epoch so far is "
                f"in {self._directory}", hint="lower teacher.learning_rate or teacher.clip")
        self._optimiser.check_scale()
        self._observer.notify(StepDone(progress.step, progress.epoch, self._total, {
            "loss": loss, "learning_rate": rate, "grad_norm": norm, "tokens_per_s": speed}))

    def _judge(self, epoch_s: float) -> None:
        """Measure the held-out perplexity, and keep the weights if it is the best."""
        progress = self._progress
        loss = held_out_loss(self._model, self._val, self._config.teacher.batch_tokens)
        metrics = {"epoch_s": epoch_s, "train_loss": progress.loss_sum / progress.token_sum,
                   "val_loss": loss, "val_perplexity": math.exp(min(loss, 700.0))}
        self._observer.notify(EpochDone(progress.epoch, progress.step, metrics))
        if not loss < progress.best_loss:
            return
        progress.best_loss, progress.best_epoch = loss, progress.epoch
        meta = dict(self._card.meta) | {
            "best_epoch": progress.epoch, "epochs": self._config.teacher.epochs,
            "steps": progress.step, **{k: v for k, v in metrics.items() if k != "epoch_s"}}
        save_teacher(self._directory, self._model, replace(self._card, meta=meta))
        self._observer.notify(CheckpointSaved(str(self._directory / CARD), "best", progress.step))

    def _judge_anomalies(self, stop: StopRequested) -> list[dict[str, Any]]:
        """Judge the best weights at LM-TAD's own task, on trips that chose nothing."""
        most = self._config.teacher.anomaly_trips
        trips = self._city.split("test")
        if not most or not len(trips):
            return []
        found = judge_anomalies(
            load_teacher(self._directory, self._device), self._city.network, trips, most=most,
            seed=self._config.seed, observer=self._observer, stop=stop)
        self._observer.notify(SplitJudged("anomalies", {
            f"{a.kind}_level{a.level}_p{a.probability}_{name}": getattr(a, name)
            for a in found for name in ("f1", "pr_auc", "roc_auc")}))
        return [a.to_json() for a in found]

    def _take(self, meter: "_Meter") -> None:
        """Let a checkpoint remember the meter's sums, to the bit."""
        progress = self._progress
        progress.loss_sum, progress.token_sum = meter.sums()
        progress.reported_loss, progress.reported_tokens = meter.reported

    def save(self) -> None:
        """Write all that going on needs, whole or not at all."""
        progress = self._progress
        content = {
            "format": OWN_CHECKPOINT, "card": json.dumps(self._card.to_json()),
            "settings": self._settings, "model": self._model.state_dict(),
            "optimiser": self._optimiser.state_dict(), "rng": rng_state(self._device),
            "progress": {name: getattr(progress, name) for name in _Progress.__slots__},
        }
        with replacing(self._directory / LAST) as file:
            torch.save(content, file)
        self._observer.notify(CheckpointSaved(str(self._directory / LAST), "last", progress.step))


class _Meter:
    """Sums over an epoch on the device, brought to the host only when they are reported."""

    def __init__(self, device: torch.device, progress: _Progress) -> None:
        self._loss = torch.tensor(progress.loss_sum, device=device, dtype=torch.float64)
        self._tokens = progress.token_sum
        self._norm = torch.zeros((), device=device)
        self.reported = (progress.reported_loss, progress.reported_tokens)
        """Loss and tokens up to the last report."""
        self._time, self._timed = time.perf_counter(), progress.token_sum

    def add(self, loss: Tensor, norm: Tensor, tokens: int) -> None:
        """Count one step."""
        self._loss += loss
        self._norm = norm
        self._tokens += tokens

    def window(self) -> tuple[float, float, float]:
        """Return mean loss, last gradient norm and tokens a second since the last call."""
        loss, now = float(self._loss), time.perf_counter()
        mean = (loss - self.reported[0]) / max(self._tokens - self.reported[1], 1)
        speed = (self._tokens - self._timed) / max(now - self._time, 1e-9)
        self.reported = (loss, self._tokens)
        self._time, self._timed = now, self._tokens
        return mean, float(self._norm), speed

    def sums(self) -> tuple[float, int]:
        """Return loss and tokens of the epoch so far."""
        return float(self._loss), self._tokens


@torch.no_grad()
def held_out_loss(model: LMTAD, trips: TokenTrips, batch_tokens: int) -> float:
    """Return the mean of -log p over all tokens of some trips, EOT counted, in nats."""
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=model.device)
    for batch in token_batches(trips.length, batch_tokens):
        total += next_token_loss(model, trips.batch(batch), trips.pad_id)
    return float(total) / max(int(trips.length.sum()) - len(trips), 1)


def _new_card(config: EngineConfig, city: City, name: str) -> TeacherCard:
    """Return the card of a teacher whose grid covers the city's roads."""
    teacher = config.teacher
    grid = Grid.covering(city.network.centroid_lonlat, teacher.cell_size_deg)
    # Rows times columns of a grid over roads that lie far apart can be any number.
    if grid.cells * teacher.n_embd > MAX_PARAMETERS:
        raise ConfigError(
            f"teacher.cell_size_deg: cells of {teacher.cell_size_deg:g}° over {city.name} make "
            f"{grid.rows:,} x {grid.cols:,} tokens, which with teacher.n_embd {teacher.n_embd} are "
            f"over {MAX_PARAMETERS:,} weights",
            hint="choose larger cells, or look whether a road lies far from all others")
    dimensions = LMTADDimensions(
        vocab_size=grid.cells + 3, block_size=teacher.block_size, n_layer=teacher.n_layer,
        n_head=teacher.n_head, n_embd=teacher.n_embd, dropout=teacher.dropout)
    meta = {"kind": "hoserkd train-teacher", "city": city.name, "city_sha256": city.sha256,
            "seed": config.seed, "cell_size_deg": teacher.cell_size_deg}
    return TeacherCard(name, dimensions, grid, sot_id=grid.cells + 2, eot_id=grid.cells + 1,
                       pad_id=grid.cells, weights_sha256="", meta=meta)


def _trips(city: City, card: TeacherCard, device: torch.device) -> tuple[TokenTrips, TokenTrips]:
    cells = card.grid.tokens(city.network.centroid_lonlat)
    train, val = (token_trips(city.split(name), cells, card, device) for name in ("train", "val"))
    if not len(train) or not len(val):
        raise TeacherError(f"city {city.name} has {len(train)} training and {len(val)} validation "
                           "trips; a teacher needs both")
    return train, val
