"""The answer of a study in sentences, tables and Markdown."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hoserkd.engine.metrics.catalogue import SIGNIFICANT
from hoserkd.engine.seeds import mean_interval
from hoserkd.engine.study import (
    ALL,
    VANILLA,
    ArmComparison,
    PartSize,
    SharePlan,
    Sizes,
    Trained,
)
from hoserkd.report.markdown import table_text
from hoserkd.report.tables import ABSENT, Table, p_text, verdict_text
from hoserkd.text import markdown_text

LABELS = {"accuracy": "accuracy", "loss_road": "negative log-likelihood",
          "ece": "calibration error", "loss_time": "time loss", "time_mae_s": "time error, s"}
SHORT = {"accuracy": "accuracy", "loss_road": "NLL", "ece": "ECE", "loss_time": "time loss",
         "time_mae_s": "time, s"}
"""The same where there is little room."""
ARROWS = {"accuracy": "↑"}
"""Which way is better; all other figures are better when smaller."""
PART_WORDS = {"short": "short trips", "long": "long trips", "seen": "seen OD pairs",
              "unseen": "unseen OD pairs"}
HEADLINE = "accuracy"
MOST_NAMED = 4
"""Comparisons that a sentence names one by one."""


@dataclass(frozen=True, slots=True)
class TeacherWord:
    """How often an arm's teacher is right by itself."""

    arm: str
    split: str
    accuracy: float
    """Share of all steps whose next road it puts first; equal firsts share."""
    chance: float
    """The same for one who knows nothing."""


@dataclass(frozen=True, slots=True)
class StudyReport:
    """All that is said of a study."""

    name: str
    city: str
    shares: tuple[SharePlan, ...]
    sizes: Sizes
    trained: tuple[Trained, ...]
    comparisons: tuple[ArmComparison, ...]
    teachers: tuple[TeacherWord, ...] = ()
    commands: tuple[str, ...] = ()
    """Command lines that make the same again."""
    made: str = ""

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms beside vanilla."""
        return tuple(dict.fromkeys(t.arm for t in self.trained if t.arm != VANILLA))

    @property
    def test_size(self) -> PartSize:
        """The whole test split."""
        return self.sizes[self.shares[0].share][ALL]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(dict.fromkeys(t.seed for t in self.trained))


def share_text(share: float) -> str:
    """Return a share in per cent."""
    return f"{100 * share:g} %"


def summary(report: StudyReport) -> list[str]:
    """Return the answer in sentences, the shortest first; all of them follow from the figures."""
    lines = []
    for arm in report.arms:
        found = [c for c in report.comparisons
                 if c.arm == arm and c.part == ALL and c.figure == HEADLINE]
        if found:
            lines += [_answer(arm, found), _details(arm, found)]
    lines += _counts("All test trips, all figures", [c for c in report.comparisons
                                                     if c.part == ALL])
    lines += _counts("Parts of the test trips", [c for c in report.comparisons if c.part != ALL])
    lines += [_teacher(word) for word in report.teachers]
    diverged = [f"{t.arm} at {share_text(t.share)}, seed {t.seed}" for t in report.trained
                if t.metrics is None]
    if diverged:
        lines.append(f"Diverged and left out: {'; '.join(diverged)}.")
    return lines


def _answer(arm: str, found: Sequence[ArmComparison]) -> str:
    """Return the plain answer for one arm."""
    by_verdict: dict[str, list[str]] = {}
    for each in found:
        by_verdict.setdefault(each.verdict, []).append(share_text(each.share))
    if set(by_verdict) == {"no difference"}:
        return f"No difference: {arm} is neither better nor worse than vanilla at any share."
    if set(by_verdict) == {"one seed: no verdict"}:
        return (f"One seed: no verdict on {arm}. Chance alone moves a training; more seeds show by "
                "how much.")
    words = {"better": "better than vanilla at", "worse": "worse than vanilla at",
             "no difference": "no difference at",
             "one seed: no verdict": "no verdict (one seed) at"}
    said = [f"{words[verdict]} {_listed(by_verdict[verdict])}"
            for verdict in words if verdict in by_verdict]
    return f"{arm}: {'; '.join(said)} of the training trips."


def _details(arm: str, found: Sequence[ArmComparison]) -> str:
    """Return the differences of accuracy, and what could have been seen."""
    said = [f"{_signed(c.found.difference)} at {share_text(c.share)}"
            + (f" ({_range(c.found.interval)})" if c.found.interval else "") for c in found]
    text = f"Accuracy of {arm} minus vanilla: {', '.join(said)}"
    reaches = [_reach(c.found.interval) for c in found if c.found.interval]
    if not reaches:
        return text + "."
    seeds = max(len(c.seeds) for c in found)
    return (f"{text}; in brackets 95 % intervals. With {seeds} seeds, a true difference smaller "
            f"than about {max(reaches):.4f} may go unseen.")


def _counts(name: str, found: Sequence[ArmComparison]) -> list[str]:
    """Return how many comparisons of a family say what."""
    judged = [c for c in found if c.p_holm is not None]
    if not judged:
        return []
    better, worse = ([c for c in judged if c.verdict == word] for word in ("better", "worse"))
    alone = sum(c.found.alone != "no difference" for c in judged)
    text = (f"{name}: of {len(judged)} comparisons {len(better)} better, {len(worse)} worse, "
            f"{len(judged) - len(better) - len(worse)} no difference")
    named = [f"{_where(c)}: {c.verdict}" for c in (*better, *worse)]
    if len(named) > MOST_NAMED:
        named[MOST_NAMED:] = [f"and {len(named) - MOST_NAMED} more"]
    text += f" ({'; '.join(named)})" if named else ""
    return [f"{text}. Without the correction for many comparisons {alone} would differ; where "
            f"nothing differs, chance brings about {len(judged) / 20:.1f}."]


def _where(c: ArmComparison) -> str:
    part = "" if c.part == ALL else f" of {PART_WORDS[c.part]}"
    return f"{LABELS[c.figure]}{part}, {c.arm} at {share_text(c.share)}"


def _teacher(word: TeacherWord) -> str:
    split = {"val": "validation", "test": "test"}[word.split]
    return (f"The teacher of {word.arm} alone has the next road right at "
            f"{100 * word.accuracy:.1f} % of the {split} steps; who guesses, "
            f"{100 * word.chance:.1f} %.")


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _signed(value: float) -> str:
    text = f"{value:+.4f}"
    return text[1:] if float(text) == 0 else text


def _range(interval: tuple[float, float] | None) -> str:
    return ABSENT if interval is None else f"{_signed(interval[0])} to {_signed(interval[1])}"


def _reach(interval: tuple[float, float]) -> float:
    return (interval[1] - interval[0]) / 2


def _figures(c: ArmComparison) -> tuple[str, ...]:
    found = c.found
    reach = "" if found.interval is None else f" ± {_reach(found.interval):.4f}"
    return (f"{SHORT[c.figure]} {ARROWS.get(c.figure, '↓')}",
            f"{statistics.fmean(found.vanilla):.4f}", f"{statistics.fmean(found.arm):.4f}",
            _signed(found.difference) + reach,
            ABSENT if c.p_holm is None else p_text(c.p_holm), verdict_text(c.found))


COLUMNS = ("figure", "vanilla", "arm's", "difference", "p", "verdict")


def headline_table(report: StudyReport) -> Table:
    """Return every figure on all test trips."""
    found = [c for c in report.comparisons if c.part == ALL]
    rows = tuple((share_text(c.share), c.arm, *_figures(c)) for c in found)
    return Table("All test trips", ("share", "arm", *COLUMNS), rows,
                 _caption(found))


def parts_table(report: StudyReport) -> Table:
    """Return the figures on parts of the test trips."""
    found = [c for c in report.comparisons if c.part != ALL]
    rows = tuple((share_text(c.share), c.arm, PART_WORDS[c.part],
                  f"{report.sizes[c.share][c.part].trips:,}", *_figures(c)) for c in found)
    return Table("By kind of test trip",
                 ("share", "arm", "part", "trips", *COLUMNS), rows,
                 "Long: more steps than the median test trip. Seen: a training trip of the share "
                 "joins the same first and last road. " + _caption(found))


MEANINGS = ("Share: of the training trips. NLL: negative log-likelihood of the next road. ECE: "
            "calibration error. Time: mean absolute error of the seconds on a road.")


def _caption(found: Sequence[ArmComparison]) -> str:
    tests = sum(c.p_holm is not None for c in found)
    if not tests:
        return (f"{MEANINGS} Means over the seeds. With one seed there is no interval and no "
                "verdict.")
    return (f"{MEANINGS} Means over the seeds; the difference is arm minus vanilla, paired by "
            "seed, ± Student's 95 % interval. p: paired t test, Holm's correction over the "
            f"{tests} comparisons of this table. Better or worse needs p below {SIGNIFICANT}; in "
            "brackets what the interval alone would say.")


def budget_table(report: StudyReport) -> Table:
    """Return what every training on a share had."""
    rows = tuple((share_text(p.share), f"{p.trips:,}", f"{p.epoch_steps:,}", f"{p.steps:,}",
                  f"{p.steps / p.epoch_steps:.1f}") for p in report.shares)
    return Table("Budget of a training, the same for every arm",
                 ("share", "trips", "optimiser steps an epoch", "optimiser steps", "epochs"), rows)


def trainings_table(report: StudyReport) -> Table:
    """Return every training with its accuracy."""
    rows = tuple((share_text(t.share), t.arm, str(t.seed),
                  *(_metric(t, key) for key in ("val_accuracy", "test_accuracy",
                                                "test_loss_road")), t.run)
                 for t in report.trained)
    return Table("Trainings", ("share", "arm", "seed", "validation accuracy", "test accuracy",
                               "test negative log-likelihood", "run"), rows)


def _metric(trained: Trained, key: str) -> str:
    value = (trained.metrics or {}).get(key)
    return ABSENT if value is None else f"{value:.4f}"


def values_of(
    report: StudyReport, arm: str, share: float, key: str
) -> tuple[list[float], tuple[float, float] | None]:
    """Return one figure of an arm's trainings at a share, by seed, and the mean's interval."""
    values = [t.metrics[key] for t in report.trained
              if (t.arm, t.share) == (arm, share) and t.metrics is not None and key in t.metrics]
    return values, mean_interval(values)


def render_study(report: StudyReport, plot: str | None = None) -> str:
    """Return the study as Markdown.

    Args:
        plot: Name of the plot's file beside the page; None: there is none.
    """
    seeds = ", ".join(map(str, report.seeds))
    parts: Iterable[str] = [
        f"# Does distillation help? {markdown_text(report.name)}",
        f"{markdown_text(report.city)}: {report.test_size.trips:,} test trips of "
        f"{report.test_size.steps:,} steps, seeds {seeds}. "
        f"{markdown_text(report.made)}".strip(),
        "\n".join(f"- {markdown_text(line)}" for line in summary(report)),
        f"![Accuracy and negative log-likelihood over the share]({plot})" if plot else "",
        *(table_text(table) for table in (headline_table(report), parts_table(report),
                                          budget_table(report), trainings_table(report))),
        "\n".join(["To make it again:", "", *(f"    {line}" for line in report.commands)])
        if report.commands else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
