from pathlib import Path

import torch
from public_city import RECORDED, public_city

from hoserkd.engine.student.public_export import save_public_checkpoint
from hoserkd.engine.student.storage import load_student


def test_public_student_comes_back_as_it_was(tmp_path: Path) -> None:
    """Read by us and written again, the public file keeps every tensor that is ever used."""
    path = tmp_path / "best.pth"
    student = load_student(RECORDED / "best.pth", public_city())
    save_public_checkpoint(path, student, public_city(), max_len=64)
    ours = torch.load(path, weights_only=True)
    theirs = torch.load(RECORDED / "best.pth", weights_only=True)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert (ours[name].shape, ours[name].dtype) == (value.shape, value.dtype), name
        if "time_estimator." not in name:
            torch.testing.assert_close(ours[name], value, atol=1e-6, rtol=1e-5, msg=name)


def test_exported_student_loads_here_with_the_same_weights(tmp_path: Path) -> None:
    path = tmp_path / "best.pth"
    student = load_student(RECORDED / "best.pth", public_city())
    save_public_checkpoint(path, student, public_city())
    again = load_student(path, public_city())
    for name, value in student.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
