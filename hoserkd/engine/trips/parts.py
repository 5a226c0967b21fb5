"""Generated trips on their way to a file: whole parts beside it, so that a stop loses little."""

import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from hoserkd.engine.files import read_json, replacing, write_json
from hoserkd.engine.trips.maker import DIGITS
from hoserkd.engine.types import GeneratedTrips

JOB = "job.json"
DONE = "done"


class TripParts:
    """The parts of one shard of a job: some hundred trips a file, in the order of the queries."""

    def __init__(self, output: Path, job: str, shard: int = 0, shards: int = 1) -> None:
        """Find the parts of an earlier try of the same job.

        Args:
            job: Hash of all that decides what is generated. Each job has a folder of its own, so
                that two for the same output never take or remove each other's parts.
        """
        self.directory = output.parent / f".{output.name}.{job[:DIGITS]}.parts"
        self._shard = self.directory / f"shard-{shard}-of-{shards}"
        self._shards = [self.directory / f"shard-{i}-of-{shards}" for i in range(shards)]
        if not self._is_of(job):
            shutil.rmtree(self._shard, ignore_errors=True)
            self._shard.mkdir(parents=True)
            write_json(self._shard / JOB, {"job": job})
        self.trips = sum(_count(path) for path in _parts(self._shard))
        """Trips that are safe on disk."""

    def add(self, trips: GeneratedTrips) -> None:
        """Keep a chunk."""
        path = self._shard / f"{self.trips:012d}-{len(trips)}.npz"
        values = {field.name: getattr(trips, field.name) for field in fields(trips)}
        arrays: dict[str, Any] = {
            name: np.array(value) for name, value in values.items() if value is not None}
        with replacing(path) as file:
            np.savez(file, **arrays)
        self.trips += len(trips)

    def finish(self) -> None:
        """Mark the shard as complete."""
        (self._shard / DONE).touch()

    @property
    def complete(self) -> bool:
        """Whether all shards are complete."""
        return all((shard / DONE).exists() for shard in self._shards)

    def chunks(self) -> Iterator[GeneratedTrips]:
        """Yield the chunks of all shards, in the order of the queries."""
        for shard in self._shards:
            for path in _parts(shard):
                yield _load(path)

    def remove(self) -> None:
        """Delete the parts of all shards."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _is_of(self, job: str) -> bool:
        try:
            return bool(read_json(self._shard / JOB) == {"job": job})
        except (OSError, ValueError):
            return False


def _parts(shard: Path) -> list[Path]:
    return sorted(shard.glob("*.npz"))


def _count(path: Path) -> int:
    return int(path.stem.partition("-")[2])


def _load(path: Path) -> GeneratedTrips:
    with np.load(path) as stored:
        values = dict(stored)
    values["reason"] = tuple(values["reason"].tolist())
    values["stated"] = bool(values.get("stated", True))
    return GeneratedTrips(**values)
