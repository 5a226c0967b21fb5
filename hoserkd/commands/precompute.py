"""`hoserkd precompute`: the teacher's word on every step, once and for all trainings."""

from typing import TYPE_CHECKING, cast

import typer

from hoserkd.commands.context import open_context
from hoserkd.commands.options import City, Device, Profile, Teacher
from hoserkd.commands.processes import joined_processes
from hoserkd.errors import UsageError

if TYPE_CHECKING:
    from hoserkd.engine.precompute import PrecomputeReport
    from hoserkd.engine.teacher.signal_files import AskedWindow

SPLITS = ("train", "val", "test")


def precompute(
    profile: str | None = Profile,
    city: str | None = City,
    teacher: str | None = Teacher,
    window: str | None = typer.Option(
        None, "--window", metavar="W|full|every", help="Tokens of history, 1 to 8; all of them; or "
        "every window from 1 to 8 at once, as tuning wants it."),
    splits: str | None = typer.Option(None, "--splits", metavar="SPLIT,...",
                                      help="Which trips: train, val, test."),
    force: bool = typer.Option(False, "--force", help="Compute again what is there."),
    device: str | None = Device,
) -> None:
    """Store the teacher's candidate logits for every step of the chosen splits.

    Several processes share the work: torchrun --nproc-per-node 2 --no-python hoserkd precompute.
    Example: hoserkd precompute --profile beijing --window 4 --splits train,val
    """
    asked = parse_window(window)
    context = open_context("precompute", profile, {
        "distill.window": None if asked == "every" else asked,
        "precompute.splits": parse_splits(splits), "device": device})
    from hoserkd.engine.city.storage import load_city
    from hoserkd.engine.device import resolve_device
    from hoserkd.engine.events import Silent
    from hoserkd.engine.identity import teacher_identity
    from hoserkd.engine.precompute import precompute_signal
    from hoserkd.engine.teacher.storage import load_teacher

    town = load_city(context.city_dir(city))
    place = context.teacher_dir(teacher)
    where = resolve_device(context.config.device)
    with joined_processes(context.config.device) as ranks:
        loaded = load_teacher(place, where)
        observer = context.observer if ranks.first else Silent()
        reports = [precompute_signal(
            context.config, town, loaded, split, observer=observer, stop=context.stop,
            device=where, window=asked, ranks=ranks, force=force)
            for split in context.config.precompute.splits]
    if not ranks.first:
        return
    payload = {"teacher": loaded.card.name, "city": town.name,
               "made_from": context.made_from(town, teacher_identity(loaded.card)).to_json(),
               "window": asked or context.config.distill.window,
               "splits": [report.to_json() for report in reports]}
    context.console.result(payload, lambda: context.console.table(
        f"Teacher {loaded.card.name} on {town.name}, window {payload['window']}",
        ("split", "steps", "contexts", "asked singly", "accuracy", "by chance", "informative",
         "collide", "time"), [report_row(report) for report in reports]))


def report_row(report: "PrecomputeReport") -> tuple[object, ...]:
    """Return one split's line of the table."""
    from hoserkd.text import duration_text

    quality = report.quality
    time = "stored before" if report.reused else duration_text(report.seconds)
    return (report.split, f"{report.steps:,}", f"{report.contexts:,}",
            f"{report.plain_tokens:,}", f"{quality.accuracy:.4f}", f"{quality.chance:.4f}",
            f"{quality.informative_share:.1%}", f"{quality.collision_share:.1%}", time)


def parse_window(text: str | None) -> "AskedWindow | None":
    """Return the window that `--window` names.

    Raises:
        UsageError: It is none.
    """
    if text is None or text in ("full", "every"):
        return cast("AskedWindow | None", text)
    if text.isdecimal() and 1 <= int(text) <= 8:
        return int(text)
    raise UsageError(f"--window: expected 1 to 8, full or every, found {text!r}")


def parse_splits(text: str | None) -> tuple[str, ...] | None:
    """Return the splits that `--splits` names, each once.

    Raises:
        UsageError: One is unknown.
    """
    if text is None:
        return None
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [split for split in found if split not in SPLITS]
    if unknown or not found:
        raise UsageError(f"--splits: expected some of {', '.join(SPLITS)}, found {text!r}")
    return found
