"""A student with a quantile time head, untrained, and its twin with the median's row alone."""

from dataclasses import replace

import numpy as np
import torch
from toy_training import STUDENT

from hoserkd.engine.config import DataConfig
from hoserkd.engine.student.hoser import Hoser
from hoserkd.engine.student.storage import LoadedStudent, StudentMeta, new_student
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.trips.batches import TripSource

CPU = torch.device("cpu")
LEVELS = (0.1, 0.25, 0.5, 0.9)
MEDIAN = LEVELS.index(0.5)
QUANTILE = STUDENT.model_copy(update={"time_head": "quantile", "quantiles": LEVELS, "layers": 2})


def random_student(city, config=QUANTILE, seed=0):
    """Return a student whose quantiles differ widely and cross here and there."""
    torch.manual_seed(seed)
    model = new_student(config, city.network).eval()
    with torch.no_grad():
        model.navigator.time_estimator_linear_3.weight.mul_(6)
        model.navigator.v_proj.weight.mul_(20)
    meta = StudentMeta(config, city.network.roads, len(city.network.highway_names),
                       city.network.zones, city.times)
    return LoadedStudent(model, meta)


def point_twin(student, row=MEDIAN):
    """Return the point student whose time head is one row of a quantile student's."""
    meta = replace(student.meta, config=student.meta.config.model_copy(
        update={"time_head": "point"}))
    model = Hoser(meta.config, meta.roads, meta.highway_types, meta.zones)
    state = dict(student.model.state_dict())
    for part in ("weight", "bias"):
        name = f"navigator.time_estimator_linear_3.{part}"
        state[name] = state[name][row:row + 1]
    model.load_state_dict(state)
    return LoadedStudent(model.eval(), meta)


def a_batch(city, features="geographic", trips=9):
    tables = build_network_tables(city.network, features, CPU)
    source = TripSource(city.split("train"), tables, DataConfig(), CPU)
    return tables, source.batch(np.arange(trips))
