"""Every figure that hoserkd tells: its name, unit, direction and meaning (docs/metrics.md).

All faces (terminal, JSON, reports, dashboard, store) know figures by these names and these labels.
Nothing here is loaded but records, so that a face that computes nothing may read it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Level = Literal["distribution", "pair", "task", "model", "crowd", "training", "search", "speed",
                "machine"]


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
    same_as: str = ""
    """Name under which an evaluation tells the same figure."""

    @property
    def title(self) -> str:
        """The label with the unit."""
        plain = self.unit in ("", "share", "1/s")
        return self.label if plain else f"{self.label}, {self.unit}"


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

"""What an evaluation holds."""

COMPARED = (
    Metric("distance_error_km", "Length off by", "pair", "km", "lower", False,
           "absolute difference to the partner's length along road centroids"),
    Metric("duration_error_min", "Duration off by", "pair", "min", "lower", False,
           "absolute difference to the partner's duration"),
)
"""What two runs are compared in and one alone has no figure of."""

TRAINING = (
    Metric("loss", "Loss", "training", "", "lower", False,
           "what is minimised: the road and the time term, and the weighted KL term"),
    Metric("train_loss", "Loss over the epoch", "training", "", "lower", False,
           "mean loss over the optimiser steps of an epoch"),
    Metric("loss_road", "Negative log-likelihood of the next road", "training", "nats", "lower",
           False, "mean over the steps whose next road was among the candidates"),
    Metric("loss_time", "Time loss", "training", "", "lower", False,
           "relative error of log1p(seconds)", same_as="time_log_mape"),
    Metric("loss_pinball", "Time loss (pinball)", "training", "", "lower", False,
           "of a quantile time head: what is minimised in place of the time loss",
           same_as="time_pinball"),
    Metric("loss_kl", "KL to the teacher", "training", "nats", "lower", False,
           "mean over the informative steps at the temperature of the moment"),
    Metric("accuracy", "Next-step accuracy", "training", "share", "higher", False,
           "over all steps", same_as="next_step_accuracy"),
    Metric("accuracy_kept", "Next-step accuracy (label kept)", "training", "share", "higher",
           False, "over the steps whose next road was among the candidates",
           same_as="next_step_accuracy_kept"),
    Metric("crossing_share", "Steps with crossing quantiles", "training", "share", "lower", False,
           "of a quantile time head: steps at which a higher quantile lies below a lower one"),
    Metric("informative_share", "Informative steps", "training", "share", "", False,
           "steps at which the teacher can say anything: two candidates or more, not all in one "
           "cell"),
    Metric("collision_share", "Steps with collisions", "training", "share", "", False,
           "steps at which two candidates or more share a cell of the teacher's grid"),
    Metric("teacher_entropy", "Teacher's entropy", "training", "nats", "", False,
           "mean over the informative steps at the temperature"),
    Metric("student_entropy", "Student's entropy", "training", "nats", "", False,
           "mean over the informative steps at the temperature"),
    Metric("agreement", "Agreement with the teacher", "training", "share", "", False,
           "informative steps at which both prefer the same candidate"),
    Metric("teacher_accuracy", "Teacher's accuracy", "training", "share", "higher", False,
           "informative steps at which the teacher prefers the road that was taken"),
    Metric("loss_gt_head_N", "Data loss of head N", "training", "", "lower", False,
           "self-distillation: road and time term of the head on block N, or of the last"),
    Metric("loss_soft_student_N", "Soft loss of head N", "training", "", "lower", False,
           "self-distillation: distance of the head on block N to the last head"),
    Metric("perplexity", "Perplexity", "training", "", "lower", False,
           "of a teacher: exp of the mean surprise a grid token"),
    Metric("token_accuracy", "Next-token accuracy", "training", "share", "higher", False,
           "of a teacher: tokens whose likeliest prediction is right, end included"),
    Metric("learning_rate", "Learning rate", "training", "", "", False, "of the optimiser step"),
    Metric("grad_norm", "Gradient norm", "training", "", "", False, "before clipping"),
    Metric("temperature", "Temperature", "training", "", "", False, "of the KL term"),
    Metric("lambda_kl", "Weight of the KL term", "training", "", "", False, "lambda"),
)
"""What trainings record of optimiser steps; of the validation and test trips with `val_`, `test_`
before the name, beside the figures of the model in `METRICS`."""

SEARCH = (
    Metric("roads_per_trip", "Roads a trip", "search", "", "", False, "mean over all trips"),
    Metric("log_prob", "Log-probability of a trip", "search", "nats", "", False,
           "mean over all trips, under the model"),
    Metric("snapped_m", "Way from a point to its road", "search", "m", "lower", False,
           "mean over the points that were asked for"),
    Metric("snapped_max_m", "Longest way from a point to its road", "search", "m", "lower", False,
           "the largest of them"),
    Metric("expansions_per_trip", "Expansions a trip", "search", "", "lower", False,
           "roads that the search continued from"),
)
"""What a generation tells beside `completion`, `length_ratio` and `revisit_share`."""

SPEED = (
    Metric("trips_per_s", "Trips a second", "speed", "1/s", "higher", False,
           "trips that were trained on, or generated"),
    Metric("trip_steps_per_s", "Trip steps a second", "speed", "1/s", "higher", False,
           "steps of trips (from a road to the next) that were trained on, or judged"),
    Metric("optimiser_steps_per_s", "Optimiser steps a second", "speed", "1/s", "higher", False,
           "updates of the weights"),
    Metric("tokens_per_s", "Tokens a second", "speed", "1/s", "higher", False,
           "grid tokens that a teacher was trained on"),
    Metric("contexts_per_s", "Contexts a second", "speed", "1/s", "higher", False,
           "histories that a teacher answered"),
    Metric("eta_s", "Time left", "speed", "s", "lower", False, "at the present speed"),
    Metric("epoch_s", "Time of an epoch", "speed", "s", "lower", False,
           "training alone, without validation"),
)

MACHINE = (
    Metric("process_cpu_percent", "Processor, this process", "machine", "%", "", False,
           "200 is two cores in full use"),
    Metric("process_memory_mb", "Memory of this process", "machine", "MB", "", False, ""),
    Metric("cpu_percent", "Processor, whole machine", "machine", "%", "", False, ""),
    Metric("memory_percent", "Memory in use", "machine", "%", "", False, ""),
    Metric("gpu_memory_mb", "GPU memory of this process", "machine", "MB", "", False, ""),
    Metric("gpu_memory_percent", "GPU memory in use", "machine", "%", "", False, ""),
    Metric("gpu_percent", "GPU in use", "machine", "%", "", False, ""),
)
ALL = (*METRICS, *COMPARED, *TRAINING, *SEARCH, *SPEED, *MACHINE)

RENAMED: Mapping[str, str] = {"steps_per_s": "trip_steps_per_s",
                              "val_steps_per_s": "val_trip_steps_per_s"}
"""Names that older runs recorded, and what they are called now."""

SIGNIFICANT = 0.05
"""A p below this, after Holm's correction, is more than chance."""
ONE_TRAINING = (
    "One training each: this says nothing about the method that trained them; `hoserkd study` "
    "compares methods over several seeds.")
"""Stands beside every comparison of two runs."""

BY_NAME = {metric.name: metric for metric in ALL}
PAIRED = ("dtw_km", "hausdorff_km", "frechet_km", "edr", "dtw_per_point_km", "distance_error_km",
          "duration_error_min", "completion")
"""What is compared request by request, all but the last against the request's real trip."""
SPLITS = ("val_", "test_")
PARTS = ("short_", "long_", "seen_", "unseen_")
"""Of the test trips, in a study: `test_short_accuracy`."""


def current_name(name: str) -> str:
    """Return what a figure of an older run is called now."""
    return RENAMED.get(name, name)


def metric_of(name: str) -> Metric | None:
    """Return what a recorded figure is, whatever split, part or head it is of; None: unknown."""
    name = current_name(name)
    if name in BY_NAME:
        return BY_NAME[name]
    split = next((prefix for prefix in SPLITS if name.startswith(prefix)), "")
    bare = name.removeprefix(split)
    if split:
        part = next((prefix for prefix in PARTS if bare.startswith(prefix)), "")
        bare = bare.removeprefix(part)
    return BY_NAME.get(bare) or BY_NAME.get(re.sub(r"_(\d+|last)$", "_N", bare))


LEVELS: Mapping[Level, str] = {
    "distribution": "Distributions",
    "pair": "Pairs between the same places",
    "task": "Doing what was asked",
    "crowd": "Roads and zones used",
    "model": "The model itself",
}
