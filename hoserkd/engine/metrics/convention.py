"""What a student loses where its features are computed in the public code's convention."""

from dataclasses import dataclass, replace

import torch

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import DataConfig
from hoserkd.engine.events import Silent, never_stop
from hoserkd.engine.metrics.model import step_answers
from hoserkd.engine.student.storage import LoadedStudent

SAMPLE_TRIPS = 500


@dataclass(frozen=True, slots=True)
class ConventionLoss:
    """Next-step accuracy of one student on the same trips, by convention of the features."""

    own: float
    public: float
    """With the angles and intervals that the public code computes (`aaai2025`)."""
    trips: int
    """Test trips that were looked at."""


def convention_loss(
    student: LoadedStudent, city: City, data: DataConfig, trips: int = SAMPLE_TRIPS
) -> ConventionLoss:
    """Return how much less often the student is right on the public code's features.

    Raises:
        DataError: the city came without trips.
    """
    settings = student.meta.config.model_copy(update={"features": "aaai2025"})
    public = replace(student, meta=replace(student.meta, config=settings))
    own, theirs = (
        step_answers(each, city, "test", data, trips, 0, device=torch.device("cpu"),
                     observer=Silent(), stop=never_stop)
        for each in (student, public))
    return ConventionLoss(float(own.correct.mean()), float(theirs.correct.mean()),
                          len(own.offset) - 1)
