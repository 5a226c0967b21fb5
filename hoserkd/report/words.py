"""The summary of an evaluation in sentences that follow from its numbers."""

from dataclasses import dataclass

from hoserkd.engine.metrics.baselines import FLOOR, FREQUENT, SHORTEST
from hoserkd.engine.metrics.catalogue import BY_NAME, ONE_TRAINING, SIGNIFICANT
from hoserkd.engine.metrics.comparison import Comparison
from hoserkd.engine.metrics.evaluation import Evaluation
from hoserkd.engine.metrics.statistics import Figure
from hoserkd.report.records import Report
from hoserkd.report.tables import figure_text, p_text, value_text

DIVERGENCES = (("distance_jsd", "trip length"), ("radius_jsd", "trip radius"),
               ("step_duration_jsd", "time on a road"), ("road_usage_jsd", "use of the roads"))
CLOSE_CALIBRATION = 0.02


@dataclass(frozen=True, slots=True)
class Part:
    """Sentences under one heading."""

    heading: str
    """Empty where there is but one part."""
    place: int
    """Which run it is about, from 1; 0 for a comparison."""
    sentences: tuple[str, ...]


def summary(report: Report) -> list[Part]:
    """Return what stands in the way of comparing, the comparisons, and what each run's numbers
    say."""
    parts = []
    if report.unlike:
        parts.append(Part("Not made alike", 0, tuple(
            f"{line[:1].upper()}{line[1:]}." for line in report.unlike)))
    if report.comparisons:
        said = map(comparison_sentence, report.comparisons)
        parts.append(Part("Compared", 0, (*said, ONE_TRAINING)))
    for place, run in enumerate(report.runs, 1):
        heading = run.name if len(report.runs) > 1 else ""
        parts.append(Part(heading, place, tuple(run_sentences(run.evaluation))))
    return parts


def run_sentences(found: Evaluation) -> list[str]:
    """Return what the numbers of one run say."""
    metric, done = BY_NAME["completion"], found.figures["completion"]
    lines = []
    if done.value is not None:
        lines.append(
            f"Of {done.count:,} requests, {figure_text(done, metric)} end on the requested road "
            f"and {value_text(found.figures['completion_200m'].value, metric)} within 200 m of it.")
    lines.append(_divergence_sentence(found))
    lines.append(_pair_sentence(found))
    lines += _model_sentences(found)
    return lines


def _divergence_sentence(found: Evaluation) -> str:
    floor, ceiling = found.references[FLOOR], found.references[SHORTEST]
    parts = []
    for name, words in DIVERGENCES:
        verdict = _verdict(found.figures[name], floor[name], ceiling[name])
        parts.append(f"{words} {value_text(found.figures[name].value)} ({verdict})")
    return "Divergence from the real trips (JSD, 0 is equal): " + "; ".join(parts) + "."


def _verdict(figure: Figure, floor: Figure, ceiling: Figure) -> str:
    """Return where a figure stands between real trips and shortest paths."""
    if figure.value is None or floor.value is None:
        return "not defined"
    if figure.value <= (floor.high if floor.high is not None else floor.value):
        return f"cannot be told from other real trips, {value_text(floor.value)}"
    if ceiling.value is None or ceiling.value <= floor.value:
        return f"other real trips: {value_text(floor.value)}"
    if figure.value >= ceiling.value:
        return f"no nearer than shortest paths, {value_text(ceiling.value)}"
    way = (ceiling.value - figure.value) / (ceiling.value - floor.value)
    return (f"{100 * way:.0f} % of the way from shortest paths, {value_text(ceiling.value)}, "
            f"to other real trips, {value_text(floor.value)}")


def _pair_sentence(found: Evaluation) -> str:
    dtw, edr = found.figures["dtw_km"], found.figures["edr"]
    if dtw.value is None:
        return ("No generated trip starts and ends in the cells of a real one, so the pair "
                "metrics do not exist here.")
    rule = found.references[SHORTEST]
    cell = f"{found.settings.cell_m:.0f} m"
    return (f"Against real trips between the same {cell} cells ({dtw.note}): "
            f"DTW {figure_text(dtw)} km, EDR {figure_text(edr)}; shortest paths on the same "
            f"requests have {value_text(rule['dtw_km'].value)} km and "
            f"{value_text(rule['edr'].value)}.")


def _model_sentences(found: Evaluation) -> list[str]:
    accuracy = found.figures.get("next_step_accuracy")
    if accuracy is None or accuracy.value is None:
        return []
    share = BY_NAME["next_step_accuracy"]
    rule = found.references[FREQUENT].get("next_step_accuracy", Figure(None))
    lines = [f"The model names the next road rightly in {figure_text(accuracy, share)} of the "
             f"steps of real trips; always taking the most frequent turn is right in "
             f"{value_text(rule.value, share)}."]
    choice = found.figures.get("next_step_accuracy_choice", Figure(None))
    if choice.value is not None:
        rule = found.references[FREQUENT].get("next_step_accuracy_choice", Figure(None))
        lines.append(
            f"Where there is a choice ({value_text(found.figures['choice_share'].value, share)} of "
            f"the steps; a single candidate is right by construction) it is right in "
            f"{figure_text(choice, share)}, the most frequent turn in "
            f"{value_text(rule.value, share)}.")
    ece = found.figures.get("ece")
    curve = found.reliability
    if ece is not None and ece.value is not None and curve is not None:
        gap = float(((curve.confidence - curve.accuracy) * curve.count)[curve.count > 0].sum())
        side = "too sure of itself" if gap > 0 else "too unsure of itself"
        verdict = ("well calibrated" if ece.value < CLOSE_CALIBRATION else f"{side} on average")
        lines.append(f"Its probabilities are off by {value_text(ece.value)} on average (ECE): "
                     f"{verdict}.")
    return lines


def _p_words(p: float) -> str:
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def comparison_sentence(found: Comparison) -> str:
    """Return what the paired tests of two runs say."""
    if not found.tests:
        return found.note[:1].upper() + found.note[1:] + "."
    better: dict[str, list[str]] = {found.a: [], found.b: []}
    for name, test in found.tests.items():
        if test.p_holm < SIGNIFICANT and test.effect:
            metric = BY_NAME[name]
            first = (test.effect < 0) == (metric.better == "lower")
            unit = f" {metric.unit}" if metric.unit not in ("", "share") else ""
            better[found.a if first else found.b].append(
                f"{metric.label.removesuffix(' by')} ({value_text(test.mean_a, metric)} against "
                f"{value_text(test.mean_b, metric)}{unit}, {_p_words(test.p_holm)})")
    told = [f"{name} is better in {'; '.join(what)}" for name, what in better.items() if what]
    if not told:
        return (f"Over {found.queries:,} common requests no difference between {found.a} and "
                f"{found.b} can be shown after Holm's correction.")
    return (f"Over {found.queries:,} common requests, after Holm's correction: "
            + "; and ".join(told) + ".")
