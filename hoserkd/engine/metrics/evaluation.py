"""What an evaluation holds, and its form as JSON (docs/metrics.md, docs/evaluation.schema.json)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from hoserkd.engine.config import EvaluateConfig
from hoserkd.engine.metrics.calibration import Reliability
from hoserkd.engine.metrics.comparison import Comparison, RequestValues
from hoserkd.engine.metrics.distributions import Histogram
from hoserkd.engine.metrics.rating import Rating, RealSide
from hoserkd.engine.metrics.statistics import Figure
from hoserkd.engine.types import GeneratedTrips

SCHEMA_VERSION = 1
Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """The figures of one kind of trips."""

    requests: int
    trips: int
    """Generated trips (with at least two roads) of this kind."""
    real: int
    pairs: int
    figures: dict[str, Figure]
    floor: dict[str, Figure]
    """The divergences of equally many real trips of the other split."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The judgement of one set of generated trips."""

    name: str
    od: Split
    city: dict[str, Any]
    seed: int
    settings: EvaluateConfig
    counts: dict[str, int]
    reasons: dict[str, int]
    """How many searches ended for each reason."""
    figures: dict[str, Figure]
    real: dict[str, Figure]
    """Means of the real trips."""
    references: dict[str, dict[str, Figure]]
    """The floor and the ceilings, by name."""
    scenarios: dict[str, ScenarioResult]
    histograms: dict[str, Histogram]
    reliability: Reliability | None
    notes: tuple[str, ...]
    generated: GeneratedTrips
    rating: Rating
    requests: RequestValues
    truth: RealSide
    extra: dict[str, Any] = field(default_factory=dict)
    """What the caller adds to the JSON: where the trips came from."""

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as documented in docs/metrics.md."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "evaluation",
            "name": self.name,
            "od": self.od,
            "city": self.city,
            "seed": self.seed,
            "settings": self.settings.model_dump(mode="json"),
            "counts": self.counts,
            "reasons": self.reasons,
            "metrics": figures_json(self.figures),
            "real": figures_json(self.real),
            "references": {k: figures_json(v) for k, v in self.references.items()},
            "scenarios": {k: _scenario_json(v) for k, v in self.scenarios.items()},
            "histograms": {k: {"edge": v.edge.tolist(), "real": v.real.tolist(),
                               "generated": v.other.tolist()}
                           for k, v in self.histograms.items()},
            "reliability": _reliability_json(self.reliability),
            "notes": list(self.notes),
            **self.extra,
        }


def figures_json(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Return figures as objects of value, low, high and, where there are, note and count."""
    return {name: {k: v for k, v in asdict(figure).items()
                   if k in ("value", "low", "high") or v not in ("", None)}
            for name, figure in figures.items()}


def _scenario_json(result: ScenarioResult) -> dict[str, Any]:
    return {"requests": result.requests, "trips": result.trips, "real": result.real,
            "pairs": result.pairs, "metrics": figures_json(result.figures),
            "floor": figures_json(result.floor)}


def _reliability_json(curve: Reliability | None) -> dict[str, Any] | None:
    if curve is None:
        return None
    return {"confidence": [_number(x) for x in curve.confidence],
            "accuracy": [_number(x) for x in curve.accuracy], "count": curve.count.tolist()}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def comparison_json(found: Comparison) -> dict[str, Any]:
    """Return a comparison as documented in docs/metrics.md."""
    return asdict(found)
