"""How often 95 % intervals hold the truth, and how often tests find a difference that is not there.

    python -m benchmarks.coverage [--quick]

Trips are simulated: several for each request, whose values resemble each other by a given
correlation (0: independent, 1: the same trip again and again). A case gives the share of
experiments, in per cent: `covered` (of the interval of a mean; nominal 95), `naive` (the same if
every trip were taken for independent), `ratio covered` (of a ratio of sums), `false positives`
(of the signed-rank test between two generators that do not differ; nominal 5) and `divergence
false positives` (of the difference of two divergences, which is cautious).
"""

import argparse
import json
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.stats import wilcoxon

from hoserkd.engine.metrics.comparison import RequestValues, divergence_difference
from hoserkd.engine.metrics.statistics import Resampling, mean_figures, ratio_figure
from hoserkd.engine.metrics.units import Units

TRIPS_PER_REQUEST = (1, 2, 5, 10)
CORRELATIONS = (0.0, 0.5, 1.0)
SIGNIFICANT = 0.05
BINS = 30
REAL_TRIPS = 1000


@dataclass(frozen=True, slots=True)
class Design:
    """One kind of experiment."""

    per_request: int
    correlation: float
    requests: int = 60
    experiments: int = 1000
    resamples: int = 400

    @property
    def units(self) -> Units:
        """Which request each trip answers."""
        return Units(np.repeat(np.arange(self.requests), self.per_request), self.requests)

    def seed(self, stream: int) -> list[int]:
        """Return the seed of one stream of draws."""
        return [stream, self.per_request, round(100 * self.correlation), self.requests]

    def draw(self, stream: int, experiments: int | None = None) -> Float64[np.ndarray, "n e"]:
        """Return standard normal values of all trips, an experiment a column."""
        rng = np.random.default_rng(self.seed(stream))
        count = experiments or self.experiments
        common = rng.standard_normal((self.requests, 1, count))
        own = rng.standard_normal((self.requests, self.per_request, count))
        mixed = np.sqrt(self.correlation) * common + np.sqrt(1 - self.correlation) * own
        return mixed.reshape(-1, count)

    def how(self, number: int = 0) -> Resampling:
        """Return how intervals are made."""
        return Resampling(self.resamples, 0.95, self.per_request + 100 * number)


def mean_coverage(design: Design, *, naive: bool = False) -> float:
    """Return the share of intervals of a mean that hold 0, the truth."""
    values = design.draw(1)
    # Fresh resamples for every tenth: their own error is not to be that of all experiments.
    held = []
    for number, part in enumerate(np.array_split(values, 10, axis=1)):
        columns = {str(k): (column, (-np.inf, np.inf)) for k, column in enumerate(part.T)}
        found = mean_figures(columns, design.how(number), None if naive else design.units)
        held += [f.low <= 0 <= f.high for f in found.values()
                 if f.low is not None and f.high is not None]
    return float(np.mean(held))


def false_positives(design: Design) -> float:
    """Return how often request means of two equal generators differ by the signed-rank test."""
    means = design.units.totals(design.draw(2) - design.draw(3)) / design.per_request
    return float((wilcoxon(means, axis=0).pvalue < SIGNIFICANT).mean())


def ratio_coverage(design: Design, experiments: int) -> float:
    """Return the share of intervals of a ratio of sums that hold 1, the truth."""
    above, below = (np.exp(design.draw(stream, experiments) / 4) for stream in (4, 5))
    offset = np.arange(len(above) + 1)
    held = []
    for number in range(experiments):
        figure = ratio_figure(above[:, number], below[:, number], offset, design.how(number),
                              (0.0, np.inf), design.units)
        assert figure.low is not None
        assert figure.high is not None
        held.append(figure.low <= 1 <= figure.high)
    return float(np.mean(held))


def divergence_false_positives(design: Design, experiments: int) -> float:
    """Return how often the divergences of two equal generators differ."""
    sides = [np.exp(design.draw(stream, experiments) / 2) for stream in (6, 7)]
    rng = np.random.default_rng(design.seed(8))
    found = 0
    for number in range(experiments):
        truth = np.exp(rng.standard_normal(REAL_TRIPS) / 2)
        a, b = (_answers(design, side[:, number]) for side in sides)
        pairs = np.stack([np.arange(design.requests)] * 2, axis=1)
        tested = divergence_difference(truth, BINS, "distance", (a, b), pairs, design.how(number))
        found += tested.p is not None and tested.p < SIGNIFICANT
    return found / experiments


def _answers(design: Design, values: Float64[np.ndarray, " n"]) -> RequestValues:
    nothing = np.arange(design.requests)
    return RequestValues(nothing, nothing, nothing, {}, design.units.of, {"distance": values}, {})


def main() -> None:
    """Print a case a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the experiments")
    few = parser.parse_args().quick
    for correlation in CORRELATIONS:
        for per_request in TRIPS_PER_REQUEST:
            design = Design(per_request, correlation, experiments=1000 if few else 10_000,
                            resamples=400 if few else 1000)
            slow = 100 if few else 1000
            shares = {
                "covered": mean_coverage(design), "naive": mean_coverage(design, naive=True),
                "ratio covered": ratio_coverage(design, slow),
                "false positives": false_positives(design),
                "divergence false positives": divergence_false_positives(design, slow)}
            print(json.dumps({
                "benchmark": "coverage", "trips_per_request": per_request,
                "correlation": correlation,
                **{name: round(100 * share, 2) for name, share in shares.items()}}), flush=True)


if __name__ == "__main__":
    main()
