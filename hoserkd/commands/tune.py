"""`hoserkd tune`: search the distillation settings, then check the best one over seeds."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hoserkd.commands.context import Context, open_context
from hoserkd.commands.options import City, Profile, Teacher
from hoserkd.commands.train import full_reference
from hoserkd.commands.trainings import Trainings, teacher_place

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hoserkd.engine.city.storage import City
    from hoserkd.engine.seeds import Comparison
    from hoserkd.engine.tune import Study, TrialRow

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
        search(opened, bench.trainings.train, context.observer, context.stop)
        return
    with bench.trainings.recording("tune") as recorder, bench.helpers(workers, profile, city):
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
        self.trainings = Trainings(context, town, study.name)
        self._start_helpers: Callable[[], None] = lambda: None
        self._wait_for_helpers: Callable[[], None] = lambda: None

    def work(self, resume: bool) -> "list[Comparison]":
        """Do all that is left of the study."""
        from hoserkd.engine.build import compute_every_window
        from hoserkd.engine.tune import compare_finals, run_baseline, run_finals, search

        context, study, train = self.context, self.study, self.trainings.train
        compute_every_window(context.config, self.town, teacher_place(context, context.config),
                             observer=context.observer, stop=context.stop)
        for number in study.fail_stale() if resume else ():
            context.console.warn(f"trial {number + 1} was left by a process that is gone: "
                                 "marked as failed, queued again")
        run_baseline(study, train, context.stop)
        self._start_helpers()
        search(study, train, context.observer, context.stop)
        self._wait_for_helpers()
        run_finals(study, train, context.observer, context.stop)
        return compare_finals(study)

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
            {"metric": c.metric, "best": c.arm, "vanilla": c.vanilla,
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
        seeds = len(comparisons[0].arm)
        parts.append(table(
            f"Final runs, {seeds} seed{'s' if seeds > 1 else ''}: best against vanilla",
            ("metric", "best", "vanilla", "difference", "95 % interval", "verdict"),
            [(c.metric, sum(c.arm) / seeds, sum(c.vanilla) / seeds, c.difference,
              None if c.interval is None else f"{c.interval[0]:+.4f} to {c.interval[1]:+.4f}",
              c.verdict) for c in comparisons]))
    if best:
        parts.append(Text(best["command"]))
    return Group(*parts)
