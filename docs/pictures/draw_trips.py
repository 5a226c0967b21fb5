"""Draw recorded and generated trips between the same ends: `make pictures` writes trips.png.

    python docs/pictures/draw_trips.py DEMO_FOLDER docs/pictures/trips.png
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection

import hoserkd.engine as hoser

SHOWN = 80
COLOURS = ("#0072b2", "#d55e00")
"""Recorded and generated: told apart by the colour-blind, and in grey."""


def lines(network: hoser.RoadNetwork, roads: np.ndarray) -> list[np.ndarray]:
    """Return the polylines of roads, each (n, 2) in longitude and latitude."""
    offset = network.shape_offset
    return [network.shape_lonlat[offset[road]:offset[road + 1]] for road in roads]


def main(demo: Path, picture: Path) -> None:
    """Draw recorded trips, evenly taken from the demo's test split, and generated ones beside."""
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    city = hoser.load_city(next((demo / "cities").iterdir()))
    student = hoser.load_student(
        max((demo / "store" / "runs").glob("*/best.safetensors"), key=lambda p: p.stat().st_mtime),
        city)
    test = city.split("test")
    taken = np.linspace(0, len(test) - 1, SHOWN).astype(int)
    trips = [test.road[test.offset[i]:test.offset[i + 1]] for i in taken]
    ids = city.network.road_id
    requests = [hoser.TripRequest(
        int(ids[roads[0]]), int(ids[roads[-1]]),
        np.datetime64(int(test.entered_at_s[test.offset[i]]), "s").item())
        for i, roads in zip(taken, trips, strict=True)]
    found = hoser.search_trips(student, city, hoser.build_queries(city, requests))
    generated = [found.road[found.offset[i]:found.offset[i + 1]] for i in range(len(requests))]
    figure, axes = plt.subplots(1, 2, figsize=(10, 5), sharex=True, sharey=True)
    titles = ("recorded", "generated, same origin, destination and departure")
    for axis, title, shown, colour in zip(axes, titles, (trips, generated), COLOURS, strict=True):
        axis.add_collection(LineCollection(
            lines(city.network, np.arange(city.network.roads)), colors="#c8c8c8", linewidths=0.5))
        for roads in shown:
            axis.add_collection(LineCollection(
                lines(city.network, roads), colors=colour, linewidths=2.2, alpha=0.3))
        axis.set_title(title, fontsize=11)
        axis.autoscale()
        axis.set_aspect(1 / np.cos(np.radians(city.network.centroid_lonlat[:, 1].mean())))
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
