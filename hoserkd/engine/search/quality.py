"""How good generated trips are, from the roads alone; figures are those of docs/metrics.md."""

from collections import Counter

import numpy as np

from hoserkd.engine.metrics.packed import answered, as_trajectories, take_trips
from hoserkd.engine.metrics.task import asked_queries, length_ratios, revisits
from hoserkd.engine.types import GeneratedTrips, RoadNetwork


def may_revisit(search: str, forbid_loops: bool) -> bool:
    """Return whether the search can enter a road twice; where not, that none does says nothing.

    Args:
        forbid_loops: The setting of `sample`.
    """
    return search == "sample" and not forbid_loops


class Quality:
    """Counts over trips that come in chunks."""

    def __init__(self, network: RoadNetwork, loops: bool) -> None:
        """Begin with nothing.

        Args:
            loops: Whether the search may enter a road twice.
        """
        self._network = network
        self._loops = loops
        self.trips = 0
        self.reasons: Counter[str] = Counter()
        self._asked = 0
        self._completed = 0
        self._roads = 0
        self._answered = 0
        self._revisits = 0
        self._log_prob = 0.0
        self._ratio: list[float] = []

    def add(self, trips: GeneratedTrips) -> None:
        """Count a chunk in."""
        asked, paths = asked_queries(trips), take_trips(as_trajectories(trips), answered(trips))
        self.trips += len(trips)
        self._asked += int(asked.sum())
        self._completed += int(trips.reached[asked].sum())
        self.reasons.update(trips.reason)
        self._roads += len(trips.road)
        self._answered += len(paths)
        self._revisits += int(revisits(paths).sum())
        self._log_prob += float(trips.log_prob.sum())
        ratio = length_ratios(self._network, paths)
        self._ratio += ratio[np.isfinite(ratio)].tolist()

    def figures(self) -> dict[str, float]:
        """Return the figures of all trips counted in; only those that are defined."""
        figures: dict[str, float] = {}
        if self._asked:
            figures["completion"] = self._completed / self._asked
        if self.trips:
            figures["roads_per_trip"] = self._roads / self.trips
            figures["log_prob"] = self._log_prob / self.trips
        if self._loops and self._answered:
            figures["revisit_share"] = self._revisits / self._answered
        if self._ratio:
            figures["length_ratio"] = float(np.mean(self._ratio))
        return figures
