"""What the dashboard reads from a real store: runs, evaluations, maps, processes."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from literals import judged_document, toy_study

from hoserkd.engine.city.storage import City, load_city
from hoserkd.engine.config import EngineConfig
from hoserkd.engine.events import EpochDone, StepDone
from hoserkd.engine.identity import MadeFrom, city_identity
from hoserkd.store.runs import RunStore
from hoserkd.tui.braille import View, cells, draw_segments
from hoserkd.tui.judgements import Difference, judgement_of, read_judgement
from hoserkd.tui.launching import Launch, Starter, launch_words
from hoserkd.tui.mapping import read_city_map, read_trips
from hoserkd.tui.reading import StoreSource
from hoserkd.tui.studies import StudyRecord, read_record, studies_of
from hoserkd.tui.views.page import Wanted

RUNS = Wanted("runs", None, ())
CONFIG = json.dumps(EngineConfig().model_dump(mode="json"))


def _train(store: RunStore, name: str, steps: int) -> Any:
    recorder = store.create_run("train", "demo", name, CONFIG, 0, "cpu")
    for step in range(1, steps + 1):
        recorder.notify(StepDone(step, 0, 100, {"loss": 1 / step, "trips_per_s": 64.0},
                                 {"forward": 3.0}))
    recorder.notify(EpochDone(0, steps, {"val_accuracy": 0.7}))
    return recorder


def test_store_source_live_run_grows_without_the_database(store: RunStore, tmp_path: Path) -> None:
    recorder = _train(store, "live", 10)
    source = StoreSource(store, tmp_path)
    (row,) = source.read(RUNS).runs
    assert (row.status, row.step, row.total_steps, row.val_accuracy) == ("running", 10, 100, 0.7)
    before = store.database.stat().st_mtime_ns
    recorder.notify(StepDone(11, 0, 100, {"loss": 0.05}))
    snapshot = source.read(Wanted("run", row.run_id, ()))
    assert snapshot.runs[0].step == 11
    assert snapshot.details[row.run_id].curves["loss"].last == 0.05
    assert snapshot.details[row.run_id].timings_ms == {"forward": 3.0}
    assert store.database.stat().st_mtime_ns == before
    recorder.finish("finished")
    (row,) = source.read(RUNS).runs
    assert (row.status, row.eta_s) == ("finished", None)
    assert source.stop(row) == "live is not at work"


def test_store_source_labels_of_others_and_own_are_seen(store: RunStore, tmp_path: Path) -> None:
    _train(store, "one", 2).finish("finished")
    source = StoreSource(store, tmp_path)
    run_id = source.read(RUNS).runs[0].run_id
    assert source.tag(run_id, "good") == f"good on {run_id}"
    assert source.read(RUNS).runs[0].tags == ("good",)
    store.label(run_id, remove=["good"], name="other")
    assert (source.read(RUNS).runs[0].tags, source.read(RUNS).runs[0].name) == ((), "other")
    assert "cannot be a name" in source.tag(run_id, "not so good")


def test_store_source_broken_database_is_trouble_not_an_end(
    store: RunStore, tmp_path: Path
) -> None:
    _train(store, "one", 2).finish("finished")
    store.database.write_bytes(b"no database" * 1000)
    snapshot = StoreSource(store, tmp_path).read(RUNS)
    assert snapshot.trouble is not None


def test_store_source_same_state_gives_equal_snapshots(store: RunStore, tmp_path: Path) -> None:
    _train(store, "one", 20).finish("finished")
    source = StoreSource(store, tmp_path)
    wanted = Wanted("run", source.read(RUNS).runs[0].run_id, ())
    assert source.read(wanted) == source.read(wanted)


def test_store_source_evaluation_page_reads_what_evaluate_wrote(
    store: RunStore, tmp_path: Path
) -> None:
    inside = store.create_run("evaluate", "demo", "inside", CONFIG)
    (inside.directory / "evaluation").mkdir()
    (inside.directory / "evaluation" / "evaluation.json").write_text(json.dumps(judged_document()))
    inside.finish("finished")
    outside = store.create_run("evaluate", "demo", "outside", CONFIG)
    file = tmp_path / "report" / "evaluation.json"
    file.parent.mkdir()
    file.write_text(json.dumps(judged_document(("solo",))))
    outside.artifact(file, "evaluation")
    outside.finish("finished")
    found = StoreSource(store, tmp_path).read(Wanted("evaluation", None, ())).judgements
    assert {judged.title: judged.names for judged in found} == {
        "inside": ("vanilla", "distilled"), "outside": ("solo",)}


def test_read_judgement_torn_or_foreign_file_is_none(tmp_path: Path) -> None:
    for text in ("", '{"evaluations": []}', "[]", json.dumps(judged_document())[:-30]):
        (tmp_path / "e.json").write_text(text)
        assert read_judgement(tmp_path / "e.json", "id", "title") is None


def test_judgement_of_puts_headlines_first_and_tells_tests() -> None:
    judged = judgement_of(judged_document(), "id", "title")
    assert [line.label for line in judged.lines] == ["Trip distance JSD, nats", "OD completion"]
    assert judged.lines[1].values == ("90.0 %", "91.0 %")
    assert judged.lines[1].intervals[0] == "90.0 [85.0, 99.0] %"
    assert sum(judged.distributions[0].real) == pytest.approx(1)
    assert judged.tests == (
        Difference("DTW, km", "vanilla 0.41", "distilled 0.38", "≠ differ", "0.003"),)
    coarse = judged.distributions[0].coarser(7)
    assert len(coarse.edge) == len(coarse.real) == 7
    assert sum(coarse.real) == pytest.approx(1)
    assert coarse.real[0] == pytest.approx(sum(judged.distributions[0].real[:6]))


def test_a_study_is_shown_as_it_records_itself() -> None:
    (study,) = studies_of(*toy_study())
    assert [trial.role for trial in study.trials] == [
        "vanilla", *["search"] * 5, "final-best"]
    assert study.status == "running"
    assert study.record.best == 4
    assert study.parameters == ("lambda_kl", "temperature", "window")
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3, 4, 5, None]
    assert [trial.status for trial in study.trials[4:]] == ["complete", "pruned", "finished"]
    assert study.best_so_far().value == (0.81, 0.84, 0.84, 0.85)
    assert study.each().value == (0.83, 0.81, 0.84, 0.82, 0.85, 0.8)


def test_a_study_that_has_written_nothing_has_no_best_trial() -> None:
    rows, studies, _ = toy_study()
    (study,) = studies_of(rows, studies, {})
    assert (study.record.best, study.record.importances) == (None, {})
    assert len(study.trials) == 7


@pytest.mark.parametrize("text", [
    "", "[]", "{", '{"trials": [1]}', '{"trials": 3}', '{"best": {"number": "x"}}',
    '{"importances": []}', '{"best_so_far": [{}]}', '{"objectives": 1}', '{"summary": 5}'])
def test_a_damaged_record_of_a_study_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "tune.json").write_text(text)
    assert read_record(tmp_path / "tune.json") == StudyRecord()
    assert read_record(tmp_path / "missing.json") == StudyRecord()


def _plain_dots(view: View, a: np.ndarray, b: np.ndarray) -> set[tuple[int, int]]:
    """The dots of one segment, by walking it in steps of a tenth of a dot."""
    start, end = view.to_dots(np.stack([a, b]))
    count = int(np.abs(end - start).max() * 10) + 2
    points = np.floor(start + (end - start) * np.linspace(0, 1, count)[:, None]).astype(int)
    return {(x, y) for x, y in points.tolist()
            if 0 <= x < view.dots_wide and 0 <= y < view.dots_high}


@pytest.mark.parametrize("seed", range(5))
def test_draw_segments_stays_on_the_line_and_leaves_no_gap(seed: int) -> None:
    draw = np.random.default_rng(seed)
    view = View(0.0, 1.0, 0.0, 1.0, 20, 8)
    start, end = draw.uniform(-0.5, 1.5, (1, 2)), draw.uniform(-0.5, 1.5, (1, 2))
    grid = draw_segments(view, start, end)
    drawn = {(int(x), int(y)) for y, x in np.argwhere(grid)}
    plain = _plain_dots(view, start[0], end[0])
    assert drawn <= plain
    for x, y in plain:
        assert any((x + dx, y + dy) in drawn for dx in (-1, 0, 1) for dy in (-1, 0, 1))


def test_draw_segments_far_zoom_into_a_long_road_is_cheap() -> None:
    view = View(0.0, 1e-6, 0.0, 1e-6, 100, 40)
    grid = draw_segments(view, np.array([[-50.0, -50.0]]), np.array([[50.0, 50.0]]))
    assert grid.sum() >= 160


def test_cells_dots_become_the_right_characters() -> None:
    grid = np.zeros((4, 4), dtype=bool)
    grid[0, 0] = grid[3, 1] = grid[1, 2] = True
    assert "".join(map(chr, cells(grid)[0])) == "⢁⠂"


def test_map_of_a_prepared_city_and_its_generated_trips(
    tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    assert run_cli("prepare", "--profile", "smoke", "--city", tmp_path / "city").exit_code == 0
    city = read_city_map(tmp_path / "city")
    assert len(city.first) == len(city.index) + 1
    start, end = city.segments([0])
    assert (start[1:] == end[:-1]).all()
    roads = list(city.index)[:2]
    (tmp_path / "t.csv").write_text(
        "origin,destination,departure,rid_list,time_list,log_prob,reached,reason\n"
        f'0,{roads[-1]},2024-05-06T08:00:00Z,"{roads}","",-1.5,True,reached\n'
        '1,2,2024-05-06T08:00:00Z,"[999999]","",-1.5,False,unknown road\n')
    (trip,) = read_trips(tmp_path / "t.csv", city)
    assert trip.roads == (0, 1)
    assert trip.reached
    (tmp_path / "public.csv").write_text(
        "gene_trace_road_id,gene_trace_datetime\n"
        f'"[np.int64({roads[0]}), {roads[1]}]","[]"\n"[{roads[0]}.5]","[]"\n')
    (public,) = read_trips(tmp_path / "public.csv", city)
    assert public.roads == (0, 1)


def test_map_of_a_run_is_that_of_the_city_it_was_made_on_wherever_it_lies_now(
    tmp_path: Path, store: RunStore, two_way_city: City
) -> None:
    city = load_city(shutil.copytree(two_way_city.directory, tmp_path / "far" / "away"))
    made = MadeFrom(city_identity(city))
    with store.create_run("train", "demo", "x", CONFIG, made_from=made) as run:
        (run.directory / "generated").mkdir()
        (run.directory / "generated" / "t.csv").write_text(
            "origin,destination,departure,rid_list\n"
            f'0,0,2024-05-06T08:00:00Z,"[{city.network.road_id[0]}]"\n')
    source = StoreSource(store, tmp_path / "data")
    wanted = Wanted("map", run.run_id, ())
    snapshot = source.read(wanted)
    assert snapshot.map is not None
    assert (snapshot.map.city.name, len(snapshot.map.trips)) == ("two_way", 1)
    assert snapshot.map.source == "t.csv"
    (run.directory / "best.safetensors").write_bytes(b"")
    os.utime(run.directory / "generated" / "t.csv", (1, 1))
    trained_on = source.read(wanted)
    assert trained_on.map is not None
    assert trained_on.map.source == "t.csv, older than the run's weights"
    renamed = tmp_path / "data" / "cities" / "other"
    renamed.parent.mkdir(parents=True)
    city.directory.rename(renamed)
    moved = source.read(wanted)
    assert moved.map is not None
    assert moved.map.city.name == "two_way"
    manifest = json.loads((renamed / "manifest.json").read_text())
    (renamed / "manifest.json").write_text(json.dumps({**manifest, "sha256": "0" * 64}))
    gone = source.read(wanted)
    assert gone.map is None
    assert f"run x was made with city two_way (hash {city.sha256[:12]})" in gone.map_missing
    assert "its hash among 1 in" in gone.map_missing


def test_an_empty_store_names_the_others_and_opens_them(tmp_path: Path, store: RunStore) -> None:
    home = tmp_path / "home"
    demo = RunStore(home / "demo" / "store")
    with demo.create_run("train", "demo", "x", CONFIG):
        pass
    (home / "demo" / "cities").mkdir()
    source = StoreSource(store, tmp_path, home)
    (other,) = source.read(RUNS).other_stores
    assert (other.directory, other.runs) == (demo.directory, 1)
    assert [run.name for run in source.opened(other).read(RUNS).runs] == ["x"]
    assert source.opened(other).read(RUNS).other_stores == ()
    with store.create_run("train", "demo", "y", CONFIG):
        pass
    assert source.read(RUNS).other_stores == ()


def test_launch_words_are_a_command_line() -> None:
    launch = Launch("tune", "demo", "ignored", "tune.trials=3 'city.name=a b'")
    assert launch_words(launch) == ["hoserkd", "tune", "--profile", "demo", "--set",
                                    "tune.trials=3", "--set", "city.name=a b"]
    with pytest.raises(ValueError, match="key=value"):
        launch_words(Launch("tune", "demo", "", "trials"))


@pytest.mark.parametrize(("launch", "told"), [
    (Launch("train, vanilla", "smoke", "mine", "train.epochs=3"), None),
    (Launch("train, vanilla", "smoke", "mine", "train.epoch=3"), "did you mean train.epochs?"),
    (Launch("train, vanilla", "smoke", "mine", "train.epochs=-1"), "train.epochs"),
    (Launch("train, vanilla", "smoke", "mine", "train.epochs"), "expected key=value"),
    (Launch("train, vanilla", "smoke", "no name!"), "cannot be a name"),
    (Launch("train, vanilla", "beijing"), "no prepared city 'beijing': tried"),
    (Launch("prepare the city", "beijing"), None),
])
def test_store_source_tells_what_is_wrong_with_a_start(
        launch: Launch, told: str | None, store: RunStore, tmp_path: Path) -> None:
    city = tmp_path / "cities" / "smoke"
    city.mkdir(parents=True)
    (city / "manifest.json").write_text("{}")
    refusal = StoreSource(store, tmp_path).refusal(launch)
    assert refusal is None if told is None else told in str(refusal)


def test_starter_tells_of_a_run_that_failed_and_only_once(tmp_path: Path) -> None:
    starter = Starter(tmp_path / "store", tmp_path)
    starter.start(["hoserkd", "profiles", "list"])
    log = starter.start(["hoserkd", "train", "--profile", "nosuch"])
    told: list[str] = []
    deadline = time.monotonic() + 60
    while not told and time.monotonic() < deadline:
        time.sleep(0.1)
        told = starter.failures()
    assert "nosuch" in told[0]
    assert str(log) in told[0]
    assert starter.failures() == []
