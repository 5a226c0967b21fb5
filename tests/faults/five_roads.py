"""A city of five roads with a student trained on it, which the faults of outputs happened in."""

import shutil
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[1] / "data" / "faults"
CITY = DATA / "05-same-base-name" / "city"
SMOKE = ("--profile", "smoke", "--city", "tiny")


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with the prepared city `tiny` and the trained run `x`."""
    from hoserkd.cli import main

    home = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOSERKD_HOME", str(home))
        assert main(["prepare", "--source", str(CITY), "--city", "tiny", "--set", "city.name=tiny",
                     "--set", "city.zones=2", "--quiet"]) == 0
        assert main(["train", *SMOKE, "--no-distill", "--max-steps", "1", "--name", "x",
                     "--quiet"]) == 0
    return home


@pytest.fixture
def tiny(made_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working folder; the home is a copy that the test may change."""
    home = tmp_path / "home"
    shutil.copytree(made_once, home)
    monkeypatch.setenv("HOSERKD_HOME", str(home))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work
