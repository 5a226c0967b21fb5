"""Compiled kernels and the threads that they are spread over."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from hoserkd.engine.compiled import compiled as kernel

__all__ = ["kernel", "over_ranges", "over_tasks", "workers"]

MIN_CHUNK = 16
Task = TypeVar("Task")
Answer = TypeVar("Answer")


def workers() -> int:
    """Return how many threads the kernels may use: the cores given to this process."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def over_ranges(
    work: Callable[[int, int], None], count: int, *, least: int = MIN_CHUNK
) -> None:
    """Call `work(start, stop)` for ranges that cover 0..count, on all cores.

    `work` must write each row of its output from the row's number alone, so that the result does
    not depend on how many cores there are.

    Args:
        least: Rows that are worth a thread's while.
    """
    threads = workers()
    if threads == 1 or count < 2 * least:
        work(0, count)
        return
    # More chunks than threads, since rows differ in cost.
    chunk = max(least, -(-count // (8 * threads)))
    starts = range(0, count, chunk)
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, s, min(s + chunk, count)) for s in starts]:
            done.result()


def over_tasks(work: Callable[[Task], Answer], tasks: Sequence[Task]) -> list[Answer]:
    """Return `work(task)` of each task, in order, on all cores."""
    threads = min(workers(), len(tasks))
    if threads < 2:
        return [work(task) for task in tasks]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, tasks))
