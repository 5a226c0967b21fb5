import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hoserkd.errors import StoreError
from hoserkd.store.spool import Spool, is_written, parse_lines, read_lines, tail_events

WRITER = """
import sys
from pathlib import Path
from hoserkd.store.spool import Spool
spool = Spool(Path(sys.argv[1]))
for step in range(10**9):
    spool.append("step", {"step": step, "m": {"loss": 0.5}})
    if step % 50 == 49:
        print(step, flush=True)
"""


def events(path: Path) -> list[dict]:
    return list(parse_lines(path.read_bytes()))


def test_append_numbers_events_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    for step in range(3):
        spool.append("step", {"step": step})
    spool.close()
    assert [(e["seq"], e["type"], e["step"]) for e in events(tmp_path / "s")] == [
        (1, "step", 0), (2, "step", 1), (3, "step", 2)]


def test_second_writer_is_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    with pytest.raises(StoreError, match="another process"):
        Spool(tmp_path / "s")
    spool.close()
    Spool(tmp_path / "s").close()


def test_torn_last_line_is_cut_and_counting_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "s"
    spool = Spool(path)
    spool.append("step", {"step": 0})
    spool.close()
    with path.open("ab") as file:
        file.write(b'{"seq":2,"t":1.0,"type":"st')
    spool = Spool(path)
    spool.append("step", {"step": 1})
    spool.close()
    assert [e["seq"] for e in events(path)] == [1, 2]
    assert path.read_bytes().count(b"\n") == 2


def test_long_torn_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(b'{"seq":7,"t":1.0,"type":"note"}\n' + b"x" * 200_000)
    spool = Spool(path)
    spool.append("note", {})
    spool.close()
    assert [e["seq"] for e in events(path)] == [7, 8]


def test_figure_that_is_not_finite_is_written_as_null(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    spool.append("step", {"m": {"loss": float("nan"), "a": [float("inf"), 1.0]}})
    spool.close()
    assert json.loads((tmp_path / "s").read_text())["m"] == {"loss": None, "a": [None, 1.0]}


def test_read_lines_leaves_the_torn_tail_for_later(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(b"aaa\nbbbbbb\ncc")
    assert read_lines(path, 0, 100) == (b"aaa\nbbbbbb\n", 11)
    assert read_lines(path, 0, 5) == (b"aaa\n", 4)
    assert read_lines(path, 4, 2) == (b"bbbbbb\n", 11)
    assert read_lines(path, 11, 100) == (b"", 11)


def test_tail_goes_on_where_it_stopped(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    spool.append("note", {"message": "a"})
    first, offset = tail_events(tmp_path / "s")
    spool.append("note", {"message": "b"})
    second, _ = tail_events(tmp_path / "s", offset)
    spool.close()
    assert [e["message"] for e in first + second] == ["a", "b"]


def test_killed_writer_loses_nothing_it_had_committed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    last = -1
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)],
                                  stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(3)]
        assert is_written(path)
        writer.send_signal(signal.SIGKILL)
        told += [int(line) for line in writer.stdout.read().split()]
        writer.wait()
        last = told[-1]
        assert not is_written(path)
    seqs = [e["seq"] for e in events(path)]
    assert seqs == list(range(1, len(seqs) + 1))
    steps = [e["step"] for e in events(path)]
    assert max(steps[len(steps) - steps[::-1].index(0) - 1:]) >= last


def test_forked_child_does_not_keep_a_dead_run_alive(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    ready, release = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(ready[1], b".")
        os.read(release[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    spool.close()
    alive = is_written(tmp_path / "s")
    os.write(release[1], b".")
    os.waitpid(child, 0)
    assert not alive


def test_full_disk_leaves_the_spool_as_it_was_and_loses_nothing(tmp_path: Path) -> None:
    """A limit on the file's size answers a write as a full disk does: with less, then with none."""
    path = tmp_path / "s"
    script = """
import resource, signal, sys
from pathlib import Path
from hoserkd.store.spool import Spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
spool = Spool(Path(sys.argv[1]))
spool.append("note", {"message": "x" * 500})
resource.setrlimit(resource.RLIMIT_FSIZE, (700, -1))
for _ in range(2):
    try:
        spool.append("note", {"message": "y" * 500})
    except OSError:
        print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
spool.append("note", {"message": "z"})
spool.close()
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True,
                          text=True, check=True)
    assert done.stdout == "refused\nrefused\n"
    assert [(e["seq"], e["message"][0]) for e in events(path)] == [
        (1, "x"), (2, "y"), (3, "y"), (4, "z")]
