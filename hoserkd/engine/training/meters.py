"""From sums over steps to the figures that a run records."""

from collections.abc import Mapping

SUPERVISED = ("road", "time", "labelled", "correct", "steps")
DISTILLED = ("kl", "informative", "asked", "collided", "teacher_entropy", "student_entropy",
             "agreed", "teacher_correct")


def loss_metrics(sums: Mapping[str, float], lambda_kl: float) -> dict[str, float]:
    """Return the losses and shares of a step, an epoch or a split from its sums.

    `loss` is the road term + the time term + `lambda_kl` times the KL term, each a mean over
    its own steps. Figures about the teacher are left out where it was not asked or had nothing
    to say.
    """
    labelled = max(sums["labelled"], 1.0)
    metrics = {
        "loss_road": sums["road"] / labelled,
        "loss_time": sums["time"] / labelled,
        "accuracy": sums["correct"] / max(sums["steps"], 1.0),
    }
    metrics["loss"] = metrics["loss_road"] + metrics["loss_time"]
    if sums.get("asked", 0.0) > 0:
        metrics |= teacher_metrics(sums)
        metrics["loss"] += lambda_kl * metrics.get("loss_kl", 0.0)
    return metrics


def teacher_metrics(sums: Mapping[str, float]) -> dict[str, float]:
    """Return the KL term and what teacher and student say, as means over informative steps."""
    informative = sums["informative"]
    metrics = {
        "informative_share": informative / sums["asked"],
        "collision_share": sums["collided"] / sums["asked"],
    }
    if informative > 0:
        metrics |= {
            "loss_kl": sums["kl"] / informative,
            "teacher_entropy": sums["teacher_entropy"] / informative,
            "student_entropy": sums["student_entropy"] / informative,
            "agreement": sums["agreed"] / informative,
            "teacher_accuracy": sums["teacher_correct"] / informative,
        }
    return metrics
