"""Write requirements.lock: the pins of all that hoserkd and its checks need, torch left out.

Run by `make lock` inside the environment whose versions are to be pinned. Torch is the user's to
choose (CPU, CUDA, ROCm), so neither it nor what only it needs is pinned; `.ci/install` sees to it.
"""

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADER = """\
# Made by `make lock`; installed by `.ci/install`. Torch is installed before these and is not
# pinned here, so that a CUDA build that is already there stays.
"""
BUILD = ["hatchling"]
"""Needed to install hoserkd itself without a build environment of its own."""


def normalised(name: str) -> str:
    """Return a package name in the form by which package indexes compare them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required(requirements: Iterable[str]) -> dict[str, str]:
    """Return name -> "name==version" of the packages that `requirements` need, transitively."""
    from packaging.requirements import Requirement

    pins: dict[str, str] = {}
    todo = [(Requirement(line), frozenset[str]()) for line in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        requirement, parent_extras = todo.pop()
        name = normalised(requirement.name)
        environments = [{"extra": extra} for extra in parent_extras] or [{"extra": ""}]
        marker = requirement.marker
        if name == "torch" or (marker and not any(marker.evaluate(e) for e in environments)):
            continue
        extras = frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found = distribution(name)
        pins[name] = f"{name}=={found.version.partition('+')[0]}"
        todo += [(Requirement(line), extras) for line in found.requires or []]
    return pins


def main() -> None:
    """Write the lock file from pyproject.toml and the packages of this environment."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"] + BUILD
    try:
        pins = required(wanted)
    except PackageNotFoundError as error:
        raise SystemExit(f"lock: {error.name} is missing; run `make install` first") from error
    lines = "".join(f"{pins[name]}\n" for name in sorted(pins))
    (ROOT / "requirements.lock").write_text(HEADER + lines)


if __name__ == "__main__":
    main()
