"""The public programs themselves, which read what hoserkd writes and write what it reads.

Their code is never part of this repository. Each test names a checkout of it in the environment
and is skipped without one; it runs there in a copy, by a Python that has the program's packages.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from peers import DATA, prepared

from hoserkd.engine.city.storage import City

CHECKOUTS = {name: os.environ.get(name) for name in (
    "HOSERKD_PUBLIC_HOSER", "HOSERKD_PUBLIC_LMTAD")}
"""Read here, since every test runs without the variables of hoserkd."""


def checkout(variable: str, address: str) -> Path:
    """Return the checkout that a variable names, or skip the test and say how to get one."""
    place = CHECKOUTS[variable]
    if place is None or not Path(place).is_dir():
        pytest.skip(f"needs the public code: git clone {address} && {variable}=$PWD/"
                    f"{address.rpartition('/')[2]} pytest -m consumers tests/consumers")
    return Path(place)


@pytest.fixture(scope="session")
def public_hoser() -> Path:
    return checkout("HOSERKD_PUBLIC_HOSER", "https://github.com/caoji2001/HOSER")


@pytest.fixture(scope="session")
def public_lmtad() -> Path:
    return checkout("HOSERKD_PUBLIC_LMTAD", "https://github.com/mo-hemdan/LMTAD")


@pytest.fixture(scope="session")
def run_peer() -> Callable[..., str]:
    """Return a function that runs a program by a peer's Python and returns its output."""

    def run(python: str, *arguments: object, cwd: Path, timeout: float = 280) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [python, "-W", "ignore", *map(str, arguments)], cwd=cwd, text=True, check=False,
            capture_output=True, timeout=timeout, env={**environment, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, f"{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
        return done.stdout

    return run


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> City:
    """Return the city of 240 roads and 210 training trips on which the parity was recorded."""
    return prepared(DATA / "city", tmp_path_factory.mktemp("town"))
