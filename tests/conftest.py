"""Fixtures of all tests: quiet threads, a home of their own, a store, the real trips."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "2")

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import shape_checks
from jaxtyping import config

REPOSITORY = Path(__file__).resolve().parents[1]
_REAL_DATA = os.environ.get("HOSERKD_REAL_DATA")

if not config.jaxtyping_disable:
    shape_checks.install()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `--update-golden` write expected outputs anew instead of comparing."""
    parser.addoption("--update-golden", action="store_true", help="renew the expected outputs")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command line came to."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test an empty HOSERKD_HOME and no other HOSERKD_ variable."""
    for name in list(os.environ):
        if name.startswith("HOSERKD_"):
            monkeypatch.delenv(name)
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOSERKD_HOME", str(folder))
    monkeypatch.setenv("NO_COLOR", "1")
    # Tests that run in parallel inherit a width that nobody chose.
    monkeypatch.delenv("COLUMNS", raising=False)
    return folder


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the checks of shapes out of a test of `torch.compile`, which cannot trace them."""
    monkeypatch.setattr(config, "jaxtyping_disable", True)
    for owner, name, bare in shape_checks.WRAPPED:
        monkeypatch.setattr(owner, name, bare)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of the real trips (san_francisco_mini, ...), or skip the test."""
    folder = Path(_REAL_DATA) if _REAL_DATA else REPOSITORY.parent / "shared" / "data"
    if not (folder / "san_francisco_mini" / "roadmap.geo").is_file():
        pytest.skip("needs the real trips: set HOSERKD_REAL_DATA to their folder")
    return folder


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Return an empty run store."""
    from hoserkd.store.runs import RunStore

    return RunStore(tmp_path / "store")


@pytest.fixture
def run_cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Return a function that runs one command line in this process, as `hoserkd ...` would."""
    from hoserkd.cli import main

    def run(*arguments: object) -> Answer:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return run
