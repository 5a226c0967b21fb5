"""What must not be loaded: a static graph cannot tell a late import from an early one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import sys
from hoserkd.cli import main
code = main(sys.argv[1:])
sys.stdout.flush()
heavy = {"torch", "torch_geometric", "numba", "scipy", "matplotlib", "optuna", "textual"}
print("heavy:", *sorted(heavy & set(sys.modules)), file=sys.stderr)
print("light:", *sorted({"duckdb", "numpy", "pydantic"} & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


def loaded(home: Path, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True,
        env={**os.environ, "HOSERKD_HOME": str(home)})
    return done.stderr.splitlines()[-2:]


@pytest.mark.parametrize("line", [
    ["--help"], ["train", "--help"], ["runs", "list"], ["profiles", "list"],
    ["profiles", "show", "beijing"], ["doctor", "--quick"],
])
def test_command_that_computes_nothing_loads_nothing_heavy(line: list[str], home: Path) -> None:
    assert loaded(home, *line)[0] == "heavy:"


def test_help_loads_neither_database_nor_settings(home: Path) -> None:
    assert loaded(home, "--help")[1] == "light:"


def test_list_of_runs_loads_the_database_and_nothing_to_compute_with(home: Path) -> None:
    (home / "store" / "runs").mkdir(parents=True)
    assert "numpy" not in loaded(home, "runs", "list")[1]


def test_engine_knows_no_terminal_and_no_database() -> None:
    probe = ("import sys, hoserkd.engine, hoserkd.engine.config, hoserkd.engine.events\n"
             "found = {'typer', 'rich', 'textual', 'duckdb', 'pydantic_settings', 'torch'}\n"
             "assert not found & set(sys.modules), found & set(sys.modules)")
    subprocess.run([sys.executable, "-c", probe], check=True)
