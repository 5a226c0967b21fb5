"""What a teacher's folder holds: nothing, a training that was stopped, or a finished one."""

from pathlib import Path
from typing import Any, Literal

import torch

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import EngineConfig, TeacherConfig
from hoserkd.engine.teacher.export import OWN_CHECKPOINT
from hoserkd.engine.teacher.progress import Progress
from hoserkd.engine.teacher.storage import CARD, WEIGHTS
from hoserkd.engine.training.checkpoint import UNREADABLE
from hoserkd.errors import TeacherError

LAST = "last.ckpt"
PARTS = ("settings", "model", "optimiser", "rng", "progress")
"""What a checkpoint holds, each a mapping."""
RESUMABLE = ("n_layer", "n_head", "n_embd", "dropout", "block_size", "cell_size_deg", "epochs",
             "batch_tokens", "learning_rate", "weight_decay", "warmup_share", "clip", "best")
"""Settings that have to be the same where a training is resumed."""


def training_state(config: EngineConfig, city: City, directory: Path, *, resume: bool = False,
                   force: bool = False) -> Literal["new", "stopped", "finished"]:
    """Return what `train_teacher` would find: nothing, something to go on with, or its result.

    Raises:
        TeacherError: It would refuse: another teacher is there, or the training that is there
            is neither to be resumed nor replaced, or there is none to resume.
    """
    found = None if force else read_last(directory / LAST)
    if found is None:
        if resume and not force:
            raise TeacherError(f"{directory} holds no {LAST} to go on from",
                               hint="train without --resume")
        if any((directory / name).exists() for name in (CARD, WEIGHTS)) and not force:
            raise TeacherError(f"{directory} already holds a teacher that was not trained here",
                               hint="choose another --name, or --force to replace it")
        return "new"
    # A setting that the checkpoint's version did not have is at its default there.
    then = TeacherConfig().model_dump(mode="json") | found["settings"]
    now = decisive_settings(config, city)
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


def decisive_settings(config: EngineConfig, city: City) -> dict[str, Any]:
    """Return what has to be the same where a training is resumed, as plain values."""
    teacher = config.teacher.model_dump(mode="json")
    return {name: teacher[name] for name in RESUMABLE} | {
        "seed": config.seed, "city_sha256": city.sha256}


def read_last(path: Path) -> dict[str, Any] | None:
    """Return what the checkpoint `path` holds, None where there is none.

    Raises:
        TeacherError: it is damaged, or not one of a teacher's training.
    """
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, *UNREADABLE) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise TeacherError(f"{path}: damaged checkpoint: {reason}",
                           hint="begin anew with --force") from error
    if not isinstance(content, dict) or content.get("format") != OWN_CHECKPOINT:
        raise TeacherError(f"{path}: not a checkpoint of train-teacher")
    lacking = [name for name in PARTS if not isinstance(content.get(name), dict)]
    unknown = set() if lacking else content["progress"].keys() - set(Progress.__slots__)
    if lacking or unknown:
        raise TeacherError(f"{path}: a checkpoint of another version: "
                           f"{', '.join(lacking or sorted(unknown))}",
                           hint="resume it with the version of hoserkd that wrote it")
    return content
