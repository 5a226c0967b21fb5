"""The study with trainings that are formulas: plan, order, resumption, statistics."""

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from hoserkd.engine.config import EngineConfig, StudyConfig, TrainConfig
from hoserkd.engine.events import Note, Progress, StepDone, never_stop
from hoserkd.engine.identity import Identity
from hoserkd.engine.seeds import mean_interval, paired
from hoserkd.engine.study import (
    ALL,
    FIGURES,
    PART_FIGURES,
    PARTS,
    Entry,
    PartSize,
    Trained,
    compare_arms,
    decisive,
    metric_key,
    plan_share,
    plan_study,
    run_study,
)
from hoserkd.engine.training.schedule import Plan
from hoserkd.errors import DivergenceError, InterruptedRunError

SIZES = {share: {part: PartSize(1000, 9000) for part in (ALL, *PARTS)} for share in (1.0, 0.1)}


def config(**study) -> EngineConfig:
    """Return settings of a small study."""
    settings = {"name": "s", "shares": (1.0, 0.1), "seeds": (1, 2), "steps": 30,
                "max_epochs": 5} | study
    return EngineConfig(study=StudyConfig(**settings),
                        train=TrainConfig(batch_size=10, accumulation=2))


class Listener:
    """Keeps every event."""

    def __init__(self) -> None:
        self.events = []

    def notify(self, event):
        """Keep `event`."""
        self.events.append(event)

    def of(self, kind):
        """Return the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]


class Formula:
    """Trains by a formula and remembers, as the store would."""

    def __init__(self) -> None:
        self.entries = {}
        self.tasks = []
        self.stops_at: int | None = None
        self.diverges_at: int | None = None

    def find(self, task):
        """Return what is known of the task."""
        return self.entries.get(str(decisive(task.config, None)))

    def __call__(self, task, observer, stop, started):
        """Train."""
        self.tasks.append(task)
        key, number = str(decisive(task.config, None)), len(self.tasks)
        run = task.continues or f"run-{number}"
        started(run)
        self.entries[key] = Entry(run, None)
        observer.notify(StepDone(1, 0, task.config.train.max_steps, {}))
        if number == self.stops_at:
            raise InterruptedRunError("stopped")
        if number == self.diverges_at:
            raise DivergenceError("not a number")
        gain = 0.1 if task.config.distill.enabled else 0.0
        metrics = {"test_accuracy": 0.5 + gain + task.config.seed / 100}
        self.entries[key] = Entry(run, metrics)
        return metrics


def run(settings, formula, listener=None):
    """Run the study of 1,000 trips."""
    return run_study(plan_study(settings, 1000), formula, formula, listener or Listener(),
                     never_stop)


@pytest.mark.parametrize(("share", "trips", "epoch", "steps", "every"), [
    (1.0, 1000, 50, 30, 1), (0.1, 100, 5, 25, 1), (0.001, 1, 1, 5, 1)])
def test_a_share_has_so_many_steps_that_no_trip_is_seen_too_often(
        share, trips, epoch, steps, every):
    plan = plan_share(config(), 1000, share)
    assert (plan.trips, plan.epoch_steps, plan.steps, plan.validate_every) == (
        trips, epoch, steps, every)


@pytest.mark.parametrize("steps", [1, 7, 438, 1234])
@pytest.mark.parametrize("share", [1.0, 0.1, 0.013])
def test_a_training_is_judged_ten_times_at_most_and_at_its_end(steps, share):
    settings = config(steps=steps, max_epochs=100)
    planned = plan_study(settings, 1000)[0]
    plan = plan_share(settings, 1000, share)
    train = settings.train.model_copy(update={
        "epochs": -(-plan.steps // plan.epoch_steps), "max_steps": plan.steps,
        "validate_every": plan.validate_every})
    course = Plan(train, planned.task.config.distill, plan.epoch_steps)
    ends = sorted({*range(plan.epoch_steps, plan.steps + 1, plan.epoch_steps), plan.steps})
    judged = [step for step in ends if course.validates_at(step)]
    assert course.total_steps == plan.steps
    assert len(judged) <= 10
    assert judged[-1] == plan.steps


def test_arms_of_one_share_and_seed_differ_in_their_distillation_alone():
    arms = {"weak": {"lambda_kl": 0.01}, "own": {"source": "self"},
            "other": {"source": "hoser", "teacher": "big"}}
    planned = plan_study(config(arms=arms), 1000)
    assert [(p.arm, p.plan.share, p.seed) for p in planned] == [
        (arm, share, seed) for share in (1.0, 0.1) for seed in (1, 2)
        for arm in ("vanilla", "weak", "own", "other")]
    vanilla, weak, own, other = (p.task.config for p in planned[4:8])
    assert not vanilla.distill.enabled
    assert (weak.distill.lambda_kl, own.distill.source) == (0.01, "self")
    assert (other.distill.source, other.teacher.name) == ("hoser", "big")
    for found in (vanilla, weak, own, other):
        assert found.train == vanilla.train
        assert found.data == vanilla.data
        assert found.seed == 2
        assert found.train.max_steps == 30
    assert planned[8].task.config.data.train_share == 0.1
    assert planned[8].task.config.train.max_steps == 25
    assert planned[9].task.tags == ("weak", "share-0.1")


@pytest.mark.parametrize(("arms", "message"), [
    ({"a": {"lamda_kl": 1}}, "no setting lamda_kl for an arm; did you mean lambda_kl?"),
    ({"a": {"temperature": 0}}, "arm a: temperature: "),
    ({"a": {"enabled": False}}, "no setting enabled for an arm"),
    ({"vanilla": {}}, "vanilla is always there"), ({"a b": {}}, "cannot be a name"),
    ({"a": {"window": 9}}, "window: input should be less than or equal to 8"),
    ({}, "needs an arm")])
def test_an_arm_that_is_no_distillation_is_refused(arms, message):
    with pytest.raises(ValidationError) as refused:
        StudyConfig(arms=arms)
    assert message in str(refused.value)


@pytest.mark.parametrize("bad", [
    {"shares": (1.0, 1.0)}, {"seeds": (1, 1)}, {"seeds": ()}, {"shares": (0.0,)},
    {"shares": (1.5,)}])
def test_shares_and_seeds_stand_once_and_in_their_ranges(bad):
    with pytest.raises(ValidationError):
        StudyConfig(**bad)


def test_a_vanilla_training_does_not_depend_on_the_teacher():
    settings = config()
    other = settings.model_copy(update={
        "teacher": settings.teacher.model_copy(update={"name": "other"})})
    (vanilla, distilled), (plain, taught) = (plan_study(each, 1000)[:2]
                                             for each in (settings, other))
    one, two = (Identity("teacher", "teacher", digit * 64) for digit in "12")
    assert decisive(vanilla.task.config, None) == decisive(plain.task.config, None)
    assert decisive(distilled.task.config, one) != decisive(distilled.task.config, two)
    # The name is for people: another one for the same teacher changes nothing.
    assert decisive(distilled.task.config, one) == decisive(taught.task.config, one)


def test_a_stopped_study_goes_on_and_does_nothing_twice():
    formula = Formula()
    formula.stops_at = 4
    with pytest.raises(InterruptedRunError):
        run(config(), formula)
    formula.stops_at = None
    listener = Listener()
    trained = run(config(), formula, listener)
    assert [task.continues for task in formula.tasks] == [None] * 4 + ["run-4"] + [None] * 4
    assert [t.run for t in trained] == [f"run-{n}" for n in (1, 2, 3, 4, 6, 7, 8, 9)]
    assert any("3 of 8 trainings are done already" in note.message for note in listener.of(Note))
    done = [event.done for event in listener.of(Progress)]
    assert done == sorted(done)
    assert listener.of(Progress)[0].done == 90
    assert {event.total for event in listener.of(Progress)} == {4 * 30 + 4 * 25}


def test_more_seeds_and_arms_keep_what_is_trained():
    formula = Formula()
    run(config(), formula)
    run(config(seeds=(1, 2, 3), arms={"distilled": {}, "strong": {"lambda_kl": 1.0}}), formula)
    added = [(task.tags, task.config.seed) for task in formula.tasks[8:]]
    assert len(added) == 2 * (1 + 1 + 3)
    assert all(tags[0] == "strong" or seed == 3 for tags, seed in added)


def test_a_training_that_diverges_is_left_out():
    formula, listener = Formula(), Listener()
    formula.diverges_at = 2
    trained = run(config(shares=(1.0,)), formula, listener)
    assert [t.metrics is None for t in trained] == [False, True, False, False]
    assert any(note.level == "warning" and "left out" in note.message
               for note in listener.of(Note))
    (found,) = [c for c in compare_arms(trained, SIZES) if c.figure == "accuracy"]
    assert found.seeds == (2,)
    assert found.verdict == "one seed: no verdict"


def made_up(arms=("vanilla", "a", "b"), shares=(1.0, 0.1), seeds=(1, 2, 3, 4)):
    """Return trainings with random figures; arm b is much better in accuracy."""
    rng = np.random.default_rng(0)
    keys = [metric_key(ALL, figure) for figure in FIGURES]
    keys += [metric_key(part, figure) for part in PARTS for figure in PART_FIGURES]
    return [Trained(arm, share, seed, "r", {
        key: 0.5 + 0.01 * rng.standard_normal() + 0.4 * (arm == "b" and "accuracy" in key)
        for key in keys}) for share in shares for seed in seeds for arm in arms]


def plain_holm(p):
    """Return the adjusted values by the definition, one by one."""
    order = sorted(range(len(p)), key=lambda k: p[k])
    return [max(min(1.0, (len(p) - j) * p[order[j]]) for j in range(order.index(k) + 1))
            for k in range(len(p))]


def test_comparisons_are_those_of_plain_paired_t_tests():
    trained = made_up()
    found = compare_arms(trained, SIZES)
    assert len(found) == 2 * 2 * (len(FIGURES) + len(PARTS) * len(PART_FIGURES))
    for family in ([c for c in found if c.part == ALL], [c for c in found if c.part != ALL]):
        plain = []
        for c in family:
            key = metric_key(c.part, c.figure)
            ours, base = ([t.metrics[key] for t in trained
                           if (t.arm, t.share) == (arm, c.share)] for arm in (c.arm, "vanilla"))
            test = stats.ttest_rel(ours, base)
            interval = test.confidence_interval(0.95)
            assert c.found.difference == pytest.approx(np.mean(ours) - np.mean(base))
            assert c.found.interval == pytest.approx((interval.low, interval.high))
            assert c.found.p == pytest.approx(test.pvalue)
            plain.append(test.pvalue)
        assert [c.p_holm for c in family] == pytest.approx(plain_holm(plain))


def test_verdicts_need_the_corrected_p():
    found = compare_arms(made_up(), SIZES)
    for c in found:
        if c.arm == "b" and c.figure == "accuracy":
            assert c.verdict == "better"
        elif c.p_holm >= 0.05:
            assert c.verdict == "no difference"
    alone = [c for c in found if c.found.alone != "no difference" and c.p_holm >= 0.05]
    assert alone, "the made-up figures hold a difference that the correction takes back"
    assert all(c.verdict == "no difference" for c in alone)


def test_differences_that_are_all_the_same_leave_no_doubt():
    assert paired("accuracy", [0.5, 0.5], [0.5, 0.5]).p == 1.0
    assert paired("accuracy", [0.75, 0.5], [0.5, 0.25]).p == 0.0


def test_seeds_that_gain_one_step_each_prove_nothing():
    step = 1 / 9000
    sizes = [paired("accuracy", [0.8 + step] * seeds, [0.8] * seeds, step) for seeds in (2, 3)]
    assert sizes[0].verdict == "no difference"
    # The spread of rounding, 1 / sqrt(12) of a step: t = sqrt(12 * 3) with two degrees of freedom.
    assert sizes[1].p == pytest.approx(2 * stats.t.sf(6, 2))
    trained = [Trained(arm, 1.0, seed, "r", {"test_accuracy": 0.8 + step * (arm == "a")})
               for seed in (1, 2) for arm in ("vanilla", "a")]
    assert [c.verdict for c in compare_arms(trained, SIZES)] == ["no difference"]


def test_the_interval_of_a_mean_is_students():
    values = [0.1, 0.4, 0.2, 0.9]
    plain = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert mean_interval(values) == pytest.approx(plain)
    assert mean_interval([1.0]) is None
