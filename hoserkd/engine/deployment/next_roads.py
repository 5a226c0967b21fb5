"""The next-step predictor as one module over plain tensors, from road ids to probabilities.

It is what `program` exports: the road network is encoded once and kept in buffers, every feature is
computed inside, and of a padded batch of trips each is answered at its last road. Its control flow
depends on no value, so that trips of any number and length pass.
"""

from copy import deepcopy
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor, nn

from hoserkd.engine.student.features import (
    beyond_nearest,
    centroid_distance_m,
    clock_features,
    nearest_candidates,
    turn_angles,
)
from hoserkd.engine.student.navigator import CandidateRows, RoadKeys, uncrossed
from hoserkd.engine.student.relative_attention import Relation, relate
from hoserkd.engine.student.storage import LoadedStudent
from hoserkd.engine.student.tables import NetworkTables
from hoserkd.engine.training.losses import destandardised
from hoserkd.engine.types import NavigatorOutput

NO_ROAD = -1
KEYS = ("key", "time", "zone_query", "distance", "angle")
"""What `RoadKeys` holds, in its order."""
TABLES = ("zone", "centroid_rad", "point_m", "end_lonlat", "candidate_offset", "candidate_road",
          "candidate_bearing")
"""What is read of `NetworkTables` once the roads are encoded."""


class NextRoadsProgram(nn.Module):
    """Tells where trips that are under way may go next.

    Axes: B trips, T roads of the longest, C candidates of an answer, W of the network's longest
    list, Q quantiles.
    """

    def __init__(
        self, student: LoadedStudent, tables: NetworkTables, road_id: Int[Tensor, " R"],
        top_k: int,
    ) -> None:
        """Encode the road network.

        Args:
            tables: In the student's feature convention, on the student's device.
            road_id: Id of each road, as in `roadmap.geo`.
            top_k: Of more candidates than this the nearest to the destination count.
        """
        super().__init__()
        model = student.model
        with torch.no_grad():
            encoding = model.encode_network(tables)
        sorted_id, order = road_id.sort()
        held = {"road_id": road_id, "sorted_id": sorted_id, "order": order,
                "spatial": encoding.spatial}
        held |= {name: getattr(encoding, name) for name in KEYS}
        held |= {f"table_{name}": getattr(tables, name) for name in TABLES}
        for name, value in held.items():
            self.register_buffer(name, value.detach().clone())
        self.trajectory_encoder = deepcopy(model.trajectory_encoder)
        self.navigator = deepcopy(model.navigator)
        self.eval().requires_grad_(False)
        self._tables = tables
        self._times = student.meta.times
        self._width = max(tables.max_candidates, 1)
        self._top_k = top_k

    @property
    def candidates(self) -> int:
        """C: how many candidates an answer has room for."""
        return min(self._width, self._top_k)

    def forward(
        self, road_id: Int[Tensor, "B T"], entered_at_s: Int[Tensor, "B T"],
        length: Int[Tensor, " B"], destination_id: Int[Tensor, " B"],
    ) -> dict[str, Tensor]:
        """Return the candidates after each trip's last road, the likeliest first.

        Args:
            road_id: Roads so far, the present one last; anything after a trip's length.
            entered_at_s: When each was entered: seconds since 1970-01-01 of the city's wall clock.
            length: Roads of each trip, 1 to T.
            destination_id: Where each trip is to end.

        Returns:
            `road_id` (B, C), -1 where there are fewer candidates; `probability` (B, C), 0 there;
            `seconds` (B, C) that the present road takes if that candidate is next, of a quantile
            head the median, NaN there; with such a head `quantile_seconds` (B, C, Q), rising.
            For a trip with an unknown road or a length that is none, all is -1 and NaN.
        """
        tables = self._tables_of_buffers()
        position = torch.arange(road_id.shape[1], device=road_id.device)
        trip = torch.arange(road_id.shape[0], device=road_id.device)
        last = length.clamp(min=1, max=road_id.shape[1]) - 1
        road, known = self._index(road_id)
        destination, known_destination = self._index(destination_id)
        answered = (known | (position > last[:, None])).all(1)
        answered = answered & known_destination & (length == last + 1)
        state = self._states(tables, road, entered_at_s)[trip, last]
        output, candidate, real = self._navigate(tables, state, road[trip, last], destination)
        return self._answer(output, candidate, real, answered)

    def _tables_of_buffers(self) -> NetworkTables:
        """Return the tables as the buffers hold them, wherever those have been moved."""
        held = {name: self.get_buffer(f"table_{name}") for name in TABLES}
        return replace(
            self._tables, zone=held["zone"], centroid_rad=held["centroid_rad"],
            point_m=held["point_m"], end_lonlat=held["end_lonlat"],
            candidate_offset=held["candidate_offset"], candidate_road=held["candidate_road"],
            candidate_bearing=held["candidate_bearing"])

    def _index(self, road_id: Int[Tensor, "..."]) -> tuple[Int[Tensor, "..."], Bool[Tensor, "..."]]:
        """Return the index of each road, and whether there is one."""
        ids = self.get_buffer("sorted_id")
        place = torch.searchsorted(ids, road_id.contiguous()).clamp(max=ids.shape[0] - 1)
        return self.get_buffer("order")[place], ids[place] == road_id

    def _states(
        self, tables: NetworkTables, road: Int[Tensor, "B T"], entered_at_s: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T c"]:
        trips, longest = road.shape
        started = entered_at_s[:, :1].expand(trips, longest)
        time_of_day, elapsed_min = clock_features(
            entered_at_s.flatten(), started.flatten(), tables.features)
        x = self.trajectory_encoder.embed_points(
            self.get_buffer("spatial")[road.flatten()], time_of_day)
        relation = _relation(tables.point_m[road], elapsed_min.view(trips, longest), x.dtype)
        for block in self.trajectory_encoder.blocks:
            qkv = block.attn.c_attn(block.ln_1(x)).view(trips, longest, -1)
            gathered = block.attn.mix(*block.attn.project(qkv), relation)
            x = block.finish(x, block.attn.output(gathered.flatten(0, 1)))
        return x.view(trips, longest, -1)

    def _navigate(
        self, tables: NetworkTables, state: Float[Tensor, "B c"], road: Int[Tensor, " B"],
        destination: Int[Tensor, " B"],
    ) -> tuple[NavigatorOutput, Int[Tensor, "B W"], Bool[Tensor, "B W"]]:
        """Return what the navigator says of W places for candidates, and which are real."""
        trips = road.shape[0]
        entry = tables.candidate_offset[road][:, None] + torch.arange(
            self._width, device=road.device)
        real = entry < tables.candidate_offset[road + 1][:, None]
        entry = torch.where(real, entry, 0).flatten()
        trip = torch.arange(trips, device=road.device)
        step = trip[:, None].expand(trips, self._width).flatten()
        candidate = tables.candidate_road[entry]
        metres = centroid_distance_m(tables, candidate, destination[step]).to(torch.float32)
        metres = torch.where(real.flatten(), metres, torch.inf)
        if self._width > self._top_k:
            near = nearest_candidates(metres, step, trip * self._width, self._top_k)
            real = real & near.view(trips, self._width)
        keys = RoadKeys(*(self.get_buffer(name) for name in KEYS))
        rows = CandidateRows(step, candidate, beyond_nearest(metres, step, trips),
                             turn_angles(tables, road, destination, step, entry))
        output: NavigatorOutput = self.navigator(state, tables.zone[destination], keys, rows)
        return output, candidate.view(trips, self._width), real

    def _answer(
        self, output: NavigatorOutput, candidate: Int[Tensor, "B W"], real: Bool[Tensor, "B W"],
        answered: Bool[Tensor, " B"],
    ) -> dict[str, Tensor]:
        logits = output.logits.view(real.shape).double().masked_fill(~real, -torch.inf)
        order = logits.argsort(dim=1, descending=True, stable=True)[:, :self.candidates]
        share = _shares(logits).gather(1, order)
        shown = real.gather(1, order) & answered[:, None]
        road_id = self.get_buffer("road_id")[candidate.gather(1, order)]
        seconds = self._seconds(output.travel_time.view(real.shape)).gather(1, order)
        answer = {"road_id": torch.where(shown, road_id, NO_ROAD),
                  "probability": torch.where(answered[:, None], share, torch.nan),
                  "seconds": torch.where(shown, seconds, torch.nan)}
        if output.travel_time_quantiles is not None:
            rising = uncrossed(output.travel_time_quantiles, self.navigator.point)
            rising = self._seconds(rising.view(*real.shape, rising.shape[1]))
            place = order[:, :, None].expand(-1, -1, rising.shape[2])
            answer["quantile_seconds"] = torch.where(
                shown[:, :, None], rising.gather(1, place), torch.nan)
        return answer

    def _seconds(self, head: Float[Tensor, "B W ..."]) -> Float64[Tensor, "B W ..."]:
        return destandardised(head.double(), self._times).expm1().clamp(min=0)


def _relation(
    point_m: Float64[Tensor, "B T 3"], elapsed_min: Float[Tensor, "B T"], dtype: torch.dtype
) -> Relation:
    # As in `relation_of`: float32 is exact to millimetres only near the trip's start.
    wide = torch.promote_types(dtype, torch.float32)
    place, clock = (point_m - point_m[:, :1]).to(wide), elapsed_min.to(wide)
    steps = torch.arange(point_m.shape[1], device=point_m.device)
    return Relation(*relate(place, clock, place, clock),
                    hidden=(steps > steps[:, None])[None, None])


def _shares(logits: Float64[Tensor, "B W"]) -> Float64[Tensor, "B W"]:
    """Return the softmax of each row, zeros where nothing in it is finite."""
    top = logits.amax(1, keepdim=True).clamp(min=torch.finfo(logits.dtype).min)
    weight = (logits - top).exp()
    # The largest weight is 1: a smaller sum means that there is none.
    return weight / weight.sum(1, keepdim=True).clamp(min=1)
