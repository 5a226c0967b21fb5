"""A tuning study at work within the run store, alone or with more processes."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoserkd.commands.context import Context
from hoserkd.commands.trainings import Trainings

if TYPE_CHECKING:
    from hoserkd.engine.city.storage import City
    from hoserkd.engine.config import EngineConfig
    from hoserkd.engine.events import Observer, StopRequested
    from hoserkd.engine.tasks import Task
    from hoserkd.engine.train import TrainResult
    from hoserkd.engine.tuning.rows import TrialRow, TuneOutcome
    from hoserkd.store.recorder import RunRecorder

WORKER_PATIENCE_S = 60.0
"""How long a worker that was asked to stop may take to save its state."""
MIRROR_S = 5.0
"""Pause between two looks at the study by who records its trials."""


class Bench:
    """A study at work within the run store."""

    def __init__(self, context: Context, town: "City", *, resume: bool, worker: int,
                 city: str | None) -> None:
        from hoserkd.engine.tuning.storage import check_place, study_place
        from hoserkd.engine.tuning.study import Study

        self.context = context
        self.town = town
        self.city = city
        """As the command line names it."""
        tune = context.config.tune
        # Before the teacher is asked for: a wrong file costs the user less time here.
        check_place(study_place(context.store.studies_directory, tune.study, tune.storage))
        measured = "throughput" in context.config.tune.objectives
        self.trainings = Trainings(context, town, context.config.tune.study,
                                   measure=self.measure if measured else None)
        self.study = Study(
            context.store.studies_directory, context.config, resume=resume or worker > 0,
            worker=worker,
            made_from=context.made_from(town, self.trainings.teacher(self.distilled)))

    @contextmanager
    def recording(self) -> "Iterator[RunRecorder | None]":
        """Give the run that stands for the whole study; None where another process records it."""
        store = self.context.store
        earlier = store.runs(kind="tune", study=self.study.name, limit=1)
        if earlier and store.is_live(earlier[0].run_id):
            own = self.study.worker
            living = self.study.ledger.living("" if own is None else own.id)
            self.context.console.note(
                f"study {self.study.name} is being worked on ({len(living)} "
                f"process{'' if len(living) == 1 else 'es'}): joining in")
            self.trainings.belong_to(earlier[0].run_id)
            yield None
            return
        teacher = self.trainings.teacher(self.distilled)
        with (self.trainings.recording("tune", teacher) as recorder,
              TrialRecorder(self, recorder)):
            yield recorder

    def is_orphaned(self) -> bool:
        """Return whether the process is gone that recorded the study."""
        runs = self.context.store.runs(kind="tune", study=self.study.name, limit=1)
        return bool(runs) and runs[0].status == "dead"

    def work(self, team: "Team") -> "TuneOutcome":
        """Do all that is left of the study, and return what it came to."""
        self.prepare_signal()
        team.start()
        self._work()
        team.wait()
        return self.outcome()

    def help_out(self, parent: str | None) -> None:
        """Work on the study as one of several processes."""
        if parent is not None:
            self.trainings.belong_to(parent)
        self._work()

    def outcome(self) -> "TuneOutcome":
        """Return how far the study is."""
        from hoserkd.engine.tune import outcome

        return outcome(self.study.ledger, self.context.config, self.study.parameters,
                       self.study.place)

    def document(self, found: "TuneOutcome", folder: Path | None) -> dict[str, Any]:
        """Return what is told of the study; `folder` is where it is written."""
        from hoserkd.commands.tune_views import payload

        return payload(found, self.context.profile, self.context.config, self.city, folder)

    def prepare_signal(self) -> None:
        """Have the teacher's answers for every window stored, once for all workers."""
        from hoserkd.engine.build import compute_every_window
        from hoserkd.engine.files import locked

        teacher = self.trainings.teacher(self.distilled)
        if teacher is None or teacher.kind != "teacher":
            return
        assert teacher.place is not None
        with locked(self.town.directory / ".precompute.lock"):
            compute_every_window(self.context.config, self.town, teacher.place,
                                 observer=self.context.observer, stop=self.context.stop)

    @property
    def distilled(self) -> "EngineConfig":
        """The settings with distillation, which every searched trial has."""
        from hoserkd.engine.config import DistillConfig

        config = self.context.config
        return config.model_copy(update={"distill": DistillConfig.model_validate(
            config.distill.model_dump() | {"enabled": True})})

    def measure(self, task: "Task", result: "TrainResult", observer: "Observer",
                stop: "StopRequested") -> dict[str, float]:
        """Return how fast a trained student is."""
        from hoserkd.engine.tuning.objectives import measure_throughput

        return measure_throughput(task.config, self.town, result.best)

    def tidy(self) -> None:
        """Remove weights that the study need not keep."""
        from hoserkd.engine.tuning.retention import runs_to_strip
        from hoserkd.store.retention import strip_run

        for run in runs_to_strip(self.study.ledger, self.context.config.tune):
            strip_run(self.context.store, run,
                      f"tune.keep: {self.context.config.tune.keep} does not keep this trial's")

    def _work(self) -> None:
        from hoserkd.engine.tune import work

        work(self.study, self.trainings.train, observer=self.context.observer,
             stop=self.context.stop, settled=self.tidy)


class TrialRecorder:
    """Records every change of a study's trials with the run that stands for it.

    What the study has come to is written beside the run each time, for the dashboard.
    """

    def __init__(self, bench: Bench, recorder: "RunRecorder") -> None:
        self._bench = bench
        self._recorder = recorder
        self._known: dict[int, TrialRow] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True, name="trials")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *raised: object) -> None:
        self._closing.set()
        self._thread.join()
        self._look()

    def _follow(self) -> None:
        while not self._closing.wait(MIRROR_S):
            self._look()

    def _look(self) -> None:
        try:
            rows = self._bench.study.ledger.rows()
        except Exception as error:  # noqa: BLE001 - a storage out of reach: the next look may do
            self._bench.context.console.detail(f"the study cannot be read just now: {error}")
            return
        changed = [row for row in rows if self._known.get(row.number) != row]
        for row in changed:
            self._known[row.number] = row
            self._recorder.trial(
                row.number, row.state, row.values, row.params, trained=row.run or "",
                epochs=row.epochs, message=row.error)
        if changed:
            self._tell()

    def _tell(self) -> None:
        from hoserkd.commands.tune_views import write_document

        folder = self._recorder.directory / "tune"
        try:
            write_document(self._bench.document(self._bench.outcome(), folder), folder)
        except Exception as error:  # noqa: BLE001 - as above; and a full disk must end no study
            self._bench.context.console.detail(f"the study cannot be told just now: {error}")


class Team:
    """The further processes of a study."""

    def __init__(self, context: Context, workers: int, profile: str | None,
                 city: str | None) -> None:
        self._context = context
        self._workers = workers
        self._profile = profile
        self._city = city
        self._parent: str | None = None
        self._running: list[subprocess.Popen[bytes]] = []

    @contextmanager
    def gathered(self, recorder: "RunRecorder | None") -> Iterator[None]:
        """End the further processes however the block ends."""
        self._parent = None if recorder is None else recorder.run_id
        try:
            yield
        finally:
            self._end()

    def start(self) -> None:
        """Start the further processes, each with its share of cores and a GPU of its own."""
        if self._workers == 1:
            return
        import torch

        cores = max(1, (os.cpu_count() or 1) // self._workers)
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(min(cores, torch.get_num_threads()))
        for number in range(1, self._workers):
            environment = {"OMP_NUM_THREADS": str(cores)} | os.environ
            devices = torch.cuda.device_count()
            if devices > 1 and "CUDA_VISIBLE_DEVICES" not in os.environ:
                environment["CUDA_VISIBLE_DEVICES"] = str(number % devices)
            self._running.append(subprocess.Popen(
                worker_command(self._context, number, self._profile, self._city, self._parent),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment))

    def wait(self) -> None:
        """Wait for the further processes, and say which of them failed."""
        for number, process in enumerate(self._running, 1):
            if process.wait() not in (0, 130):
                self._context.console.warn(
                    f"worker {number} ended with code {process.returncode}; what it was at was "
                    "taken up by the others")

    def _end(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.terminate()
        for process in self._running:
            try:
                process.wait(WORKER_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()


def worker_command(
    context: Context, number: int, profile: str | None, city: str | None, parent: str | None
) -> list[str]:
    """Return the command line of a further process on the same study."""
    import json

    config, options = context.config, context.options
    words = [sys.executable, "-m", "hoserkd", "tune", "--worker", str(number), "--quiet",
             "--study", config.tune.study, "--trials", str(config.tune.trials),
             "--sampler", config.tune.sampler, "--objectives", ",".join(config.tune.objectives),
             "--teacher", config.teacher.name, "--store", str(context.paths.store),
             "--data-dir", str(context.paths.data_dir), "--seed", str(config.seed)]
    named = ("tune.study", "tune.trials", "tune.sampler", "tune.objectives", "tune.storage",
             "teacher.name", "seed")
    words += [word for each in options.sets if each.partition("=")[0].strip() not in named
              for word in ("--set", each)]
    words += ["--set", f"tune.storage={json.dumps(config.tune.storage)}"]
    words += ["--profile", profile] if profile else []
    words += ["--parent", parent] if parent else []
    return words + (["--city", city] if city else [])
