"""What `hoserkd runs export` writes where."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from hoserkd.engine.outputs import check_outputs
from hoserkd.errors import UsageError
from hoserkd.text import file_stem, not_utf8

if TYPE_CHECKING:
    from hoserkd.engine.city.storage import City
    from hoserkd.engine.config import EngineConfig
    from hoserkd.engine.student.storage import LoadedStudent
    from hoserkd.store.records import RunRecord
    from hoserkd.store.runs import RunStore


BEST = "best.safetensors"
SUFFIXES = {"torch-export": ".pt2"}
"""How the file of a form is called after the run; other forms are folders."""
CHECKPOINT = ".pth"
"""End of a name under which `--hoser` writes the checkpoint alone, not a folder that runs."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Where to write which form; None: not asked for."""

    csv: Path | None = None
    parquet: Path | None = None
    tensorboard: Path | None = None
    wandb_offline: Path | None = None
    hoser: Path | None = None
    torch_export: Path | None = None

    def with_format(self, form: str, output: Path | None, name: str) -> Self:
        """Return these targets and one more, given by its name.

        Raises:
            UsageError: there is no such form.
        """
        field = form.replace("-", "_")
        known = [known.name for known in fields(self)]
        if field not in known:
            raise UsageError(f"--format: there is no form {form!r}",
                             hint=f"one of {', '.join(known).replace('_', '-')}")
        default = Path(f"{file_stem(name)}{SUFFIXES.get(form, f'-{form}')}")
        return replace(self, **{field: output or default})


@dataclass(frozen=True, slots=True)
class PublicForm:
    """How `--hoser` writes a student."""

    max_len: int | None
    """Longest trip of the public settings that will load it; None: the published one."""
    real_trips: bool
    """Whether the city's recorded trips go into the folder."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and what to say about it."""

    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def export_runs(
    store: "RunStore", runs: Sequence["RunRecord"], targets: Targets, public: PublicForm,
    city: str | None = None, *, force: bool = False,
) -> Exported:
    """Write all that was asked for.

    Args:
        city: Prepared city of the student, by name or folder; None: found by the run.
        force: Replace files that hoserkd did not make.

    Raises:
        UsageError: nothing was asked for, one file for several runs, or a file in the way.
    """
    from hoserkd.settings import stored_config
    from hoserkd.store.export import (
        export_tables,
        export_tensorboard,
        export_wandb,
        folder_names,
    )

    _check_targets(targets, runs, force)
    ids = [run.run_id for run in runs]
    exported = Exported()
    written = exported.files
    for form, folder in (("csv", targets.csv), ("parquet", targets.parquet)):
        if folder is not None:
            written += export_tables(store, ids, folder, form)
    names = folder_names(runs)
    for run in runs:
        if targets.tensorboard:
            written.append(export_tensorboard(store, run, targets.tensorboard, names[run.run_id]))
        if targets.wandb_offline:
            project = stored_config(run.config_json, f"run {run.name}").tracking.project
            written.append(export_wandb(store, run, targets.wandb_offline, project))
        if targets.hoser:
            _export_hoser(run, targets.hoser, city, public, exported)
        if targets.torch_export:
            written.append(_export_program(run, targets.torch_export, city))
    return exported


def _check_targets(targets: Targets, runs: Sequence["RunRecord"], force: bool) -> None:
    """Refuse what cannot be written, before anything is."""
    if not any(getattr(targets, field.name) for field in fields(targets)):
        raise UsageError("runs export: say to what", hint="such as --csv DIR; see --help")
    for option, file in (("--hoser", targets.hoser), ("--torch-export", targets.torch_export)):
        if file and len(runs) != 1:
            raise UsageError(f"{option} writes one student, found {len(runs)} runs")
    for folder in (targets.csv, targets.parquet, targets.tensorboard, targets.wandb_offline):
        if folder is not None and (odd := not_utf8(folder.absolute())):
            raise UsageError(f"{folder}: the path of an export cannot hold {odd}",
                             hint="name another folder")
    check_outputs(_files(targets), inputs=[Path(run.directory) / BEST for run in runs], force=force)


def _files(targets: Targets) -> list[Path]:
    """Return the files that will be written; folders must be new, or only gain files."""
    from hoserkd.store.export import table_files

    files = [path for form, folder in (("csv", targets.csv), ("parquet", targets.parquet))
             if folder is not None for path in table_files(folder, form).values()]
    alone = targets.hoser is not None and targets.hoser.suffix == CHECKPOINT
    return files + [path for path in (targets.hoser if alone else None, targets.torch_export)
                    if path is not None]


def _export_hoser(
    run: "RunRecord", path: Path, city: str | None, public: PublicForm, exported: Exported
) -> None:
    """Write a run's student as `best.pth` alone, or within a folder that the public code runs."""
    from hoserkd.engine.public_folder import PublicFolder, save_public_folder
    from hoserkd.engine.student.public_export import PUBLIC_MAX_LEN, save_public_checkpoint

    max_len = public.max_len or PUBLIC_MAX_LEN
    config, student, town = _student_of(run, city)
    caveats = _public_caveats(config, student, town)
    if path.suffix == CHECKPOINT:
        if public.real_trips:
            raise UsageError("--with-real-trips: a .pth file holds no trips",
                             hint="name a folder with --hoser")
        save_public_checkpoint(path, student, town, max_len)
        exported.notes.append("the public code needs the city's files too, which a folder brings: "
                              f"--hoser {path.with_suffix('')}")
    else:
        content = PublicFolder(run.name, student, town, config.train, max_len,
                               public.real_trips, tuple(caveats))
        save_public_folder(path, content)
        exported.notes.append(f"copied into a checkout of the public code: {content.command} "
                              f"(more in {path / 'README.md'})")
    exported.notes.append(f"max_len {max_len}: " + (
        "as in the published settings; --max-len N for others" if max_len == PUBLIC_MAX_LEN
        else "the public settings must say so too"))
    exported.files.append(path)
    exported.warnings.extend(caveats)


def _public_caveats(
    config: "EngineConfig", student: "LoadedStudent", town: "City"
) -> list[str]:
    """Return what to know before using a student in the public code."""
    from hoserkd.engine.metrics.convention import convention_loss

    caveats = []
    if student.meta.config.features != "aaai2025":
        measured = ""
        if town.has_trips:
            lost = convention_loss(student, town, config.data)
            measured = (f": {lost.public:.1%} of the next roads of {lost.trips} test trips right, "
                        f"not {lost.own:.1%}")
        caveats.append("This student was trained on right angles; the public code computes skewed "
                       f"ones, so it answers less well there{measured}. "
                       "student.features=aaai2025 trains for it.")
    if student.meta.config.time_head == "quantile":
        caveats.append("Of its quantiles of the time the checkpoint holds the median alone: the "
                       "public code knows one time a candidate.")
    return caveats


def _export_program(run: "RunRecord", path: Path, city: str | None) -> Path:
    from hoserkd.engine.deployment.program import export_next_roads, save_next_roads

    config, student, town = _student_of(run, city)
    save_next_roads(path, export_next_roads(
        student, town, student.meta.data(config.data).candidate_top_k))
    return path


def _student_of(
    run: "RunRecord", city: str | None
) -> "tuple[EngineConfig, LoadedStudent, City]":
    """Return a run's settings, its best student and the city of both."""
    from hoserkd.commands.context import open_context
    from hoserkd.engine.city.storage import load_city
    from hoserkd.engine.student.storage import load_student

    context = open_context("runs export", run=run.run_id)
    town = load_city(context.city_dir(city))
    context.tell_other_city(town)
    student = load_student(Path(run.directory) / BEST, town)
    return context.config, student, town
