"""The help of every command, byte for byte; `pytest tests/test_help.py --update-golden` renews."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from hoserkd.cli import SUB_APPS, command_names

GOLDEN = Path(__file__).parent / "data" / "help"


def lines() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [()]
    for name in command_names():
        found.append((name,))
        if name in SUB_APPS:
            module = import_module(f"hoserkd.commands.{name}")
            found += [(name, command.name or command.callback.__name__)
                      for command in module.app.registered_commands if not command.hidden]
    return found


@pytest.fixture(autouse=True)
def _plain_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every help the same width and no colour."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")


@pytest.mark.parametrize("line", lines(), ids=lambda line: "-".join(line) or "hoserkd")
def test_help_is_as_it_was(
    line: tuple[str, ...], run_cli: Callable, request: pytest.FixtureRequest
) -> None:
    answer = run_cli(*line, "--help")
    assert (answer.exit_code, answer.stderr) == (0, "")
    text = "\n".join(part.rstrip() for part in answer.stdout.splitlines()) + "\n"
    path = GOLDEN / f"{'-'.join(('hoserkd', *line))}.txt"
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_help_comes_in_a_wink() -> None:
    """0.4 s of our own time on an idle machine; here processor time, which others do not add to."""
    script = "import sys; from hoserkd.cli import main; sys.exit(main(['--help']))"
    times = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
        after = os.times()
        times.append(after.children_user - before.children_user
                     + after.children_system - before.children_system)
    assert min(times) < 0.6
