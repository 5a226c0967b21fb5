"""A training that is stopped and resumed, however it was started, ends with the same bits.

Compared are the whole last checkpoint (weights, optimiser, generators, state, settings), the best
student with all that its file says, the result and every recorded figure but those of the clock.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from random_city import random_network, random_walks
from safetensors import safe_open
from toy_quantiles import LEVELS
from toy_training import STUDENT, Listener, StopAfter, ToyTeacher, toy_config, weights

from hoserkd.engine.build import build_teacher_sources
from hoserkd.engine.city.storage import City, save_city
from hoserkd.engine.config import DataConfig, DistillConfig, EngineConfig
from hoserkd.engine.events import EpochDone, Rewound, SplitJudged, StepDone
from hoserkd.engine.student.hoser import Hoser
from hoserkd.engine.student.public_export import save_public_checkpoint
from hoserkd.engine.student.storage import (
    LoadedStudent,
    StudentMeta,
    load_student,
    new_student,
    save_student,
)
from hoserkd.engine.train import train_student
from hoserkd.engine.types import TimeStatistics
from hoserkd.errors import InterruptedRunError

# The checks of shapes would take most of the time here, and other tests have them.
pytestmark = pytest.mark.usefixtures("unchecked")
STEPS = 6
CLOCK = ("epoch_s", "trips_per_s", "trip_steps_per_s", "optimiser_steps_per_s")
OTHER_TIMES = TimeStatistics(2.25, 1.5)
DROPOUT = STUDENT.model_copy(update={"dropout": 0.2})
QUANTILE = DROPOUT.model_copy(update={"time_head": "quantile", "quantiles": LEVELS})
DEEP = DROPOUT.model_copy(update={"layers": 2})
TAUGHT = DistillConfig(lambda_kl=0.5, temperature=2.0, temperature_end=3.0, ramp_epochs=1.5,
                       steps=2)


@pytest.fixture(scope="module")
def city(tmp_path_factory) -> City:
    """Return a city whose road classes the public code counts otherwise than hoserkd."""
    network = random_network()
    verbatim = np.where(np.arange(network.roads) % 5 == 0, 3, network.highway).astype(np.int64)
    splits = {name: random_walks(network, trips=count, seed=seed) for seed, (name, count) in
              enumerate([("train", 12), ("val", 6), ("test", 5)])}
    return save_city(tmp_path_factory.mktemp("city"), "toy",
                     replace(network, highway_verbatim=verbatim), splits, TimeStatistics(3.5, 0.8))


@pytest.fixture(scope="module")
def files(city, tmp_path_factory) -> dict[str, Path]:
    """Return student files by kind, whose outputs mean something else than a fresh student's."""
    folder = tmp_path_factory.mktemp("students")
    network = city.network
    torch.manual_seed(11)
    meta = StudentMeta(QUANTILE, network.roads, len(network.highway_names), network.zones,
                       OTHER_TIMES, candidate_top_k=3)
    save_student(folder / "ours.safetensors", new_student(QUANTILE, network), meta)
    public = STUDENT.model_copy(update={"features": "aaai2025"})
    model = Hoser(public, network.roads, 4, network.zones)
    save_public_checkpoint(folder / "best.pth", LoadedStudent(
        model, replace(meta, config=public, highway_types=4)), city, max_len=16)
    big = DEEP.model_copy(update={"dropout": 0.0})
    save_student(folder / "big.safetensors", new_student(big, network),
                 replace(meta, config=big, times=city.times))
    return {"ours": folder / "ours.safetensors", "public": folder / "best.pth",
            "big": folder / "big.safetensors"}


@dataclass(frozen=True)
class Start:
    """One way of starting a training."""

    config: EngineConfig
    file: str | None = None
    """Which of `files` it starts from."""
    teacher: str | None = None
    """`toy`, or which of `files` teaches."""


def start(distill=None, student=DROPOUT, file=None, teacher=None, data=None, **train) -> Start:
    settings = {"epochs": 2, "batch_size": 2, "checkpoint_every": 2} | train
    config = toy_config(distill, student, **settings)
    return Start(config.model_copy(update={"data": data or DataConfig()}), file, teacher)


STARTS = {
    "fresh": start(),
    "student file": start(file="ours"),
    "public file": start(file="public"),
    "taught": start(TAUGHT, teacher="toy"),
    "taught from a file": start(TAUGHT, file="ours", teacher="toy"),
    "hoser teacher": start(DistillConfig(source="hoser", lambda_kl=0.3), teacher="big"),
    "self": start(DistillConfig(source="self"), DEEP),
    "quantiles": start(student=QUANTILE),
    "quantiles, self": start(DistillConfig(source="self"),
                             QUANTILE.model_copy(update={"layers": 2})),
    "fp16": start(amp="fp16"),
    "bf16": start(TAUGHT, teacher="toy", amp="bf16"),
    "recompute": start(recompute=True),
    "all roads": start(all_roads=True),
    "hold": start(schedule="hold", warmup_share=0.3),
    "validations": start(validate_every=2, epochs=3, max_steps=6),
    "best by loss": start(best="loss_time"),
    "share": start(data=DataConfig(train_share=0.5, residency="stream", candidate_top_k=2),
                   epochs=3),
}


def run(which: Start, city, files, directory, stop=None, resume=False) -> tuple:
    """Train or resume; return the result, None where it was stopped, and the events."""
    listener = Listener()
    sources = None
    if which.teacher == "toy":
        sources = dict.fromkeys(("train", "val", "test"), ToyTeacher())
    elif which.teacher is not None:
        sources = build_teacher_sources(which.config, city, files[which.teacher])
    asked = {} if stop is None else {"stop": StopAfter(stop)}
    if which.file is not None and not resume:
        asked["init_from"] = files[which.file]
    # What a process left in the generators must not matter to the next one.
    torch.manual_seed(99)
    try:
        result = train_student(which.config, city, directory=directory, teacher_sources=sources,
                               observer=listener, resume=resume, **asked)
    except InterruptedRunError:
        return None, listener
    return result, listener


def recorded(listeners) -> list:
    """Return what a run's store would hold: steps, epochs and judgements, without the clock's."""
    rows = []
    for event in (event for listener in listeners for event in listener.events):
        if isinstance(event, Rewound):
            rows = [row for row in rows if row[1] <= (
                event.judged if row[0] == "epoch" else event.step)]
        elif isinstance(event, StepDone | EpochDone):
            kind = "step" if isinstance(event, StepDone) else "epoch"
            rows.append((kind, event.step, event.epoch, {
                name: value for name, value in event.metrics.items() if name not in CLOCK}))
        elif isinstance(event, SplitJudged):
            rows.append(("split", STEPS, event.split, dict(event.metrics)))
    return rows


def equal(first, second, where="checkpoint") -> None:
    """Hold two trees of tensors and plain values to each other, bit by bit."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype, where
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first.keys() - {"epoch_s"}:
            equal(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            equal(a, b, f"{where}.{index}")
    else:
        assert first == second, where


def header(path: Path) -> dict:
    """Return what a student file says of itself, but for its run's name."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["hoserkd"]) | {"run_id": None}


def hold_together(straight, pieces) -> None:
    """Compare (directory, result, listeners) of two ways to the same end."""
    (one, result, listeners), (two, again, more) = straight, pieces
    equal(*(torch.load(each / "last.ckpt", weights_only=True) for each in (one, two)))
    equal(weights(one / "best.safetensors"), weights(two / "best.safetensors"))
    assert header(one / "best.safetensors") == header(two / "best.safetensors")
    assert (again.metrics, again.best_epoch, again.steps) == (
        result.metrics, result.best_epoch, result.steps)
    assert recorded(more) == recorded(listeners)


@pytest.mark.parametrize("name", STARTS)
def test_stopping_and_resuming_several_times_changes_no_bit(name, city, files, tmp_path):
    which = STARTS[name]
    result, listener = run(which, city, files, tmp_path / "one")
    assert result.steps == STEPS
    pieces = []
    for questions in (0, 2):
        stopped, heard = run(which, city, files, tmp_path / "two", stop=questions,
                             resume=bool(pieces))
        assert stopped is None
        pieces.append(heard)
    again, heard = run(which, city, files, tmp_path / "two", resume=True)
    hold_together((tmp_path / "one", result, [listener]),
                  (tmp_path / "two", again, [*pieces, heard]))


@pytest.fixture(scope="module")
def straight(city, files, tmp_path_factory):
    directory = tmp_path_factory.mktemp("straight")
    result, listener = run(STARTS["taught from a file"], city, files, directory)
    return directory, result, [listener]


@pytest.mark.parametrize("questions", range(STEPS + 2))
def test_stopping_at_any_step_changes_no_bit(questions, city, files, straight, tmp_path):
    which = STARTS["taught from a file"]
    stopped, first = run(which, city, files, tmp_path, stop=questions)
    assert stopped is None
    again, second = run(which, city, files, tmp_path, resume=True)
    hold_together(straight, (tmp_path, again, [first, second]))


def test_what_the_outputs_mean_stays_with_given_weights_after_a_resume(city, files, tmp_path):
    run(STARTS["student file"], city, files, tmp_path, stop=1)
    result, _ = run(STARTS["student file"], city, files, tmp_path, resume=True)
    meta = load_student(result.best, city).meta
    assert (meta.times, meta.config, meta.candidate_top_k) == (OTHER_TIMES, QUANTILE, 3)


def test_an_old_checkpoint_learns_from_the_best_student_what_its_outputs_mean(
        city, files, tmp_path):
    which = STARTS["student file"]
    run(which, city, files, tmp_path, stop=4)
    path = tmp_path / "last.ckpt"
    content = torch.load(path, weights_only=True)
    del content["settings"]["outputs"], content["settings"]["train"]
    torch.save(content, path)
    result, _ = run(which, city, files, tmp_path, resume=True)
    assert load_student(result.best, city).meta.times == OTHER_TIMES
