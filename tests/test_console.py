import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from hoserkd.console import Console
from hoserkd.engine.events import CheckpointSaved, EpochDone, Note, Progress, StepDone
from hoserkd.errors import DataError
from hoserkd.progress import ProgressObserver, pace_text
from hoserkd.text import cell_text, duration_text, number_text, plain, printable, size_text


def test_result_goes_to_stdout_alone(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.result({}, lambda: console.table("Title", ("a", "b"), [("x", 1.23456)]))
    out, err = capsys.readouterr()
    assert "Title" in out
    assert "1.2346" in out
    assert err == ""


def test_json_is_one_document_with_a_schema_version(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(json_output=True)
    console.result({"nan": float("nan"), "path": Path("a")}, lambda: "never")
    assert json.loads(capsys.readouterr().out) == {"schema_version": 1, "nan": None, "path": "a"}


def test_notes_warnings_and_errors_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.note("a note")
    console.warn("a warning")
    console.error(DataError("roads.csv:3: bad", hint="mend it"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err == ("a note\nwarning: a warning\nerror: roads.csv:3: bad\nhint: mend it\n")


def test_quiet_hides_notes_but_no_warning(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(quiet=True, verbosity=1)
    console.note("a note")
    console.detail("a detail")
    console.warn("a warning")
    assert capsys.readouterr().err == "warning: a warning\n"


def test_text_of_strangers_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.note("evil \x1b[31mred [bold]bold[/bold]")
    console.result({}, lambda: console.table(None, ("a",), [("\x1b]0;title\x07[red]x",)]))
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "[bold]bold[/bold]" in err
    assert "[red]x" in out


def test_wide_table_in_a_pipe_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.result({}, lambda: console.table(None, ("a",), [("x" * 150,)]))
    assert "x" * 150 in capsys.readouterr().out


def observe(console: Console, capsys: pytest.CaptureFixture[str]) -> str:
    observer = ProgressObserver(console)
    for step in range(1, 6):
        observer.notify(StepDone(step, 0, 5, {"loss": 1.0}))
    observer.notify(EpochDone(0, 5, {"val_accuracy": 0.5}))
    observer.notify(Progress("searching", 3, 3, "trips"))
    observer.notify(CheckpointSaved("best.safetensors", "best", 5))
    observer.notify(Note("mind the gap", "warning"))
    observer.close()
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_progress_in_a_pipe_tells_warnings_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert observe(Console(), capsys) == "warning: mind the gap\n"


def test_progress_in_a_pipe_with_v_tells_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines = observe(Console(verbosity=1), capsys).splitlines()
    assert lines[0].startswith("training: 5 of 5 optimiser steps")
    assert lines[1] == "epoch 1: val_accuracy 0.5000"
    assert lines[2].startswith("searching: 3 of 3 trips")
    assert all("\x1b" not in line and "\r" not in line for line in lines)


@pytest.mark.parametrize(("seconds", "text"), [
    (0.44, "0.4 s"), (41.6, "42 s"), (185, "3 min 05 s"), (7620, "2 h 07 min"), (273600, "3 d 4 h"),
])
def test_duration_text_reads_as_people_say_it(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(("value", "text"), [
    (0.85234, "0.8523"), (1.0, "1"), (0.001234567, "0.001235"), (123456.7, "1.235e+05"),
    (float("nan"), "nan"), (12.0, "12"),
])
def test_number_text_keeps_four_digits(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(("size", "text"), [(12, "12 B"), (1500, "1.5 kB"), (2.5e9, "2.5 GB"),
                                        (3e15, "3000.0 TB")])
def test_size_text_names_a_unit(size: float, text: str) -> None:
    assert size_text(size) == text


def test_cell_text_of_words_and_nothing() -> None:
    assert [cell_text(v) for v in (None, True, 3, "a\x00b")] == ["-", "yes", "3", "a\\x00b"]


def test_plain_turns_records_into_json_values() -> None:
    value = {"a": np.array([1.0, np.inf]), 3: {1}, "t": datetime(2026, 1, 2, tzinfo=UTC),
             "n": Note("x")}
    assert plain(value) == {"a": [1.0, None], "3": [1], "t": "2026-01-02T00:00:00+00:00",
                            "n": {"message": "x", "level": "info"}}


def test_printable_leaves_words_alone() -> None:
    assert printable("Straße\n") == "Straße\n"


@pytest.mark.parametrize(("rate", "left_s", "text"), [
    (9.7912, 61.0, "9.79 updates/s, 1 min 01 s left, loss 0.5000"),
    (12345.6, None, "12,346 updates/s, loss 0.5000"),
    (None, None, "loss 0.5000"),
])
def test_pace_text_tells_rate_and_time_to_go(
    rate: float | None, left_s: float | None, text: str
) -> None:
    assert pace_text(rate, left_s, "updates", {"loss": 0.5, "grad_norm": 1.0}) == text


def test_progress_on_a_terminal_draws_a_bar_and_takes_it_away() -> None:
    script = (
        "import time\n"
        "from hoserkd.console import Console\n"
        "from hoserkd.progress import ProgressObserver\n"
        "from hoserkd.engine.events import Progress\n"
        "console = Console(); observer = ProgressObserver(console)\n"
        "observer.notify(Progress('searching', 1, 9, 'trips')); time.sleep(0.6)\n"
        "observer.notify(Progress('searching', 5, 9, 'trips'))\n"
        "console.result({}, lambda: 'done')\n")
    parent, child = pty.openpty()
    done = subprocess.run([sys.executable, "-c", script], stderr=child, stdout=subprocess.PIPE,
                          text=True, check=True, env={**os.environ, "TERM": "xterm"})
    os.close(child)
    drawn = os.read(parent, 1 << 16).decode()
    os.close(parent)
    assert done.stdout.strip() == "done"
    assert "5/9 trips" in drawn
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("5/9 trips")
