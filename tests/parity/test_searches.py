import json

import numpy as np
import pytest
import torch
from public_city import RECORDED, public_city

from hoserkd.engine.config import GenerateConfig
from hoserkd.engine.events import Silent, never_stop
from hoserkd.engine.generate import generate_trips
from hoserkd.engine.search.queries import Queries
from hoserkd.engine.student.storage import load_student


def seconds(times):
    return np.array([t.removesuffix("Z") for t in times], "datetime64[s]").astype(np.int64)


@pytest.fixture(scope="module")
def recorded():
    return json.loads((RECORDED / "searches.json").read_text())


@pytest.mark.parametrize("max_steps", [5000, 12])
@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_searches_with_public_weights_give_the_recorded_roads_and_times(
    recorded, max_steps, batch_size
):
    """None of the recorded searches meets two nodes of one log-probability, so none is left out."""
    searches = [s for s in recorded if s["max_steps"] == max_steps]
    city = public_city()
    queries = Queries(np.array([s["origin"] for s in searches]),
                      np.array([s["destination"] for s in searches]),
                      seconds([s["departure"] for s in searches]))
    config = GenerateConfig(max_steps=max_steps, batch_size=batch_size)
    chunks = list(generate_trips(
        load_student(RECORDED / "best.pth", city), city, queries, config,
        device=torch.device("cpu"), seed=0, observer=Silent(), stop=never_stop))
    found = [(chunk.road[a:b].tolist(), chunk.entered_at_s[a:b].tolist())
             for chunk in chunks
             for a, b in zip(chunk.offset[:-1], chunk.offset[1:], strict=True)]
    assert len(found) == len(searches) == 60
    for (roads, times), search in zip(found, searches, strict=True):
        assert roads == search["rid_list"]
        assert times == seconds(search["time_list"]).tolist()
