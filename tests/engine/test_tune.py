"""The study with trainings that are formulas: order, pruning, resumption, final comparison."""

import pytest

from hoserkd.engine.config import EngineConfig, TuneConfig
from hoserkd.engine.events import EpochDone, Silent, never_stop
from hoserkd.engine.seeds import paired
from hoserkd.engine.tune import (
    Study,
    compare_finals,
    run_baseline,
    run_finals,
    search,
)
from hoserkd.errors import DivergenceError, InterruptedRunError, StoreError


def config(**tune) -> EngineConfig:
    """Return settings of a small study."""
    settings = {"study": "s", "trials": 6, "epochs": 3, "min_resource": 1,
                "final_epochs": 2, "final_seeds": (1, 2)} | tune
    return EngineConfig(tune=TuneConfig(**settings))


class Formula:
    """Trains by a formula: the accuracy grows by epoch and is best at temperature 3."""

    def __init__(self) -> None:
        self.tasks = []
        self.bad_above: float | None = None
        self.diverges_at: int | None = None
        self.stops_at: tuple[int, int] | None = None
        """(task, epoch) at which the user asks to stop."""

    def __call__(self, task, observer, stop, started):
        self.tasks.append(task)
        started(f"run-{len(self.tasks)}")
        if self.diverges_at == len(self.tasks):
            raise DivergenceError("not a number")
        distill, metrics = task.config.distill, {}
        for epoch in range(task.config.train.epochs):
            gain = 0.01 * epoch + 0.001 * task.config.seed
            value = 0.5 + gain
            if distill.enabled:
                value += 0.1 - abs(distill.temperature - 3) / 20
                if self.bad_above is not None and distill.temperature > self.bad_above:
                    value -= 0.4
            metrics = {"val_accuracy": value, "test_accuracy": value - 0.01}
            observer.notify(EpochDone(epoch, epoch + 1, metrics))
            if stop() or self.stops_at == (len(self.tasks), epoch):
                raise InterruptedRunError("stopped")
        return metrics


@pytest.mark.parametrize("sampler", ["cmaes", "tpe", "random"])
def test_the_baseline_comes_first_and_trials_stay_in_their_ranges(tmp_path, sampler):
    study, train = Study(tmp_path, config(sampler=sampler), resume=False), Formula()
    run_baseline(study, train, never_stop)
    search(study, train, Silent(), never_stop)
    roles = [task.role for task in train.tasks]
    assert roles == ["vanilla"] + ["search"] * 5
    assert not train.tasks[0].config.distill.enabled
    for task in train.tasks[1:]:
        distill = task.config.distill
        assert distill.enabled
        assert 0.001 <= distill.lambda_kl <= 0.1
        assert 1 <= distill.temperature <= 5
        assert distill.window in range(2, 9)
    rows = study.rows()
    assert [row.number for row in rows] == list(range(6))
    assert rows[0].params == {}
    assert rows[0].accuracy == pytest.approx(0.52)


def test_a_bad_trial_is_pruned_and_the_best_is_not(tmp_path):
    study, train = Study(tmp_path, config(trials=16, sampler="random"), resume=False), Formula()
    train.bad_above = 2.5
    search(study, train, Silent(), never_stop)
    rows = study.rows()
    pruned = [row for row in rows if row.state == "pruned"]
    assert pruned
    assert any(row.params["temperature"] > 2.5 for row in pruned)
    assert all(row.accuracy < study.best.value for row in pruned)
    assert all(row.epochs < 3 for row in pruned)
    assert study.best.params["temperature"] <= 2.5


def test_a_diverging_trial_fails_and_the_search_goes_on(tmp_path):
    study, train = Study(tmp_path, config(trials=4), resume=False), Formula()
    train.diverges_at = 2
    search(study, train, Silent(), never_stop)
    assert [row.state for row in study.rows()] == ["complete", "failed", "complete"]


def test_a_stopped_trial_is_queued_again_and_goes_on_with_its_run(tmp_path):
    unpruned = config(trials=4, min_resource=3)
    study, train = Study(tmp_path, unpruned, resume=False), Formula()
    train.stops_at = (2, 1)
    with pytest.raises(InterruptedRunError):
        search(study, train, Silent(), never_stop)
    again, more = Study(tmp_path, unpruned, resume=True), Formula()
    search(again, more, Silent(), never_stop)
    assert more.tasks[0].continues == "run-2"
    stopped = train.tasks[1].config.distill
    assert more.tasks[0].config.distill == stopped
    rows = again.rows()
    assert len(rows) == 3
    assert {row.state for row in rows} == {"complete"}


def test_a_trial_of_a_dead_process_is_queued_again_and_a_living_one_left_alone(tmp_path):
    study = Study(tmp_path, config(trials=5), resume=False)
    dead, living = study.next_trial(), study.next_trial()
    with study.lock(f"trial-{living.number}"):
        again = Study(tmp_path, config(trials=5), resume=True)
        assert again.fail_stale() == [dead.number]
        train = Formula()
        search(again, train, Silent(), never_stop)
    assert train.tasks[0].config.distill.temperature == dead.params["temperature"]
    # Four searched trials are wanted: one is still with the living process.
    assert len(train.tasks) == 3


def test_two_processes_together_do_no_more_trials_than_wanted(tmp_path):
    first = Study(tmp_path, config(trials=4), resume=False)
    second = Study(tmp_path, config(trials=4), resume=True, worker=1)
    taken = [first.next_trial(), second.next_trial(), first.next_trial()]
    assert second.next_trial() is None
    assert [trial.number for trial in taken] == [0, 1, 2]
    assert taken[0].params != taken[1].params


def test_an_existing_study_needs_resume(tmp_path):
    Study(tmp_path, config(), resume=False)
    with pytest.raises(StoreError, match="exists already"):
        Study(tmp_path, config(), resume=False)


def test_final_runs_are_paired_by_seed_and_done_once(tmp_path):
    study, train = Study(tmp_path, config(trials=3), resume=False), Formula()
    search(study, train, Silent(), never_stop)
    run_finals(study, train, Silent(), never_stop)
    finals = [task for task in train.tasks if task.role.startswith("final")]
    assert [(task.role, task.config.seed) for task in finals] == [
        ("final-vanilla", 1), ("final-best", 1), ("final-vanilla", 2), ("final-best", 2)]
    assert {task.config.train.epochs for task in finals} == {2}
    by_metric = {c.metric: c for c in compare_finals(study)}
    gain = 0.1 - abs(study.best.params["temperature"] - 3) / 20
    assert by_metric["test_accuracy"].difference == pytest.approx(gain)
    done = len(train.tasks)
    run_finals(Study(tmp_path, config(trials=3), resume=True), train, Silent(), never_stop)
    assert len(train.tasks) == done


def test_the_interval_of_paired_runs_is_students():
    found = paired("test_accuracy", [0.9, 0.92, 0.94], [0.88, 0.91, 0.91])
    # Differences 0.02, 0.01, 0.03: mean 0.02, standard error 0.01/sqrt(3), t(2) = 4.3027.
    assert found.difference == pytest.approx(0.02)
    assert found.interval == pytest.approx((0.02 - 0.024841, 0.02 + 0.024841), abs=1e-5)
    assert found.verdict == "no difference"


@pytest.mark.parametrize(("metric", "best", "verdict"), [
    ("test_accuracy", [0.9, 0.901], "better"), ("test_accuracy", [0.7, 0.701], "worse"),
    ("test_loss_road", [0.7, 0.701], "better"), ("test_time_mae_s", [0.9, 0.901], "worse")])
def test_the_verdict_knows_which_way_is_better(metric, best, verdict):
    assert paired(metric, best, [0.8, 0.801]).verdict == verdict


def test_one_seed_gives_no_verdict():
    found = paired("test_accuracy", [0.9], [0.8])
    assert found.interval is None
    assert found.verdict == "one seed: no verdict"
