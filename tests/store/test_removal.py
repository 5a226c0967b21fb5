"""Removing runs: whole or not at all, and never another user's."""

import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hoserkd.errors import StoreError
from hoserkd.store.folders import MOST_DRAWS, make_folder, remove_folder
from hoserkd.store.retention import Retention, find_waste
from hoserkd.store.runs import RunStore

OTHER = 65_534
"""The user `nobody`."""
def finished(store: RunStore, name: str) -> str:
    run = store.create_run("train", "smoke", name)
    run.finish("stopped")
    store.sync()
    return run.run_id


def as_other(work: Callable[[], object]) -> str:
    """Do something in a fork of this process as a user who owns nothing; return how it ended."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setegid(OTHER)
            os.seteuid(OTHER)
            said = f"done: {work()}"
        except Exception as error:  # noqa: BLE001 - the parent judges it
            said = f"{type(error).__name__}: {error}"
        os.write(write_end, said.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """A store in a folder that every user may write to, as teams have it."""
    if os.geteuid() != 0:
        pytest.skip("needs two users, and so root")
    folder = tmp_path_factory.mktemp("shared")
    for parent in (folder, *folder.parents):
        if parent == Path("/tmp") or parent == Path("/"):
            break
        parent.chmod(0o755)
    store = RunStore(folder / "store")
    finished(store, "mine")
    for path in (store.directory, store.runs_directory, *store.directory.glob("*.duckdb*")):
        path.chmod(path.stat().st_mode | stat.S_IWOTH | stat.S_IROTH)
    return store


def test_another_users_run_is_not_renamed_away(shared: RunStore) -> None:
    folder = shared.folder(shared.run("mine").run_id)
    said = as_other(lambda: remove_folder(folder))
    assert said.startswith("StoreError"), said
    assert "stays" in said
    assert folder.is_dir()
    assert not list(shared.runs_directory.glob(".deleted-*"))
    # Where the folder itself lets everybody write, its owner still decides.
    folder.chmod(0o777)
    said = as_other(lambda: remove_folder(folder))
    assert "belongs to root" in said
    assert shared.run("mine").status == "stopped"
    assert as_other(lambda: find_waste(shared, Retention(older_than=timedelta(0)),
                                       datetime.now(UTC) + timedelta(days=1))) == "done: []"


def test_gc_leaves_what_another_user_owns(
    store: RunStore, run_cli: Callable[..., Any]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs two users, and so root")
    finished(store, "theirs")
    folder = store.folder(store.run("theirs").run_id)
    hidden = folder.with_name(".deleted-x")
    hidden.mkdir()
    os.chown(hidden, OTHER, OTHER)
    os.chown(folder, OTHER, OTHER)
    answer = run_cli("runs", "gc", "--older-than", "0", "--yes", "--store", store.directory)
    assert answer.exit_code == 0, answer.stderr
    assert folder.is_dir()
    assert hidden.is_dir()


def test_a_run_that_cannot_be_removed_keeps_its_name(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = finished(store, "one")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("shutil.rmtree", refuse)
    with pytest.raises(StoreError, match="cannot be removed: Permission denied"):
        store.delete(["one"])
    assert store.folder(run_id).is_dir()
    assert store.run("one").status == "stopped"


def test_gc_steps_over_links(store: RunStore, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    finished(store, "one")
    (tmp_path / "elsewhere").mkdir()
    os.utime(tmp_path / "elsewhere", (0, 0))
    for name in ("linked", ".deleted-linked"):
        (store.runs_directory / name).symlink_to(tmp_path / "elsewhere")
    (store.runs_directory / "nowhere").symlink_to(tmp_path / "nowhere")
    answer = run_cli("runs", "gc", "--older-than", "0", "--yes", "--store", store.directory)
    assert answer.exit_code == 0, answer.stderr
    assert (tmp_path / "elsewhere").is_dir()
    assert not list(store.runs_directory.glob("20*"))


def test_gc_only_shows_with_dry_run(store: RunStore, run_cli: Callable[..., Any]) -> None:
    run_id = finished(store, "one")
    line = ("runs", "gc", "--older-than", "0", "--dry-run", "--store", store.directory)
    assert run_id in run_cli(*line, "--json").stdout
    assert store.folder(run_id).is_dir()
    assert run_cli(*line, "--yes").exit_code == 2


@pytest.mark.parametrize("kind", ["dangling", "file", "below a file"])
def test_a_store_that_can_be_no_folder_is_told_at_once(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "store"
    if kind == "dangling":
        place.symlink_to(tmp_path / "gone" / "away")
        runs = place
    else:
        place.write_text("")
        runs = place if kind == "file" else place / "runs"
    with pytest.raises(StoreError, match="cannot hold runs"):
        make_folder(runs, 0.0)


def test_names_of_runs_are_drawn_a_bounded_number_of_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "00")
    assert make_folder(tmp_path, 0.0).is_dir()
    with pytest.raises(StoreError, match=f"{MOST_DRAWS} names"):
        make_folder(tmp_path, 0.0)
