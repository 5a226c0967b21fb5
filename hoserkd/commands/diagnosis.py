"""The checks behind `hoserkd doctor`, each a small finding."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from hoserkd import __version__
from hoserkd.commands.context import Paths
from hoserkd.engine.bounded_json import parse_json
from hoserkd.text import size_text

Verdict = Literal["fine", "limited", "broken"]
NEEDED = ("numpy", "scipy", "numba", "duckdb", "pyarrow", "safetensors",
          "optuna", "pymetis", "textual", "matplotlib", "jinja2", "zstandard")
OPTIONAL = (
    ("kahip", "zones as the published set-up cuts them", "kahip"),
    ("tensorboard", "runs export --tensorboard", "tensorboard"),
    ("wandb", "runs export --wandb-offline", "wandb"),
)
MIN_MEMORY = 4e9
MIN_DISK = 2e9
TORCH_PROBE = """
import json, torch
cuda = torch.cuda.is_available()
print(json.dumps({
    "version": torch.__version__, "cuda": cuda, "built_for": torch.version.cuda,
    "threads": torch.get_num_threads(), "bf16": cuda and torch.cuda.is_bf16_supported(),
    "devices": [{"name": p.name, "memory": p.total_memory} for p in
                (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))],
    "sum": float(torch.ones(8, device="cuda" if cuda else "cpu").sum()),
}))
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    what: str
    verdict: Verdict
    found: str
    meaning: str
    """What will or will not work, and what to do."""


def diagnose(paths: Paths, *, quick: bool) -> list[Finding]:
    """Return what was found, the ground first."""
    findings = [*_python(), *_machine(paths), *_folders(paths)]
    if not quick:
        findings += _torch()
    return [*findings, *_packages(), *_optional(), *_store(paths)]


def _python() -> Iterator[Finding]:
    fine = sys.version_info >= (3, 11)
    yield Finding("hoserkd", "fine", __version__, str(Path(__file__).resolve().parents[1]))
    yield Finding("Python", "fine" if fine else "broken", platform.python_version(),
                  sys.executable if fine else "hoserkd needs Python 3.11 or newer")


def _machine(paths: Paths) -> Iterator[Finding]:
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("processors", "fine", str(cores), platform.machine())
    free = psutil.virtual_memory().available
    yield Finding("memory", "fine" if free >= MIN_MEMORY else "limited", f"{size_text(free)} free",
                  "enough for a city" if free >= MIN_MEMORY else
                  "large cities will stream from disk (data.residency: stream)")
    place = next(p for p in (paths.data_dir, *paths.data_dir.parents) if p.exists())
    disk = shutil.disk_usage(place).free
    yield Finding("disk", "fine" if disk >= MIN_DISK else "limited", f"{size_text(disk)} free",
                  "enough" if disk >= MIN_DISK else
                  "a teacher's stored signal may not fit; choose another --data-dir")


def _folders(paths: Paths) -> Iterator[Finding]:
    for what, folder in (("data folder", paths.data_dir), ("store folder", paths.store)):
        place = next(p for p in (folder, *folder.parents) if p.exists())
        fine = os.access(place, os.W_OK)
        yield Finding(what, "fine" if fine else "broken", str(folder),
                      "can be written" if fine else "cannot be written; set HOSERKD_HOME")


def _torch() -> Iterator[Finding]:
    # In a process of its own: a broken torch may take its process along.
    try:
        answer = subprocess.run([sys.executable, "-c", TORCH_PROBE], capture_output=True,
                                text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding("torch", "broken", "no answer", str(error))
        return
    lines = answer.stdout.strip().splitlines()
    if answer.returncode != 0 or not lines:
        why = (answer.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        yield Finding("torch", "broken", "cannot be used", why)
        return
    probe = parse_json(lines[-1])
    yield Finding("torch", "fine", probe["version"], f"{probe['threads']} threads")
    if not probe["cuda"]:
        why = ("no CUDA device was found" if probe["built_for"] else "this torch is for CPUs only")
        yield Finding("CUDA", "limited", "none", f"{why}; everything runs on the CPU, slower")
        return
    for device in probe["devices"]:
        yield Finding("CUDA", "fine", f"{device['name']}, {size_text(device['memory'])}",
                      "bf16" if probe["bf16"] else "fp16 (no bf16 on this device)")


def _packages() -> Iterator[Finding]:
    missing = [name for name in NEEDED if find_spec(name) is None]
    yield Finding("packages", "broken" if missing else "fine",
                  f"{len(NEEDED) - len(missing)} of {len(NEEDED)}",
                  f"missing: {', '.join(missing)}; install hoserkd again" if missing else
                  "all that hoserkd needs")


def _optional() -> Iterator[Finding]:
    for name, purpose, extra in OPTIONAL:
        try:
            yield Finding(name, "fine", version(name), purpose)
        except PackageNotFoundError:
            yield Finding(name, "limited", "not installed",
                          f"{purpose}; pip install 'hoserkd[{extra}]'")


def _store(paths: Paths) -> Iterator[Finding]:
    from hoserkd.errors import HoserkdError
    from hoserkd.store.runs import RunStore

    try:
        store = RunStore(paths.store)
        if not store.runs_directory.is_dir():
            yield Finding("run store", "fine", "empty", str(paths.store))
            return
        runs = store.runs()
    except HoserkdError as error:
        yield Finding("run store", "broken", error.message, error.hint or "")
        return
    dead = sum(run.status == "dead" for run in runs)
    yield Finding("run store", "fine", f"{len(runs)} runs" + (f", {dead} dead" if dead else ""),
                  "`hoserkd runs gc` clears dead ones away" if dead else str(paths.store))
