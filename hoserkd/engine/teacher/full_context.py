"""The teacher's hidden state at every step of whole trips: one causal pass a trip.

A trip longer than the model's positions is asked with [SOT, the last block_size - 1 tokens]: SOT
is never cut, and no step goes unanswered.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from hoserkd.engine.teacher.lmtad import LMTAD


@dataclass(frozen=True, slots=True)
class Span:
    """A run of a split's steps whose tokens make one sequence."""

    first: int
    """Its first step."""
    length: int
    asked: int
    """The last so many of its steps are answered by this sequence."""


def spans(step_offset: Int64[np.ndarray, " N+1"], block_size: int) -> list[Span]:
    """Return the sequences that answer every step: one a trip, and one a step that overflows."""
    room = block_size - 1
    found = []
    for first, end in zip(step_offset[:-1].tolist(), step_offset[1:].tolist(), strict=True):
        head = min(end - first, room)
        if head:
            found.append(Span(first, head, head))
        found += [Span(step - room + 1, room, 1) for step in range(first + room, end)]
    return found


def batches_of_spans(step_offset: Int64[np.ndarray, " N+1"], block_size: int, batch_tokens: int
                     ) -> Iterator[list[Span]]:
    """Yield the sequences by length, as many at once as `batch_tokens` allows."""
    batch: list[Span] = []
    for span in sorted(spans(step_offset, block_size), key=lambda s: (s.length, s.first)):
        if batch and (len(batch) + 1) * (span.length + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(span)
    if batch:
        yield batch


@torch.no_grad()
def full_hidden(model: LMTAD, token: Int[Tensor, " S"], sot_id: int, batch: list[Span]
                ) -> tuple[Int[Tensor, " Q"], Float[Tensor, "Q C"]]:
    """Return the steps that a batch of sequences answers, and the hidden state at each.

    Args:
        model: In evaluation mode.
        token: Grid token of every step of the split.
        sot_id: Token before every sequence.
        batch: Sequences, the longest last.
    """
    device = token.device
    first, length, asked = (torch.tensor(column, device=device) for column in
                            zip(*((s.first, s.length, s.asked) for s in batch), strict=True))
    longest = max(span.length for span in batch)
    column = torch.arange(longest, device=device)
    inside = column < length.unsqueeze(1)
    # What stands right of a sequence is never attended to, so any token will do.
    step = torch.where(inside, first.unsqueeze(1) + column, 0)
    sequence = torch.cat([torch.full_like(step[:, :1], sot_id), token[step]], dim=1)
    hidden = model(sequence)[:, 1:]
    answered = inside & (column >= (length - asked).unsqueeze(1))
    return step[answered], hidden[answered]
