import numpy as np
import pytest
import torch
from toy_teacher import ask_plainly, toy_city, toy_config, toy_teacher

from hoserkd.engine.config import DataConfig, PrecomputeConfig
from hoserkd.engine.events import Silent, never_stop
from hoserkd.engine.precompute import precompute_signal
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.teacher.fit import road_cells
from hoserkd.engine.teacher.signal import OnlineTeacher, StoredTeacher
from hoserkd.engine.teacher.signal_files import find_signal
from hoserkd.engine.teacher.storage import load_teacher, save_teacher
from hoserkd.engine.trips.batches import TripSource
from hoserkd.errors import TeacherError

CPU = torch.device("cpu")
CONFIG = toy_config(precompute=PrecomputeConfig(dtype="float32", batch_size=16))
TOP_K = 2


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return toy_city(tmp_path_factory.mktemp("city"))


@pytest.fixture(scope="module")
def teacher(city, tmp_path_factory):
    return toy_teacher(city.network, tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def batch(city):
    tables = build_network_tables(city.network, "geographic", CPU)
    source = TripSource(city.split("val"), tables, DataConfig(candidate_top_k=TOP_K), CPU)
    return source.batch(np.array([5, 0, 3, 6]))


def stored(city, teacher, window, asked=None) -> StoredTeacher:
    precompute_signal(CONFIG, city, teacher, "val", observer=Silent(), stop=never_stop, device=CPU,
                      window=asked or window)
    files = find_signal(city, teacher, "val", window, "float32")
    return StoredTeacher(files, road_cells(teacher.grid, city.network), window, CPU)


def plainly(city, teacher, batch, step, window):
    """Return the logits of the step's kept candidates, asked by themselves."""
    cells = torch.from_numpy(road_cells(teacher.grid, city.network))
    trip = int(torch.searchsorted(batch.offset, step, right=True)) - 1
    start = int(batch.offset[trip])
    tokens = cells[batch.road[start:int(batch.offset[trip + 1])].long()].tolist()
    kept = slice(int(batch.candidate_offset[step]), int(batch.candidate_offset[step + 1]))
    return ask_plainly(teacher, tokens, step - start, window,
                       cells[batch.candidate_road[kept].long()])


@pytest.mark.parametrize("window", [1, 2, 4, 8, "full"])
@pytest.mark.parametrize("steps", ["all", "some"])
def test_stored_and_online_signals_equal_asking_step_by_step(city, teacher, batch, window, steps):
    step = torch.arange(batch.steps) if steps == "all" else torch.tensor([0, 3, 4, batch.steps - 1])
    expected = [plainly(city, teacher, batch, int(s), window) for s in step]
    offset = np.cumsum([0, *(len(e) for e in expected)])
    for source in (stored(city, teacher, window),
                   OnlineTeacher(teacher, city.network, window, CPU, batch_size=5)):
        signal = source.signal(batch, step)
        assert signal.logits.dtype == torch.float32
        torch.testing.assert_close(signal.logits, torch.cat(expected), atol=1e-5, rtol=1e-5)
        np.testing.assert_array_equal(signal.offset, offset)
        assert torch.equal(signal.step, step)


def test_cells_are_those_of_the_kept_candidates(city, teacher, batch):
    step = torch.tensor([2, 5])
    signal = OnlineTeacher(teacher, city.network, 4, CPU).signal(batch, step)
    cells = road_cells(teacher.grid, city.network)
    kept = [batch.candidate_road[batch.candidate_offset[s]:batch.candidate_offset[s + 1]]
            for s in step]
    np.testing.assert_array_equal(signal.cell, cells[torch.cat(kept)])
    assert batch.candidate_offset.diff().max() == TOP_K


def test_some_candidates_are_dropped_so_that_slots_matter(city, batch):
    count = np.diff(city.network.candidates.offset)[batch.road.numpy()]
    assert (count > TOP_K).any()


@pytest.mark.parametrize("window", [1, 3, 8])
def test_signal_of_every_window_serves_each(city, teacher, batch, window):
    step = torch.arange(batch.steps)
    every = stored(city, teacher, window, asked="every").signal(batch, step)
    online = OnlineTeacher(teacher, city.network, window, CPU).signal(batch, step)
    torch.testing.assert_close(every.logits, online.logits, atol=1e-5, rtol=1e-5)


def test_half_precision_is_close(city, teacher, batch):
    config = CONFIG.model_copy(update={"precompute": PrecomputeConfig(dtype="float16")})
    report = precompute_signal(config, city, teacher, "val", observer=Silent(), stop=never_stop,
                               device=CPU, window=3)
    assert np.load(report.directory / "logits.npy").dtype == np.float16
    files = find_signal(city, teacher, "val", 3, "float16")
    half = StoredTeacher(files, road_cells(teacher.grid, city.network), 3, CPU)
    step = torch.arange(batch.steps)
    exact = OnlineTeacher(teacher, city.network, 3, CPU).signal(batch, step).logits
    torch.testing.assert_close(half.signal(batch, step).logits, exact, atol=0.05, rtol=1e-3)


def test_window_beyond_the_teachers_positions_is_refused(city, tmp_path):
    small = toy_teacher(city.network, tmp_path / "small", block_size=4)
    with pytest.raises(TeacherError, match="need 5 positions, but teacher small has 4"):
        OnlineTeacher(small, city.network, 4, CPU)
    OnlineTeacher(small, city.network, 3, CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("window", [4, "full"])
def test_signal_from_a_gpu_equals_the_cpus(city, teacher, batch, window, tmp_path):
    cuda = torch.device("cuda")
    step = torch.arange(batch.steps)
    exact = OnlineTeacher(teacher, city.network, window, CPU).signal(batch, step).logits
    moved = load_teacher(save_copy(teacher, tmp_path), cuda)
    online = OnlineTeacher(moved, city.network, window, cuda).signal(batch.to(cuda), step.to(cuda))
    torch.testing.assert_close(online.logits.cpu(), exact, atol=1e-3, rtol=1e-3)
    precompute_signal(CONFIG, city, moved, "val", observer=Silent(), stop=never_stop, device=cuda,
                      window=window, force=True)
    files = find_signal(city, moved, "val", window, "float32")
    stored = StoredTeacher(files, road_cells(moved.grid, city.network), window, cuda)
    found = stored.signal(batch.to(cuda), step.to(cuda)).logits
    torch.testing.assert_close(found.cpu(), exact, atol=1e-3, rtol=1e-3)


def save_copy(teacher, directory):
    save_teacher(directory, teacher.model, teacher.card)
    return directory
