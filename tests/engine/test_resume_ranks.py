"""Two processes that train together, with dropout, resume to the same bits."""

import multiprocessing
from pathlib import Path

import pytest
import torch
from test_resume import equal
from toy_training import STUDENT, StopAfter, ToyTeacher, toy_city, toy_config

from hoserkd.engine.config import DistillConfig
from hoserkd.engine.events import Silent, never_stop
from hoserkd.engine.train import train_student
from hoserkd.engine.training import journal
from hoserkd.engine.training.distributed import Ranks
from hoserkd.errors import InterruptedRunError

TAUGHT = DistillConfig(lambda_kl=0.5, temperature_end=3.0, steps=2)
CONFIG = toy_config(TAUGHT, STUDENT.model_copy(update={"dropout": 0.3}), epochs=2, accumulation=1)


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    made = toy_city(tmp_path_factory.mktemp("city"), trips=12)
    # The processes are forked from this one: what it has loaded they need not load again.
    train_student(toy_config(max_steps=1), made, directory=tmp_path_factory.mktemp("warm"))
    return made


def process(rank: int, city, directory: Path, meeting: Path, stop: int | None, resume: bool,
            answers) -> None:
    """Train as one of two processes, and tell what this one's generator draws at the end."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    journal.PARCEL_STEPS = 1  # several processes ask whether to stop at every parcel
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    try:
        train_student(CONFIG, city, directory=directory, ranks=Ranks(rank, 2), resume=resume,
                      teacher_sources=dict.fromkeys(("train", "val"), ToyTeacher()),
                      observer=Silent(), stop=never_stop if stop is None else StopAfter(stop))
        answers.put((rank, torch.rand(3).tolist()))
    except InterruptedRunError:
        answers.put((rank, None))
    finally:
        dist.destroy_process_group()


def train_together(city, directory: Path, meeting: Path, stop: int | None = None,
                   resume: bool = False) -> dict[int, list[float] | None]:
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    team = [context.Process(target=process,
                            args=(rank, city, directory, meeting, stop, resume, answers))
            for rank in range(2)]
    for each in team:
        each.start()
    for each in team:
        each.join(120)
    assert [each.exitcode for each in team] == [0, 0]
    return dict(answers.get() for _ in team)


@pytest.mark.usefixtures("unchecked")
def test_two_processes_with_dropout_resume_to_the_same_bits(city, tmp_path):
    straight = train_together(city, tmp_path / "one", tmp_path / "a")
    assert train_together(city, tmp_path / "two", tmp_path / "b", stop=1) == {0: None, 1: None}
    assert torch.load(tmp_path / "two" / "last.ckpt", weights_only=True)["state"]["step"] == 2
    resumed = train_together(city, tmp_path / "two", tmp_path / "c", resume=True)
    assert resumed == straight
    assert straight[0] != straight[1]
    equal(*(torch.load(tmp_path / name / "last.ckpt", weights_only=True)
            for name in ("one", "two")))
