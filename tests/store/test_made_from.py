"""A run's record says which city, teacher and student it was made from, and where they were."""

import json
from pathlib import Path

import pytest

from hoserkd.engine.identity import Identity, MadeFrom
from hoserkd.store.database import MIGRATIONS, UnwritableError, open_database
from hoserkd.store.runs import RunStore

CITY = Identity("city", "tiny", "c" * 64, Path("/data/cities/tiny"))
TEACHER = Identity("student", "big", "b" * 64, Path("/store/runs/x/best.safetensors"))
MADE = MadeFrom(CITY, TEACHER, None, Path("/data"))


def test_a_record_keeps_hashes_and_places(store: RunStore) -> None:
    with store.create_run("train", "demo", "one", made_from=MADE) as run:
        run.artifact(run.directory / "best.safetensors", "model", sha256="a" * 64)
    record = store.run("one")
    assert record.made_from == MADE
    assert record.made_from.city is not None
    assert record.made_from.city.place == CITY.place
    assert record.data_sha256 == CITY.sha256
    assert store.query("SELECT made_from->>'$.teacher.sha256', made_from->>'$.city.place' "
                       "FROM runs").rows == [("b" * 64, "/data/cities/tiny")]
    assert [found.sha256 for found in store.artifacts(run.run_id)] == ["a" * 64]
    store.repair()
    assert store.run("one").made_from == MADE


def test_a_file_written_again_without_a_hash_has_lost_the_old_one(store: RunStore) -> None:
    with store.create_run("generate", "demo", "one") as run:
        run.artifact("/trips.csv", "generated", sha256="a" * 64)
        run.artifact("/trips.csv", "generated")
    assert [found.sha256 for found in store.artifacts(run.run_id)] == [None]


def test_a_resumed_run_says_where_things_are_now(store: RunStore) -> None:
    store.create_run("train", "demo", "one", made_from=MADE).finish("stopped")
    moved = MadeFrom(Identity("city", "tiny", "c" * 64, Path("/elsewhere")), TEACHER)
    with store.resume_run("one", made_from=moved):
        pass
    city = store.run("one").made_from.city
    assert city is not None
    assert city.place == Path("/elsewhere")
    with store.resume_run("one") as again:
        pass
    assert store.run("one").made_from.city == CITY
    header = json.loads((again.directory / "run.json").read_text())
    assert header["made_from"]["city"]["place"] == "/elsewhere"


@pytest.mark.parametrize("value", [None, "x", [], {"city": {"sha256": 7}}, {"city": []}])
def test_an_old_or_damaged_record_says_nothing(store: RunStore, value: object) -> None:
    with store.create_run("train", "demo", "one") as run:
        pass
    header = json.loads((run.directory / "run.json").read_text())
    (run.directory / "run.json").write_text(json.dumps({**header, "made_from": value}))
    store.repair()
    assert store.run("one").made_from == MadeFrom()


def test_a_database_of_an_older_version_that_one_may_only_read_is_read_all_the_same(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.directory.mkdir()
    with monkeypatch.context() as before:
        before.setattr("hoserkd.store.database.MIGRATIONS", MIGRATIONS[:2])
        with open_database(store.database, read_only=False, patience_s=1):
            pass
    with store.create_run("train", "demo", "one", made_from=MADE):
        # Ended without a look at the database, as on a disk that is full.
        monkeypatch.setattr(RunStore, "sync", _refuse)
    assert store.run("one").made_from == MADE


def _refuse(self: RunStore, patience_s: float = 0.0) -> None:
    raise UnwritableError("read-only")
