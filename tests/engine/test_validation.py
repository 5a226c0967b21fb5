"""Judging a split against the plain form, one trip and one step at a time."""

import numpy as np
import pytest
import torch
from toy_training import STUDENT, StopAfter, ToyTeacher, toy_city

from hoserkd.engine.config import DataConfig, DistillConfig
from hoserkd.engine.device import seed_everything
from hoserkd.engine.metrics.calibration import BINS
from hoserkd.engine.student.storage import new_student
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.training.validation import judge_split
from hoserkd.engine.trips.batches import TripSource, epoch_batches
from hoserkd.errors import InterruptedRunError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def exam(tmp_path_factory):
    """Return (model, tables, source, batches, times) with candidate lists cut to two."""
    city = toy_city(tmp_path_factory.mktemp("city"))
    seed_everything(4)
    model = new_student(STUDENT, city.network)
    tables = build_network_tables(city.network, "geographic", CPU)
    trips = city.split("train")
    source = TripSource(trips, tables, DataConfig(candidate_top_k=2), CPU)
    return model, tables, source, epoch_batches(trips, 5, 0, 0, shuffle=False), city.times


@torch.no_grad()
def plain_figures(model, tables, source, times, teacher=None):
    """Return the metrics, one trip at a time, with plain arithmetic."""
    model.eval()
    road, log_error, seconds, relative, right, kept, kl, confidences = [], [], [], [], [], 0, [], []
    for trip in range(len(source)):
        batch = source.batch(np.array([trip]))
        output = model(tables, batch)
        for step in range(batch.steps):
            c = slice(batch.candidate_offset[step], batch.candidate_offset[step + 1])
            p = torch.softmax(output.logits[c], 0)
            label = int(batch.label[step])
            right.append(int(p.argmax()) == label)
            confidences.append(float(p.max()))
            if teacher is not None and c.stop - c.start > 1:
                signal = teacher.signal(batch, torch.tensor([step]))
                if len(set(signal.cell.tolist())) > 1:
                    q = torch.softmax(signal.logits / 2, 0)
                    s = torch.softmax(output.logits[c] / 2, 0)
                    kl.append(float((q * (q / s).log()).sum()))
            if label < 0:
                continue
            kept += 1
            road.append(-float(p[label].log()))
            y = float(torch.log1p(batch.travel_time_s[step]))
            head = float(output.travel_time[c][label]) * times.log1p_std + times.log1p_mean
            log_error.append(abs(head - y) / max(y, 1))
            actual = float(batch.travel_time_s[step])
            seconds.append(abs(max(np.expm1(head), 0) - actual))
            relative.append(seconds[-1] / max(actual, 1))
    figures = {
        "accuracy": np.mean(right), "accuracy_kept": sum(right) / kept, "loss_road": np.mean(road),
        "loss_time": np.mean(log_error), "time_mae_s": np.mean(seconds),
        "time_mape": np.mean(relative)}
    if kl:
        figures["loss_kl"] = np.mean(kl)
    return figures, np.array(confidences), np.array(right)


def test_figures_equal_the_plain_form(exam):
    model, tables, source, batches, times = exam
    teacher = ToyTeacher()
    judged = judge_split(model, tables, source, batches, times, signal=teacher,
                         distill=DistillConfig(temperature=2.0))
    expected, _, _ = plain_figures(model, tables, source, times, teacher)
    assert {k: judged.metrics[k] for k in expected} == pytest.approx(expected, rel=1e-4)
    assert judged.metrics["accuracy"] < judged.metrics["accuracy_kept"]


def test_calibration_equals_the_plain_form(exam):
    model, tables, source, batches, times = exam
    judged = judge_split(model, tables, source, batches, times)
    _, confidence, right = plain_figures(model, tables, source, times)
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    ece = sum(abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean()
              for b in range(BINS) if (bins == b).any())
    assert judged.calibration["count"] == np.bincount(bins, minlength=BINS).tolist()
    assert judged.metrics["ece"] == pytest.approx(ece, rel=1e-4)
    for b in range(BINS):
        if (bins == b).any():
            assert judged.calibration["accuracy"][b] == pytest.approx(right[bins == b].mean())
            assert judged.calibration["confidence"][b] == pytest.approx(
                confidence[bins == b].mean(), rel=1e-5)


def test_batching_changes_nothing(exam):
    model, tables, source, batches, times = exam
    one = judge_split(model, tables, source, [np.concatenate(batches)], times)
    many = judge_split(model, tables, source, batches, times)
    assert one.metrics == pytest.approx(many.metrics, rel=1e-5)


def test_the_model_keeps_its_mode_and_gets_no_gradient(exam):
    model, tables, source, batches, times = exam
    model.train()
    judge_split(model, tables, source, batches[:1], times)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_a_stop_request_ends_the_judging(exam):
    model, tables, source, batches, times = exam
    with pytest.raises(InterruptedRunError, match="stopped while judging"):
        judge_split(model, tables, source, batches, times, stop=StopAfter(0))
