"""Evaluations as the dashboard shows them, read from their `evaluation.json`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from hoserkd.engine.files import read_json_object
from hoserkd.engine.metrics.catalogue import BY_NAME, METRICS, ONE_TRAINING, SIGNIFICANT, Metric

FILE = "evaluation.json"
REFERENCES = {"floor": "floor", "shortest path": "shortest", "most frequent turns": "frequent"}
"""What runs are held against, and what the narrow columns call it."""


@dataclass(frozen=True, slots=True)
class MetricLine:
    """One metric of the runs that were judged together."""

    label: str
    values: tuple[str, ...]
    """A text a run."""
    intervals: tuple[str, ...]
    """The same with intervals, where there are any."""
    references: tuple[str, ...]
    """The same of `REFERENCES`, which show what is good and what is easy."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """How often a quantity fell into each bin, as shares."""

    name: str
    edge: tuple[float, ...]
    """Where each bin begins."""
    real: tuple[float, ...]
    generated: tuple[tuple[str, tuple[float, ...]], ...]
    """(run, shares)."""

    def coarser(self, bins: int) -> Self:
        """Return the same in at most `bins` bins, neighbours put together."""
        step = -(-len(self.real) // bins)
        return replace(self, edge=self.edge[:len(self.real):step], real=_merged(self.real, step),
                       generated=tuple((name, _merged(shares, step))
                                       for name, shares in self.generated))


@dataclass(frozen=True, slots=True)
class Difference:
    """One measure of two runs, tested request by request."""

    metric: str
    a: str
    """Name of the run and its mean."""
    b: str
    verdict: str
    p: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """One `evaluate`."""

    run_id: str
    title: str
    od: str
    names: tuple[str, ...]
    lines: tuple[MetricLine, ...]
    distributions: tuple[Distribution, ...]
    tests: tuple[Difference, ...]
    """What of the differences is more than chance."""
    caution: str = ONE_TRAINING
    """What the differences do not say."""


def read_judgement(path: Path, run_id: str, title: str) -> Judgement | None:
    """Return the evaluation in a file, None where it is missing or of another form."""
    try:
        document = read_json_object(path)
        return judgement_of(document, run_id, title)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        # A file that is being written, or one of another version: not an error of the dashboard.
        return None


def judgement_of(document: Mapping[str, Any], run_id: str, title: str) -> Judgement:
    """Return the records of an evaluation document (docs/metrics.md)."""
    found = document["evaluations"]
    first = found[0]
    references = [first["references"].get(name, {}) for name in REFERENCES]
    lines = []
    for metric in sorted(METRICS, key=lambda metric: not metric.headline):
        figures = [one["metrics"].get(metric.name, {}) for one in found]
        if any(figure.get("value") is not None for figure in figures):
            lines.append(MetricLine(
                metric.title,
                tuple(_value_text(figure.get("value"), metric) for figure in figures),
                tuple(_figure_text(figure, metric) for figure in figures),
                tuple(_value_text(reference.get(metric.name, {}).get("value"), metric)
                      for reference in references)))
    names = tuple(str(one["name"]) for one in found)
    distributions = tuple(
        Distribution(name, tuple(histogram["edge"]), _shares(histogram["real"]), tuple(
            (one["name"], _shares(one["histograms"][name]["generated"])) for one in found))
        for name, histogram in first["histograms"].items())
    return Judgement(run_id, title, str(first["od"]), names, tuple(lines), distributions,
                     tuple(_test_lines(document)))


def _test_lines(document: Mapping[str, Any]) -> list[Difference]:
    lines = []
    for comparison in document.get("comparisons", []):
        for name, test in comparison["tests"].items():
            p = test["p_holm"]
            if p is None:
                continue
            measure = BY_NAME[name].title if name in BY_NAME else name
            lines.append(Difference(
                measure, f"{comparison['a']} {test['mean_a']:.4g}",
                f"{comparison['b']} {test['mean_b']:.4g}",
                "≠ differ" if p < SIGNIFICANT else "≈ no clear difference", f"{p:.2g}"))
    return lines


def _merged(shares: tuple[float, ...], step: int) -> tuple[float, ...]:
    return tuple(sum(shares[start:start + step]) for start in range(0, len(shares), step))


def _shares(counts: list[float]) -> tuple[float, ...]:
    total = sum(counts) or 1.0
    return tuple(count / total for count in counts)


def _figure_text(figure: Mapping[str, Any], metric: Metric) -> str:
    text = _value_text(figure.get("value"), metric).removesuffix(" %")
    if figure.get("low") is None or figure.get("high") is None:
        return text
    low, high = (_value_text(figure[end], metric).removesuffix(" %") for end in ("low", "high"))
    return f"{text} [{low}, {high}]" + (" %" if metric.unit == "share" else "")


def _value_text(value: float | None, metric: Metric) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if metric.unit == "share" else f"{value:.3g}"
