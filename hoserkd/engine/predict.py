"""The next road of a trip that is under way, one question at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch
from jaxtyping import Float64, Int64

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import DataConfig
from hoserkd.engine.student.storage import LoadedStudent
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.trips.batches import TripSource
from hoserkd.engine.types import TrajectorySet
from hoserkd.errors import DataError


@dataclass(frozen=True, slots=True)
class NextRoads:
    """Where a driver may go next, the likeliest first."""

    road_id: Int64[np.ndarray, " C"]
    """As in `roadmap.geo`."""
    probability: Float64[np.ndarray, " C"]
    seconds: Float64[np.ndarray, " C"]
    """How long the present road takes if that candidate is next."""


class Predictor:
    """Answers questions about one city with one student; the road network is encoded once."""

    def __init__(self, student: LoadedStudent, city: City, device: str = "cpu") -> None:
        place = torch.device(device)
        self._city = city
        self._model = student.model.to(place).eval()
        self._times = student.meta.times
        self._tables = build_network_tables(city.network, student.meta.config.features, place)
        self._index = {int(road): i for i, road in enumerate(city.network.road_id)}
        with torch.inference_mode():
            self._encoding = self._model.encode_network(self._tables)

    def next_roads(self, roads: Sequence[int], entered_at: Sequence[datetime],
                   destination: int) -> NextRoads:
        """Return the candidates after the last of `roads`.

        Args:
            roads: ids of the roads so far, the present one last.
            entered_at: when each was entered, on the city's wall clock.
            destination: id of the road where the trip is to end.

        Raises:
            DataError: a road is unknown, the lists differ in length, or nothing follows the
                present road.
        """
        if not roads or len(roads) != len(entered_at):
            raise DataError(f"{len(roads)} roads with {len(entered_at)} times: expected as many "
                            "times as roads, at least one")
        path = [self._known(road) for road in (*roads, destination)]
        clock = [_wall_clock_s(moment) for moment in entered_at]
        question = TrajectorySet(
            offset=np.array([0, len(path)], np.int64), road=np.array(path, np.int32),
            entered_at_s=np.array([*clock, clock[-1]], np.int64))
        return self._ask(question, roads[-1])

    @torch.inference_mode()
    def _ask(self, question: TrajectorySet, present: int) -> NextRoads:
        source = TripSource(question, self._tables, DataConfig(), self._tables.device, "ram")
        batch = source.batch(np.array([0]))
        last = slice(int(batch.candidate_offset[-2]), int(batch.candidate_offset[-1]))
        if last.start == last.stop:
            raise DataError(f"road {present} is a dead end: no road follows it")
        output = self._model.forward_encoded(self._encoding, batch)
        log1p = output.travel_time[last].double() * self._times.log1p_std + self._times.log1p_mean
        probability = output.logits[last].double().softmax(0)
        order = probability.argsort(descending=True, stable=True)
        road = batch.candidate_road[last][order].cpu().numpy()
        return NextRoads(
            road_id=self._city.network.road_id[road],
            probability=probability[order].cpu().numpy(),
            seconds=log1p.expm1().clamp(min=0)[order].cpu().numpy())

    def _known(self, road: int) -> int:
        if road not in self._index:
            raise DataError(f"road {road} is not one of {self._city.name}",
                            hint="ids are those of roadmap.geo")
        return self._index[road]


def _wall_clock_s(moment: datetime) -> int:
    """Return the seconds since 1970 of what the clock on the wall shows."""
    return int(moment.replace(tzinfo=UTC).timestamp())
