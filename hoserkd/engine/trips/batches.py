"""Batches of trips with all their features, made on the device (ENGINE.md section 5.1).

A split is flat arrays; a batch is gathered from them by index arithmetic, with no work per trip.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from hoserkd.engine.config import DataConfig
from hoserkd.engine.student.features import (
    candidate_features,
    candidate_labels,
    clock_features,
)
from hoserkd.engine.student.tables import NetworkTables
from hoserkd.engine.trips.residency import Residency, choose_residency
from hoserkd.engine.types import StepBatch, TrajectorySet, TripGroup

GROUP_TRIPS = {"cpu": 16, "cuda": 128}
"""Trips that attention pads to one length: a GPU would rather pad more and start fewer kernels."""
GROUP_PAIRS = 1 << 25
"""Pairs of points that attention compares at once, padding included, unless one trip alone has
more; each costs about 50 bytes. Trips of up to 500 roads are never grouped differently for it."""
AHEAD = 2
"""Batches that are gathered before they are asked for."""


def epoch_batches(
    trajectories: TrajectorySet, batch_size: int, seed: int, epoch: int, shuffle: bool,
    members: Int64[np.ndarray, " n"] | None = None,
) -> list[Int64[np.ndarray, " _"]]:
    """Return the trip ids of every batch of an epoch; each trip is in exactly one.

    Args:
        members: The only trips to draw from; None: all.

    Shuffled, a batch is a random draw, so that its gradient is that of the split in the mean:
    batches of trips of one length cost accuracy (docs/decisions/0011). Within a batch trips lie in
    the order of their lengths, so that attention pads groups of like length. Not shuffled, the
    whole split does. Depends on the lengths and the arguments alone.
    """
    length = np.diff(trajectories.offset)
    if members is None:
        members = np.arange(len(length))
    if not shuffle:
        return _cut(members[np.argsort(length[members], kind="stable")], batch_size)
    order = members[np.random.default_rng([seed, epoch]).permutation(len(members))]
    return [trips[np.argsort(length[trips], kind="stable")] for trips in _cut(order, batch_size)]


def group_trips(device: torch.device) -> int:
    """Return how many trips attention pads to one length on `device`."""
    return GROUP_TRIPS[device.type]


def cut_groups(steps: Int64[np.ndarray, " B"], trips: int) -> tuple[TripGroup, ...]:
    """Return consecutive groups of up to `trips` trips that have the given numbers of steps.

    A group ends early where padding it to its longest trip would make more than `GROUP_PAIRS`.
    """
    groups = []
    first = 0
    while first < len(steps):
        part = steps[first : first + trips]
        # Of the first n trips: n times the square of the longest, which only grows with n.
        pairs = np.arange(1, len(part) + 1) * np.maximum.accumulate(part).astype(np.int64) ** 2
        fitting = max(int(np.searchsorted(pairs, GROUP_PAIRS, side="right")), 1)
        part = part[:fitting]
        groups.append(TripGroup(len(part), int(part.sum()), int(part.max())))
        first += fitting
    return tuple(groups)


@dataclass(frozen=True, slots=True)
class _Points:
    """The points of some trips, found at `first[trip]` onwards of flat arrays."""

    road: Int[Tensor, " P"]
    entered_at_s: Int[Tensor, " P"]
    first: Int[Tensor, " B"]
    steps: Int[Tensor, " B"]
    first_step: Int[Tensor, " B"]
    """Number of the first step in the split."""
    total: int
    groups: tuple[TripGroup, ...]
    kept: int | None
    """Candidates of all steps, if known on the host."""


class TripSource:
    """Makes batches from a split that lies on the device, in RAM or on disk."""

    def __init__(
        self,
        trajectories: TrajectorySet,
        tables: NetworkTables,
        data: DataConfig,
        device: torch.device,
        residency: Literal["auto", "device", "ram", "stream"] | None = None,
    ) -> None:
        """Place the split.

        Args:
            residency: Where the split shall live; None: as `data.residency` says.
        """
        self._tables = tables
        self._top_k = data.candidate_top_k
        self._device = device
        wanted = data.residency if residency is None else residency
        choice = choose_residency(trajectories, device, wanted)
        self.residency: Residency = choice.residency
        self.why = choice.why
        """One sentence that says where the split lives and for what reason."""
        self._offset = np.asarray(trajectories.offset)
        self._road, self._time = trajectories.road, trajectories.entered_at_s
        if self.residency != "stream":
            self._road, self._time = np.array(self._road), np.array(self._time)
        self._on_device: tuple[Tensor, Tensor] | None = None
        if self.residency == "device":
            self._on_device = (
                torch.from_numpy(self._road).to(device), torch.from_numpy(self._time).to(device)
            )
        self._kept = self._kept_per_trip(trajectories) if self._waits_for_device else None

    def __len__(self) -> int:
        return len(self._offset) - 1

    def batch(self, trips: Int64[np.ndarray, " B"]) -> StepBatch:
        """Return the steps of the given trips, in the given order, on the device."""
        return self._assemble(self._gather(trips))

    def prefetch(self, batches: Sequence[Int64[np.ndarray, " _"]]) -> Iterator[StepBatch]:
        """Yield the batches one by one, gathering the next ones meanwhile where that helps."""
        if self.residency == "device" or (self.residency == "ram" and self._device.type == "cpu"):
            for trips in batches:
                yield self.batch(trips)
            return
        waiting: deque[Future[_Points]] = deque()
        remaining = iter(batches)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="trips") as worker:
            for trips in remaining:
                waiting.append(worker.submit(self._gather, trips))
                if len(waiting) > AHEAD:
                    yield self._assemble(waiting.popleft().result())
            while waiting:
                yield self._assemble(waiting.popleft().result())

    @property
    def _waits_for_device(self) -> bool:
        """Whether asking how many candidates a batch has would stall the device."""
        return self.residency == "device" and self._device.type == "cuda"

    def _gather(self, trips: Int64[np.ndarray, " B"]) -> _Points:
        first = self._offset[trips]
        length = self._offset[trips + 1] - first
        steps = length - 1
        groups = cut_groups(steps, group_trips(self._device))
        total = int(steps.sum())
        kept = None if self._kept is None else int(self._kept[trips].sum())
        if self._on_device is not None:
            (road, time), start = self._on_device, first
        else:
            start = np.cumsum(length) - length
            point = np.repeat(first - start, length) + np.arange(length.sum())
            road = self._send(np.take(self._road, point))
            time = self._send(np.take(self._time, point))
        index = self._send(np.stack([start, steps, first - trips]))
        return _Points(road, time, index[0], index[1], index[2], total, groups, kept)

    def _send(self, values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(values)
        if self._device.type != "cuda":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def _assemble(self, points: _Points) -> StepBatch:
        trips = torch.arange(len(points.steps), device=self._device)
        trip = torch.repeat_interleave(trips, points.steps, output_size=points.total)
        offset = torch.nn.functional.pad(points.steps.cumsum(0), (1, 0))
        position = torch.arange(points.total, device=self._device) - offset[trip]
        point = points.first[trip] + position
        road, taken = points.road[point].long(), points.road[point + 1].long()
        entered = points.entered_at_s[point]
        destination = points.road[points.first + points.steps].long()
        started = points.entered_at_s[points.first][trip]
        time_of_day, elapsed = clock_features(entered, started, self._tables.features)
        candidates = candidate_features(
            self._tables, road, destination[trip], self._top_k, points.kept
        )
        return StepBatch(
            offset=offset,
            step_id=points.first_step[trip] + position,
            road=road,
            time_of_day=time_of_day,
            elapsed_min=elapsed,
            destination=destination,
            label=candidate_labels(candidates, taken),
            travel_time_s=(points.entered_at_s[point + 1] - entered).to(torch.float32),
            candidate_offset=candidates.offset,
            candidate_road=candidates.road,
            candidate_slot=candidates.slot,
            candidate_distance=candidates.distance,
            candidate_angle=candidates.angle,
            groups=points.groups,
        )

    def _kept_per_trip(self, trajectories: TrajectorySet) -> Int64[np.ndarray, " N"]:
        count = self._tables.candidate_offset.diff().clamp(max=self._top_k).cpu().numpy()
        kept = count[np.asarray(trajectories.road)]
        running = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])
        last = self._offset[1:] - 1
        return np.asarray(running[last] - running[self._offset[:-1]])


def _cut(order: Int64[np.ndarray, " N"], batch_size: int) -> list[Int64[np.ndarray, " _"]]:
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
