"""`hoserkd tune`: search the distillation settings, then check the best one over seeds."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hoserkd.commands.context import Context, open_context
from hoserkd.commands.options import City, Profile, Teacher
from hoserkd.commands.train import full_reference

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hoserkd.engine.city.storage import City
    from hoserkd.engine.events import Observer, StopRequested
    from hoserkd.engine.tune import Comparison, Study, Task, TrialRow
    from hoserkd.store.recorder import RunRecorder

WORKER_PATIENCE_S = 60.0
"""How long a worker that was asked to stop may take to save its state."""


def tune(
    profile: str | None = Profile,
    study: Annotated[str | None, typer.Option(help="What to call the study.")] = None,
    trials: Annotated[int | None, typer.Option(
        help="Trials altogether, the vanilla baseline among them.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that search together.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study.")] = False,
    city: str | None = City,
    teacher: str | None = Teacher,
    worker: Annotated[int, typer.Option(hidden=True, min=0)] = 0,
) -> None:
    """Search lambda, temperature and window, then compare the best with vanilla over seeds.

    Example: hoserkd tune --profile beijing --trials 12 --workers 2
    """
    flags = {"tune.study": study, "tune.trials": trials, "teacher.name": full_reference(teacher)}
    context = open_context("tune", profile, flags)
    from hoserkd.engine.city.storage import load_city
    from hoserkd.engine.tune import Study, search

    town = load_city(context.city_dir(city))
    opened = Study(context.store.studies_directory, context.config, resume=resume or worker > 0,
                   worker=worker)
    bench = Bench(context, town, opened)
    if worker:
        search(opened, bench.train, context.observer, context.stop)
        return
    with bench.recording() as recorder, bench.helpers(workers, profile, city):
        comparisons = bench.work(resume)
        rows = opened.rows()
        document = payload(opened, rows, comparisons, context, city)
        recorder.evaluation(document, label="study")
    context.console.result(document, lambda: render(context, document, rows, comparisons))


class Bench:
    """A study at work within the run store."""

    def __init__(self, context: Context, town: "City", study: "Study") -> None:
        self.context = context
        self.town = town
        self.study = study
        self._parent: str | None = None
        self._start_helpers: Callable[[], None] = lambda: None
        self._wait_for_helpers: Callable[[], None] = lambda: None

    def work(self, resume: bool) -> "list[Comparison]":
        """Do all that is left of the study."""
        from hoserkd.engine.build import compute_every_window
        from hoserkd.engine.tune import compare_finals, run_baseline, run_finals, search

        context, study = self.context, self.study
        compute_every_window(context.config, self.town, self.teacher_directory,
                             observer=context.observer, stop=context.stop)
        for number in study.fail_stale() if resume else ():
            context.console.warn(f"trial {number + 1} was left by a process that is gone: "
                                 "marked as failed, queued again")
        run_baseline(study, self.train, context.stop)
        self._start_helpers()
        search(study, self.train, context.observer, context.stop)
        self._wait_for_helpers()
        run_finals(study, self.train, context.observer, context.stop)
        return compare_finals(study)

    def train(self, task: "Task", observer: "Observer", stop: "StopRequested",
              started: Callable[[str], None]) -> dict[str, float]:
        """Train one task as a run of the store."""
        from hoserkd.engine.build import build_teacher_sources
        from hoserkd.engine.train import train_student
        from hoserkd.engine.training.checkpoint import LAST

        sources = None
        if task.config.distill.enabled:
            sources = build_teacher_sources(task.config, self.town, self.teacher_directory)
        with self._recorder(task) as recorder:
            started(recorder.run_id)
            result = train_student(
                task.config, self.town, directory=recorder.directory, teacher_sources=sources,
                observer=self.context.observing(recorder, observer), stop=stop,
                resume=(recorder.directory / LAST).is_file())
            recorder.artifact(result.best, "model")
        return result.metrics

    @property
    def teacher_directory(self) -> Path:
        """Return the teacher's export."""
        from hoserkd.engine.teacher.storage import find_teacher

        return find_teacher(self.context.config.teacher.name,
                            self.context.paths.data_dir / "teachers")

    @contextmanager
    def recording(self) -> "Iterator[RunRecorder]":
        """Give the run that stands for the whole study, a new one or the one that was stopped."""
        earlier = self.context.store.runs(kind="tune", study=self.study.name, limit=1)
        if earlier:
            recorder = self.context.resume_run(earlier[0].run_id)
        else:
            recorder = self.context.start_run(
                "tune", self.study.name, data_sha256=self.town.sha256, study=self.study.name)
        self._parent = recorder.run_id
        with recorder:
            yield recorder

    @contextmanager
    def helpers(self, workers: int, profile: str | None, city: str | None) -> Iterator[None]:
        """Have `workers - 1` more processes search along, and end them however the block ends."""
        running: list[subprocess.Popen[bytes]] = []

        def start() -> None:
            for number in range(1, workers):
                running.append(subprocess.Popen(
                    worker_command(self.context, number, profile, city),
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))

        def wait() -> None:
            for process in running:
                process.wait()

        self._start_helpers, self._wait_for_helpers = start, wait
        try:
            yield
        finally:
            for process in running:
                if process.poll() is None:
                    process.terminate()
            for process in running:
                try:
                    process.wait(WORKER_PATIENCE_S)
                except subprocess.TimeoutExpired:
                    process.kill()

    def _recorder(self, task: "Task") -> "RunRecorder":
        if task.continues is not None:
            return self.context.resume_run(task.continues)
        return self.context.start_run(
            "train", task.name, [self._parent] if self._parent else [], config=task.config,
            data_sha256=self.town.sha256, tags=[task.role], study=self.study.name)


def worker_command(
    context: Context, number: int, profile: str | None, city: str | None
) -> list[str]:
    """Return the command line of a further process on the same study."""
    config, options = context.config, context.options
    words = [sys.executable, "-m", "hoserkd", "tune", "--worker", str(number), "--quiet",
             "--study", config.tune.study, "--trials", str(config.tune.trials),
             "--teacher", config.teacher.name, "--store", str(context.paths.store),
             "--data-dir", str(context.paths.data_dir), "--seed", str(config.seed)]
    words += [word for each in options.sets for word in ("--set", each)]
    words += ["--profile", profile] if profile else []
    return words + (["--city", city] if city else [])


def train_command(context: Context, params: dict[str, Any], city: str | None) -> str:
    """Return the command that trains with a trial's setting."""
    profile = "" if context.profile == "default" else f" --profile {context.profile}"
    sets = "".join(f" --set distill.{key}={value:.6g}" for key, value in params.items())
    return f"hoserkd train{profile} --distill{sets}" + (f" --city {city}" if city else "")


def payload(
    study: "Study", rows: "list[TrialRow]", comparisons: "list[Comparison]", context: Context,
    city: str | None,
) -> dict[str, Any]:
    """Return what `--json` prints and the store keeps."""
    best = study.best
    return {
        "study": study.name,
        "objective": "val_accuracy",
        "trials": [
            {"number": r.number, "state": r.state, "val_accuracy": r.accuracy,
             "epochs": r.epochs, "params": r.params, "run_id": r.run} for r in rows],
        "best": None if best is None else {
            "number": best.number + 1, "val_accuracy": best.value, "params": best.params,
            "command": train_command(context, best.params, city)},
        "finals": [
            {"metric": c.metric, "best": c.best, "vanilla": c.vanilla,
             "difference": c.difference, "interval": c.interval, "verdict": c.verdict}
            for c in comparisons],
    }


def render(
    context: Context, document: dict[str, Any], rows: "list[TrialRow]",
    comparisons: "list[Comparison]",
) -> "RenderableType":
    """Return the trials, the final comparison and the best command line."""
    from rich.console import Group
    from rich.text import Text

    table = context.console.table
    best = document["best"]
    parts: list[RenderableType] = [table(
        f"Study {document['study']}: validation accuracy",
        ("trial", "state", "accuracy", "epochs", "lambda_kl", "temperature", "window", ""),
        [(r.number, r.state, r.accuracy, r.epochs, r.params.get("lambda_kl"),
          r.params.get("temperature"), r.params.get("window"),
          "vanilla" if r.number == 0 else "best" if best and r.number == best["number"] else "")
         for r in rows])]
    if comparisons:
        seeds = len(comparisons[0].best)
        parts.append(table(
            f"Final runs, {seeds} seed{'s' if seeds > 1 else ''}: best against vanilla",
            ("metric", "best", "vanilla", "difference", "95 % interval", "verdict"),
            [(c.metric, sum(c.best) / seeds, sum(c.vanilla) / seeds, c.difference,
              None if c.interval is None else f"{c.interval[0]:+.4f} to {c.interval[1]:+.4f}",
              c.verdict) for c in comparisons]))
    if best:
        parts.append(Text(best["command"]))
    return Group(*parts)
