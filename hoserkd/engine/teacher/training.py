"""One job: train LM-TAD on a city's trips, from nothing to an export that can be used at once.

    TEACHER/weights.safetensors, teacher.json   the best epoch so far: an export like any other
    TEACHER/last.ckpt                           all that going on needs

`last.ckpt` holds tensors and plain values only. A run that goes on from it ends with the same
weights, to the bit, as one that was never stopped.
"""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

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
from hoserkd.engine.teacher.progress import Meter, Progress, held_out
from hoserkd.engine.teacher.sequences import TokenTrips, token_batches, token_trips
from hoserkd.engine.teacher.stopped import (
    LAST,
    decisive_settings,
    read_last,
    training_state,
)
from hoserkd.engine.teacher.storage import (
    CARD,
    TeacherCard,
    add_to_card,
    load_card,
    load_teacher,
    save_teacher,
)
from hoserkd.engine.training.acceleration import compiles, decided, matrix_precision
from hoserkd.engine.training.checkpoint import restore_rng, rng_state
from hoserkd.engine.training.finite import not_finite
from hoserkd.engine.training.optim import Optimiser
from hoserkd.engine.training.schedule import learning_rate
from hoserkd.engine.training.selection import TEACHER, described, is_better
from hoserkd.errors import ConfigError, DivergenceError, InterruptedRunError, TeacherError


@dataclass(frozen=True, slots=True)
class TeacherResult:
    """A trained teacher."""

    directory: Path
    card: TeacherCard
    best_epoch: int
    """0 for the first."""
    best_by: str
    """The held-out figures that chose it, in the order in which they decide."""
    val_perplexity: float
    """exp of the mean -log p over the tokens of the held-out trips, EOT counted, at that epoch."""
    seconds: float
    """Of this call."""
    trained: bool
    """False: it was finished already with these settings, and nothing was done."""


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
    found = None if state == "new" else read_last(directory / LAST)
    if found is not None and state == "finished":
        progress = Progress(**found["progress"])
        return TeacherResult(directory, load_card(directory), progress.best_epoch,
                             described(TEACHER[config.teacher.best]), progress.best_perplexity,
                             0.0, trained=False)
    training = _Training(config, city, directory, decisive_settings(config, city), observer)
    if found is not None:
        training.restore(found)
    else:
        # From now on the folder says whose it is, whenever this process dies.
        training.save()
    with matrix_precision(training.on_cuda and decided(config.train.tf32, True)):
        result = training.run(stop)
    return replace(result, seconds=time.perf_counter() - start)


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
        self._progress = Progress()
        self._saved_step: int | None = None
        self._clock = time.perf_counter()
        self._order = TEACHER[teacher.best]
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
        self._progress = Progress(**found["progress"])
        self._saved_step = self._progress.step
        restore_rng(found["rng"], self._device)
        self._observer.notify(Rewound(self._progress.step))

    def run(self, stop: StopRequested) -> TeacherResult:
        """Train the epochs that are left."""
        progress, epochs = self._progress, self._config.teacher.epochs
        self._keep_best()
        while progress.epoch < epochs:
            self._epoch(stop)
            self._judge()
            progress.epoch += 1
            progress.batch, progress.loss_sum, progress.token_sum = 0, 0.0, 0
            progress.reported_loss, progress.reported_tokens, progress.epoch_s = 0.0, 0, 0.0
            self.save()
            self._keep_best()
        card = add_to_card(self._directory, {"anomalies": self._judge_anomalies(stop)})
        progress.finished = True
        self.save()
        return TeacherResult(self._directory, card, progress.best_epoch, described(self._order),
                             progress.best_perplexity, 0.0, trained=True)

    def _epoch(self, stop: StopRequested) -> None:
        progress, teacher = self._progress, self._config.teacher
        batches = token_batches(self._train.length, teacher.batch_tokens,
                                (self._config.seed, progress.epoch))
        meter = Meter(self._device, progress)
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

    def _report(self, meter: "Meter", rate: float) -> None:
        progress = self._progress
        loss, norm, speed = meter.window()
        self._check_figures({"loss": loss}, norm)
        self._observer.notify(StepDone(progress.step, progress.epoch, self._total, {
            "loss": loss, "learning_rate": rate, "grad_norm": norm, **speed}))

    def _judge(self) -> None:
        """Measure the held-out figures, and note whether they are the best.

        Raises:
            DivergenceError: the weights, or what they make of the held-out trips, are not finite.
        """
        progress = self._progress
        self._check_state()
        found = held_out(self._model, self._val, self._config.teacher.batch_tokens)
        self._check_figures({"validation loss": found.loss})
        self._count_time()
        metrics = {"epoch_s": progress.epoch_s,
                   "train_loss": progress.loss_sum / progress.token_sum, "val_loss": found.loss,
                   "val_perplexity": found.perplexity, "val_token_accuracy": found.accuracy}
        self._observer.notify(EpochDone(progress.epoch, progress.step, metrics))
        figures = {"loss": found.loss, "accuracy": found.accuracy}
        if is_better(figures, progress.best_figures, self._order):
            progress.best_loss, progress.best_epoch = found.loss, progress.epoch
            progress.best_metrics = {k: v for k, v in metrics.items() if k != "epoch_s"}

    def _keep_best(self) -> None:
        """Export the present weights if they are those of the best epoch.

        After the checkpoint that says so, never before: a process that is killed in between
        leaves a checkpoint with these very weights, and the resumed training exports them.
        """
        progress = self._progress
        if progress.batch or not progress.best_metrics or progress.best_epoch + 1 != progress.epoch:
            return
        meta = dict(self._card.meta) | {
            "best_epoch": progress.best_epoch, "best_by": self._config.teacher.best,
            "epochs": self._config.teacher.epochs, "steps": progress.step,
            **progress.best_metrics}
        save_teacher(self._directory, self._model, replace(self._card, meta=meta))
        self._observer.notify(CheckpointSaved(str(self._directory / CARD), "best", progress.step))

    def _check_figures(self, figures: Mapping[str, float], norm: float = 0.0) -> None:
        """Refuse to continue from a loss or a gradient that is not a number."""
        broken = [f"its {name} is {value}" for name, value in figures.items()
                  if not math.isfinite(value)]
        if not (math.isfinite(norm) or self._optimiser.skips_overflow):
            broken.append(f"its gradient is {norm}")
        if broken:
            raise self._diverged(" and ".join(broken))
        try:
            self._optimiser.check_scale()
        except DivergenceError as error:
            raise self._diverged(error.message) from error

    def _check_state(self) -> None:
        """Refuse to keep weights that an update broke: no loss may have seen them yet."""
        broken = not_finite({"weights": self._model.state_dict(),
                             "optimiser": self._optimiser.state_dict()})
        if broken is not None:
            raise self._diverged(f"not finite: {broken}")

    def _diverged(self, what: str) -> DivergenceError:
        progress = self._progress
        kept = [] if self._saved_step is None else [
            f"the last good checkpoint is {self._directory / LAST} (step {self._saved_step})"]
        if progress.best_epoch >= 0:
            kept.append(f"the best epoch so far ({progress.best_epoch + 1}) is in "
                        f"{self._directory / CARD}")
        return DivergenceError(
            f"the teacher diverged by step {progress.step}: {what}; "
            + ("; ".join(kept) or "there is no checkpoint yet"),
            hint="lower teacher.learning_rate or teacher.clip, and train anew with --force")

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

    def _take(self, meter: "Meter") -> None:
        """Let a checkpoint remember the meter's sums, to the bit."""
        progress = self._progress
        progress.loss_sum, progress.token_sum = meter.sums()
        progress.reported_loss, progress.reported_tokens = meter.reported

    def _count_time(self) -> None:
        """Add the time since the last call to the epoch's, which a checkpoint carries over."""
        now = time.perf_counter()
        self._progress.epoch_s += now - self._clock
        self._clock = now

    def save(self) -> None:
        """Write all that resuming needs, whole or not at all.

        Raises:
            DivergenceError: it would hold numbers that are not finite; the file before stays.
        """
        progress = self._progress
        self._check_figures({"summed loss": progress.loss_sum})
        self._check_state()
        self._count_time()
        content = {
            "format": OWN_CHECKPOINT, "card": json.dumps(self._card.to_json()),
            "settings": self._settings, "model": self._model.state_dict(),
            "optimiser": self._optimiser.state_dict(), "rng": rng_state(self._device),
            "progress": {name: getattr(progress, name) for name in Progress.__slots__},
        }
        with replacing(self._directory / LAST) as file:
            torch.save(content, file)
        self._saved_step = progress.step
        self._observer.notify(CheckpointSaved(str(self._directory / LAST), "last", progress.step))


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
