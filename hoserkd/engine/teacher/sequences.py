"""Trips as the teacher reads them: SOT t_0 .. t_n EOT, and PAD on the right."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from hoserkd.engine.teacher.storage import TeacherCard
from hoserkd.engine.types import TrajectorySet


@dataclass(frozen=True, slots=True)
class TokenTrips:
    """The cells of a split's trips on one device, and how long each sequence is."""

    token: Int[Tensor, " P"]
    """Grid token of every point, trip by trip; the destination counts."""
    first: Int64[np.ndarray, " N"]
    """First point of each trip."""
    length: Int64[np.ndarray, " N"]
    """Tokens of each sequence, SOT and EOT included, cut to the model's positions."""
    points: Int64[np.ndarray, " N"]
    """Points of each trip."""
    sot_id: int
    eot_id: int
    pad_id: int

    def __len__(self) -> int:
        return len(self.first)

    def chosen(self, trips: Int64[np.ndarray, " n"]) -> Self:
        """Return some of the trips."""
        return replace(self, first=self.first[trips], length=self.length[trips],
                       points=self.points[trips])

    def batch(self, trips: Int64[np.ndarray, " B"]) -> Int64[Tensor, "B T"]:
        """Return some sequences, padded on the right; one too long loses its end, EOT too."""
        device = self.token.device
        first, points, length = (torch.from_numpy(values[trips]).to(device).unsqueeze(1)
                                 for values in (self.first, self.points, self.length))
        column = torch.arange(int(self.length[trips].max()), device=device)
        place = (first + column - 1).clamp(0, len(self.token) - 1)
        tokens = torch.where(column <= points, self.token[place], self.eot_id)
        tokens = torch.where(column < length, tokens, self.pad_id)
        tokens[:, 0] = self.sot_id
        return tokens.long()


def token_trips(trips: TrajectorySet, cells: Int64[np.ndarray, " R"], card: TeacherCard,
                device: torch.device) -> TokenTrips:
    """Return a split's trips as tokens of a teacher's grid.

    Args:
        trips: The split, or generated trips packed in the same way.
        cells: Grid token of each road.
        card: Whose special tokens and positions.
        device: Where the tokens shall lie.
    """
    token = torch.from_numpy(cells[np.asarray(trips.road)].astype(np.int32)).to(device)
    return cell_trips(token, np.diff(trips.offset), card)


def cell_trips(token: Int[Tensor, " P"], points: Int64[np.ndarray, " N"], card: TeacherCard
               ) -> TokenTrips:
    """Return trips that are cells already, packed, of so many points each."""
    return TokenTrips(
        token=token, first=np.cumsum(points) - points, points=points,
        length=np.minimum(points + 2, card.dimensions.block_size),
        sot_id=card.sot_id, eot_id=card.eot_id, pad_id=card.pad_id)


def token_batches(length: Int64[np.ndarray, " N"], batch_tokens: int,
                  shuffle: tuple[int, int] | None = None) -> list[Int64[np.ndarray, " _"]]:
    """Return the trips of every batch of an epoch, of like length, each trip once.

    There are as many batches, of the same shapes, in every epoch: which trips of a length meet
    and the order of the batches are drawn.

    Args:
        length: Tokens of each sequence.
        batch_tokens: Tokens of a batch, padding included; one sequence always fits.
        shuffle: (seed, epoch), or None for the order of length.
    """
    order = np.arange(len(length))
    generator = None
    if shuffle is not None:
        generator = np.random.default_rng(shuffle)
        order = generator.permutation(len(length))
    order = order[np.argsort(length[order], kind="stable")]
    batches, start = [], 0
    while start < len(order):
        end = _batch_end(length[order], start, batch_tokens)
        batches.append(order[start:end])
        start = end
    if generator is not None:
        batches = [batches[i] for i in generator.permutation(len(batches))]
    return batches


def _batch_end(length: Int64[np.ndarray, " N"], start: int, batch_tokens: int) -> int:
    """Return where a batch that begins at `start` of the sorted lengths has to end."""
    most = max(batch_tokens // int(length[start]), 1)
    ahead = length[start:start + most]
    fits = ahead * np.arange(1, len(ahead) + 1) <= batch_tokens
    return start + max(int(fits.sum()), 1)
