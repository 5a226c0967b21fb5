"""Which roads a batch can see through two layers of graph attention."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hoserkd.engine.student.features import expand_segments
from hoserkd.engine.student.message_edges import MessageEdges
from hoserkd.engine.student.tables import NetworkTables

WORTHWHILE_SHARE = 0.7
"""Above this share of roads two hops away, all roads at once cost less."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The part of the road graph that two layers need to embed some of the roads."""

    road: Int[Tensor, " V"] | None
    """Roads that enter the first layer; None: all, in order."""
    first: MessageEdges
    second: MessageEdges
    embedded: Int[Tensor, " N"] | None
    """Roads that leave the second layer; None: all, in order."""
    row: Int[Tensor, " R"] | None
    """Row of each road's embedding, meaningless for roads that are not embedded; None: the road
    itself."""


def whole_network(tables: NetworkTables) -> Surroundings:
    """Return the surroundings of all roads."""
    target, _, _ = expand_segments(tables.edge_offset.diff(), len(tables.edge_source))
    edges = MessageEdges(tables.edge_offset, target, tables.edge_source, tables.edge_attr, None)
    return Surroundings(None, edges, edges, None, None)


def surroundings_of(tables: NetworkTables, roads: Int[Tensor, " N"]) -> Surroundings:
    """Return what must be computed to embed `roads` exactly; all roads where that is cheaper."""
    if tables.device.type == "cuda" and len(roads) >= tables.roads:
        # So many see nearly all there is, and counting them would make the host wait.
        return whole_network(tables)
    seen = torch.zeros(tables.roads, dtype=torch.bool, device=tables.device)
    seen[roads] = True
    core = torch.nonzero(seen).squeeze(1)
    near = _with_senders(tables, core, seen)
    far = _with_senders(tables, near, seen)
    if len(far) > WORTHWHILE_SHARE * tables.roads:
        return whole_network(tables)
    row_far, row_near, row = (_rows(part, tables.roads) for part in (far, near, core))
    return Surroundings(
        road=far,
        first=_edges_into(tables, near, row_far),
        second=_edges_into(tables, core, row_near),
        embedded=core,
        row=row,
    )


def _with_senders(
    tables: NetworkTables, roads: Int[Tensor, " N"], seen: Bool[Tensor, " R"]
) -> Int[Tensor, " M"]:
    """Return `roads` and all that send to them, in order; marks them in `seen`."""
    if tables.device.type == "cpu":
        from hoserkd.engine.student.edge_kernels import mark_senders

        offset, source = tables.edge_offset.numpy(), tables.edge_source.numpy()
        mark_senders(offset, source, roads.numpy(), seen.numpy())
    else:
        seen[tables.edge_source[_incoming(tables, roads)[1]]] = True
    return torch.nonzero(seen).squeeze(1)


def _incoming(
    tables: NetworkTables, roads: Int[Tensor, " N"]
) -> tuple[Int[Tensor, " E"], Int[Tensor, " E"], Int[Tensor, " N+1"]]:
    """Return (position in `roads`, edge, offset) of the edges into `roads`."""
    start = tables.edge_offset[roads]
    target, position, offset = expand_segments(tables.edge_offset[roads + 1] - start)
    return target, start[target] + position, offset


def _edges_into(
    tables: NetworkTables, roads: Int[Tensor, " N"], row: Int[Tensor, " R"]
) -> MessageEdges:
    if tables.device.type == "cpu":
        from hoserkd.engine.student.edge_kernels import edges_into

        parts = (tables.edge_offset, tables.edge_source, tables.edge_attr, roads, row)
        offset, target, source, attr = map(
            torch.from_numpy, edges_into(*(part.numpy() for part in parts))
        )
        return MessageEdges(offset, target, source, attr, row[roads])
    target, edge, offset = _incoming(tables, roads)
    return MessageEdges(
        offset, target, row[tables.edge_source[edge]], tables.edge_attr[edge], row[roads]
    )


def _rows(roads: Int[Tensor, " N"], total: int) -> Int[Tensor, " R"]:
    row = roads.new_zeros(total)
    row[roads] = torch.arange(len(roads), device=roads.device)
    return row
