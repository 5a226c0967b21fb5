import inspect
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from hoserkd import __version__
from hoserkd.cli import (
    SUB_APPS,
    arrange_completion,
    command_names,
    hoist,
    main,
    terminated_like_ctrl_c,
)
from hoserkd.commands.context import StopHandler, open_context
from hoserkd.commands.notices import device_notice
from hoserkd.engine.events import EpochDone, StepDone
from hoserkd.errors import DataError, UsageError
from hoserkd.store.runs import RunStore


def test_version_alone_prints_it(run_cli: Callable) -> None:
    assert run_cli("--version").stdout == f"hoserkd {__version__}\n"


def test_no_argument_shows_help(run_cli: Callable) -> None:
    answer = run_cli()
    assert answer.exit_code == 0
    assert "Usage" in answer.stdout
    assert answer.stderr == ""


def test_unknown_command_names_the_nearest_and_exits_2(run_cli: Callable) -> None:
    answer = run_cli("trian")
    assert answer.exit_code == 2
    assert answer.stdout == ""
    assert "did you mean 'train'?" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_hoist_takes_global_options_from_anywhere() -> None:
    options, rest = hoist(["train", "--json", "--set", "a=1", "--name", "x", "-v", "--seed=3",
                           "--set=b=2", "-v", "--", "--json"])
    assert options.sets == ("a=1", "b=2")
    assert options.json_output
    assert (options.seed, options.verbosity) == (3, 2)
    assert rest == ["train", "--name", "x", "--", "--json"]


@pytest.mark.parametrize("line", [["train", "--set"], ["--seed", "x"], ["--seed", "-1"]])
def test_hoist_refuses_what_is_not_complete(line: list[str]) -> None:
    with pytest.raises(UsageError):
        hoist(line)


@pytest.mark.parametrize(("line", "offered"), [
    ("hoserkd prof", ["profiles"]),
    ("hoserkd runs li", ["list"]),
    ("hoserkd profiles show b", ["beijing"]),
    ("hoserkd train --json --profile b", ["beijing"]),
    ("hoserkd train --set train.ep", ["train.epochs="]),
    ("hoserkd runs show ", ["latest"]),
    ("hoserkd runs metrics latest --store {store} ac", ["accuracy"]),
    ("hoserkd runs show --store {store} fi", ["first"]),
    ("hoserkd runs list --store={store} --tag ", ["paper"]),
    ("hoserkd runs list --store {store} --kind ", ["train"]),
    ("hoserkd runs list --status f", ["finished", "failed"]),
    ("hoserkd tui --screen ma", ["map"]),
    ("hoserkd tui --store {store} --compare f", ["first"]),
    ("hoserkd train --store {store} --te", ["--teacher"]),
    ("hoserkd teachers show --data-dir {store}/.. s", ["some"]),
    ("hoserkd train --data-dir {store}/.. --teacher s", ["some"]),
    ("hoserkd bundle create x --data-dir {store}/.. --city t", ["tiny"]),
    ("hoserkd prepare --city {store}/../cities/ti", ["{store}/../cities/tiny"]),
    ("hoserkd train --city {store}/../c", ["{store}/../cities/"]),
])
def test_shell_completion_offers(
    line: str, offered: list[str], monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:
    store = RunStore(tmp_path / "store")
    with store.create_run("train", "demo", "first", tags=["paper"]) as run:
        run.notify(StepDone(1, 0, 1, {"accuracy": 0.5, "loss": 1.0}))
    for mark in ("teachers/some/teacher.json", "cities/tiny/manifest.json"):
        (tmp_path / mark).parent.mkdir(parents=True)
        (tmp_path / mark).touch()
    (tmp_path / "cities" / "torn").mkdir()
    line = line.format(store=store.directory)
    words = line.split()
    monkeypatch.setenv("_HOSERKD_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - (not line.endswith(" "))))
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 0
    assert capfd.readouterr().out.split() == [
        word.format(store=store.directory) for word in offered]


def test_completion_in_zsh_takes_options_from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"_TYPER_COMPLETE_ARGS": "hoserkd train --seed 3 --name x --json --pro"}
    arrange_completion(environ)
    assert environ["_TYPER_COMPLETE_ARGS"] == "hoserkd --seed 3 --json train --name x --pro"


def test_every_command_shows_an_example_that_begins_with_its_name() -> None:
    for name in command_names():
        for command, callback in callbacks(name):
            text = " ".join(inspect.getdoc(callback).split())  # type: ignore[union-attr]
            # `bundle RUN` is short for `bundle create RUN`, `tune` for `tune search`.
            short = command.replace(" create", "").replace(" search", "")
            assert f"Example: hoserkd {short}" in text, command


def callbacks(name: str) -> list[tuple[str, Callable]]:
    module = import_module(f"hoserkd.commands.{name.replace('-', '_')}")
    if name not in SUB_APPS:
        return [(name, getattr(module, name.replace("-", "_")))]
    return [(f"{name} {command.name or command.callback.__name__}", command.callback)
            for command in module.app.registered_commands]


SLOW = """
import sys, time
from hoserkd.cli import main
from hoserkd.commands import profiles
from hoserkd.commands.context import open_context
from hoserkd.errors import InterruptedRunError

def show(profile: str) -> None:
    context = open_context("profiles show")
    while not context.stop():
        print("working", flush=True)
        time.sleep(0.05)
        if profile == "stubborn":
            while True:
                time.sleep(0.05)
    raise InterruptedRunError("stopped at step 3", hint="--resume goes on")

profiles.app.registered_commands.clear()
profiles.app.command()(show)
sys.exit(main(["profiles", "show", sys.argv[1]]))
"""


def interrupted(profile: str, times: int, number: signal.Signals) -> tuple[int, str]:
    process = subprocess.Popen([sys.executable, "-c", SLOW, profile], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.3)
    _, err = process.communicate(timeout=30)
    return process.returncode, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_once_stops_at_a_safe_point(number: signal.Signals) -> None:
    code, err = interrupted("patient", 1, number)
    assert code == 130
    assert "stopping at the next safe point" in err
    assert "error: stopped at step 3\nhint: --resume goes on\n" in err
    assert "Traceback" not in err


def test_a_closed_terminal_stops_at_a_safe_point_also_when_told_twice() -> None:
    # The kernel and the shell both send SIGHUP.
    code, err = interrupted("patient", 2, signal.SIGHUP)
    assert code == 130
    assert "error: stopped at step 3\nhint: --resume goes on\n" in err


def test_an_ignored_hangup_stays_ignored_as_nohup_wants_it() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        handler = StopHandler()
        with terminated_like_ctrl_c():
            handler.install()
            os.kill(os.getpid(), signal.SIGHUP)
            handler.restore()
        assert not handler()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signal_twice_stops_at_once() -> None:
    code, err = interrupted("stubborn", 2, signal.SIGINT)
    assert code == 130
    assert "Traceback" not in err


def test_reader_that_leaves_early_is_no_error(home: Path) -> None:
    line = f"{sys.executable} -m hoserkd profiles show beijing --json | head -c 1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.stdout == "{"
    assert done.stderr == ""


@pytest.mark.parametrize(("flag", "folder", "expected"), [
    (None, "{home}/cities/beijing", "{home}/cities/beijing"),
    ("other", "{home}/cities/other", "{home}/cities/other"),
    ("other", "other", "{here}/other"),
    ("./other", "other", "{here}/other"),
    (None, "beijing", None),
    ("./other", "{home}/cities/other", None),
])
def test_city_is_a_name_or_a_prepared_folder(
    flag: str | None, folder: str, expected: str | None, home: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    place = Path(folder.format(home=home))
    place.mkdir(parents=True)
    (place / "manifest.json").touch()
    (tmp_path / "source").mkdir()
    context = open_context("train", "beijing")
    if expected is None:
        with pytest.raises(DataError, match="no prepared city"):
            context.city_dir(flag)
    else:
        assert str(context.city_dir(flag)) == expected.format(home=home, here=tmp_path)


def test_run_settings_stand_below_for_commands_that_use_a_model(home: Path) -> None:
    with RunStore(home / "store").create_run(
        "train", "demo", "r", '{"city": {"name": "elsewhere"}, "generate": {"num": 7}}'
    ):
        pass
    context = open_context("generate", None, {"generate.num": 9}, run="r")
    assert (context.config.city.name, context.config.generate.num) == ("elsewhere", 9)
    assert context.resolved.source("city.name") == "run r"


def test_started_run_is_recorded_with_the_resolved_settings(home: Path) -> None:
    context = open_context("train", "smoke", {"train.epochs": 1})
    with context.start_run("train", "r") as run:
        context.observing(run).notify(EpochDone(0, 3, {"val_accuracy": 0.5}))
    record = context.store.run("r")
    assert (record.profile, record.best_value) == ("smoke", 0.5)
    assert context.config_of(record) == context.config


@pytest.mark.parametrize(("device", "works", "driver", "said"), [
    ("cpu", True, True, "stays unused"), ("auto", False, True, "cannot use it"),
    ("auto", True, True, None), ("auto", False, False, None), ("cuda", True, True, None),
    ("cpu", False, False, None),
])
def test_gpu_that_stays_unused_is_mentioned(
    device: str, works: bool, driver: bool, said: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "nvidia0"
    if driver:
        file.touch()
    notice = device_notice(device, lambda: works, file)
    assert notice is None if said is None else said in str(notice)
