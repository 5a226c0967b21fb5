"""What `hoserkd runs export` writes where."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from hoserkd.errors import UsageError

if TYPE_CHECKING:
    from hoserkd.engine.city.storage import City
    from hoserkd.engine.config import EngineConfig
    from hoserkd.engine.student.storage import LoadedStudent
    from hoserkd.store.records import RunRecord
    from hoserkd.store.runs import RunStore


SUFFIXES = {"hoser": ".pth", "torch-export": ".pt2"}
"""How the file of a form is called after the run; other forms are folders."""


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
        default = Path(f"{name}{SUFFIXES.get(form, f'-{form}')}")
        return replace(self, **{field: output or default})


def export_runs(
    store: "RunStore", runs: Sequence["RunRecord"], targets: Targets, city: str | None = None
) -> list[Path]:
    """Write all that was asked for and return the files and folders.

    Args:
        city: Prepared city of the student, by name or folder; None: found by the run.

    Raises:
        UsageError: nothing was asked for, or one file for several runs.
    """
    from hoserkd.settings import stored_config
    from hoserkd.store.export import (
        export_tables,
        export_tensorboard,
        export_wandb,
        folder_names,
    )

    if not any(getattr(targets, field.name) for field in fields(targets)):
        raise UsageError("runs export: say to what", hint="such as --csv DIR; see --help")
    for option, file in (("--hoser", targets.hoser), ("--torch-export", targets.torch_export)):
        if file and len(runs) != 1:
            raise UsageError(f"{option} writes one student, found {len(runs)} runs")
    ids = [run.run_id for run in runs]
    written: list[Path] = []
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
            written.append(_export_hoser(run, targets.hoser, city))
        if targets.torch_export:
            written.append(_export_program(run, targets.torch_export, city))
    return written


def public_caveat(run: "RunRecord") -> str | None:
    """Return what to know before using a run's student in the public code; None: nothing."""
    student = json.loads(run.config_json).get("student", {})
    caveats = []
    if student.get("features", "geographic") != "aaai2025":
        caveats.append(
            "this student was trained on right angles; the public code computes skewed ones, so "
            "its answers there are worse than here (student.features: aaai2025 trains for it)")
    if student.get("time_head", "point") == "quantile":
        caveats.append("of its quantiles of the time the file holds the median alone: the public "
                       "code knows one time a candidate")
    return "; ".join(caveats) or None


def _export_hoser(run: "RunRecord", path: Path, city: str | None) -> Path:
    from hoserkd.engine.student.public_export import save_public_checkpoint

    _, student, town = _student_of(run, city)
    save_public_checkpoint(path, student, town)
    return path


def _export_program(run: "RunRecord", path: Path, city: str | None) -> Path:
    from hoserkd.engine.deployment.program import export_next_roads, save_next_roads

    config, student, town = _student_of(run, city)
    save_next_roads(path, export_next_roads(student, town, config.data.candidate_top_k))
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
    student = load_student(Path(run.directory) / "best.safetensors", town)
    return context.config, student, town
