"""The command line: global options from anywhere on it, commands, and the one place of errors."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import typer

from hoserkd import __version__
from hoserkd.commands.completion import complete_setting
from hoserkd.commands.context import SESSION, GlobalOptions, Session, open_console
from hoserkd.errors import HoserkdError, UsageError, refused_error
from hoserkd.streams import prepare_streams

GROUPS = {
    "Make": ("prepare", "train-teacher", "export-teacher", "precompute", "train", "tune",
             "study"),
    "Use and judge": ("generate", "evaluate", "bundle"),
    "Look": ("runs", "teachers", "profiles", "tui"),
    "Start here": ("demo", "doctor"),
}
"""Commands as the help shows them; each is `hoserkd.commands.<name>`: `app` or a function."""
SUB_APPS = frozenset({"bundle", "runs", "teachers", "profiles", "tune"})
SHORT = frozenset({"bundle", "tune"})
"""Of these, those that do something without a subcommand, or say themselves what they lack."""
WITH_VALUE = {"--set": "sets", "--store": "store", "--data-dir": "data_dir", "--seed": "seed"}
SWITCHES = {"--json": "json_output", "--quiet": "quiet", "-q": "quiet", "--verbose": "verbosity",
            "-v": "verbosity", "--show-config": "show_config"}
WITHOUT_VALUE = {"--resume": "--resume=yes"}
"""Options whose value may be left out, which Typer does not know: what they then mean."""
COMPLETE = "_HOSERKD_COMPLETE"
"""Set by the shell's completion script that Typer writes."""
EPILOG = "`hoserkd --help` shows the options that every command takes."
EVERYWHERE = "On every command, anywhere on the line"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code: 0, 1 failure, 2 bad input, 130 stopped.

    Args:
        argv: Its words; None: those of this process, whose streams are then made fit for use.
    """
    if argv is None:
        prepare_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    session = Session()
    token = SESSION.set(session)
    try:
        with terminated_like_ctrl_c():
            try:
                code = _run(arguments, session)
                sys.stdout.flush()
                return code
            finally:
                session.close()
    except HoserkdError as error:
        open_console().error(error)
        return error.exit_code
    except typer.TyperException as error:
        open_console().error(_usage(error, arguments))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        open_console().note("stopped")
        return 130
    except OSError as error:
        fault = refused_error(error)
        open_console().error(fault)
        return fault.exit_code
    finally:
        SESSION.reset(token)


@contextmanager
def terminated_like_ctrl_c() -> Iterator[None]:
    """Make SIGTERM and SIGHUP unwind as Ctrl-C does: runs are closed, no temporary file stays.

    A signal that is ignored stays ignored: `nohup` starts a program so.
    """
    taken = [number for number in (signal.SIGTERM, signal.SIGHUP)
             if threading.current_thread() is threading.main_thread()
             and signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in taken:
            # One that has come to be ignored stays so until the process ends.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGHUP:
        # The kernel and the shell both tell of a terminal that goes: once is enough, and the
        # second must not interrupt the clearing up.
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def hoist(arguments: Sequence[str]) -> tuple[GlobalOptions, list[str]]:
    """Return the global options found anywhere before `--`, and what is left of the line.

    Raises:
        UsageError: one lacks its value, or the seed is no number.
    """
    found: dict[str, object] = {}
    sets: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
            break
        option, equals, value = word.partition("=")
        if option in WITH_VALUE:
            given = value if equals else next(words, None)
            if given is None:
                raise UsageError(f"{option} needs a value")
            if option == "--set":
                sets.append(given)
            else:
                found[WITH_VALUE[option]] = _converted(option, given)
        elif word in SWITCHES:
            name = SWITCHES[word]
            found[name] = int(str(found.get(name, 0))) + 1 if name == "verbosity" else True
        else:
            rest.append(WITHOUT_VALUE.get(word, word))
    return GlobalOptions(sets=tuple(sets), **found), rest  # type: ignore[arg-type]


def arrange_completion(environ: MutableMapping[str, str]) -> None:
    """Move global options to the front of the line that the shell wants completed.

    Typer's scripts hand the line over in COMP_WORDS with COMP_CWORD (bash) or in
    _TYPER_COMPLETE_ARGS (zsh, fish); the last word is the one being typed.
    """
    key = "COMP_WORDS" if "COMP_WORDS" in environ else "_TYPER_COMPLETE_ARGS"
    line = environ.get(key, "")
    words = line.split()
    if key == "COMP_WORDS":
        index = int(environ.get("COMP_CWORD", len(words)))
        typed = words[index] if index < len(words) else ""
        before = words[1:index]
    else:
        typed = "" if line.endswith(" ") or not words else words[-1]
        before = words[1:] if typed == "" else words[1:-1]
    front: list[str] = []
    rest: list[str] = []
    while before:
        word = before.pop(0)
        takes = word in WITH_VALUE
        if takes and not before:
            rest = []  # its value is being typed: the command does not matter
            front.append(word)
        elif takes or word in SWITCHES or word.partition("=")[0] in WITH_VALUE:
            front += [word, before.pop(0)] if takes else [word]
        else:
            rest.append(word)
    arranged = [words[0] if words else "hoserkd", *front, *rest]
    if key == "COMP_WORDS":
        environ["COMP_CWORD"] = str(len(arranged))
    environ[key] = " ".join([*arranged, typed])


def typed_options(environ: Mapping[str, str]) -> GlobalOptions:
    """Return the global options of a line that the shell wants completed, as far as it goes."""
    if "COMP_WORDS" in environ:
        words = environ["COMP_WORDS"].split()[1:int(environ.get("COMP_CWORD", "1"))]
    else:
        words = environ.get("_TYPER_COMPLETE_ARGS", "").split()[1:]
    if words and words[-1] in WITH_VALUE:
        words.pop()  # its value is still being typed
    return hoist(words)[0]


def build_app(wanted: str | None = None) -> typer.Typer:
    """Return the Typer app with the command `wanted`, or with all of them."""
    app = typer.Typer(
        name="hoserkd", no_args_is_help=False,
        pretty_exceptions_enable=False, rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]})
    app.callback()(_root)
    for panel, names in GROUPS.items():
        for name in names:
            if wanted in (None, name):
                _register(app, name, panel)
    return app


def command_names() -> list[str]:
    """Return the names of all commands."""
    return [name for names in GROUPS.values() for name in names]


def _run(arguments: list[str], session: Session) -> int:
    if COMPLETE in os.environ:
        arrange_completion(os.environ)
        # Whatever is wrong with the store or a profile: Tab is no place to say so.
        with contextlib.suppress(HoserkdError):
            session.options = typed_options(os.environ)
            return _invoke(build_app(), [])
        return 1
    session.options, rest = hoist(arguments)
    first = next((word for word in rest if not word.startswith("-")), None)
    if "--version" in rest[:1] or (first is None and "--version" in rest):
        sys.stdout.write(f"hoserkd {__version__}\n")
        return 0
    if first is None:
        return _invoke(build_app(), rest or ["--help"])
    names = command_names()
    if first not in names:
        near = get_close_matches(first, names, n=1)
        raise UsageError(
            f"there is no command {first!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
            hint="`hoserkd --help` lists the commands")
    return _invoke(build_app(first), [*rest, "--help"] if rest == [first] and first in SUB_APPS
                   and first not in SHORT else rest)


def _invoke(app: typer.Typer, arguments: list[str]) -> int:
    code = app(arguments, prog_name="hoserkd", standalone_mode=False)
    return code if isinstance(code, int) else 0


def _root(
    sets: list[str] = typer.Option(
        [], "--set", metavar="KEY=VALUE", rich_help_panel=EVERYWHERE,
        autocompletion=complete_setting, help="Set one setting; may come again and again."),
    store: Path = typer.Option(
        None, metavar="DIR", rich_help_panel=EVERYWHERE, help="Run store to use."),
    data_dir: Path = typer.Option(
        None, metavar="DIR", rich_help_panel=EVERYWHERE, help="Where cities and teachers lie."),
    seed: int = typer.Option(
        None, metavar="N", rich_help_panel=EVERYWHERE, help="Seed of all that is drawn."),
    json: bool = typer.Option(
        False, "--json", rich_help_panel=EVERYWHERE, help="Answer as one JSON document."),
    quiet: bool = typer.Option(
        False, "--quiet", "-q", rich_help_panel=EVERYWHERE, help="No progress and no notes."),
    verbose: bool = typer.Option(
        False, "--verbose", "-v", rich_help_panel=EVERYWHERE, help="Tell more."),
    show_config: bool = typer.Option(
        False, "--show-config", rich_help_panel=EVERYWHERE,
        help="Show the settings and where each comes from, and do nothing."),
    version: bool = typer.Option(False, "--version", help="Show the version."),
) -> None:
    """Distil a large language model of movement into a small road-network model."""
    # `hoist` has taken these off the line already; they stand here for the help and the shell.


def _register(app: typer.Typer, name: str, panel: str) -> None:
    module_name = f"hoserkd.commands.{name.replace('-', '_')}"
    if find_spec(module_name) is None:
        return
    module = import_module(module_name)
    if name in SUB_APPS:
        app.add_typer(module.app, name=name, rich_help_panel=panel)
    else:
        function: Callable[..., object] = getattr(module, name.replace("-", "_"))
        app.command(name, rich_help_panel=panel, epilog=EPILOG)(function)


def _converted(option: str, text: str) -> object:
    if option == "--seed":
        if not text.isdecimal():
            raise UsageError(f"--seed needs a whole number from 0 up, found {text!r}")
        return int(text)
    return Path(text).expanduser()


def _usage(error: typer.TyperException, arguments: Sequence[str]) -> UsageError:
    message = error.format_message().rstrip(".")
    words = [word for word in arguments if not word.startswith("-")][:1]
    command = " ".join(["hoserkd", *(word for word in words if word in command_names())])
    return UsageError(message[:1].lower() + message[1:], hint=f"`{command} --help` shows its use")
