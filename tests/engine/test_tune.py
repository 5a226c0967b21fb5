"""The study with trainings that are formulas: order, pruning, resumption, final comparison."""

import multiprocessing
import os
import signal
import time

import optuna
import pytest

from hoserkd.engine.config import EngineConfig, TuneConfig
from hoserkd.engine.events import EpochDone, Note, never_stop
from hoserkd.engine.seeds import paired
from hoserkd.engine.tune import outcome, work
from hoserkd.engine.tuning.objectives import objectives_of
from hoserkd.engine.tuning.retention import runs_to_strip
from hoserkd.engine.tuning.rows import importances
from hoserkd.engine.tuning.study import Study
from hoserkd.errors import (
    ConfigError,
    DivergenceError,
    HoserkdError,
    InterruptedRunError,
    StoreError,
)

FORK = multiprocessing.get_context("fork")


def config(**tune) -> EngineConfig:
    """Return settings of a small study."""
    settings = {"study": "s", "trials": 6, "epochs": 3, "min_resource": 1,
                "final_epochs": 2, "final_seeds": ()} | tune
    return EngineConfig(tune=TuneConfig(**settings))


def begin(place, train, resume=False, **tune):
    """Work on a study until nothing is left, and return it."""
    study = Study(place, config(**tune), resume=resume)
    work(study, train, stop=never_stop, poll_s=0.01)
    return study


def result(study):
    """Return what a study has come to."""
    return outcome(study.ledger, study.config, study.parameters, study.place)


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
        started(task.continues or f"run-{len(self.tasks)}")
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
            ece = 0.3 - distill.lambda_kl
            metrics = {"val_accuracy": value, "test_accuracy": value - 0.01, "val_ece": ece}
            observer.notify(EpochDone(epoch, epoch + 1, metrics))
            if stop() or self.stops_at == (len(self.tasks), epoch):
                raise InterruptedRunError("stopped")
        return metrics


@pytest.mark.parametrize("sampler", ["cmaes", "tpe", "gp", "random"])
def test_the_baseline_comes_first_and_trials_stay_in_their_ranges(tmp_path, sampler):
    train = Formula()
    study = begin(tmp_path, train, sampler=sampler)
    roles = [task.role for task in train.tasks]
    assert roles == ["vanilla"] + ["search"] * 5
    assert not train.tasks[0].config.distill.enabled
    for task in train.tasks[1:]:
        distill = task.config.distill
        assert distill.enabled
        assert 0.001 <= distill.lambda_kl <= 0.1
        assert 1 <= distill.temperature <= 5
        assert distill.window in range(2, 9)
    rows = study.ledger.rows()
    assert [row.number for row in rows] == list(range(6))
    assert [row.optuna for row in rows] == [None, *range(5)]
    for row, trial in zip(rows[1:], study.ledger.optuna.trials, strict=True):
        assert (row.optuna, row.number) == (trial.number, trial.user_attrs["hoserkd_trial"])
    assert rows[0].params == {}
    assert rows[0].values == pytest.approx({"accuracy": 0.52})
    assert rows[1].curve.keys() == {1, 2, 3}


def test_one_worker_of_one_seed_draws_the_same_trials(tmp_path):
    first, second = Formula(), Formula()
    begin(tmp_path / "a", first)
    begin(tmp_path / "b", second)
    assert [t.config.distill for t in first.tasks] == [t.config.distill for t in second.tasks]


def test_a_bad_trial_is_pruned_and_the_best_is_not(tmp_path):
    train = Formula()
    train.bad_above = 2.5
    found = result(begin(tmp_path, train, trials=16, sampler="random"))
    best = found.row(found.best)
    pruned = [row for row in found.rows if row.state == "pruned"]
    assert pruned
    assert any(row.params["temperature"] > 2.5 for row in pruned)
    assert all(row.values["accuracy"] < best.values["accuracy"] for row in pruned)
    assert all(row.epochs < 3 for row in pruned)
    assert best.params["temperature"] <= 2.5
    assert found.importances["accuracy"].keys() == {"lambda_kl", "temperature", "window"}


def test_a_diverging_trial_fails_and_the_search_goes_on(tmp_path):
    train = Formula()
    train.diverges_at = 3
    rows = begin(tmp_path, train, trials=4).ledger.rows()
    assert [row.state for row in rows] == ["complete", "complete", "failed", "complete"]
    assert rows[2].error == "not a number"


def test_a_stopped_trial_is_queued_again_and_goes_on_with_its_run(tmp_path):
    train, more = Formula(), Formula()
    train.stops_at = (3, 1)
    with pytest.raises(InterruptedRunError):
        begin(tmp_path, train, trials=4, min_resource=3)
    again = begin(tmp_path, more, trials=4, min_resource=3, resume=True)
    assert more.tasks[0].continues == "run-3"
    assert more.tasks[0].config.distill == train.tasks[2].config.distill
    rows = again.ledger.rows()
    assert [row.state for row in rows] == ["complete", "complete", "failed", "complete",
                                           "complete"]
    assert (rows[2].went_on_as, rows[2].error, rows[3].run) == (3, "stopped", "run-3")


class Deadly(Formula):
    """Kills its process in the middle of the second searched trial."""

    def __call__(self, task, observer, stop, started):
        if task.role == "search" and len(self.tasks) == 2:
            started("left-behind")
            observer.notify(EpochDone(0, 1, {"val_accuracy": 0.7}))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(task, observer, stop, started)


def test_trials_of_a_killed_process_are_rescued_by_one_that_lives(tmp_path):
    given = {"trials": 4, "min_resource": 3}
    killed = FORK.Process(target=begin, args=(tmp_path, Deadly()), kwargs=given)
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    told, train = [], Formula()
    study = Study(tmp_path, config(**given), resume=True)
    work(study, train, observer=Notes(told), stop=never_stop, poll_s=0.01)
    assert train.tasks[0].continues == "left-behind"
    rows = study.ledger.rows()
    assert [row.state for row in rows] == ["complete", "complete", "failed", "complete",
                                           "complete"]
    assert (rows[2].error, rows[2].went_on_as) == ("its process died", 3)
    assert rows[2].params == rows[3].params
    # The first epoch was told before the end of the process, and is not told again.
    assert rows[3].curve[1] == 0.7
    assert "trial 2 was left by a process that is gone" in told[0]


class Notes:
    """Keeps what an observer is told in words."""

    def __init__(self, told):
        self.told = told

    def notify(self, event):
        if isinstance(event, Note):
            self.told.append(event.message)


def test_a_trial_that_kills_every_process_is_given_up(tmp_path):
    study = Study(tmp_path, config(trials=3), resume=False)
    with study.at_work():
        study.take_trial()
    deaths = 0
    while study.rescue():
        deaths += 1
        with study.at_work():
            study.take_trial()
    assert deaths == 2
    assert study.ledger.rows()[-1].error == "its process died, 3 times by now"


def test_a_trial_of_another_machine_is_left_alone_until_it_falls_silent(tmp_path):
    study = Study(tmp_path, config(trials=3), resume=False)
    with study.at_work():
        trial = study.take_trial()
        told = {"host": "other", "place": "other/boot", "pid": 1, "started": 1.0,
                "ended": False}
        study.ledger.optuna.set_user_attr("worker:x", {**told, "beat": time.time() - 100})
        trial.set_user_attr("worker", "x")
        assert study.rescue() == []
        assert [worker.host for worker in study.ledger.living(study.worker.id)] == ["other"]
        # Who finds it at work joins, without a word of resuming.
        assert not Study(tmp_path, config(trials=3), resume=False).began
        study.ledger.optuna.set_user_attr("worker:x", {**told, "beat": time.time() - 400})
        assert study.rescue() == [1]


def test_a_worker_that_was_taken_for_gone_drops_its_trial(tmp_path):
    study = Study(tmp_path, config(trials=2), resume=False)

    class Slow(Formula):
        def __call__(self, task, observer, stop, started):
            if task.role == "search" and task.continues is None:
                started("slow")
                trial = study.ledger.trials()[0]
                study.requeue(study.ledger.optuna, trial, died=True)
                observer.notify(EpochDone(0, 1, {"val_accuracy": 0.9}))
                assert stop()
                raise InterruptedRunError("stopped")
            return super().__call__(task, observer, stop, started)

    train = Slow()
    work(study, train, stop=never_stop, poll_s=0.01)
    assert train.tasks[-1].continues == "slow"
    assert [row.state for row in study.ledger.rows()] == ["complete", "failed", "complete"]


def test_two_processes_together_do_no_more_trials_than_wanted(tmp_path):
    first = Study(tmp_path, config(trials=4), resume=False)
    with first.at_work():
        second = Study(tmp_path, config(trials=4), resume=False, worker=1)
        with second.at_work():
            taken = [first.take_trial(), second.take_trial(), first.take_trial()]
            assert second.take_trial() is None
    assert [trial.number for trial in taken] == [0, 1, 2]
    assert taken[0].params != taken[1].params


def test_who_asks_for_one_trial_too_many_gives_it_back(tmp_path):
    first = Study(tmp_path, config(trials=3), resume=False)
    with first.at_work():
        first.take_trial()
        first.take_trial()
        # Another worker had looked before these were taken.
        surplus = first._ask(first.ledger.optuna)
        first._give_back(first.ledger.optuna, surplus)
        assert len(first.ledger.trials()) == 2
        job = {"key": "vanilla", "role": "vanilla", "seed": 0, "epochs": 1}
        for _ in range(2):
            first.ledger.runs.enqueue_trial({}, user_attrs=job)
        assert first.take_job() is not None
        assert first.take_job() is None


class Paced(Formula):
    """Takes a moment for each task."""

    def __call__(self, *given):
        time.sleep(0.1)
        return super().__call__(*given)


def be_worker(place, number, names):
    """Work on a study as one of several, and say which tasks were done here."""
    train = Paced()
    given = config(trials=7, final_seeds=(1, 2), sampler="random")
    work(Study(place, given, resume=True, worker=number), train, stop=never_stop, poll_s=0.02)
    names.put([task.name for task in train.tasks])


def test_workers_in_many_processes_share_one_study(tmp_path):
    names = FORK.Queue()
    running = [FORK.Process(target=be_worker, args=(tmp_path, number, names))
               for number in range(2)]
    for process in running:
        process.start()
    done = [names.get(timeout=100) for _ in running]
    for process in running:
        process.join()
    assert sorted(name for one in done for name in one) == sorted([
        *(f"s-{n}" for n in range(7)),
        *(f"s-final-{role}-{seed}" for role in ("best", "vanilla") for seed in (1, 2))])
    assert all(done)


def test_a_study_in_sqlite_works_as_in_a_journal(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    train = Formula()
    given = {"storage": url, "min_resource": 3}
    study = begin(tmp_path / "none", train, trials=3, **given)
    assert [row.state for row in study.ledger.rows()] == ["complete"] * 3
    assert not (tmp_path / "none").exists()
    more = Formula()
    begin(tmp_path / "none", more, trials=4, resume=True, **given)
    assert [task.name for task in more.tasks] == ["s-3"]


@pytest.mark.parametrize(("storage", "word"), [
    ("nosuch://host/x", "cannot be opened"), ("postgresql://me:secret@host/x", "driver"),
    ("sqlite:////nowhere/at/all.db", "cannot be opened")])
def test_a_storage_that_cannot_be_opened_is_said_without_its_password(tmp_path, storage, word):
    with pytest.raises(HoserkdError, match=word) as caught:
        Study(tmp_path, config(storage=storage), resume=False)
    assert "secret" not in caught.value.message


def test_an_existing_study_needs_resume_and_the_settings_of_its_start(tmp_path):
    begin(tmp_path, Formula(), trials=2)
    with pytest.raises(StoreError, match="exists already"):
        Study(tmp_path, config(), resume=False)
    with pytest.raises(StoreError, match=r"tune\.epochs was 3, now 4"):
        Study(tmp_path, config(epochs=4), resume=True)


def test_final_runs_are_paired_by_seed_and_done_once(tmp_path):
    train = Formula()
    study = begin(tmp_path, train, trials=3, final_seeds=(1, 2))
    finals = [task for task in train.tasks if task.role.startswith("final")]
    assert [(task.role, task.config.seed) for task in finals] == [
        ("final-vanilla", 1), ("final-best", 1), ("final-vanilla", 2), ("final-best", 2)]
    assert {task.config.train.epochs for task in finals} == {2}
    found = result(study)
    by_metric = {c.metric: c for c in found.comparisons}
    gain = 0.1 - abs(found.row(found.leader).params["temperature"] - 3) / 20
    assert by_metric["test_accuracy"].difference == pytest.approx(gain)
    again = Formula()
    begin(tmp_path, again, trials=3, final_seeds=(1, 2, 3), resume=True)
    assert [task.config.seed for task in again.tasks] == [3, 3]


def test_no_trial_is_best_where_vanilla_is_not_beaten(tmp_path):
    train = Formula()
    train.bad_above = 0.0
    found = result(begin(tmp_path, train, trials=3, final_seeds=(1, 2)))
    assert found.best is None
    assert found.leader is not None
    assert found.front == (0,)
    # One seed decides nothing: the leader goes on to the final runs all the same.
    assert [len(c.arm) for c in found.comparisons] == [2] * len(found.comparisons)
    assert all(c.p_holm >= c.p for c in found.comparisons)


def test_several_objectives_give_a_front_and_prune_nothing(tmp_path):
    train = Formula()
    train.bad_above = 2.5
    study = begin(tmp_path, train, trials=9, sampler="random",
                  objectives=("accuracy", "calibration"))
    found = result(study)
    assert {row.state for row in found.rows} == {"complete"}
    figures = {row.number: (row.values["accuracy"], -row.values["calibration"])
               for row in found.rows}
    beaten = {n for n, a in figures.items() for b in figures.values()
              if b != a and b[0] >= a[0] and b[1] >= a[1]}
    assert set(found.front) == figures.keys() - beaten
    assert len(found.front) > 1
    assert found.leader == max(set(figures) - {0}, key=lambda n: figures[n][0])
    assert found.best == (found.leader if figures[found.leader][0] > figures[0][0] else None)
    assert found.importances.keys() == {"accuracy", "calibration"}
    assert found.rows[0].values.keys() == {"accuracy", "calibration"}


def test_importance_finds_what_the_objective_follows():
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(lambda t: -abs(t.suggest_float("a", 0, 1) - 0.5)
                   + 0 * t.suggest_float("b", 0, 1), n_trials=40)
    shares = importances(study, objectives_of(("accuracy",)))["accuracy"]
    assert shares["a"] > 0.7
    assert sum(shares.values()) == pytest.approx(1)
    same = optuna.create_study()
    same.optimize(lambda t: 0.0 * t.suggest_float("a", 0, 1), n_trials=6)
    assert importances(same, objectives_of(("calibration",))) == {}
    few = optuna.create_study()
    few.optimize(lambda t: t.suggest_float("a", 0, 1), n_trials=3)
    assert importances(few, objectives_of(("calibration",))) == {}


def test_choices_are_searched_and_refused_where_they_make_no_settings(tmp_path):
    train = Formula()
    begin(tmp_path, train, trials=9, sampler="random",
          choices={"student": {"hidden_dim": (16, 32)}, "train": {"weight_decay": (0.0, 0.1)}})
    sizes = {task.config.student.hidden_dim for task in train.tasks[1:]}
    assert sizes == {16, 32}
    assert train.tasks[0].config.student.hidden_dim == EngineConfig().student.hidden_dim
    for choices, word in (({"student": {"hiden": (1,)}}, "hiden"),
                          ({"distill": {"window": (1, 2)}}, "already"),
                          ({"student": {"hidden_dim": (16, "x")}}, "hidden_dim")):
        with pytest.raises(ConfigError, match=word):
            Study(tmp_path / "other", config(choices=choices), resume=False)
    with pytest.raises(ValueError, match="one objective only"):
        config(objectives=("accuracy", "calibration"))


@pytest.mark.parametrize(("keep", "kept"), [("all", 8), ("best", 1), (3, 3)])
def test_retention_strips_all_but_the_best(tmp_path, keep, kept):
    train = Formula()
    train.bad_above = 2.5
    study = begin(tmp_path, train, trials=9, sampler="random", keep=keep, final_seeds=(1,))
    found = result(study)
    stripped = runs_to_strip(study.ledger, study.config.tune)
    left = [row for row in found.rows[1:] if row.run not in stripped]
    assert len(left) == kept
    assert found.leader in [row.number for row in left]
    assert not {found.rows[0].run} & set(stripped)


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
