"""`hoserkd demo`: the whole way on the embedded city, with the commands that a user would type."""

import hashlib
import inspect
import io
import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.models import ParameterInfo

from hoserkd import __version__
from hoserkd.commands.context import SESSION, Context, Session, open_context, session
from hoserkd.commands.options import AUTO, YES
from hoserkd.engine.bounded_json import parse_json
from hoserkd.engine.files import read_json_object
from hoserkd.errors import InterruptedRunError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

STUDENTS = ("vanilla", "distilled")
STATE = "demo.json"
MADE = {"train": "model", "generate": "output", "evaluate": "report", "bundle": "bundle"}
"""The key of a command's JSON that names the file by which its stage is known to be whole."""


def demo(
    output: Path = typer.Option(None, "--output", metavar="DIR",
                                help="Where all of it goes; default: `demo` in the home folder."),
    profile: str = typer.Option("demo", "--profile", metavar="NAME|FILE",
                                help="A profile with a made-up city."),
    force: bool = typer.Option(
        False, "--force", help="Do again what is done, and replace files of others."),
) -> None:
    """Go the whole way on a made-up city: prepare, distil, generate, judge, bundle.

    A few minutes on two cores. Stopped, it goes on where it was. What it made can be
    looked at with the other commands.

    Example: hoserkd demo --output ~/demo
    """
    context = open_context("demo", profile)
    way = Way(context, (output or context.paths.home / "demo").expanduser().absolute(), profile,
              anew=force)
    began = time.perf_counter()
    try:
        figures = way.walk()
    except InterruptedRunError as stopped:
        raise InterruptedRunError(stopped.message,
                                  hint="`hoserkd demo` again goes on from there") from stopped
    seconds = time.perf_counter() - began
    payload = {"directory": way.home, "seconds": round(seconds, 1), **figures}
    context.console.result(payload, lambda: _render(context, way, payload))


@dataclass(slots=True)
class Way:
    """The stages of one demo in one folder; a stage that is done with these settings is skipped."""

    context: Context
    home: Path
    profile: str
    anew: bool = False
    """Take every stage for not done."""
    done: dict[str, Any] = field(default_factory=dict)
    chain: str = ""
    """Hash of the settings and of all stages so far: a changed stage makes the later ones new."""

    def __post_init__(self) -> None:
        if not self.anew:
            self.done = _read_state(self.home / STATE)
        self.chain = f"{__version__} {self.context.resolved.config.model_dump_json()}"

    def walk(self) -> dict[str, Any]:
        """Go all stages and return the figures of the two students."""
        self.stage("prepare", given={}, force=self.anew)
        anew = self.anew or ("train-teacher" in self.done
                             and not self.is_done("train-teacher", "", {}))
        self.stage("train-teacher", given={}, force=anew, resume=None if anew else AUTO)
        self.stage("precompute", given={}, force=self.anew)
        trained = {name: self.train(name) for name in STUDENTS}
        # By id: somebody may have called another run so meanwhile.
        ids = {name: payload["run_id"] for name, payload in trained.items()}
        for name in STUDENTS:
            self.stage("generate", name, {"run": name, "od": "test"}, run=ids[name])
        judged = self.stage(
            "evaluate", "", {"trips": list(STUDENTS), "od": "test", "export": ["geojson"],
                             "output": self.home / "report"}, trips=[*ids.values()],
            force=self.anew)
        bundle = self.home / "distilled.tar.zst"
        self.stage("bundle", "", {"run": "distilled", "output": bundle}, function="create",
                   run=ids["distilled"], force=self.anew)
        return {"trained": {name: payload["metrics"] for name, payload in trained.items()},
                "evaluation": judged, "report": judged["report"], "bundle": str(bundle)}

    def train(self, name: str) -> dict[str, Any]:
        """Train one student, or go on with its stopped training."""
        given: dict[str, Any] = {"name": name, "distill": name == "distilled"}
        stopped = [run for run in self.runs() if run.name == name
                   and run.status in ("stopped", "dead") and self.done.get("precompute")]
        if stopped and not self.is_done("train", name, given):
            return self.stage("train", name, given, profile=None, resume=YES,
                              name=stopped[0].run_id)
        return self.stage("train", name, given)

    def runs(self) -> tuple[Any, ...]:
        """Return the trainings in the demo's store."""
        from hoserkd.store.runs import RunStore

        store = RunStore(self.home / "store")
        return store.runs(kind="train") if store.runs_directory.is_dir() else ()

    def is_done(self, command: str, label: str, given: Mapping[str, Any]) -> bool:
        """Tell whether a stage was done with these settings and what it made is still there."""
        known = self.done.get(_title(command, label))
        return (known is not None and known["key"] == self.key(command, label, given)
                and known.get("content") == _content(command, known["payload"]))

    def key(self, command: str, label: str, given: Mapping[str, Any]) -> str:
        """Return the hash by which a stage is known."""
        text = f"{self.chain} {command} {label} {sorted((k, str(v)) for k, v in given.items())}"
        return hashlib.sha256(text.encode()).hexdigest()

    def stage(self, command: str, label: str = "", given: Mapping[str, Any] | None = None, *,
              function: str | None = None, **changes: Any) -> dict[str, Any]:
        """Run one command, or return what it said when it was done before.

        Args:
            given: the arguments that belong to the stage; `changes` alone if None.
            changes: arguments of this call.
        """
        arguments = dict(given if given is not None else changes)
        key, title = self.key(command, label, arguments), _title(command, label)
        done = self.is_done(command, label, arguments)
        self.chain = key
        if done:
            self.context.console.note(f"{title}: done before")
            payload: dict[str, Any] = self.done[title]["payload"]
            return payload
        began = time.perf_counter()
        payload = self.invoke(command, function, {**arguments, **changes})
        self.context.console.note(f"{title}: {time.perf_counter() - began:.1f} s")
        self.done[title] = {"key": key, "payload": payload,
                            "content": _content(command, payload)}
        self.save()
        return payload

    def save(self) -> None:
        """Remember what is done."""
        from hoserkd.engine.files import write_json

        self.home.mkdir(parents=True, exist_ok=True)
        write_json(self.home / STATE, self.done)

    def invoke(self, command: str, function: str | None, given: Mapping[str, Any]
               ) -> dict[str, Any]:
        """Call a command's function in the demo's folder and return its JSON."""
        name = command.replace("-", "_")
        called = getattr(import_module(f"hoserkd.commands.{name}"), function or name)
        outer = session()
        options = replace(outer.options, data_dir=self.home, store=self.home / "store",
                          json_output=True, show_config=False)
        inner = Session(options)
        token = SESSION.set(inner)
        said = io.StringIO()
        try:
            with redirect_stdout(said):
                called(**_arguments(called, {"profile": self.profile, **given}))
        finally:
            inner.close()
            SESSION.reset(token)
        answer: dict[str, Any] = parse_json(said.getvalue())
        return answer


def _read_state(path: Path) -> dict[str, Any]:
    """Return what an earlier demo has done; nothing where there was none.

    Raises:
        UsageError: the file was not made by a demo.
    """
    if not path.exists():
        return {}
    try:
        state = read_json_object(path)
        if all(isinstance(stage["key"], str) and "payload" in stage for stage in state.values()):
            return state
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise UsageError(f"{path}: there already, and not made by hoserkd",
                     hint="name another folder with --output, or replace it with --force")


def _content(command: str, payload: Mapping[str, Any]) -> str | None:
    """Return the hash of what a stage made, as it lies there now; None: it is gone.

    A teacher may have been trained anew under its name, or a file written over, since the stage.
    """
    from hoserkd.engine.files import file_sha256
    from hoserkd.engine.places import CITIES, TEACHERS

    if command in ("prepare", "train-teacher"):
        shelf = CITIES if command == "prepare" else TEACHERS
        found = shelf.identify(Path(payload["directory"]))
        return None if found is None else found.sha256
    files = ([Path(split["directory"]) / "meta.json" for split in payload["splits"]]
             if command == "precompute" else [Path(payload[MADE[command]])])
    if not all(file.is_file() for file in files):
        return None
    return " ".join(file_sha256(file) for file in files)


def _title(command: str, label: str) -> str:
    return f"{command} {label}".strip()


def _arguments(function: Callable[..., object], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all arguments of a command: what is given, and its options' own defaults."""
    arguments = {}
    for name, parameter in inspect.signature(function).parameters.items():
        default = parameter.default
        if name in given:
            arguments[name] = given[name]
        elif isinstance(default, ParameterInfo):
            arguments[name] = default.default
        elif default is not inspect.Parameter.empty:
            arguments[name] = default
    return arguments


def _render(context: Context, way: Way, payload: Mapping[str, Any]) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from hoserkd.text import duration_text

    rows = comparison_rows(payload["evaluation"]["evaluations"])
    look = shlex.join(["--store", str(way.home / "store"), "--data-dir", str(way.home)])
    return Group(
        context.console.table("The two students on the made-up city's test trips",
                              ("metric", *STUDENTS), rows),
        Text(f"report  {payload['report']}\n"
             f"bundle  {payload['bundle']}\n"
             f"look    hoserkd tui {look}\n"
             f"all of it took {duration_text(payload['seconds'])}"))


def comparison_rows(evaluations: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return the headline figures of each student as a line of texts a metric."""
    from hoserkd.engine.metrics.catalogue import METRICS
    from hoserkd.report.tables import value_text

    rows = []
    for metric in METRICS:
        found = [evaluation["metrics"].get(metric.name, {}) for evaluation in evaluations]
        if metric.headline and any(found):
            rows.append((metric.title, *(value_text(f.get("value"), metric) for f in found)))
    return rows
