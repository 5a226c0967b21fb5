"""From sums over steps to the figures that a run records."""

from collections.abc import Mapping

from hoserkd.engine.config import DistillConfig, StudentConfig

SUPERVISED = ("road", "time", "labelled", "correct", "steps")
DISTILLED = ("kl", "informative", "asked", "collided", "teacher_entropy", "student_entropy",
             "agreed", "teacher_correct")


def supervised_names(student: StudentConfig) -> tuple[str, ...]:
    """Return what is summed over steps without a teacher."""
    return SUPERVISED if student.time_quantiles is None else (*SUPERVISED, "pinball")


def loss_metrics(sums: Mapping[str, float]) -> dict[str, float]:
    """Return the losses and shares of a step, an epoch or a split from its sums.

    `loss` is the road term + the time term + the weighted KL term, each a mean over its own
    steps. The time term is `loss_time`, with a quantile head `loss_pinball`. Figures about the
    teacher are left out where it was not asked or had nothing to say.

    Args:
        sums: By name. `weighted_kl` is the sum of lambda_kl times KL, each step's with the weight
            of its time; without it the KL term has no weight.
    """
    labelled = max(sums["labelled"], 1.0)
    metrics = {
        "loss_road": sums["road"] / labelled,
        "loss_time": sums["time"] / labelled,
        "accuracy": sums["correct"] / max(sums["steps"], 1.0),
    }
    trained = metrics["loss_time"]
    if "pinball" in sums:
        metrics["loss_pinball"] = trained = sums["pinball"] / labelled
    metrics["loss"] = metrics["loss_road"] + trained
    if sums.get("asked", 0.0) > 0:
        metrics |= teacher_metrics(sums)
        metrics["loss"] += sums.get("weighted_kl", 0.0) / max(sums["informative"], 1.0)
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


def self_metrics(
    sums: Mapping[str, float], layers: tuple[int, ...], distill: DistillConfig
) -> dict[str, float]:
    """Return the figures of a self-distilling step: the last head's, each head's, the loss."""
    labelled, informative = max(sums["labelled"], 1.0), max(sums["informative"], 1.0)
    metrics = loss_metrics(sums)
    hard, soft = [metrics["loss"]], []
    for layer in layers:
        hard.append((sums[f"gt_road_{layer}"] + sums[f"gt_time_{layer}"]) / labelled)
        soft.append(sums[f"soft_kl_{layer}"] / informative + sums[f"soft_time_{layer}"] / labelled)
        metrics |= {f"loss_gt_head_{layer}": hard[-1], f"loss_soft_student_{layer}": soft[-1]}
    metrics["loss_gt_head_last"] = hard[0]
    metrics["loss"] = (distill.weight_gt * sum(hard) / len(hard)
                       + distill.weight_soft * sum(soft) / len(soft))
    return metrics
