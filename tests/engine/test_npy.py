from pathlib import Path

import numpy as np
import pytest

from hoserkd.engine.npy import ArrayWriter, save_npy

ARRAYS = [
    np.arange(12).reshape(3, 4), np.arange(12.0).reshape(3, 4).T, np.zeros((2, 0), np.float32),
    np.array(7), np.array([True, False]), np.arange(5, dtype=">i4"),
]


@pytest.mark.parametrize("array", ARRAYS)
def test_saved_arrays_are_read_by_numpy_as_they_were(tmp_path: Path, array: np.ndarray) -> None:
    save_npy(tmp_path / "deep" / "a.npy", array)
    read = np.load(tmp_path / "deep" / "a.npy", allow_pickle=False)
    assert read.dtype == array.dtype
    assert np.array_equal(read, array)
    assert read.shape == array.shape


@pytest.mark.parametrize("pieces", [[], [[]], [[1, 2], [], [3]], [list(range(100_000))] * 3])
def test_pieces_become_one_array(tmp_path: Path, pieces: list[list[int]]) -> None:
    with ArrayWriter(tmp_path / "a.npy", "<i4") as writer:
        for piece in pieces:
            writer.append(np.array(piece, np.int64))
    read = np.load(tmp_path / "a.npy", allow_pickle=False)
    assert read.dtype == np.int32
    assert read.tolist() == [value for piece in pieces for value in piece]
    assert writer.length == len(read)
