"""Toy teachers, and the plain way to ask one: each step by itself, with its whole context."""

from pathlib import Path

import numpy as np
import torch
from random_city import random_network, random_walks
from torch import Tensor

from hoserkd.engine.city.grid import Grid
from hoserkd.engine.city.storage import City, save_city
from hoserkd.engine.config import EngineConfig
from hoserkd.engine.teacher.lmtad import LMTAD, LMTADDimensions
from hoserkd.engine.teacher.storage import Teacher, TeacherCard, load_teacher, save_teacher
from hoserkd.engine.types import RoadNetwork, TimeStatistics

CPU = torch.device("cpu")


def toy_model(vocab_size: int, block_size: int = 24, seed: int = 0, layers: int = 2,
              heads: int = 2, width: int = 16) -> LMTAD:
    """Return a model whose answers differ strongly from token to token."""
    torch.manual_seed(seed)
    model = LMTAD(LMTADDimensions(vocab_size, block_size, layers, heads, width))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(8)
    return model.requires_grad_(False).eval()


def toy_teacher(network: RoadNetwork, directory: Path, cells: int = 5, **model: int) -> Teacher:
    """Return a saved and loaded teacher whose grid has about `cells` x `cells` cells."""
    lonlat = network.centroid_lonlat
    grid = Grid.covering(lonlat, float(np.ptp(lonlat, axis=0).max()) / cells)
    card = TeacherCard(
        "toy", toy_model(grid.cells + 3, **model).dimensions, grid, sot_id=grid.cells + 2,
        eot_id=grid.cells + 1, pad_id=grid.cells, weights_sha256="", meta={"kind": "toy"})
    save_teacher(directory, toy_model(grid.cells + 3, **model), card)
    return load_teacher(directory)


def toy_city(directory: Path, trips: int = 30) -> City:
    """Return a city of random roads and walks."""
    network = random_network()
    splits = {name: random_walks(network, trips=count, seed=seed) for seed, (name, count) in
              enumerate([("train", trips), ("val", 8), ("test", 7)])}
    return save_city(directory, "toy", network, splits, TimeStatistics(3.5, 0.8))


def toy_config(**sections: object) -> EngineConfig:
    """Return settings for the CPU with parts replaced."""
    return EngineConfig(device="cpu").model_copy(update=sections)


def context(tokens: list[int], step: int, window: int | str, room: int) -> list[int]:
    """Return the tokens after SOT that the teacher sees at a step, as ENGINE.md section 4 says."""
    length = room if window == "full" else int(window)
    return tokens[max(0, step + 1 - length):step + 1]


@torch.no_grad()
def ask_plainly(teacher: Teacher, tokens: list[int], step: int, window: int | str,
                cells: Tensor) -> Tensor:
    """Return the logits of `cells` at one step, from a forward pass of its own."""
    room = teacher.model.dimensions.block_size - 1
    seen = [teacher.sot_id, *context(tokens, step, window, room)]
    hidden = teacher.model(torch.tensor([seen]))[0, -1]
    return teacher.model.all_logits(hidden)[cells]
