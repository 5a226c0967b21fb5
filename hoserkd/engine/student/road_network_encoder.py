"""From a road network to embeddings of its roads and zones (ENGINE.md section 2)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hoserkd.engine.config import StudentConfig
from hoserkd.engine.student.graph_layers import GATv2Layer, GCNLayer
from hoserkd.engine.student.message_edges import MessageEdges
from hoserkd.engine.student.surroundings import Surroundings
from hoserkd.engine.student.tables import NetworkTables


class RoadGAT(nn.Module):
    """Two graph attention layers with a ReLU between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([GATv2Layer(dim), GATv2Layer(dim)])

    def forward(
        self, x: Float[Tensor, "V d"], first: MessageEdges, second: MessageEdges
    ) -> Float[Tensor, "T d"]:
        """Return the states of the second layer's target rows."""
        hidden: Tensor = self.convs[0](x, first)
        states: Tensor = self.convs[1](hidden.relu(), second)
        return states


class ZoneGCN(nn.Module):
    """Two graph convolutions with a ReLU between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([GCNLayer(dim), GCNLayer(dim)])

    def forward(
        self, x: Float[Tensor, "Z d"], weight: Float[Tensor, "Z Z"]
    ) -> Float[Tensor, "Z d"]:
        """Return the states of all zones."""
        hidden: Tensor = self.convs[0](x, weight)
        states: Tensor = self.convs[1](hidden.relu(), weight)
        return states


class RoadNetworkEncoder(nn.Module):
    """Embeds roads by identity, attributes and neighbours, and zones by their traffic."""

    def __init__(self, config: StudentConfig, roads: int, highway_types: int, zones: int) -> None:
        super().__init__()
        self.road_id_emb = nn.Embedding(roads, config.road_id_dim)
        self.len_emb = nn.Linear(1, config.attribute_dim)
        self.type_emb = nn.Embedding(highway_types, config.attribute_dim)
        self.lon_emb = nn.Linear(1, config.attribute_dim)
        self.lat_emb = nn.Linear(1, config.attribute_dim)
        self.zone_id_emb = nn.Embedding(zones, config.hidden_dim)
        self.road_gat = RoadGAT(config.hidden_dim)
        self.zone_gcn = ZoneGCN(config.hidden_dim)

    def embed_roads(
        self, tables: NetworkTables, surroundings: Surroundings
    ) -> Float[Tensor, "V d"]:
        """Return the embeddings of the roads that `surroundings` is about."""
        road = surroundings.road
        dtype = self.len_emb.weight.dtype

        def own(values: Tensor) -> Tensor:
            return values if road is None else values.index_select(0, road)

        def scalar(values: Tensor) -> Tensor:
            return own(values).to(dtype)[:, None]

        x = torch.cat(
            [
                own(self.road_id_emb.weight),
                self.len_emb(scalar(tables.length)),
                self.type_emb(own(tables.highway_ranks(self.type_emb.num_embeddings))),
                self.lon_emb(scalar(tables.lon)),
                self.lat_emb(scalar(tables.lat)),
            ],
            dim=1,
        )
        embedded: Tensor = self.road_gat(x, surroundings.first, surroundings.second)
        return embedded

    def embed_zones(self, tables: NetworkTables) -> Float[Tensor, "Z d"]:
        """Return the embeddings of all zones."""
        embedded: Tensor = self.zone_gcn(self.zone_id_emb.weight, tables.zone_weight)
        return embedded
