"""Several threads share the searches of one process."""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event

import torch

from hoserkd.engine.search.products import one_thread
from hoserkd.engine.search.queries import Answer
from hoserkd.engine.search.rounds import Rounds

Ended = list[tuple[int, Answer]]


class Team:
    """Workers that take queries from one list, each with its own slots and memory.

    Matrix products of a few hundred rows gain little from more threads, while whole workers do not
    wait for each other; so each computes with one thread.
    """

    def __init__(self, workers: list[Rounds]) -> None:
        self._workers = workers

    @property
    def expansions(self) -> int:
        """Nodes expanded so far."""
        return sum(worker.expansions for worker in self._workers)

    def run(self, waiting: deque[int], halt: Callable[[], bool]) -> Generator[Ended, None, None]:
        """Yield what ends, see `Rounds.run`; closing the iterator stops all workers."""
        if len(self._workers) == 1:
            with one_thread():
                yield from self._workers[0].run(waiting, halt)
            return
        closed, ended = Event(), SimpleQueue[Ended | None]()
        with one_thread(), ThreadPoolExecutor(len(self._workers), "search") as crew:
            work = [crew.submit(_work, worker, waiting, halt, closed, ended)
                    for worker in self._workers]
            try:
                for _ in work:
                    while (answers := ended.get()) is not None:
                        yield answers
            finally:
                closed.set()
            for done in work:
                done.result()


def _work(
    worker: Rounds, waiting: deque[int], halt: Callable[[], bool], closed: Event,
    ended: "SimpleQueue[Ended | None]",
) -> None:
    torch.set_num_threads(1)
    try:
        for answers in worker.run(waiting, halt):
            ended.put(answers)
            if closed.is_set():
                break
    finally:
        ended.put(None)
