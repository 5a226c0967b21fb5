"""The next road of a trip that is under way, one question at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import DataConfig
from hoserkd.engine.student.navigator import uncrossed
from hoserkd.engine.student.storage import LoadedStudent
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.training.losses import destandardised
from hoserkd.engine.trips.batches import TripSource
from hoserkd.engine.types import NavigatorOutput, TrajectorySet
from hoserkd.errors import DataError


@dataclass(frozen=True, slots=True)
class NextRoads:
    """Where a driver may go next, the likeliest first."""

    road_id: Int64[np.ndarray, " C"]
    """As in `roadmap.geo`."""
    probability: Float64[np.ndarray, " C"]
    seconds: Float64[np.ndarray, " C"]
    """How long the present road takes if that candidate is next; of a quantile head the median."""
    quantiles: tuple[float, ...] = ()
    """Which quantiles of the seconds the student gives; none with a point head."""
    quantile_seconds: Float64[np.ndarray, "C Q"] | None = None
    """Those quantiles of each candidate's seconds, rising; None with a point head."""


class Predictor:
    """Answers questions about one city with one student; the road network is encoded once."""

    def __init__(self, student: LoadedStudent, city: City, device: str = "cpu",
                 candidate_top_k: int | None = None) -> None:
        """Encode the road network.

        Args:
            device: Such as `cpu` or `cuda:0`.
            candidate_top_k: Of more candidates than this the nearest to the destination count;
                None: as in the student's training, 64 where its file does not say.
        """
        place = torch.device(device)
        self._city = city
        self._data = (student.meta.data(DataConfig()) if candidate_top_k is None
                      else DataConfig(candidate_top_k=candidate_top_k))
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
        source = TripSource(question, self._tables, self._data, self._tables.device, "ram")
        batch = source.batch(np.array([0]))
        last = slice(int(batch.candidate_offset[-2]), int(batch.candidate_offset[-1]))
        if last.start == last.stop:
            raise DataError(f"road {present} is a dead end: no road follows it")
        output = self._model.forward_encoded(self._encoding, batch)
        probability = output.logits[last].double().softmax(0)
        order = probability.argsort(descending=True, stable=True)
        road = batch.candidate_road[last][order].cpu().numpy()
        return NextRoads(
            road_id=self._city.network.road_id[road],
            probability=probability[order].cpu().numpy(),
            seconds=self._seconds(output.travel_time[last][order]),
            quantiles=self._model.config.time_quantiles or (),
            quantile_seconds=self._quantile_seconds(output, last, order))

    def _quantile_seconds(
        self, output: NavigatorOutput, last: slice, order: Int[Tensor, " C"]
    ) -> Float64[np.ndarray, "C Q"] | None:
        quantiles = output.travel_time_quantiles
        if quantiles is None:
            return None
        return self._seconds(uncrossed(quantiles[last][order], self._model.navigator.point))

    def _seconds(self, head: Float[Tensor, "C ..."]) -> Float64[np.ndarray, "C ..."]:
        log1p = destandardised(head.double(), self._times)
        seconds: np.ndarray = log1p.expm1().clamp(min=0).cpu().numpy()
        return seconds

    def _known(self, road: int) -> int:
        if road not in self._index:
            raise DataError(f"road {road} is not one of {self._city.name}",
                            hint="ids are those of roadmap.geo")
        return self._index[road]


def _wall_clock_s(moment: datetime) -> int:
    """Return the seconds since 1970 of what the clock on the wall shows."""
    return int(moment.replace(tzinfo=UTC).timestamp())
