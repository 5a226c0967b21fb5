"""The recorded answers of the public teacher, through our export."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from hoserkd.engine.teacher.export import ExportOptions, export_checkpoint
from hoserkd.engine.teacher.prefix_trie import build_trie, ragged_index, walk_trie
from hoserkd.engine.teacher.storage import load_teacher

DATA = Path(__file__).parents[1] / "data" / "lmtad"
TOLERANCE = {"atol": 1e-4, "rtol": 0.0}


@pytest.fixture(scope="module", params=["plain", "compiled"])
def public(request, tmp_path_factory):
    """Return teacher, recordings and what the recording says about itself."""
    place = DATA / request.param
    output = tmp_path_factory.mktemp("teacher") / request.param
    export_checkpoint(place / "ckpt.pt", output, ExportOptions(bounds=(41.0, -8.7, 41.1, -8.6)))
    about = json.loads((place / "about.json").read_text())
    return load_teacher(output), np.load(place / "expected.npz"), about


def sequences(recorded) -> list[torch.Tensor]:
    offset = recorded["offset"]
    return [torch.from_numpy(recorded["token"][a:b])
            for a, b in pairwise(offset)]


def test_every_recorded_logit_is_reproduced(public):
    teacher, recorded, about = public
    assert teacher.sot_id == about["sot_id"]
    found = [teacher.model.all_logits(teacher.model(tokens.unsqueeze(0))[0])
             for tokens in sequences(recorded)]
    torch.testing.assert_close(torch.cat(found), torch.from_numpy(recorded["logits"]), **TOLERANCE)


def test_padding_into_one_batch_reproduces_them_too(public):
    teacher, recorded, _ = public
    parts = sequences(recorded)
    batch = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=teacher.pad_id)
    hidden = teacher.model(batch)
    found = torch.cat([hidden[i, :len(tokens)] for i, tokens in enumerate(parts)])
    torch.testing.assert_close(teacher.model.all_logits(found),
                               torch.from_numpy(recorded["logits"]), **TOLERANCE)


@pytest.mark.parametrize("window", [2, 4, 8])
def test_recorded_windows_are_reproduced_by_the_trie(public, window):
    teacher, recorded, _ = public
    longest = max(sequences(recorded), key=len)[1:]
    expected = torch.from_numpy(recorded[f"window{window}"])
    assert len(expected) == len(longest)
    trie, contexts = build_trie(longest, torch.zeros_like(longest),
                                torch.tensor([0, len(longest)]), window)
    logits = torch.full((len(contexts.road), teacher.vocab_size), torch.nan)

    def visit(depth, first, end, hidden):
        row = trie.levels[depth - 1].row[first:end + 1]
        index, owner = ragged_index(row[:-1], row.diff())
        logits[index] = teacher.model.all_logits(hidden)[owner]

    walk_trie(teacher.model, trie, teacher.sot_id, visit, batch_size=16)
    torch.testing.assert_close(logits[contexts.step_row], expected, **TOLERANCE)
