"""Every figure that an evaluation may hold: its name, unit, direction and meaning."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["distribution", "pair", "task", "model", "crowd"]


@dataclass(frozen=True, slots=True)
class Metric:
    """What a figure is."""

    name: str
    label: str
    level: Level
    unit: str
    better: Literal["lower", "higher", ""]
    """Empty where neither is better in itself."""
    headline: bool
    """Shown in short tables."""
    meaning: str


METRICS = (
    Metric("distance_jsd", "Trip distance JSD", "distribution", "nats", "lower", True,
           "divergence of the trips' lengths along road centroids"),
    Metric("radius_jsd", "Trip radius JSD", "distribution", "nats", "lower", True,
           "divergence of the mean distances to each trip's mean point"),
    Metric("step_duration_jsd", "Step duration JSD", "distribution", "nats", "lower", True,
           "divergence of the minutes spent on each road"),
    Metric("trip_duration_jsd", "Trip duration JSD", "distribution", "nats", "lower", True,
           "divergence of the minutes of whole trips"),
    Metric("distance_jsd_101", "Trip distance JSD, 100 + 1 bins", "distribution", "nats", "lower",
           False, "the same with one equal bin more than the public evaluation has"),
    Metric("radius_jsd_101", "Trip radius JSD, 100 + 1 bins", "distribution", "nats", "lower",
           False, "the same with one equal bin more than the public evaluation has"),
    Metric("step_duration_jsd_101", "Step duration JSD, 100 + 1 bins", "distribution", "nats",
           "lower", False, "the same with one equal bin more than the public evaluation has"),
    Metric("trip_duration_jsd_101", "Trip duration JSD, 100 + 1 bins", "distribution", "nats",
           "lower", False, "the same with one equal bin more"),
    Metric("mean_distance_km", "Mean trip distance", "distribution", "km", "", False,
           "mean length along road centroids"),
    Metric("mean_radius_km", "Mean trip radius", "distribution", "km", "", False,
           "mean of the mean distances to each trip's mean point"),
    Metric("mean_trip_duration_min", "Mean trip duration", "distribution", "min", "", False,
           "mean minutes from the first road's entry to the last one's"),
    Metric("hausdorff_km", "Hausdorff", "pair", "km", "lower", True,
           "symmetric Hausdorff distance of the two sets of centroids"),
    Metric("dtw_km", "DTW", "pair", "km", "lower", True,
           "dynamic time warping, exact: sum of distances along the best alignment"),
    Metric("frechet_km", "Discrete Fréchet", "pair", "km", "lower", True,
           "largest distance along the best alignment"),
    Metric("edr", "EDR", "pair", "", "lower", True,
           "edit distance on real sequences, 100 m, divided by the longer length"),
    Metric("edr_public", "EDR (public, axes swapped)", "pair", "", "lower", False,
           "EDR with longitude and latitude exchanged, as the public evaluation has it"),
    Metric("dtw_per_point_km", "DTW per road", "pair", "km", "lower", True,
           "DTW divided by the mean number of roads of the two trips"),
    Metric("hausdorff_per_point_km", "Hausdorff per road", "pair", "km", "lower", False,
           "Hausdorff distance divided by the mean number of roads of the two trips"),
    Metric("matched_share", "Trips with a partner", "pair", "share", "higher", False,
           "generated trips that met a real one between the same cells"),
    Metric("completion", "OD completion", "task", "share", "higher", True,
           "queries whose path ends on the requested road"),
    Metric("completion_200m", "OD completion within 200 m", "task", "share", "higher", True,
           "queries whose path ends within 200 m of the requested road"),
    Metric("answered_share", "Answered queries", "task", "share", "higher", False,
           "queries whose path has at least two roads"),
    Metric("length_ratio", "Length over shortest", "task", "", "", True,
           "mean path length over the shortest path between the same roads"),
    Metric("revisit_share", "Trips with a revisit", "task", "share", "lower", False,
           "trips that enter a road a second time"),
    Metric("diversity", "Diversity per OD", "task", "", "", False,
           "mean Jaccard distance of the road sets of trips with the same ends"),
    Metric("road_usage_jsd", "Road usage JSD", "crowd", "nats", "lower", True,
           "divergence of the visits over all roads"),
    Metric("road_usage_cosine", "Road usage cosine", "crowd", "", "higher", True,
           "cosine of the visits over all roads"),
    Metric("zone_flow_jsd", "Zone flow JSD", "crowd", "nats", "lower", False,
           "divergence of the moves from zone to zone"),
    Metric("zone_flow_cosine", "Zone flow cosine", "crowd", "", "higher", True,
           "cosine of the moves from zone to zone"),
    Metric("next_step_accuracy", "Next-step accuracy", "model", "share", "higher", True,
           "steps of real trips whose next road is the likeliest one, over all steps"),
    Metric("next_step_accuracy_kept", "Next-step accuracy (label kept)", "model", "share",
           "higher", False, "the same over the steps whose next road was among the candidates"),
    Metric("next_step_accuracy_choice", "Next-step accuracy, steps with a choice", "model",
           "share", "higher", True, "the same over the steps with two candidates or more: a single "
           "candidate is right by construction"),
    Metric("choice_share", "Steps with a choice", "model", "share", "", False,
           "steps with two candidates or more"),
    Metric("ece", "Calibration error (ECE)", "model", "", "lower", True,
           "mean gap between confidence and accuracy over 15 equal bins, over all steps"),
    Metric("ece_choice", "Calibration error, steps with a choice", "model", "", "lower", False,
           "the same over the steps with two candidates or more"),
    Metric("time_mae_s", "Step time error", "model", "s", "lower", True,
           "mean absolute error of the predicted seconds on a road"),
    Metric("time_mape", "Step time error, relative", "model", "", "lower", False,
           "mean absolute error over the true seconds (at least 1)"),
    Metric("time_log_mape", "Step time error, log (public)", "model", "", "lower", False,
           "relative error of log1p(seconds): what the public code calls MAPE"),
    Metric("time_pinball", "Step time pinball loss", "model", "", "lower", False,
           "of a quantile time head: mean over the quantiles, in standard deviations of log time"),
    Metric("time_coverage", "Step times within the interval", "model", "share", "", False,
           "of a quantile time head: true times within its outermost quantiles"),
    Metric("time_coverage_gap", "The same, minus its nominal share", "model", "share", "", False,
           "below 0 the interval is too narrow, above 0 too wide"),
    Metric("teacher_perplexity", "Teacher perplexity", "model", "", "lower", True,
           "exp of the teacher's mean surprise a grid token over the generated trips"),
)

PAIRED = {
    "dtw_km": ("lower", "DTW, km"),
    "hausdorff_km": ("lower", "Hausdorff, km"),
    "frechet_km": ("lower", "discrete Fréchet, km"),
    "edr": ("lower", "EDR"),
    "dtw_per_point_km": ("lower", "DTW per road, km"),
    "distance_error_km": ("lower", "length off by, km"),
    "duration_error_min": ("lower", "duration off by, min"),
    "completion": ("higher", "ends on the requested road"),
}
"""What is compared request by request, all but the last against the request's real trip: which is
better, and what it is."""
ONE_TRAINING = (
    "One training each: this says nothing about the method that trained them; `hoserkd study` "
    "compares methods over several seeds.")
"""Stands beside every comparison of two runs."""

BY_NAME = {metric.name: metric for metric in METRICS}
LEVELS: dict[Level, str] = {
    "distribution": "Distributions",
    "pair": "Pairs between the same places",
    "task": "Doing what was asked",
    "crowd": "Roads and zones used",
    "model": "The model itself",
}
