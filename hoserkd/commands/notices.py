"""What could make a long command faster on this machine."""

import sys
from collections.abc import Callable
from pathlib import Path

GPU_FILE = Path("/dev/nvidia0")


def device_notice(
    device: str, cuda_works: Callable[[], bool] | None = None, gpu_file: Path = GPU_FILE
) -> str | None:
    """Return what to say about a GPU that stays unused; None: nothing.

    Args:
        device: The setting: auto, cpu or cuda.
        cuda_works: Asks torch; by default only a torch that is loaded already.
        gpu_file: Where the driver shows the first GPU.
    """
    torch = sys.modules.get("torch")
    asked = cuda_works or (torch.cuda.is_available if torch is not None else None)
    if asked is None or device == "cuda":
        return None
    works = asked()
    if device == "cpu" and works:
        return "a GPU is there and stays unused: without --device cpu this is faster"
    if device == "auto" and not works and gpu_file.exists():
        return ("a GPU is there, but this torch cannot use it, so the CPU computes; "
                "`hoserkd doctor` says more")
    return None
