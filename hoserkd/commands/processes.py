"""Commands that `torchrun` starts several times: each learns which one it is."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hoserkd.engine.training.distributed import Ranks


@contextmanager
def joined_processes(
    device: str, environ: Mapping[str, str] = os.environ
) -> "Iterator[Ranks]":
    """Give this process's place among those that `torchrun` started; alone without it.

    Args:
        device: The `device` setting: decides how the processes talk.
    """
    from hoserkd.engine.device import resolve_device
    from hoserkd.engine.training.distributed import Ranks, joined

    world = int(environ.get("WORLD_SIZE", "1"))
    if world == 1 or "RANK" not in environ:
        yield Ranks()
        return
    rank, local = int(environ["RANK"]), int(environ.get("LOCAL_RANK", "0"))
    with joined(rank, world, local, resolve_device(device)) as ranks:
        yield ranks
