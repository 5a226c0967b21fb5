"""A terminal whose encoding lacks characters: they are replaced, and the command succeeds."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from five_roads import DATA, SMOKE

from hoserkd.cli import main

TRIPS = DATA / "07-stdout-not-utf8" / "trips.csv"


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return what runs a line as this process's own, in an encoding, and gives its stdout."""
    def run(encoding: str, *words: object) -> str:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["hoserkd", *map(str, words)])
        monkeypatch.setattr(sys, "stderr", sys.stderr)
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(
            io.FileIO(1, "w", closefd=False), encoding, "strict"))
        assert main() == 0
        return capfd.readouterr().out

    return run


def test_evaluate_speaks_ascii(tiny: Path, say: Callable[..., str]) -> None:
    out = say("ascii", "evaluate", TRIPS, *SMOKE, "--set", "evaluate.bootstrap=0", "-o", "out")
    assert out.isascii()
    assert "OD completion" in out
    assert (tiny / "out" / "report.html").is_file()


def test_generate_draws_its_map_in_latin_1(tiny: Path, say: Callable[..., str]) -> None:
    out = say("latin-1", "generate", "--run", "x", "--od", "test", "--show", "0", "--num", "2")
    assert "A" in out
    assert "?" not in out
    assert "2 trips in" in out
