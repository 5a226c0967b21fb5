"""One calibration error, whoever asks for it."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import hoserkd
from hoserkd.engine.metrics.calibration import (
    BINS,
    bin_sums,
    calibration_error,
    confidence_bins,
    reliability,
)
from hoserkd.engine.training.losses import predicted_seconds, relative_error


def curve(confidence, correct):
    return reliability(bin_sums(torch.from_numpy(confidence), torch.from_numpy(correct)).numpy())


def test_ece_of_a_sure_and_always_wrong_model_is_one():
    assert curve(np.ones(10), np.zeros(10, bool)).ece == 1.0


def test_ece_equals_the_plain_sum_over_bins():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1, 500)
    correct = rng.random(500) < confidence**2
    expected = 0.0
    for k in range(BINS):
        inside = (confidence > k / BINS) & (confidence <= (k + 1) / BINS)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    found = curve(confidence, correct)
    assert found.ece == pytest.approx(expected)
    assert found.count.sum() == 500


def test_bins_are_closed_above():
    edges = torch.arange(1, BINS + 1, dtype=torch.float64) / BINS
    assert confidence_bins(edges).tolist() == list(range(BINS))
    assert confidence_bins(edges + 1e-9).tolist() == [*range(1, BINS), BINS - 1]
    assert confidence_bins(torch.zeros(1)).tolist() == [0]


def test_errors_of_many_resamples_are_those_of_each():
    rng = np.random.default_rng(1)
    sums = rng.random((4, 3, BINS))
    np.testing.assert_allclose(calibration_error(sums), [calibration_error(s) for s in sums])
    assert calibration_error(np.zeros((3, BINS))) == 0


def test_no_other_file_bins_confidences():
    """Training, study, tuning and evaluation once had three calibration errors of two kinds."""
    for path in Path(hoserkd.__file__).parent.rglob("*.py"):
        if path.name != "calibration.py":
            assert not re.search(r"\* *BINS|BINS *-|confidence *\*", path.read_text("utf-8")), path


def test_twice_the_true_time_scores_a_small_public_error():
    true, predicted = np.array([60.0]), np.array([120.0])
    assert relative_error(predicted, true) == 1.0
    assert relative_error(np.log1p(predicted), np.log1p(true))[0] == pytest.approx(0.1666, abs=1e-3)
    assert relative_error(torch.tensor([0.0]), torch.tensor([0.5])).tolist() == [0.5]
    assert predicted_seconds(torch.tensor([-1.0, np.log1p(3.0)])).tolist() == pytest.approx([0, 3])
