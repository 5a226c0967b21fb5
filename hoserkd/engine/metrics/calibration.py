"""Calibration: is a model right as often as its probabilities say (expected calibration error).

One definition for training, studies, tuning and evaluation (Guo et al., ICML 2017): steps fall
into 15 equal bins by the probability of the likeliest candidate, bin k holds those in
(k / 15, (k + 1) / 15]; the error is the mean of |accuracy - mean probability| over the bins,
weighted by their steps.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor

BINS = 15


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often a model is right when it is so sure, by bin of its confidence."""

    confidence: Float64[np.ndarray, " b"]
    """Mean probability of the likeliest candidate; NaN in an empty bin."""
    accuracy: Float64[np.ndarray, " b"]
    count: Int64[np.ndarray, " b"]

    @property
    def ece(self) -> float:
        """Expected calibration error."""
        sums = np.nan_to_num(np.stack([np.ones(len(self.count)), self.confidence, self.accuracy]))
        return float(calibration_error(sums * self.count))


def confidence_bins(confidence: Float[Tensor, " S"]) -> Int[Tensor, " S"]:
    """Return the bin of each step."""
    return (confidence * BINS).ceil().long().clamp(1, BINS) - 1


def step_rows(
    confidence: Float[Tensor, " S"], correct: Bool[Tensor, " S"]
) -> Float[Tensor, "3 S"]:
    """Return what each step adds to its bin: 1, its confidence, and whether it is right."""
    sure = confidence.double()
    return torch.stack([torch.ones_like(sure), sure, correct.double()])


def bin_sums(
    confidence: Float[Tensor, " S"], correct: Bool[Tensor, " S"]
) -> Float[Tensor, "3 15"]:
    """Return steps, summed confidence and right answers of each bin."""
    sums = torch.zeros(3, BINS, dtype=torch.float64, device=confidence.device)
    return sums.index_add_(1, confidence_bins(confidence), step_rows(confidence, correct))


def calibration_error(sums: Float64[np.ndarray, "*n 3 b"]) -> Float64[np.ndarray, "*n"]:
    """Return the expected calibration error of such sums; 0 without a step."""
    steps = sums[..., 0, :].sum(axis=-1)
    gap = np.abs(sums[..., 1, :] - sums[..., 2, :]).sum(axis=-1)
    return np.asarray(gap / np.maximum(steps, 1))


def reliability(sums: Float64[np.ndarray, "3 b"]) -> Reliability:
    """Return the curve of such sums."""
    with np.errstate(invalid="ignore"):
        return Reliability(sums[1] / sums[0], sums[2] / sums[0], sums[0].astype(np.int64))
