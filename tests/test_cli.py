from collections.abc import Callable

import pytest

from hoserkd import __version__
from hoserkd.cli import hoist
from hoserkd.errors import UsageError


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
