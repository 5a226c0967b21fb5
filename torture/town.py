"""A town so small that every command takes a second, the way through it, and what comes of it."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torture import results
from torture.forks import Ending, asked, run_command

PROFILE = """\
extends: smoke
city: {name: town, demo_roads: 150, demo_trips: 120, zones: 6}
teacher: {name: lm, n_layer: 1, n_head: 2, n_embd: 16, block_size: 128, epochs: 2, \
batch_tokens: 1024, anomaly_trips: 20}
precompute: {batch_size: 64}
train: {epochs: 2, batch_size: 16, checkpoint_every: 3}
generate: {num: 12, max_steps: 200, batch_size: 4}
evaluate: {bootstrap: 20, model_trips: 20}
tune: {study: search, trials: 2, epochs: 2, min_resource: 1, final_epochs: 1, final_seeds: [42]}
"""


@dataclass(frozen=True, slots=True)
class Home:
    """One user's folder, where all of a trial happens."""

    path: Path

    @property
    def store(self) -> Path:
        """The run store."""
        return self.path / "store"

    @property
    def places(self) -> list[str]:
        """The options that keep a command in this folder."""
        return ["--data-dir", str(self.path), "--store", str(self.store), "--json", "--quiet"]

    @property
    def profile(self) -> list[str]:
        """The option that names the profile."""
        return ["--profile", str(self.path / "torture.yaml")]

    def copy_to(self, path: Path) -> "Home":
        """Return a copy, in place of what is there."""
        shutil.rmtree(path, ignore_errors=True)
        # Metadata too: a database newer than its spools is not read in again.
        shutil.copytree(self.path, path, symlinks=True)
        return Home(path)


@dataclass(frozen=True, slots=True)
class Job:
    """One command, begun and gone on with as a user would."""

    name: str
    first: Callable[[Home], list[str]]
    again: Callable[[Home], list[str]]
    """The command that a user gives after a mishap; may look at what is there."""
    result: Callable[[Path], Any]
    """All that must be equal however often it was disturbed, as plain values."""


def _prepare(home: Home) -> list[str]:
    return ["prepare", *home.profile, "--source", str(home.path / "source"), *home.places]


def _train_teacher(home: Home) -> list[str]:
    return ["train-teacher", *home.profile, *home.places]


def _train_teacher_again(home: Home) -> list[str]:
    begun = (home.path / "teachers" / "lm" / "last.ckpt").exists()
    return _train_teacher(home) + (["--resume"] if begun else [])


def _precompute(home: Home) -> list[str]:
    return ["precompute", *home.profile, "--window", "every", *home.places]


def _train(home: Home) -> list[str]:
    return ["train", *home.profile, "--name", "student", *home.places]


def _train_again(home: Home) -> list[str]:
    begun = any(run["kind"] == "train" for run in _headers(home))
    return ["train", "--resume", "--name", "student", *home.places] if begun else _train(home)


def _tune(home: Home) -> list[str]:
    return ["tune", *home.profile, *home.places]


def _tune_again(home: Home) -> list[str]:
    begun = (home.store / "studies" / "search.log").exists()
    return _tune(home) + (["--resume"] if begun else [])


def _generate(home: Home) -> list[str]:
    return ["generate", "--run", "student", "--od", "test", *home.places]


def _evaluate(home: Home) -> list[str]:
    return ["evaluate", "student", "--output", str(home.path / "report"), *home.places]


def _bundle(home: Home) -> list[str]:
    return ["bundle", "student", "--output", str(home.path / "student.tar.zst"), *home.places]


def _list(home: Home) -> list[str]:
    return ["runs", "list", *home.places]


JOBS: Mapping[str, Job] = {job.name: job for job in (
    Job("prepare", _prepare, _prepare, results.city),
    Job("train-teacher", _train_teacher, _train_teacher_again, results.teacher),
    Job("precompute", _precompute, _precompute, results.signals),
    Job("train", _train, _train_again, results.student),
    Job("tune", _tune, _tune_again, results.study),
    Job("generate", _generate, _generate, results.trips),
    Job("evaluate", _evaluate, _evaluate, results.report),
    Job("bundle", _bundle, _bundle, results.bundle),
    Job("ingest", _list, _list, results.tables),
)}
"""In the order of the way: each needs what the ones before it made."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A job's starting place, and what it comes to undisturbed."""

    job: Job
    before: Home
    expected: Any
    calls: int
    """Changes to files that it makes."""
    cpu_s: float


class Town:
    """The stages of the way, gone once undisturbed when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._home = Home(folder / "way")
        self._stages: dict[str, Stage] = {}
        self._home.path.mkdir(parents=True)
        (self._home.path / "torture.yaml").write_text(PROFILE)
        asked(_make_source, str(self._home.path / "source"))

    def stage(self, name: str) -> Stage:
        """Return the stage of a job, having gone the way up to it."""
        for job in JOBS.values():
            # Nothing later needs the study.
            if job.name not in self._stages and (job.name != "tune" or job.name == name):
                self._stages[job.name] = self._go(job)
            if job.name == name:
                break
        return self._stages[name]

    def trial(self, stage: Stage) -> Home:
        """Return a fresh copy of a stage's starting place."""
        return stage.before.copy_to(self.folder / "trial")

    def _go(self, job: Job) -> Stage:
        if job.name == "ingest":
            # All the records of the way, and no database yet.
            for file in self._home.store.glob("hoserkd.duckdb*"):
                file.unlink()
        before = self._home.copy_to(self.folder / f"before-{job.name}")
        # At the same place as every trial: paths are part of some results.
        home = before.copy_to(self.folder / "trial")
        ending = run_command(job.first(home), home.path)
        if ending.code != 0:
            raise RuntimeError(f"{job.name} fails undisturbed: {ending.stderr[-2000:]}")
        expected = asked(job.result, home.path)
        if job.name != "tune":
            self._home = home.copy_to(self._home.path)
        return Stage(job, before, expected, ending.calls or 0, ending.cpu_s)


def headline(ending: Ending) -> str:
    """Return the line that says why a command failed."""
    lines = [line for line in ending.stderr.splitlines() if line.startswith("error: ")]
    return lines[-1] if lines else ending.stderr[-300:]


def _make_source(folder: str) -> None:
    from hoserkd.engine.city.synthetic import make_demo_source

    make_demo_source(Path(folder), 150, 120, 42)


def _headers(home: Home) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in home.store.glob("runs/*/run.json")]
