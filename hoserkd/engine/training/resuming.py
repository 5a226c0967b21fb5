"""What a checkpoint remembers of the settings, and what a resumed training makes of others.

Three kinds: what decides which trips are learnt from must be the same; what the student is and how
it is distilled is taken from the checkpoint; how it is optimised may change, and the change is
told.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from pydantic import ValidationError

from hoserkd.engine.city.checks import checked_times
from hoserkd.engine.city.storage import City
from hoserkd.engine.config import (
    DistillConfig,
    EngineConfig,
    Section,
    StudentConfig,
    TrainConfig,
)
from hoserkd.engine.config_base import field_findings
from hoserkd.engine.events import Note, Observer, Silent
from hoserkd.engine.identity import Identity, MadeFrom, check_unchanged, city_identity
from hoserkd.engine.student.storage import StudentMeta
from hoserkd.engine.teacher.signal import TeacherSource
from hoserkd.engine.training.checkpoint import Checkpoint
from hoserkd.engine.training.schedule import Plan, epoch_steps
from hoserkd.engine.trips.shares import share_size
from hoserkd.errors import CheckpointError, ConfigError

SILENT = Silent()
TOP_K = "data.candidate_top_k"
"""Stands among the fixed settings in files of every version, but the checkpoint's value holds."""
S = TypeVar("S", bound=Section)
UNTOLD = ("checkpoint_every", "validation_batch_size")
"""Settings of `train` that change no weight and no choice of weights."""


def settings_of(config: EngineConfig, city: City) -> dict[str, Any]:
    """Return what a checkpoint remembers of the settings, as plain values."""
    return {
        "distill": config.distill.model_dump(mode="json"),
        "teacher": config.teacher.name,
        "student": config.student.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json"),
        "fixed": {
            "city": city.sha256,
            "seed": config.seed,
            "train.batch_size": config.train.batch_size,
            "train.accumulation": config.train.accumulation,
            TOP_K: config.data.candidate_top_k,
            "data.train_share": config.data.train_share,
            "data.share_seed": config.data.share_seed,
        },
    }


def outputs_of(meta: StudentMeta) -> dict[str, Any]:
    """Return what the student's outputs mean besides its settings, as plain values.

    The weights may come from elsewhere (`--init-from`): then the statistics of the time head are
    not those of the city, and the road classes may be the public code's.
    """
    return {"times": asdict(meta.times), "highway_types": meta.highway_types}


def meta_of(
    checkpoint: Checkpoint, config: EngineConfig, city: City, best: StudentMeta | None
) -> StudentMeta:
    """Return the description of the student in a checkpoint.

    Args:
        best: Of the best student so far, which tells what checkpoints of older versions do not;
            None: there is none.

    Raises:
        CheckpointError: what the checkpoint says is damaged.
    """
    network = city.network
    stored = checkpoint.settings.get("outputs")
    if stored is None:
        stored = outputs_of(best) if best is not None else {
            "times": asdict(city.times), "highway_types": len(network.highway_names)}
    try:
        times, types = checked_times(stored["times"]), int(stored["highway_types"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint's description of the student is damaged: {error}",
                              hint="start the training anew, without --resume") from error
    return StudentMeta(config=config.student, roads=network.roads, highway_types=types,
                       zones=network.zones, times=times)


def restored_config(
    config: EngineConfig, city: City, checkpoint: Checkpoint, observer: Observer = SILENT
) -> EngineConfig:
    """Return `config` with the checkpoint's distillation, teacher and student settings.

    Where they differ from what `config` says, a warning tells so.

    Raises:
        CheckpointError: the city is another one (shows both hashes), or the seed or the batches
            differ, so that the order of trips would be another.
        ConfigError: the training has done more steps than it is to have now.
    """
    stored, asked = checkpoint.settings, settings_of(config, city)
    # Before names and hashes stood together, the hash of the city stood alone.
    trained_on = made_from_of(checkpoint).city or Identity(
        "city", "of its start", str(stored["fixed"]["city"]))
    check_unchanged("the run", trained_on, city_identity(city))
    top_k = stored["fixed"].get(TOP_K, config.data.candidate_top_k)
    wrong = [f"{key} was {value}, now {asked['fixed'][key]}"
             for key, value in stored["fixed"].items()
             if key not in (TOP_K, "city") and asked["fixed"][key] != value]
    if wrong:
        raise CheckpointError("the run cannot be resumed with other settings: " + "; ".join(wrong),
                              hint="give the settings of its start, or start a new run")
    _check_steps(checkpoint.state.step, config, city)
    distill, student = _section(checkpoint, "distill", DistillConfig), _section(
        checkpoint, "student", StudentConfig)
    differing = differences("distill", stored["distill"], asked["distill"])
    differing += differences("student", student.model_dump(mode="json"), asked["student"])
    if top_k != config.data.candidate_top_k:
        differing.append(f"{TOP_K} is {top_k}, not {config.data.candidate_top_k}")
    if stored["teacher"] != asked["teacher"]:
        differing.append(f"teacher.name is {stored['teacher']}, not {asked['teacher']}")
    if differing:
        observer.notify(Note("the resumed run keeps its settings: " + "; ".join(differing),
                             level="warning"))
    return config.model_copy(update={
        "distill": distill,
        "student": student,
        "data": config.data.model_copy(update={"candidate_top_k": top_k}),
        "teacher": config.teacher.model_copy(update={"name": stored["teacher"]}),
    })


def _check_steps(done: int, config: EngineConfig, city: City) -> None:
    train, data = config.train, config.data
    trips = share_size(len(city.split("train")), data.train_share)
    plan = Plan(train, config.distill, epoch_steps(trips, train.batch_size, train.accumulation))
    if done > plan.total_steps:
        raise ConfigError(
            f"the run has done {done} optimiser steps; with train.epochs {train.epochs} and "
            f"train.max_steps {train.max_steps} it would have {plan.total_steps}",
            hint=f"give --max-steps {done} or more, or more train.epochs")


def made_from_of(checkpoint: Checkpoint) -> MadeFrom:
    """Return the city and the teacher of a training, and the student that it started from."""
    return MadeFrom.from_json(checkpoint.settings.get("made_from"))


def check_teacher(
    checkpoint: Checkpoint, source: TeacherSource | None, observer: Observer = SILENT
) -> None:
    """Check that the teacher that answers now is the one that has taught so far.

    Raises:
        CheckpointError: it is another one, or there is none; shows both hashes.
    """
    taught_by = made_from_of(checkpoint).teacher
    check_unchanged("the run", taught_by, None if source is None else source.identity)
    if source is None:
        return
    if taught_by is None:
        observer.notify(Note("the checkpoint does not say which teacher taught the run so far; it "
                             f"continues with {source.identity}", level="warning"))
    form = checkpoint.settings.get("signal", source.form)
    if form != source.form:
        observer.notify(Note(f"the teacher's signal was {form}, is now {source.form}: its last "
                             "digits may differ, and so the weights", level="warning"))


def differences(section: str, stored: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """Return where two versions of a section differ, the first being the one that holds."""
    return [f"{section}.{key} is {json.dumps(value)}, not {json.dumps(asked.get(key))}"
            for key, value in stored.items() if asked.get(key) != value]


def tell_changes(checkpoint: Checkpoint, plan: Plan, observer: Observer) -> None:
    """Tell what of the optimisation changes where a training is resumed, with both plans."""
    step = checkpoint.state.step
    stored: Mapping[str, Any] | None = checkpoint.settings.get("train")
    if stored is None:  # written by an older version
        return
    asked = plan.train.model_dump(mode="json")
    changed = [f"train.{key} was {json.dumps(value)}, is now {json.dumps(asked[key])}"
               for key, value in stored.items()
               if key in asked and key not in UNTOLD and asked[key] != value]
    if changed:
        observer.notify(Note(f"from step {step + 1} on: " + "; ".join(changed), level="warning"))
    before = Plan(_section(checkpoint, "train", TrainConfig), plan.distill, plan.steps_per_epoch)
    if any(before.at(each) != plan.at(each) for each in (step, plan.total_steps - 1)):
        observer.notify(Note(
            f"the plan changes after step {step}. Old plan: {_told(before, step)}. "
            f"New plan: {_told(plan, step)}.", level="warning"))


def _section(checkpoint: Checkpoint, name: str, kind: type[S]) -> S:
    try:
        return kind.model_validate(checkpoint.settings[name])
    except (KeyError, ValidationError) as error:
        why = ("; ".join(field_findings(error)) if isinstance(error, ValidationError)
               else "they are missing")
        raise CheckpointError(f"the checkpoint has settings of {name} that are not this "
                              f"version's: {why}",
                              hint="resume it with the version of hoserkd that wrote it"
                              ) from error


def _told(plan: Plan, step: int) -> str:
    """Return a plan in words, as it is round the step after `step`."""
    words = f"{plan.total_steps} steps"
    names = ["learning_rate"]
    if plan.distill.enabled and plan.distill.temperature_end is not None:
        names.append("temperature")
    if plan.distill.enabled and plan.distill.ramp_epochs:
        names.append("lambda_kl")
    for name in names:
        values = [f"{getattr(plan.at(at), name):.3g} at step {at + 1}"
                  for at in dict.fromkeys((max(step - 1, 0), step, plan.total_steps - 1))
                  if at < plan.total_steps]
        words += f", {name} {', '.join(values)}"
    return words
