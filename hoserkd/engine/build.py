"""The composition root: from settings to the teacher's answers on each split."""

from collections.abc import Sequence
from pathlib import Path

import torch

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import EngineConfig
from hoserkd.engine.device import resolve_device
from hoserkd.engine.events import Note, Observer, Silent, StopRequested, never_stop
from hoserkd.engine.identity import (
    Identity,
    check_unchanged,
    student_identity,
    teacher_identity,
)
from hoserkd.engine.names import is_path
from hoserkd.engine.precompute import precompute_signal
from hoserkd.engine.student.storage import load_student
from hoserkd.engine.teacher.fit import check_grid_fit, road_cells
from hoserkd.engine.teacher.signal import OnlineTeacher, StoredTeacher, TeacherSource
from hoserkd.engine.teacher.signal_files import find_signal
from hoserkd.engine.teacher.storage import Teacher, TeacherCard, load_card, load_teacher
from hoserkd.engine.training.distributed import Ranks
from hoserkd.engine.training.hoser_teacher import load_hoser_teacher
from hoserkd.errors import TeacherError

NEEDED = ("train", "val")
"""Splits without whose signal a distilled training does not start."""
OPTIONAL = ("test",)
"""Splits whose signal is used where it is stored."""
SILENT = Silent()
ALONE = Ranks()


def build_teacher_sources(
    config: EngineConfig,
    city: City,
    teacher_directory: Path,
    *,
    auto: bool = False,
    command: str = "hoserkd precompute",
    observer: Observer = SILENT,
    stop: StopRequested = never_stop,
    ranks: Ranks = ALONE,
) -> dict[str, TeacherSource]:
    """Return who answers for the teacher, by split, as the `distill` settings say.

    Args:
        teacher_directory: A teacher's export; a student file where `distill.source` is hoser.
        auto: Compute a missing signal instead of refusing.
        command: How `hoserkd precompute` is called for these settings; shown as a hint.

    Raises:
        TeacherError: the teacher is damaged or of another place, or its signal is missing.
        CheckpointError: it was replaced while this was at work.
    """
    device = resolve_device(config.device)
    if config.distill.source == "hoser":
        teacher, warning = load_hoser_teacher(
            teacher_directory, city, config.student, device, _given_name(config))
        if warning:
            observer.notify(Note(warning, level="warning"))
        return dict.fromkeys((*NEEDED, *OPTIONAL), teacher)
    card = load_card(teacher_directory)
    check_grid_fit(card.grid, city.network, teacher=card.name, city=city.name)
    if config.distill.mode == "online":
        asked = _loaded(teacher_directory, card, device)
        source = OnlineTeacher(asked, city.network, config.distill.window, device,
                               config.precompute.batch_size)
        return dict.fromkeys((*NEEDED, *OPTIONAL), source)
    missing = [split for split in NEEDED if not _stored(config, city, card, split)]
    if missing and not auto:
        raise missing_signal(config, city, card, missing, command)
    if missing:
        asked = _loaded(teacher_directory, card, device)
        for split in missing:
            precompute_signal(config, city, asked, split, observer=observer, stop=stop,
                              device=device, ranks=ranks)
    return _stored_sources(config, city, card, device)


def identify_teacher(config: EngineConfig, city: City, place: Path) -> Identity:
    """Return which teacher the `distill` settings name, found in `place`.

    Raises:
        TeacherError: an LM-TAD export is damaged.
        CheckpointError: a student file is damaged or of another city.
    """
    if config.distill.source == "hoser":
        return student_identity(load_student(place, city), place, _given_name(config))
    return teacher_identity(load_card(place), place)


def _given_name(config: EngineConfig) -> str | None:
    name = config.teacher.name
    return None if is_path(name) else name


def _loaded(directory: Path, card: TeacherCard, device: torch.device) -> Teacher:
    """Return the teacher of a card; it may have been retrained since the card was read."""
    found = load_teacher(directory, device)
    check_unchanged("the training", teacher_identity(card), teacher_identity(found.card, directory))
    return found


def compute_every_window(
    config: EngineConfig, city: City, teacher_directory: Path, *,
    observer: Observer = SILENT, stop: StopRequested = never_stop,
) -> None:
    """Compute the signal that serves every window, for the splits that a training needs.

    Does nothing where it is stored, or where the teacher is asked online.

    Raises:
        TeacherError: the teacher is damaged or of another place.
        InterruptedRunError: `stop` said so; the next call goes on.
    """
    if config.distill.mode == "online":
        return
    device = resolve_device(config.device)
    teacher = load_teacher(teacher_directory, device)
    for split in NEEDED:
        precompute_signal(config, city, teacher, split, observer=observer, stop=stop,
                          device=device, window="every")


def compute_shared_windows(
    configs: Sequence[EngineConfig], city: City, teacher_directory: Path, *,
    observer: Observer = SILENT, stop: StopRequested = never_stop,
) -> None:
    """Compute one signal for every window where settings of one teacher lack two windows or more.

    What is lacking besides is left to `build_teacher_sources`.

    Raises:
        TeacherError: the teacher is damaged or of another place.
        InterruptedRunError: `stop` said so; the next call goes on.
    """
    card = load_card(teacher_directory)
    lacking = [config for config in configs
               if config.distill.mode == "precomputed" and config.distill.window != "full"
               and not all(_stored(config, city, card, split) for split in NEEDED)]
    if len({config.distill.window for config in lacking}) > 1:
        compute_every_window(lacking[0], city, teacher_directory, observer=observer, stop=stop)


def missing_signal(
    config: EngineConfig, city: City, card: TeacherCard, splits: list[str], command: str
) -> TeacherError:
    """Return the error that says which signal is missing and what makes it."""
    window = config.distill.window
    return TeacherError(
        f"the signal of teacher {card.name} at window {window} has not been computed for the "
        f"{' and '.join(splits)} trips of city {city.name}",
        hint=f"run `{command} --window {window} --splits {','.join(splits)}`, or add --auto",
    )


def _stored(config: EngineConfig, city: City, card: TeacherCard, split: str) -> bool:
    found = find_signal(city, card, split, config.distill.window, config.precompute.dtype)
    return found is not None


def _stored_sources(
    config: EngineConfig, city: City, card: TeacherCard, device: torch.device
) -> dict[str, TeacherSource]:
    cells = road_cells(card.grid, city.network)
    window = config.distill.window
    sources: dict[str, TeacherSource] = {}
    for split in (*NEEDED, *OPTIONAL):
        files = find_signal(city, card, split, window, config.precompute.dtype)
        if files is not None:
            sources[split] = StoredTeacher(files, cells, window, device)
        elif split in NEEDED:
            # Deleted since it was looked for. Without it the training would be vanilla.
            raise TeacherError(f"the signal of teacher {card.name} for the {split} trips of city "
                               f"{city.name} is gone", hint="try again")
    return sources
