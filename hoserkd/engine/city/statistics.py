"""Figures of a whole city: the time scale of its steps, and counts to recognise it by."""

from typing import Any

import numpy as np

from hoserkd.engine.city.network import strongly_connected_share
from hoserkd.engine.types import RoadNetwork, TimeStatistics, TrajectorySet

BLOCK_TRIPS = 1 << 18
"""Trips whose steps are looked at at once; bounds memory."""


def time_statistics(trips: TrajectorySet) -> TimeStatistics:
    """Return mean and population standard deviation of log1p(seconds) over all steps.

    Where all steps take equally long the deviation is given as 1, so that it can divide.
    """
    count, mean, squares = 0, 0.0, 0.0
    for first in range(0, len(trips), BLOCK_TRIPS):
        offset = np.asarray(trips.offset[first : first + BLOCK_TRIPS + 1])
        entered = np.asarray(trips.entered_at_s[offset[0] : offset[-1]])
        taken = np.delete(np.diff(entered), offset[1:-1] - offset[0] - 1)
        values = np.log1p(taken.astype(np.float64))
        # Chan's update joins the moments of two parts without losing digits.
        apart = float(values.mean()) - mean
        total = count + len(values)
        squares += float(((values - values.mean()) ** 2).sum())
        squares += apart**2 * count * len(values) / total
        mean += apart * len(values) / total
        count = total
    deviation = float(np.sqrt(squares / count))
    return TimeStatistics(log1p_mean=mean, log1p_std=deviation if deviation > 0 else 1.0)


def city_statistics(network: RoadNetwork, splits: dict[str, TrajectorySet]) -> dict[str, Any]:
    """Return the counts by which a user recognises the city."""
    degree = np.diff(network.candidates.offset)
    trips = {}
    for name, split in splits.items():
        roads = np.diff(split.offset)
        trips[name] = {
            "trips": len(split),
            "steps": split.steps,
            "roads_a_trip_mean": round(float(roads.mean()), 3),
            "roads_a_trip_p95": float(np.percentile(roads, 95)),
            "roads_a_trip_max": int(roads.max()),
        }
    return {
        "roads": network.roads,
        "relations": len(network.candidates.road),
        "adjacency_edges": int(network.adjacency.shape[1]),
        "highway_classes": len(network.highway_names),
        "zones": network.zones,
        "candidates_mean": round(float(degree.mean()), 3),
        "candidates_max": int(degree.max()),
        "dead_ends": int((degree == 0).sum()),
        "strongly_connected_share": round(strongly_connected_share(network.candidates), 4),
        "splits": trips,
    }


