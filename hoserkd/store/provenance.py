"""Where a run comes from: code, libraries, machine, command line."""

import os
import platform
import socket
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hoserkd import __version__
from hoserkd.text import utf8_text

PACKAGES = ("torch", "torch-geometric", "numpy", "scipy", "numba", "pyarrow", "pymetis", "kahip",
            "duckdb", "optuna", "cmaes", "safetensors", "zstandard")
"""What a figure may depend on."""


def provenance() -> dict[str, Any]:
    """Return the fields of `run.json` that say by what and where a run was started."""
    return {
        "git_revision": git_revision(),
        "versions": dict(library_versions()),
        "platform": platform.platform(),
        "argv": [utf8_text(word) for word in sys.argv],
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }


@cache
def library_versions() -> dict[str, str]:
    """Return the versions that matter, read from metadata so that nothing heavy is imported."""
    found = {"hoserkd": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def git_revision() -> str:
    """Return the commit of the checkout that hoserkd runs from, `+` added where files differ.

    Empty for an installed package: the repository round a virtual environment is another's.
    """
    package = Path(__file__).resolve().parents[1]
    root = _git(package, "rev-parse", "--show-toplevel")
    if not root or Path(root).resolve() != package.parent:
        return ""
    changed = _git(package, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return _git(package, "rev-parse", "HEAD") + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
