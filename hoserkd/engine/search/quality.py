"""How good generated trips are, from the roads alone."""

from collections import Counter

import numpy as np

from hoserkd.engine.metrics.packed import as_trajectories
from hoserkd.engine.metrics.paths import cheapest_paths
from hoserkd.engine.metrics.task import path_length_m, revisits
from hoserkd.engine.types import GeneratedTrips, RoadNetwork, TrajectorySet


class Quality:
    """Counts over trips that come in chunks."""

    def __init__(self, network: RoadNetwork) -> None:
        self._network = network
        self._length_m = np.asarray(network.length_m)
        self.trips = 0
        self.reached = 0
        self.reasons: Counter[str] = Counter()
        self._roads = 0
        self._revisits = 0
        self._backwards = 0
        self._log_prob = 0.0
        self._ratio: list[float] = []

    def add(self, trips: GeneratedTrips) -> None:
        """Count a chunk in."""
        paths = as_trajectories(trips)
        self.trips += len(trips)
        self.reached += int(trips.reached.sum())
        self.reasons.update(trips.reason)
        self._roads += len(trips.road)
        self._revisits += int(revisits(paths).sum())
        self._backwards += _backwards(paths)
        self._log_prob += float(trips.log_prob.sum())
        self._ratio += self._length_ratios(trips, paths)

    def figures(self) -> dict[str, float]:
        """Return the means over all trips counted in; only figures that are defined."""
        if not self.trips:
            return {}
        figures = {
            "reached_share": self.reached / self.trips,
            "roads_per_trip": self._roads / self.trips,
            "log_prob": self._log_prob / self.trips,
            "revisit_share": self._revisits / self.trips,
            "time_backwards_share": self._backwards / self.trips,
        }
        if self._ratio:
            figures["length_ratio"] = float(np.mean(self._ratio))
        return figures

    def _length_ratios(self, trips: GeneratedTrips, paths: TrajectorySet) -> list[float]:
        """Return how much longer each trip that arrived is than the shortest way, ends excluded."""
        asked = np.flatnonzero(trips.reached & (np.diff(trips.offset) > 1))
        if not len(asked):
            return []
        candidates = self._network.candidates
        shortest = cheapest_paths(self._network, self._length_m[candidates.road],
                                  trips.origin[asked], trips.destination[asked])
        length = path_length_m(paths, self._length_m)[asked] - self._length_m[trips.origin[asked]]
        ratio = length / np.maximum(shortest.cost, 1e-3)
        return [float(value) for value in ratio]


def _backwards(paths: TrajectorySet) -> int:
    """Return how many trips enter a road before the one ahead of it."""
    early = np.flatnonzero(np.diff(paths.entered_at_s) < 0) + 1
    inside = ~np.isin(early, paths.offset)
    trip = np.searchsorted(paths.offset, early[inside], side="right")
    return len(np.unique(trip))
