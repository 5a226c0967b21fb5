"""What the machine is busy with while a run is recorded: sparse samples from a thread."""

import contextlib
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

SAMPLE_S = 10.0
"""Pause between two samples; one costs about a millisecond."""


class MachineSampler:
    """Hands samples of CPU, memory and GPU to `record` until it is closed."""

    def __init__(
        self, record: Callable[[Mapping[str, float]], None], every_s: float = SAMPLE_S
    ) -> None:
        self._record = record
        self._every_s = every_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._sample_often, daemon=True, name="machine")
        self._thread.start()

    def close(self) -> None:
        """Stop sampling; nothing is recorded after this returns."""
        self._closing.set()
        self._thread.join()

    def _sample_often(self) -> None:
        # The first pause comes before the import, so that short commands pay nothing.
        if self._closing.wait(self._every_s):
            return
        import psutil

        process = psutil.Process()
        process.cpu_percent()
        psutil.cpu_percent()
        while not self._closing.wait(self._every_s):
            self._record(sample_machine(psutil, process))


def sample_machine(psutil: Any, process: Any) -> dict[str, float]:
    """Return what is known of this process and its machine; percent and megabytes.

    `process_cpu_percent` counts every core: 200 is two cores in full use.
    """
    memory = psutil.virtual_memory()
    return {
        "process_cpu_percent": float(process.cpu_percent()),
        "process_memory_mb": process.memory_info().rss / 1e6,
        "cpu_percent": float(psutil.cpu_percent()),
        "memory_percent": float(memory.percent),
        **sample_gpu(sys.modules.get("torch")),
    }


def sample_gpu(torch: Any) -> dict[str, float]:
    """Return what the first GPU holds, if torch is at work on one; it is never woken for this.

    Args:
        torch: The module, None where nothing has loaded it.
    """
    found: dict[str, float] = {}
    if torch is None or not torch.cuda.is_initialized():
        return found
    # A driver that does not answer, or has no NVML for the use of the GPU, costs figures only.
    with contextlib.suppress(ImportError, RuntimeError):
        free, total = torch.cuda.mem_get_info()
        found["gpu_memory_mb"] = torch.cuda.memory_allocated() / 1e6
        found["gpu_memory_percent"] = 100.0 * (total - free) / total
        found["gpu_percent"] = float(torch.cuda.utilization())
    return found
