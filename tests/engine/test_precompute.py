import json
import shutil
import time
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from random_city import random_network
from toy_teacher import ask_plainly, toy_city, toy_config, toy_teacher

from hoserkd.engine.city.grid import Grid
from hoserkd.engine.city.storage import load_city
from hoserkd.engine.config import PrecomputeConfig
from hoserkd.engine.events import Progress, Silent, never_stop
from hoserkd.engine.precompute import precompute_signal
from hoserkd.engine.teacher import questions
from hoserkd.engine.teacher.fit import check_grid_fit, grid_report, road_cells
from hoserkd.engine.teacher.signal_files import find_signal, signal_directory
from hoserkd.engine.teacher.storage import Teacher
from hoserkd.engine.training.distributed import Ranks
from hoserkd.errors import InterruptedRunError, TeacherError

CPU = torch.device("cpu")
CONFIG = toy_config(precompute=PrecomputeConfig(dtype="float32", batch_size=8))


@pytest.fixture
def city(tmp_path):
    return toy_city(tmp_path / "city")


@pytest.fixture
def teacher(city, tmp_path):
    return toy_teacher(city.network, tmp_path / "teacher")


@pytest.fixture
def small_pieces(monkeypatch):
    """Cut toy work into several pieces."""
    monkeypatch.setattr(questions, "CONTEXTS_PER_PIECE", 20)


class Listener:
    def __init__(self):
        self.events = []

    def notify(self, event):
        self.events.append(event)


def run(city, teacher, split="train", **options):
    settings = {"observer": Silent(), "stop": never_stop, "device": CPU, "window": 3} | options
    config = settings.pop("config", CONFIG)
    return precompute_signal(config, city, teacher, split, **settings)


def plain_rows(city, teacher, split, window):
    """Return every step's candidate logits, asked one by one."""
    cells = torch.from_numpy(road_cells(teacher.grid, city.network))
    trips, candidates = city.split(split), city.network.candidates
    found = []
    for first, end in zip(trips.offset[:-1], trips.offset[1:], strict=True):
        tokens = cells[np.asarray(trips.road[first:end]).astype(np.int64)].tolist()
        for step in range(end - first - 1):
            road = int(trips.road[first + step])
            kept = candidates.road[candidates.offset[road]:candidates.offset[road + 1]]
            found.append(ask_plainly(teacher, tokens, step, window, cells[kept.astype(np.int64)]))
    return found


def stored_rows(city, teacher, split, window):
    files = find_signal(city, teacher, split, window, "float32")
    steps = city.split(split).steps
    rows = np.arange(steps) if files.step_row is None else files.step_row
    return [files.logits[files.row_offset[r]:files.row_offset[r + 1]] for r in rows]


@pytest.mark.parametrize("window", [1, 3, "full"])
def test_stored_logits_equal_asking_every_step_by_itself(window, city, teacher, small_pieces):
    report = run(city, teacher, window=window)
    plain = plain_rows(city, teacher, "train", window)
    assert report.steps == len(plain) == city.split("train").steps
    for stored, asked in zip(stored_rows(city, teacher, "train", window), plain, strict=True):
        np.testing.assert_allclose(stored, asked, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [3, "full"])
def test_quality_is_what_the_steps_say(window, city, teacher):
    quality = run(city, teacher, window=window).quality
    cells = road_cells(teacher.grid, city.network)
    trips, candidates = city.split("train"), city.network.candidates
    right, chance, entropy, informative, collide = [], [], [], [], []
    rows = iter(plain_rows(city, teacher, "train", window))
    for first, end in zip(trips.offset[:-1], trips.offset[1:], strict=True):
        for here, following in zip(trips.road[first:end - 1], trips.road[first + 1:end],
                                   strict=True):
            logits = next(rows)
            kept = candidates.road[candidates.offset[here]:candidates.offset[here + 1]]
            # Equal cells give logits equal up to the last bit.
            top = (logits > logits.max() - 1e-6).numpy()
            slot = list(kept).index(following)
            right.append(top[slot] / top.sum())
            chance.append(1 / len(kept))
            if len(kept) > 1:
                p = logits.double().softmax(0)
                entropy.append(float(-(p * p.clamp(min=1e-30).log()).sum()))
            distinct = len(set(cells[kept].tolist()))
            informative.append(distinct > 1)
            collide.append(distinct < len(kept))
    assert quality.accuracy == pytest.approx(np.mean(right))
    assert quality.chance == pytest.approx(np.mean(chance))
    assert quality.entropy == pytest.approx(np.mean(entropy), abs=1e-5)
    assert quality.informative_share == pytest.approx(np.mean(informative))
    assert quality.collision_share == pytest.approx(np.mean(collide))


def test_second_run_does_nothing(city, teacher):
    first = run(city, teacher)
    before = {p: p.stat().st_mtime_ns for p in first.directory.rglob("*")}
    second = run(city, teacher)
    assert (first.reused, second.reused) == (False, True)
    assert second.quality == first.quality
    assert {p: p.stat().st_mtime_ns for p in first.directory.rglob("*")} == before
    assert not run(city, teacher, force=True).reused


def test_signal_of_another_teacher_city_or_context_is_never_found(city, teacher, tmp_path):
    run(city, teacher, window=3)
    assert find_signal(city, teacher, "train", 3, "float32") is not None
    other = Teacher(teacher.model, replace(teacher.card, weights_sha256="0" * 64))
    changed = replace(city, sha256="1" * 64)
    assert find_signal(city, other, "train", 3, "float32") is None
    assert find_signal(changed, teacher, "train", 3, "float32") is None
    assert find_signal(city, teacher, "train", 2, "float32") is None
    assert find_signal(city, teacher, "train", "full", "float32") is None
    assert find_signal(city, teacher, "val", 3, "float32") is None


def test_signal_whose_meta_names_another_teacher_is_refused(city, teacher):
    directory = run(city, teacher).directory
    meta = json.loads((directory / "meta.json").read_text())
    (directory / "meta.json").write_text(json.dumps(meta | {"teacher_sha256": "0" * 64}))
    with pytest.raises(TeacherError, match="another teacher or city"):
        find_signal(city, teacher, "train", 3, "float32")


def test_cut_signal_is_refused(city, teacher):
    directory = run(city, teacher).directory
    np.save(directory / "logits.npy", np.load(directory / "logits.npy")[:-1])
    with pytest.raises(TeacherError, match="cut short"):
        find_signal(city, teacher, "train", 3, "float32")


@pytest.mark.parametrize("window", [3, "full"])
def test_stopped_job_goes_on_and_ends_the_same(window, city, teacher, small_pieces, tmp_path):
    expected = run(city, teacher, window=window, directory=tmp_path / "whole").directory
    calls = iter([False, False, True])
    with pytest.raises(InterruptedRunError, match="what is done is kept"):
        run(city, teacher, window=window, stop=lambda: next(calls))
    home = signal_directory(city, teacher, window, "float32")
    assert not (home / "train").exists()
    listener = Listener()
    report = run(city, teacher, window=window, observer=listener)
    progress = [e for e in listener.events if isinstance(e, Progress)]
    assert 0 < progress[0].done < progress[0].total
    assert progress[-1].done == progress[-1].total == report.contexts
    for path in sorted(expected.glob("*.npy")):
        np.testing.assert_array_equal(np.load(report.directory / path.name), np.load(path))
    assert sorted(p.name for p in home.iterdir()) == ["train"]


def test_line_cut_by_a_kill_does_not_count(city, teacher, small_pieces, tmp_path):
    expected = run(city, teacher, directory=tmp_path / "whole").directory
    calls = iter([False, False, True])
    with pytest.raises(InterruptedRunError):
        run(city, teacher, stop=lambda: next(calls))
    partial = signal_directory(city, teacher, 3, "float32") / ".train.partial"
    ticks = partial / "done-0.txt"
    assert ticks.read_text().split() == ["0", "done", "1", "done"]
    ticks.write_text(ticks.read_text()[:-4])
    logits = np.load(partial / "logits.npy", mmap_mode="r+")
    logits[-50:] = np.nan
    report = run(city, teacher)
    np.testing.assert_array_equal(np.load(report.directory / "logits.npy"),
                                  np.load(expected / "logits.npy"))


def test_leftover_of_other_settings_is_begun_anew(city, teacher, small_pieces):
    calls = iter([False, False, True])
    with pytest.raises(InterruptedRunError):
        run(city, teacher, stop=lambda: next(calls))
    partial = signal_directory(city, teacher, 3, "float32") / ".train.partial"
    plan = json.loads((partial / "plan.json").read_text())
    (partial / "plan.json").write_text(json.dumps(plan | {"rows": 1}))
    listener = Listener()
    run(city, teacher, observer=listener)
    assert listener.events[0].done == 0


def test_killed_job_goes_on_twice(city, teacher, small_pieces, tmp_path):
    """kill -9 in the middle, twice, then to the end."""
    expected = run(city, teacher, directory=tmp_path / "whole").directory
    home = signal_directory(city, teacher, 3, "float32")
    ticks = home / ".train.partial" / "done-0.txt"
    for wanted in (2, 4):
        job = get_context("fork").Process(
            target=run, args=(city, teacher), kwargs={"stop": lambda: time.sleep(0.05)})
        job.start()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and job.is_alive():
            if ticks.exists() and ticks.read_text().count("done") >= wanted:
                break
            time.sleep(0.002)
        job.kill()
        job.join()
        assert not (home / "train").exists()
    listener = Listener()
    report = run(city, teacher, observer=listener)
    assert listener.events[0].done > 0
    np.testing.assert_array_equal(np.load(report.directory / "logits.npy"),
                                  np.load(expected / "logits.npy"))


def share(city, teacher, rank: int, meeting: Path, outcome) -> None:
    """Be one of two processes; tell what came of it."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    listener = Listener()
    report = run(city, teacher, ranks=Ranks(rank, 2), observer=listener)
    outcome.put((rank, report.contexts, len(listener.events)))
    dist.destroy_process_group()


def test_processes_share_the_work_and_give_the_same(city, teacher, small_pieces, tmp_path):
    expected = run(city, teacher, directory=tmp_path / "whole").directory
    fork = get_context("fork")
    outcome = fork.Queue()
    jobs = [fork.Process(target=share, args=(city, teacher, rank, tmp_path / "meet", outcome))
            for rank in (0, 1)]
    for job in jobs:
        job.start()
    told = sorted(outcome.get(timeout=60) for _ in jobs)
    for job in jobs:
        job.join(timeout=60)
    pieces = [events - 1 for _, _, events in told]
    assert abs(pieces[0] - pieces[1]) <= 1 <= min(pieces)
    files = find_signal(city, teacher, "train", 3, "float32")
    np.testing.assert_array_equal(files.logits, np.load(expected / "logits.npy"))


def test_logits_beyond_half_precision_are_an_error(city, tmp_path):
    teacher = toy_teacher(city.network, tmp_path / "loud")
    teacher.model.token_embedding.data.mul_(1e6)
    config = CONFIG.model_copy(update={"precompute": PrecomputeConfig(dtype="float16")})
    with pytest.raises(TeacherError, match="cannot hold"):
        run(city, teacher, config=config)


def test_city_outside_the_grid_is_refused_with_both_sides(city, teacher):
    grid = teacher.grid
    moved = Grid(grid.min_lat + 1, grid.min_lng, grid.cell_height_deg, grid.cell_width_deg,
                 grid.rows, grid.cols)
    foreign = Teacher(teacher.model, replace(teacher.card, grid=moved))
    with pytest.raises(TeacherError, match="lie outside") as caught:
        run(city, foreign)
    assert f"{moved.min_lat:.4f}" in caught.value.message
    south = city.network.centroid_lonlat[:, 1].min()
    assert f"roads lat {south:.4f}" in caught.value.message


def test_one_road_in_a_hundred_outside_is_still_a_fit(city, teacher):
    lonlat = np.repeat(city.network.centroid_lonlat, 5, axis=0)[:200].copy()
    lonlat[:2] += 9
    wide = replace(random_network(roads=200), centroid_lonlat=lonlat)
    assert "1.0%" in check_grid_fit(teacher.grid, wide, teacher="t", city="c")
    lonlat[2] += 9
    with pytest.raises(TeacherError, match=r"1\.5%"):
        check_grid_fit(teacher.grid, wide, teacher="t", city="c")


def test_grid_report_counts_collisions_as_the_roads_have_them(city, teacher):
    network, trips = city.network, city.split("train")
    report = grid_report(teacher.grid, network, trips)
    cells = road_cells(teacher.grid, network)
    sets = [cells[network.candidates.road[a:b]].tolist() for a, b in
            zip(network.candidates.offset[:-1], network.candidates.offset[1:], strict=True)]
    several = [s for s in sets if len(s) > 1]
    assert report.colliding_roads_share == pytest.approx(
        np.mean([len(set(s)) < len(s) for s in several]))
    assert report.undecided_roads_share == pytest.approx(
        np.mean([len(set(s)) == 1 for s in several]))
    steps = [r for a, b in zip(trips.offset[:-1], trips.offset[1:], strict=True)
             for r in trips.road[a:b - 1]]
    assert report.colliding_steps_share == pytest.approx(
        np.mean([len(set(sets[r])) < len(sets[r]) for r in steps]))
    assert report.roads_per_cell_max == max(cells.tolist().count(c) for c in set(cells.tolist()))
    assert report.roads_per_cell_mean == pytest.approx(network.roads / len(set(cells.tolist())))


def test_empty_split_is_stored_too(city, teacher, tmp_path):
    from hoserkd.engine.city.storage import save_city
    from hoserkd.engine.types import TrajectorySet

    none = TrajectorySet(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64))
    splits = {"train": city.split("train"), "val": none, "test": none}
    bare = save_city(tmp_path / "bare", "bare", city.network, splits, city.times)
    for window in (3, "full", "every"):
        assert run(bare, teacher, "val", window=window).steps == 0
        assert find_signal(bare, teacher, "val", window if window != "every" else 2,
                           "float32") is not None


def test_moved_city_keeps_its_signal(city, teacher, tmp_path):
    run(city, teacher)
    shutil.move(city.directory, tmp_path / "moved")
    assert find_signal(load_city(tmp_path / "moved"), teacher, "train", 3, "float32") is not None
