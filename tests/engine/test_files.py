"""Files that are whole or absent, whoever is killed and whatever the disk says."""

import errno
import os
import signal
from pathlib import Path

import pytest
import torch

from hoserkd.engine.files import LEFT_S, cut_torn_tail, replacing
from hoserkd.engine.study_journal import StudyJournal


def half_written(path: Path) -> list[Path]:
    return list(path.parent.glob(f".{path.name}.*.tmp"))


def killed_while_writing(path: Path) -> None:
    child = os.fork()
    if child == 0:
        with replacing(path) as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"whole")
    killed_while_writing(path)
    assert path.read_bytes() == b"whole"
    assert len(half_written(path)) == 1


def test_what_was_left_is_cleared_once_it_is_old(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    killed_while_writing(path)
    with replacing(path) as file:
        file.write(b"1")
    left, = half_written(path)
    os.utime(left, (0, left.stat().st_mtime - 2 * LEFT_S))
    with replacing(path) as file:
        file.write(b"2")
    assert half_written(path) == []
    assert path.read_bytes() == b"2"


def test_a_slow_writer_is_not_taken_for_a_dead_one(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with replacing(path) as slow:
        slow.write(b"slow")
        slow.flush()
        mine, = half_written(path)
        os.utime(mine, (0, 0))
        with replacing(path) as quick:
            quick.write(b"quick")
        assert path.read_bytes() == b"quick"
    assert path.read_bytes() == b"slow"


@pytest.mark.parametrize("filename", [None, "temporary"])
def test_a_refusal_names_the_file_that_was_meant(tmp_path: Path, filename: str | None) -> None:
    path = tmp_path / "a.bin"

    def refused() -> None:
        with replacing(path):
            name = str(half_written(path)[0]) if filename else None
            raise OSError(errno.ENOSPC, "No space left on device", name)

    with pytest.raises(OSError) as caught:
        refused()
    assert caught.value.filename == str(path)
    assert half_written(path) == []


def test_what_torch_makes_of_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    class Full:
        def write(self, _: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"), replacing(tmp_path / "a.ckpt"):
        torch.save({"a": torch.zeros(9)}, Full())


def test_a_torn_tail_is_cut_and_whole_lines_stay(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\n" + b"x" * 70_000)
    with path.open("r+b") as file:
        assert cut_torn_tail(file.fileno()) == 8
    assert path.read_bytes() == b"one\ntwo\n"


def test_the_journal_goes_on_behind_a_torn_line_and_a_dead_holder(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    journal = StudyJournal(path)
    journal.append_logs([{"op": 1}, {"op": 2}])
    with path.open("ab") as file:
        file.write(b'{"op": 3, "torn')
    # What Optuna's own lock would have left behind.
    Path(f"{path}.lock").symlink_to(path)
    again = StudyJournal(path)
    assert list(again.read_logs(0)) == [{"op": 1}, {"op": 2}]
    again.append_logs([{"op": 4}])
    assert list(again.read_logs(2)) == [{"op": 4}]
    assert list(StudyJournal(path).read_logs(0)) == [{"op": 1}, {"op": 2}, {"op": 4}]
