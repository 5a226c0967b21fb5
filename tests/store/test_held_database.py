"""While another program keeps the database open, nobody gets old answers without a word."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hoserkd.errors import StoreError
from hoserkd.store import runs as runs_module
from hoserkd.store.runs import RunStore

HOLD = ("import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == 'read');"
        "print(1, flush=True); input()")


@pytest.fixture(params=["read", "write"])
def held(store: RunStore, request: pytest.FixtureRequest) -> Iterator[RunStore]:
    """A store with one run in its database, which another program then keeps open."""
    store.create_run("train", "smoke", "old").finish("finished")
    store.sync()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(store.database), request.param],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "1\n"
        store.create_run("train", "smoke", "new").finish("finished")
        time.sleep(1.2)  # older than news that a reader need not wait for
        yield store
        holder.communicate("\n")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("READ_PATIENCE_S", "STALE_PATIENCE_S"):
        monkeypatch.setattr(runs_module, name, 0.3)


def test_new_runs_are_read_from_their_own_records(
    held: RunStore, run_cli: Callable[..., Any]
) -> None:
    assert [run.name for run in held.runs()] == ["new", "old"]
    assert held.run("new").status == "finished"
    assert "new" in run_cli("runs", "list", "--store", held.directory).stdout


def test_a_store_too_large_for_that_says_what_is_missing(
    held: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "FRESH_BYTES", 0)
    with pytest.raises(StoreError, match=r"1 run is not in it yet|is working on the run store"):
        held.runs()


def test_after_it_is_closed_the_database_has_all(store: RunStore, tmp_path: Path) -> None:
    store.create_run("train", "smoke", "old").finish("finished")
    assert [run.name for run in store.runs()] == ["old"]
