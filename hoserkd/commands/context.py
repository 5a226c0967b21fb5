"""What every command opens first: resolved settings, places, console, store, a way to stop.

Nothing heavy is imported at the top, so that `hoserkd --help` stays quick.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

from hoserkd.commands.notices import device_notice
from hoserkd.commands.options import Profile as Profile
from hoserkd.commands.places import GlobalOptions as GlobalOptions
from hoserkd.commands.places import Paths as Paths
from hoserkd.commands.places import find_paths as find_paths
from hoserkd.errors import InterruptedRunError

if TYPE_CHECKING:
    from hoserkd.console import Console
    from hoserkd.engine.city.storage import City
    from hoserkd.engine.config import EngineConfig
    from hoserkd.engine.events import Observer, StopRequested
    from hoserkd.engine.identity import Identity, MadeFrom
    from hoserkd.engine.places import Finder, Shelf
    from hoserkd.settings import Resolved
    from hoserkd.store.recorder import RunRecorder
    from hoserkd.store.records import RunRecord
    from hoserkd.store.runs import RunStore

@dataclass(slots=True)
class Session:
    """One command line being worked on."""

    options: GlobalOptions = field(default_factory=GlobalOptions)
    closers: list[Callable[[], None]] = field(default_factory=list)
    """Called at the command's end, however it ends."""

    def close(self) -> None:
        """Undo what the command left standing: bars, signal handlers."""
        while self.closers:
            self.closers.pop()()


SESSION: ContextVar[Session] = ContextVar("hoserkd_session")
"""Set by `cli.main`; a fresh one where commands are called without it."""


def session() -> Session:
    """Return the command line being worked on."""
    found = SESSION.get(None)
    if found is None:
        found = Session()
        SESSION.set(found)
    return found


@dataclass(frozen=True, slots=True)
class StoredSettings:
    """Settings that stand below the profile: those a run, or the run in a bundle, was made with."""

    source: str
    """What they are called where `--show-config` tells sources."""
    values: Mapping[str, Any]
    city: "Identity | None" = None
    """The city that they worked on; None: unknown."""
    data_dir: Path | None = None
    """The data folder that they worked with; None: unknown."""


class Context:
    """What a command works with; see `open_context`."""

    def __init__(self, command: str, resolved: "Resolved", paths: Paths, console: "Console",
                 options: GlobalOptions, stored: StoredSettings | None = None) -> None:
        """Hold what `open_context` found."""
        self.command = command
        self.resolved = resolved
        self.paths = paths
        self.console = console
        self.options = options
        self._stored = stored

    @property
    def config(self) -> "EngineConfig":
        """The resolved settings."""
        return self.resolved.config

    @property
    def profile(self) -> str:
        """Name of the profile, `default` where none was chosen."""
        return self.resolved.profile

    @cached_property
    def store(self) -> "RunStore":
        """The run store."""
        from hoserkd.store.runs import RunStore

        return RunStore(self.paths.store)

    @cached_property
    def observer(self) -> "Observer":
        """What shows the engine's events on stderr."""
        from hoserkd.progress import ProgressObserver

        return ProgressObserver(self.console)

    @cached_property
    def stop(self) -> "StopRequested":
        """Asked by the engine at safe points. From the first use on, Ctrl-C once means stop there.

        Only commands that hand it on should touch it: others end at once on Ctrl-C.
        """
        handler = StopHandler()
        handler.install()
        session().closers.append(handler.restore)
        return handler

    def stop_at_once(self) -> None:
        """Let Ctrl-C end the command where it stands from here on, for work that keeps nothing.

        Raises:
            InterruptedRunError: it has come already.
        """
        handler = self.__dict__.get("stop")
        if handler is not None:
            handler.restore()
            if handler():
                raise InterruptedRunError("stopped", hint="the same command begins again")

    def observing(self, *observers: "Observer") -> "Observer":
        """Return what passes events to the screen and to `observers`, such as a run's recorder."""
        from hoserkd.engine.events import Broadcast

        return Broadcast((self.observer, *observers))

    def finder(self, shelf: "Shelf") -> "Finder":
        """Return what looks for a city or a teacher."""
        from hoserkd.engine.places import Finder
        from hoserkd.store.artefacts import data_folders

        recorded = None if self._stored is None else self._stored.data_dir
        return Finder(shelf, data_folders(self.paths.data_dir, recorded))

    def city_dir(self, flag: str | None = None) -> Path:
        """Return the prepared city's folder: `--city NAME|DIR`, else the settings' city.

        The city of a run or a bundle is the one that it was made on, wherever that lies now.

        Raises:
            DataError: there is none; tells all that was tried.
        """
        from hoserkd.engine.places import CITIES

        finder, stored = self.finder(CITIES), self._stored
        if flag is not None:
            return finder.named(flag)
        if stored is not None and stored.city is not None and (
                self.resolved.source("city.name") in ("default", stored.source)):
            return finder.recorded(stored.city, stored.source)
        return finder.named(self.config.city.name, folders=False)

    def teacher_dir(self, reference: str | None = None) -> Path:
        """Return a teacher's folder: `NAME|DIR` as given, else the settings' teacher.

        Raises:
            TeacherError: there is none; tells all that was tried.
        """
        from hoserkd.engine.places import TEACHERS

        return self.finder(TEACHERS).named(reference or self.config.teacher.name)

    def tell_other_city(self, town: "City") -> None:
        """Warn where `--city` names another city than the run or bundle was made on."""
        from hoserkd.engine.identity import city_identity

        stored, found = self._stored, city_identity(town)
        if stored is not None and stored.city not in (None, found):
            self.console.warn(f"{stored.source} was made on {stored.city}, not on {found}, "
                              "which is used here")

    def start_run(
        self,
        kind: str,
        name: str | None = None,
        parents: Sequence[str] = (),
        *,
        made_from: "MadeFrom | None" = None,
        device: str | None = None,
        config: "EngineConfig | None" = None,
        tags: Sequence[str] = (),
        study: str = "",
    ) -> "RunRecorder":
        """Begin a run in the store; use it as a context manager, so that its ending is recorded.

        Args:
            device: Where it computes, if known better than the settings' `device`.
            config: Settings of this run where they differ from the command's.
        """
        from hoserkd.settings import config_json
        from hoserkd.store.elsewhere import remember_store

        used = config or self.config
        self._check_trackers(used)
        remember_store(self.paths.home, self.paths.store)
        recorder = self.store.create_run(
            kind, self.profile, name, config_json(used), used.seed, device or used.device,
            parents, made_from=made_from, tags=tags, study=study,
            on_failure=self.console.warn)
        self.console.detail(f"run {recorder.name} ({recorder.run_id}): {recorder.directory}")
        self._mirror(recorder, used)
        if notice := device_notice(used.device):
            self.console.note(notice)
        return recorder

    def made_from(
        self, town: "City", teacher: "Identity | None" = None, student: "Identity | None" = None
    ) -> "MadeFrom":
        """Return what a run is made from, for its record: hashes, and where things are."""
        from hoserkd.engine.identity import MadeFrom, city_identity

        return MadeFrom(city_identity(town), teacher, student, self.paths.data_dir.absolute())

    def resume_run(
        self, reference: str, made_from: "MadeFrom | None" = None
    ) -> "RunRecorder":
        """Continue a run that has stopped; `made_from` says where things are found now."""
        self._check_trackers(self.config)
        recorder = self.store.resume_run(
            reference, on_failure=self.console.warn, made_from=made_from)
        self._mirror(recorder, self.config)
        return recorder

    @staticmethod
    def _check_trackers(config: "EngineConfig") -> None:
        if config.tracking.mirror:
            from hoserkd.store.trackers import check_trackers

            check_trackers(config.tracking.mirror)

    def _mirror(self, recorder: "RunRecorder", config: "EngineConfig") -> None:
        if not config.tracking.mirror:
            return
        from hoserkd.store.mirror import Mirror
        from hoserkd.store.trackers import mirror_opener

        for kind in config.tracking.mirror:
            recorder.mirror(Mirror(mirror_opener(kind, recorder, config), self.console.warn))

    def config_of(self, run: "RunRecord") -> "EngineConfig":
        """Return the settings that a run was made with."""
        from hoserkd.settings import stored_config

        return stored_config(run.config_json, f"run {run.name}")


class StopHandler:
    """Turns the first SIGINT, SIGTERM or SIGHUP into a request, the second into KeyboardInterrupt.

    Where SIGHUP is ignored, as `nohup` has it, it stays so.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self._asked

    def install(self) -> None:
        """Take over the signals; does nothing outside the main thread, which gets none."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            # The kernel and the shell both tell of a terminal that goes; once is enough.
            signal.signal(number, signal.SIG_IGN)
            self._before.pop(number, None)
        elif self._asked:
            raise KeyboardInterrupt
        self._asked = True
        # Not through the console: a signal may come while it is printing. With SIGHUP the
        # terminal is gone, and nobody can be told.
        with contextlib.suppress(OSError):
            os.write(2, b"\nstopping at the next safe point; once more to stop now\n")


def open_context(
    command: str,
    profile: str | None = None,
    flags: Mapping[str, object | None] | None = None,
    *,
    run: str | None = None,
    stored: StoredSettings | None = None,
) -> Context:
    """Resolve settings and places for a command; with `--show-config` print them and leave.

    Args:
        flags: Dotted setting -> value of the command's own option; None means not given.
        run: A run whose stored settings stand below the profile, for commands that use a model.
        stored: Settings that do so where no run is known, such as a bundle's.

    Raises:
        ConfigError: a profile, variable or option is wrong.
        UsageError: no run store can lie at the path that is named for it.
    """
    options = session().options
    console = open_console()
    paths = find_paths(options)
    from hoserkd.settings import load_profile, profile_folders, resolve_settings
    from hoserkd.store.database import check_store_path

    check_store_path(paths.store)
    given: dict[str, tuple[str, Any]] = {
        key: (option_name(key), value) for key, value in (flags or {}).items() if value is not None}
    if options.seed is not None:
        given["seed"] = ("--seed", options.seed)
    if run is not None:
        stored = settings_of_run(open_store().run(run))
    wanted = profile or (os.environ.get("HOSERKD_PROFILE") if stored is None else None)
    chosen = load_profile(wanted, profile_folders(paths.home)) if wanted else None
    resolved = resolve_settings(
        chosen, flags=given, sets=options.sets,
        base=None if stored is None else (stored.source, stored.values))
    context = Context(command, resolved, paths, console, options, stored)
    if options.show_config:
        _show_config(context)
        raise typer.Exit(0)
    return context


def open_console() -> "Console":
    """Return the console that the global options ask for."""
    from hoserkd.console import Console

    options = session().options
    console = Console(options.json_output, options.quiet, options.verbosity)
    session().closers.append(console.close)
    return console


def open_store() -> "RunStore":
    """Return the run store that options and environment name."""
    from hoserkd.store.runs import RunStore

    return RunStore(find_paths(session().options).store)


def option_name(key: str) -> str:
    """Return what the option for a setting is called in messages."""
    return "--" + key.rpartition(".")[2].replace("_", "-")


def settings_of_run(run: "RunRecord") -> StoredSettings:
    """Return the settings that a run was made with, and where it was made."""
    from hoserkd.store.artefacts import recorded_city

    return StoredSettings(run_source(run), run.settings(), recorded_city(run),
                          run.made_from.data_dir)


def run_source(run: "RunRecord") -> str:
    """Return what a setting's source is called where a run's own settings hold."""
    return f"run {run.name}"


def _show_config(context: Context) -> None:
    settings = context.resolved.settings()
    payload = {
        "command": context.command,
        "profile": context.profile,
        "paths": {"home": context.paths.home, "data_dir": context.paths.data_dir,
                  "store": context.paths.store},
        "settings": {s.key: {"value": s.value, "source": s.source} for s in settings},
    }
    rows = [(s.key, s.text, s.source) for s in settings]
    rows += [(f"({name})", str(path), "folder") for name, path in
             (("home", context.paths.home), ("data-dir", context.paths.data_dir),
              ("store", context.paths.store))]
    context.console.result(payload, lambda: context.console.table(
        f"Settings of `hoserkd {context.command}`, profile {context.profile}",
        ("setting", "value", "source"), rows))
