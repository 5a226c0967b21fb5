"""HOSER as its definition words it: the plain form that the fast one is measured against.

Features are computed trip by trip on the CPU, batches are padded in both axes, PyTorch Geometric's
layers run over all roads, attention builds its (B, T, T, h) tensors, and the navigator projects
every gathered candidate. The parameters are the fast model's own.
"""

import math
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn.models import GAT, GCN

from hoserkd.engine.geo import bearing_rad, folded_share, great_circle_m
from hoserkd.engine.student.features import clock_features
from hoserkd.engine.student.hoser import Hoser
from hoserkd.engine.student.tables import NetworkTables
from hoserkd.engine.types import RoadNetwork, TrajectorySet


@dataclass(frozen=True)
class PlainTrip:
    """What the definition asks of one trip of n steps."""

    road: np.ndarray
    time_of_day: np.ndarray
    distance: np.ndarray
    interval: np.ndarray
    destination: int
    candidate: list[np.ndarray]
    candidate_distance: list[np.ndarray]
    candidate_angle: list[np.ndarray]
    label: np.ndarray
    travel_time_s: np.ndarray


def plain_trip(network: RoadNetwork, trips: TrajectorySet, trip: int) -> PlainTrip:
    """Return the features of one trip, step by step (`geographic`)."""
    start, stop = trips.offset[trip : trip + 2]
    road, entered = trips.road[start:stop], trips.entered_at_s[start:stop]
    steps, destination = road[:-1], int(road[-1])
    times = torch.from_numpy(np.array(entered[:-1]))
    time_of_day, _ = clock_features(times, times[:1].expand_as(times), "geographic")
    centroid, end = network.centroid_lonlat, network.end_lonlat
    metres = great_circle_m(centroid[steps][:, None], centroid[steps][None])
    minutes = np.abs(entered[:-1][:, None] - entered[:-1][None]) / 60
    offset, follow = network.candidates.offset, network.candidates.road
    candidate, distance, angle, label = [], [], [], []
    for here, taken in zip(steps, road[1:], strict=True):
        options = follow[offset[here] : offset[here + 1]]
        away = great_circle_m(centroid[options], centroid[destination][None])
        ahead = bearing_rad(end[here], end[destination])
        candidate.append(options)
        distance.append(np.log1p((away - away.min()) / 100).astype(np.float32))
        turn = folded_share(bearing_rad(end[here][None], end[options]), ahead)
        angle.append(turn.astype(np.float32))
        label.append(int(np.flatnonzero(options == taken)[0]))
    return PlainTrip(
        steps, time_of_day.numpy(), (metres.clip(max=1000) / 1000).astype(np.float32),
        (minutes.clip(max=5) / 5).astype(np.float32), destination, candidate, distance, angle,
        np.array(label), np.diff(entered).astype(np.float32),
    )


@dataclass(frozen=True)
class PlainBatch:
    """Trips padded to the longest, candidates to the longest list."""

    road: Tensor
    time_of_day: Tensor
    distance: Tensor
    interval: Tensor
    length: Tensor
    destination: Tensor
    candidate: Tensor
    candidate_distance: Tensor
    candidate_angle: Tensor
    candidate_count: Tensor
    label: Tensor
    travel_time_s: Tensor

    def to(self, device: torch.device) -> Self:
        """Return the batch on `device`."""
        return type(self)(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def plain_batch(trips: list[PlainTrip]) -> PlainBatch:
    """Return the trips padded, trip by trip and step by step."""
    size, steps = len(trips), max(len(t.road) for t in trips)
    widest = max(len(c) for t in trips for c in t.candidate)
    shape = {"road": (size, steps), "pair": (size, steps, steps), "wide": (size, steps, widest)}
    arrays = {
        "road": np.zeros(shape["road"], np.int64),
        "time_of_day": np.zeros(shape["road"], np.float32),
        "distance": np.zeros(shape["pair"], np.float32),
        "interval": np.zeros(shape["pair"], np.float32),
        "candidate": np.zeros(shape["wide"], np.int64),
        "candidate_distance": np.zeros(shape["wide"], np.float32),
        "candidate_angle": np.zeros(shape["wide"], np.float32),
        "candidate_count": np.zeros(shape["road"], np.int64),
        "label": np.full(shape["road"], -100, np.int64),
        "travel_time_s": np.zeros(shape["road"], np.float32),
    }
    for row, trip in enumerate(trips):
        n = len(trip.road)
        for name in ("road", "time_of_day", "label", "travel_time_s"):
            arrays[name][row, :n] = getattr(trip, name)
        for name in ("distance", "interval"):
            arrays[name][row, :n, :n] = getattr(trip, name)
        for step in range(n):
            count = len(trip.candidate[step])
            arrays["candidate_count"][row, step] = count
            for name in ("candidate", "candidate_distance", "candidate_angle"):
                arrays[name][row, step, :count] = getattr(trip, name)[step]
    return PlainBatch(
        **{name: torch.from_numpy(values) for name, values in arrays.items()},
        length=torch.tensor([len(t.road) for t in trips]),
        destination=torch.tensor([t.destination for t in trips]),
    )


class PlainHoser(nn.Module):
    """The definition of ENGINE.md section 2, on the parameters of a fast model."""

    def __init__(self, model: Hoser, network: RoadNetwork, tables: NetworkTables) -> None:
        super().__init__()
        self.model = model
        self.tables = tables
        dim = model.config.hidden_dim
        self.gat = GAT(dim, dim, num_layers=2, out_channels=dim, v2=True, edge_dim=2)
        self.gat.load_state_dict(model.road_network_encoder.road_gat.state_dict())
        self.gcn = GCN(dim, dim, num_layers=2, out_channels=dim, cached=True)
        self.gcn.load_state_dict(model.road_network_encoder.zone_gcn.state_dict())
        device = tables.device
        self.edge = torch.from_numpy(network.adjacency).to(device)
        self.edge_attr = torch.from_numpy(network.adjacency_attr).to(device)
        counts = network.zone_transitions.astype(np.float32)
        root = 1 / np.sqrt(np.maximum(counts.sum(1), 1))
        weight = (counts * root[:, None] * root)[counts.nonzero()]
        self.zone_edge = torch.from_numpy(np.stack(counts.nonzero())).to(device)
        self.zone_weight = torch.from_numpy(weight).to(device)
        self.to(device)

    def encode(self) -> tuple[Tensor, Tensor]:
        """Return the embeddings of all roads and zones."""
        encoder, tables = self.model.road_network_encoder, self.tables
        x = torch.cat(
            [
                encoder.road_id_emb.weight,
                encoder.len_emb(tables.length[:, None]),
                encoder.type_emb(tables.highway),
                encoder.lon_emb(tables.lon[:, None]),
                encoder.lat_emb(tables.lat[:, None]),
            ],
            dim=1,
        )
        road = self.gat(x, self.edge, edge_attr=self.edge_attr)
        zone = self.gcn(encoder.zone_id_emb.weight, self.zone_edge, edge_weight=self.zone_weight)
        return road, zone

    def forward(self, batch: PlainBatch) -> tuple[Tensor, Tensor]:
        """Return padded logits and standardised log travel times."""
        road, zone = self.encode()
        return self.answer(road, zone, batch)

    def answer(self, road: Tensor, zone: Tensor, batch: PlainBatch) -> tuple[Tensor, Tensor]:
        """Return the answers with the road network already encoded."""
        encoder = self.model.trajectory_encoder
        here, around = road[batch.road], zone[self.tables.zone[batch.road]]
        gate = torch.sigmoid(encoder.road_zone_fusion_mlp(torch.cat([here, around], dim=-1)))
        phase = batch.time_of_day[..., None] * encoder.temporal_encoder.freqs
        time = torch.cat([phase.cos(), phase.sin()], dim=-1) * math.sqrt(1 / (2 * road.shape[1]))
        x = torch.cat([here + gate * around, time], dim=-1)
        for block in encoder.blocks:
            x = x + attend(block.attn, block.ln_1(x), batch)
            x = x + block.mlp(block.ln_2(x))
        return self._navigate(x, road, zone, batch)

    def _navigate(
        self, x: Tensor, road: Tensor, zone: Tensor, batch: PlainBatch
    ) -> tuple[Tensor, Tensor]:
        head = self.model.navigator
        goal = zone[self.tables.zone[batch.destination]][:, None].expand(-1, x.shape[1], -1)
        query = head.q_proj(torch.cat([x, goal], dim=-1))[:, :, None]
        candidate = road[batch.candidate]
        metrics = [
            head.metric_distance_proj(batch.candidate_distance[..., None]),
            head.metric_angle_proj(batch.candidate_angle[..., None]),
        ]
        key = head.k_proj(torch.cat([candidate, *metrics], dim=-1))
        logits = head.v_proj(torch.tanh(query + key)).squeeze(-1)
        wide = x[:, :, None].expand(-1, -1, candidate.shape[2], -1)
        halves = [head.time_estimator_linear_1(wide), head.time_estimator_linear_2(candidate)]
        time = head.time_estimator_linear_3(functional.gelu(torch.cat(halves, dim=-1)))
        position = torch.arange(candidate.shape[2], device=candidate.device)
        outside = position >= batch.candidate_count[..., None]
        return logits.masked_fill(outside, -torch.inf), time[..., head.point]


def attend(attention: nn.Module, x: Tensor, batch: PlainBatch) -> Tensor:
    """Return attention with keys and values of their own for every pair of points."""
    trips, steps, width = x.shape
    heads = attention.heads

    def by_head(values: Tensor) -> Tensor:
        return values.view(trips, steps, heads, width // heads).transpose(1, 2)

    query, key, value = map(by_head, attention.c_attn(x).chunk(3, dim=-1))
    pair = torch.stack([batch.distance, batch.interval], dim=-1)
    relative_key = attention.relative_position_emb_k(pair)
    relative_value = attention.relative_position_emb_v(pair)
    by_query = query.permute(0, 2, 1, 3)
    score = query @ key.transpose(-2, -1)
    score = score + (by_query @ relative_key.transpose(-2, -1)).permute(0, 2, 1, 3)
    position = torch.arange(steps, device=x.device)
    hidden = (position[None] > position[:, None])[None, None]
    hidden = hidden | (position >= batch.length[:, None])[:, None, None]
    share = functional.softmax(
        (score / math.sqrt(width // heads)).masked_fill(hidden, -torch.inf), dim=-1
    )
    gathered = share @ value + (share.permute(0, 2, 1, 3) @ relative_value).permute(0, 2, 1, 3)
    return attention.c_proj(gathered.permute(0, 2, 1, 3).flatten(2))


def plain_loss(
    logits: Tensor, time: Tensor, batch: PlainBatch, mean: float, std: float
) -> Tensor:
    """Return cross-entropy plus relative error of log times, over the real steps."""
    real = batch.label >= 0
    label = batch.label[real]
    road = functional.cross_entropy(logits[real], label)
    predicted = time[real].gather(1, label[:, None]).squeeze(1) * std + mean
    actual = torch.log1p(batch.travel_time_s[real])
    return road + ((predicted - actual).abs() / actual.clamp(min=1)).mean()
