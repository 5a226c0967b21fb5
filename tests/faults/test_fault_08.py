"""Closed stdout: no traceback (every command: `tests/test_streams.py`)."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("line", ["runs list", "--version"])
def test_a_closed_stdout_is_no_failure(line: str) -> None:
    done = subprocess.run(["bash", "-c", f'"$0" -m hoserkd {line} >&-', sys.executable],
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
