import numpy as np
import pytest
import torch
from public_city import RECORDED, public_city

from hoserkd.engine.config import DataConfig
from hoserkd.engine.student.public_export import save_public_checkpoint
from hoserkd.engine.student.storage import load_student
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.trips.batches import TripSource

UNUSED = "navigator.time_estimator."


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "best.pth"
    city = public_city()
    save_public_checkpoint(path, load_student(RECORDED / "best.pth", city), city, max_len=64)
    return path


def test_public_export_of_public_weights_is_the_file_they_came_from(exported):
    theirs = torch.load(RECORDED / "best.pth", weights_only=True)
    ours = torch.load(exported, weights_only=True)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert (ours[name].shape, ours[name].dtype) == (value.shape, value.dtype), name
        if not name.startswith(UNUSED):
            torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-6, msg=name)


def test_public_export_is_read_back_with_the_same_answers(exported):
    city = public_city()
    tables = build_network_tables(city.network, "aaai2025", torch.device("cpu"))
    source = TripSource(city.split("test"), tables, DataConfig(), torch.device("cpu"))
    batch = source.batch(np.arange(4))
    before, after = (load_student(p, city).model for p in (RECORDED / "best.pth", exported))
    assert torch.equal(before(tables, batch).logits, after(tables, batch).logits)
