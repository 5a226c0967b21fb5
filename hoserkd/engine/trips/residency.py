"""Where a split of trips lives while it is used: on the device, in RAM or on disk."""

import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch

from hoserkd.engine.types import TrajectorySet

Residency = Literal["device", "ram", "stream"]

CONTROL_GROUPS = Path("/sys/fs/cgroup")
DEVICE_SHARE = 0.25
"""Of the device's free memory, what a split may take; the model needs the rest."""
RAM_SHARE = 0.5
"""Of the free RAM, what a split may take."""


@dataclass(frozen=True, slots=True)
class ResidencyChoice:
    """Where a split will live, and why, in one sentence."""

    residency: Residency
    why: str


def choose_residency(
    trajectories: TrajectorySet,
    device: torch.device,
    wanted: Literal["auto", "device", "ram", "stream"],
) -> ResidencyChoice:
    """Return where to keep the split: as wanted, or the nearest place to the device it fits."""
    size = trajectories.road.nbytes + trajectories.entered_at_s.nbytes
    if wanted != "auto":
        return ResidencyChoice(wanted, f"trips are kept {_place(wanted, device)}, as asked")
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        if size <= DEVICE_SHARE * free:
            return ResidencyChoice("device", _fits(size, "device", device, free))
    free = available_ram()
    if size <= RAM_SHARE * free:
        return ResidencyChoice("ram", _fits(size, "ram", device, free))
    return ResidencyChoice(
        "stream",
        f"trips are kept {_place('stream', device)}: {_size_text(size)} is more than "
        f"{RAM_SHARE:.0%} of the {_size_text(free)} of free RAM",
    )


def available_ram() -> int:
    """Return the bytes that this process may still take: of the machine, its group, its limits."""
    free = int(psutil.virtual_memory().available)
    return min([free, *_group_room(), *_limit_room()])


def _group_room() -> Iterator[int]:
    """Yield what the process's control group leaves, under version 2 and 1; caches do not count."""
    names = {"": ("", "memory.max", "anon"), "memory": ("memory", "memory.limit_in_bytes", "rss")}
    for kind, path in _control_groups():
        mount, limit, used = names[kind]
        for place in (CONTROL_GROUPS / mount / path, CONTROL_GROUPS / mount):
            try:
                room = int((place / limit).read_text())
                for line in (place / "memory.stat").read_text().splitlines():
                    if line.split()[0] == used:
                        yield max(room - int(line.split()[1]), 0)
            except (OSError, ValueError):
                # No such group in this container's view, or "max": nothing bounds it there.
                continue


def _control_groups() -> Iterator[tuple[str, str]]:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            yield ("memory" if controllers else ""), path.lstrip("/")


def _limit_room() -> Iterator[int]:
    """Yield what `ulimit -d` leaves."""
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    if limit != resource.RLIM_INFINITY:
        used = psutil.Process().memory_info()
        yield max(limit - int(getattr(used, "data", used.rss)), 0)


def _place(residency: Residency, device: torch.device) -> str:
    names = {"device": f"on the device ({device.type})", "ram": "in RAM", "stream": "on disk"}
    return names[residency]


def _fits(size: int, residency: Residency, device: torch.device, free: int) -> str:
    place = _place(residency, device)
    return f"trips are kept {place}: {_size_text(size)} of {_size_text(free)} free"


def _size_text(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
