"""Fixtures of all tests: quiet threads, a home of their own, a store, the real trips."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "2")

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import shape_checks
from jaxtyping import config

if TYPE_CHECKING:
    from hoserkd.engine.city.storage import City
    from hoserkd.engine.student.storage import LoadedStudent
    from hoserkd.engine.teacher.card import TeacherCard

REPOSITORY = Path(__file__).resolve().parents[1]
_REAL_DATA = os.environ.get("HOSERKD_REAL_DATA")
_PYTHONS = [sys.executable, *filter(None, os.environ.get("HOSERKD_CONSUMERS", "").split(":"))]

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


@pytest.fixture(scope="session")
def two_way_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return source files of a town as real ones are (`two_way_town.py`); do not write to them.

    Opposite roads share their centroid, there are one-way streets and cul-de-sacs, and each of
    the 12 requests of the test trips was made three times.
    """
    from two_way_town import write_two_way_source

    return write_two_way_source(tmp_path_factory.mktemp("two-way") / "source")


@pytest.fixture(scope="session")
def two_way_city(two_way_source: Path, tmp_path_factory: pytest.TempPathFactory) -> "City":
    """Return the town of `two_way_source` as a prepared city of 4 zones; do not write to it."""
    from hoserkd.engine.city.storage import load_city
    from hoserkd.engine.config import CityConfig
    from hoserkd.engine.events import Silent, never_stop
    from hoserkd.engine.prepare import prepare_city

    folder = tmp_path_factory.mktemp("two-way-city") / "two_way"
    prepare_city(CityConfig(name="two_way", zones=4), two_way_source, folder, force=False,
                 observer=Silent(), stop=never_stop)
    return load_city(folder)


@pytest.fixture(scope="session")
def new_tiny_student() -> "Callable[..., LoadedStudent]":
    """Return a function (city, seed=0) that makes an untrained small student of a city."""

    def make(city: "City", seed: int = 0) -> "LoadedStudent":
        import torch

        from hoserkd.engine.config import StudentConfig
        from hoserkd.engine.student.storage import (
            LoadedStudent,
            StudentMeta,
            network_sha256,
            new_student,
        )

        torch.manual_seed(seed)
        config, network = StudentConfig(hidden_dim=16, road_id_dim=8, attribute_dim=2), city.network
        meta = StudentMeta(config, network.roads, len(network.highway_names), network.zones,
                           city.times, city.sha256, network_sha256=network_sha256(network))
        return LoadedStudent(new_student(config, network).eval(), meta)

    return make


@pytest.fixture(scope="session")
def retrain_teacher() -> "Callable[[Path], TeacherCard]":
    """Return a function that puts the opposite teacher in the place of an export, as retraining
    under the old name does: what one finds likely, the other finds unlikely; name, grid and
    dimensions stay. It returns the new card."""

    def retrain(directory: Path) -> "TeacherCard":
        import torch

        from hoserkd.engine.teacher.storage import load_teacher, save_teacher

        teacher = load_teacher(directory)
        with torch.no_grad():
            # The last scale before the logits, which all change their sign with it.
            teacher.model.transformer.ln_f.weight.neg_()
        return save_teacher(directory, teacher.model, teacher.card)

    return retrain


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Return an empty run store."""
    from hoserkd.store.runs import RunStore

    return RunStore(tmp_path / "store")


@cache
def _python_with(modules: tuple[str, ...]) -> str | None:
    line = f"import {', '.join(modules)}"
    return next((python for python in _PYTHONS if subprocess.run(
        [python, "-c", line], capture_output=True, check=False).returncode == 0), None)


@pytest.fixture(scope="session")
def python_with() -> Callable[..., str]:
    """Return a function that finds a Python with all of some modules, or skips the test.

    Looked at are this one and those that HOSERKD_CONSUMERS names, joined by `:`.
    """

    def find(*modules: str) -> str:
        found = _python_with(modules)
        if found is None:
            pytest.skip(f"needs a Python with {', '.join(modules)}: name one in HOSERKD_CONSUMERS")
        return found

    return find


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
