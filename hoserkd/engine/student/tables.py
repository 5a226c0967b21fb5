"""Per-road tables on a device, from which every input of the student is computed."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int, Int64
from torch import Tensor

from hoserkd.engine.geo import EARTH_RADIUS_M
from hoserkd.engine.types import RoadNetwork

Features = Literal["geographic", "aaai2025"]


@dataclass(frozen=True, slots=True)
class NetworkTables:
    """What the student reads of a road network, on one device (ENGINE.md section 2)."""

    features: Features
    """Convention that every feature computed from these tables follows."""
    highway_types: int
    max_candidates: int
    """Longest candidate list of the network."""
    length: Float[Tensor, " R"]
    """Standardised log1p(metres)."""
    highway: Int[Tensor, " R"]
    highway_verbatim: Int[Tensor, " R"] | None
    """See `RoadNetwork.highway_verbatim`."""
    lon: Float[Tensor, " R"]
    """Standardised longitude of the centroid."""
    lat: Float[Tensor, " R"]
    """Standardised latitude of the centroid."""
    zone: Int[Tensor, " R"]
    zone_weight: Float[Tensor, "Z Z"]
    """Zone graph as the graph convolution applies it: row i gathers from the columns."""
    centroid_rad: Float64[Tensor, "R 2"]
    """Longitude and latitude in radians."""
    point_m: Float64[Tensor, "R 3"]
    """Centroid in metres on the sphere, relative to the city's mean point."""
    end_lonlat: Float64[Tensor, "R 2"]
    candidate_offset: Int[Tensor, " R+1"]
    candidate_road: Int[Tensor, " K"]
    candidate_bearing: Float64[Tensor, " K"]
    """Radians, from the end of the road to the end of its candidate."""
    edge_offset: Int[Tensor, " R+1"]
    """Adjacency edges by the road they point to, one self loop each included."""
    edge_source: Int[Tensor, " E"]
    edge_attr: Float[Tensor, "E 2"]

    @property
    def roads(self) -> int:
        """Number of roads."""
        return self.zone.shape[0]

    @property
    def zones(self) -> int:
        """Number of zones."""
        return self.zone_weight.shape[0]

    def highway_ranks(self, types: int) -> Int[Tensor, " R"]:
        """Return the roads' classes as a model with so many classes counts them."""
        if types == self.highway_types or self.highway_verbatim is None:
            return self.highway
        return self.highway_verbatim

    @property
    def device(self) -> torch.device:
        """Where the tables live."""
        return self.zone.device


def build_network_tables(
    network: RoadNetwork, features: Features, device: torch.device
) -> NetworkTables:
    """Return the tables of `network` in the given feature convention."""
    length, lon, lat = _road_attributes(network, features)
    edge_offset, edge_source, edge_attr = edges_by_target(
        network.adjacency, network.adjacency_attr, network.roads
    )
    counts = np.diff(network.candidates.offset)

    def put(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    return NetworkTables(
        features=features,
        highway_types=len(network.highway_names),
        max_candidates=int(counts.max(initial=0)),
        length=put(length),
        highway=put(network.highway.astype(np.int64)),
        highway_verbatim=(
            None if network.highway_verbatim is None
            else put(network.highway_verbatim.astype(np.int64))
        ),
        lon=put(lon),
        lat=put(lat),
        zone=put(network.zone.astype(np.int64)),
        zone_weight=put(zone_weights(network.zone_transitions)),
        centroid_rad=put(np.radians(network.centroid_lonlat)),
        point_m=put(_points_m(network.centroid_lonlat)),
        end_lonlat=put(network.end_lonlat.astype(np.float64)),
        candidate_offset=put(network.candidates.offset.astype(np.int64)),
        candidate_road=put(network.candidates.road.astype(np.int64)),
        candidate_bearing=put(_candidate_bearings(network, features)),
        edge_offset=put(edge_offset),
        edge_source=put(edge_source),
        edge_attr=put(edge_attr),
    )


def bearing_rad(
    start: Float64[Tensor, "*N 2"], end: Float64[Tensor, "*N 2"], features: Features
) -> Float64[Tensor, "*N"]:
    """Return the direction from `start` to `end` (degrees) in [0, 2 pi), 0 for no distance.

    `geographic`: the initial bearing of the great circle. `aaai2025`: the public code hands
    (lon, lat) to a formula on the tangent plane that takes (lat, lon), which skews all angles.
    """
    if features == "aaai2025":
        northing = end[..., 0] - start[..., 0]
        easting = torch.cos(torch.pi / 180 * start[..., 0]) * (end[..., 1] - start[..., 1])
        angle = torch.atan2(northing, easting)
    else:
        lon, lat = torch.deg2rad(start).unbind(-1)
        lon_end, lat_end = torch.deg2rad(end).unbind(-1)
        turn = lon_end - lon
        northing = lat.cos() * lat_end.sin() - lat.sin() * lat_end.cos() * turn.cos()
        angle = torch.atan2(turn.sin() * lat_end.cos(), northing)
    return torch.where(angle < 0, angle + 2 * torch.pi, angle)


def zone_weights(transitions: Int64[np.ndarray, "Z Z"]) -> Float32[np.ndarray, "Z Z"]:
    """Return the zone graph's matrix with both normalisations and self loops (ENGINE.md 2).

    Transition counts are divided by the roots of both zones' row sums; the convolution then adds
    self loops of weight 1 where there are none and normalises by the incoming weights.
    """
    counts = transitions.astype(np.float32)
    root = 1 / np.sqrt(np.maximum(counts.sum(1), np.float32(1)))
    weight = counts * root[:, None] * root[None, :]
    diagonal = np.diagonal(weight)
    np.fill_diagonal(weight, np.where(diagonal == 0, np.float32(1), diagonal))
    incoming = 1 / np.sqrt(weight.sum(0))
    normalised = incoming[:, None] * weight * incoming[None, :]
    return np.ascontiguousarray(normalised.T)


def edges_by_target(
    adjacency: Int64[np.ndarray, "2 E"], attr: Float32[np.ndarray, "E 2"], roads: int
) -> tuple[Int64[np.ndarray, " R+1"], Int64[np.ndarray, " F"], Float32[np.ndarray, "F 2"]]:
    """Return (offset, source, attr) of the edges by target road, with a self loop a road.

    A self loop's attributes are the mean over the road's other incoming edges, 0 without any.
    """
    proper = adjacency[0] != adjacency[1]
    source, target, attr = adjacency[0][proper], adjacency[1][proper], attr[proper]
    count = np.bincount(target, minlength=roads)
    loop = np.stack(
        [np.bincount(target, weights=attr[:, i], minlength=roads) for i in range(2)], axis=1
    ) / np.maximum(count, 1)[:, None]
    every = np.arange(roads)
    order = np.argsort(np.concatenate([target, every]), kind="stable")
    offset = np.concatenate([[0], np.cumsum(count + 1)])
    sources = np.concatenate([source, every])[order]
    attrs = np.concatenate([attr, loop.astype(np.float32)])[order]
    return offset.astype(np.int64), sources.astype(np.int64), attrs


def _road_attributes(
    network: RoadNetwork, features: Features
) -> tuple[Float32[np.ndarray, " R"], ...]:
    lon, lat = network.centroid_lonlat[:, 0], network.centroid_lonlat[:, 1]
    if features == "aaai2025":
        # The public code rounds to float32 before it standardises, which moves a road by metres.
        length, lon, lat = (v.astype(np.float32) for v in (network.length_m, lon, lat))
    else:
        length = network.length_m
    return tuple(_standardised(v) for v in (np.log1p(length), lon, lat))


def _standardised(values: Float[np.ndarray, " R"]) -> Float32[np.ndarray, " R"]:
    spread = values.std()
    centred = values - values.mean()
    scaled: Float32[np.ndarray, " R"] = (centred / max(spread, 1e-12)).astype(np.float32)
    return scaled


def _points_m(lonlat: Float64[np.ndarray, "R 2"]) -> Float64[np.ndarray, "R 3"]:
    lon, lat = np.radians(lonlat).T
    points = EARTH_RADIUS_M * np.stack(
        [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1
    )
    centred: Float64[np.ndarray, "R 3"] = points - points.mean(0)
    return centred


def _candidate_bearings(network: RoadNetwork, features: Features) -> Float64[np.ndarray, " K"]:
    road = np.repeat(np.arange(network.roads), np.diff(network.candidates.offset))
    start = torch.from_numpy(network.end_lonlat[road])
    end = torch.from_numpy(network.end_lonlat[network.candidates.road])
    return bearing_rad(start, end, features).numpy()
