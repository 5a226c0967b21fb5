"""HOSER: road network encoder, trajectory encoder and navigator (ENGINE.md section 2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hoserkd.engine.config import StudentConfig
from hoserkd.engine.student.navigator import CandidateRows, Navigator, RoadKeys
from hoserkd.engine.student.relative_attention import (
    Layout,
    Relation,
    View,
    build_layout,
    relate,
)
from hoserkd.engine.student.road_network_encoder import RoadNetworkEncoder
from hoserkd.engine.student.surroundings import surroundings_of, whole_network
from hoserkd.engine.student.tables import NetworkTables
from hoserkd.engine.student.trajectory_encoder import TrajectoryEncoder
from hoserkd.engine.types import NavigatorOutput, StepBatch


@dataclass(frozen=True, slots=True)
class NetworkEncoding:
    """All that depends on the road network alone, computed once for many trips."""

    road: Float[Tensor, "V d"]
    """Road embeddings; V is all roads, or those that some batches can see."""
    zone: Float[Tensor, "Z d"]
    spatial: Float[Tensor, "V d"]
    """Roads fused with their zones: the trajectory encoder's input."""
    key: Float[Tensor, "V d"]
    time: Float[Tensor, "V ..."]
    zone_query: Float[Tensor, "Z d"]
    distance: Float[Tensor, " d"]
    angle: Float[Tensor, " d"]
    road_zone: Int[Tensor, " R"]
    point_m: Float[Tensor, "R 3"]
    row: Int[Tensor, " R"] | None
    """Row of each road among the V, meaningless for roads that are not there; None: itself."""

    def rows(self, road: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
        """Return the rows of the given roads."""
        return road if self.row is None else self.row[road]

    @property
    def keys(self) -> RoadKeys:
        """The navigator's part."""
        return RoadKeys(self.key, self.time, self.zone_query, self.distance, self.angle)

    def leaves(self) -> Self:
        """Return a copy cut from the graph, whose gradients `backward_from` carries on."""
        return self.with_learnt({
            name: value.detach().requires_grad_() for name, value in self.learnt().items()})

    def backward_from(self, leaves: Self) -> None:
        """Carry the gradients that reached `leaves` back through this encoding."""
        learnt, given = self.learnt(), leaves.learnt()
        reached = [name for name in learnt if given[name].grad is not None]
        torch.autograd.backward(
            [learnt[name] for name in reached], [given[name].grad for name in reached]
        )

    def with_learnt(self, values: Mapping[str, Tensor]) -> Self:
        """Return a copy with other learnt tensors, by the names that `learnt` gives."""
        return replace(self, **values)

    def learnt(self) -> dict[str, Tensor]:
        """Return what carries gradients, by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            name: value for name, value in values.items()
            if isinstance(value, Tensor) and value.requires_grad
        }


class Hoser(nn.Module):
    """The student. Attribute names are those of the public checkpoint."""

    def __init__(self, config: StudentConfig, roads: int, highway_types: int, zones: int) -> None:
        super().__init__()
        self.config = config
        self.road_network_encoder = RoadNetworkEncoder(config, roads, highway_types, zones)
        self.trajectory_encoder = TrajectoryEncoder(config)
        self.navigator = Navigator(config.hidden_dim, config.time_quantiles)

    def forward(self, tables: NetworkTables, batch: StepBatch) -> NavigatorOutput:
        """Return the answers for every candidate of the batch."""
        return self.forward_encoded(self.encode_network(tables, [batch]), batch)

    def encode_network(
        self, tables: NetworkTables, batches: Sequence[StepBatch] | None = None
    ) -> NetworkEncoding:
        """Return the encoding of the roads that `batches` can see, or of all roads."""
        if batches is None:
            around = whole_network(tables)
        else:
            seen = [road for batch in batches for road in (batch.road, batch.candidate_road)]
            around = surroundings_of(tables, torch.cat(seen))
        road = self.road_network_encoder.embed_roads(tables, around)
        zone = self.road_network_encoder.embed_zones(tables)
        road_zone = tables.zone if around.embedded is None else tables.zone[around.embedded]
        keys = self.navigator.project(road, zone)
        return NetworkEncoding(
            road=road,
            zone=zone,
            spatial=self.trajectory_encoder.fuse(road, zone.index_select(0, road_zone)),
            key=keys.key,
            time=keys.time,
            zone_query=keys.zone_query,
            distance=keys.distance,
            angle=keys.angle,
            road_zone=tables.zone,
            point_m=tables.point_m,
            row=around.row,
        )

    def forward_encoded(self, encoding: NetworkEncoding, batch: StepBatch) -> NavigatorOutput:
        """Return the answers for every candidate, with the road network already encoded."""
        spatial = encoding.spatial.index_select(0, encoding.rows(batch.road))
        state = self.trajectory_encoder(
            self.trajectory_encoder.embed_points(spatial, batch.time_of_day),
            views_of(encoding, batch, spatial.dtype),
        )
        return self.navigate(encoding, batch, state)

    def navigate(
        self, encoding: NetworkEncoding, batch: StepBatch, state: Float[Tensor, "S c"]
    ) -> NavigatorOutput:
        """Return the navigator's answers for given trajectory states."""
        trips = torch.arange(batch.trips, device=batch.road.device)
        trip = torch.repeat_interleave(trips, batch.offset.diff(), output_size=batch.steps)
        steps = torch.arange(batch.steps, device=batch.road.device)
        step = torch.repeat_interleave(
            steps, batch.candidate_offset.diff(), output_size=len(batch.candidate_road)
        )
        output: NavigatorOutput = self.navigator(
            state,
            encoding.road_zone[batch.destination[trip]],
            encoding.keys,
            CandidateRows(
                step=step,
                row=encoding.rows(batch.candidate_road),
                distance=batch.candidate_distance,
                angle=batch.candidate_angle,
            ),
        )
        return output


def views_of(
    encoding: NetworkEncoding, batch: StepBatch, dtype: torch.dtype
) -> list[View]:
    """Return how the points of each trip lie to each other, a view a group of trips."""
    views, trip, step = [], 0, 0
    for group in batch.trip_groups:
        offset = batch.offset[trip:trip + group.trips + 1]
        layout = build_layout(offset, group.steps, group.longest, step)
        views.append(View(layout, relation_of(encoding, batch, offset, layout, dtype)))
        trip, step = trip + group.trips, step + group.steps
    return views


def relation_of(
    encoding: NetworkEncoding, batch: StepBatch, offset: Int[Tensor, " G+1"], layout: Layout,
    dtype: torch.dtype,
) -> Relation:
    """Return how the points of the trips at `offset` lie to each other."""
    point = encoding.point_m[batch.road[layout.steps]]
    first = encoding.point_m[batch.road[offset[:-1]]]
    # Float32 is exact to millimetres only near the origin: count from each trip's start.
    wide = torch.promote_types(dtype, torch.float32)
    place = (layout.pad(point) - first[:, None]).to(wide)
    clock = layout.pad(batch.elapsed_min[layout.steps].to(wide)[:, None]).squeeze(2)
    later = torch.ones(layout.length, layout.length, dtype=torch.bool, device=point.device)
    return Relation(*relate(place, clock, place, clock), later.triu(1)[None, None])
