"""docs/store.md says what is so: its tables, its queries, its events, its commands."""

import re
from pathlib import Path

import pytest

from hoserkd.engine.events import EpochDone, Note, Progress, Rewound, SplitJudged, StepDone
from hoserkd.engine.identity import Identity, MadeFrom
from hoserkd.store.database import TABLES
from hoserkd.store.runs import RunStore

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "store.md").read_text()
QUERIES = re.findall(r"```sql\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def filled(store: RunStore) -> RunStore:
    settings = '{"distill": {"lambda_kl": 0.03, "temperature": 3.0}}'
    run = store.create_run("train", "demo", "distilled", settings)
    for step in range(1, 6):
        run.notify(StepDone(step, 0, 5, {"loss": 1 / step}, {"forward": 2.0}))
    run.notify(EpochDone(0, 5, {"val_accuracy": 0.7}))
    run.notify(Rewound(5, judged=5))
    run.notify(SplitJudged("test", {"test_accuracy": 0.6}))
    run.notify(Note("careful", "warning"))
    run.notify(Progress("testing", 1, 2, "trips"))
    run.artifact("elsewhere.csv", "trips", sha256="0" * 64)
    run.system({"cpu_percent": 50.0})
    run.trial(1, "pruned", {"accuracy": 0.5}, {"window": 4}, trained="x", epochs=1, message="")
    run.finish("finished")
    town = MadeFrom(city=Identity("city", "tiny", "1" * 64))
    store.resume_run("distilled", made_from=town).finish("finished")
    with store.create_run("evaluate", "demo", "judged", parents=[run.run_id]) as other:
        other.evaluation({"distance_jsd": 0.1})
    return store


@pytest.mark.parametrize("table", [t for t in TABLES if t != "spool_marks"])
def test_documented_columns_are_the_table_s(table: str, filled: RunStore) -> None:
    section = TEXT.split(f"### {table}\n")[1].split("\n#")[0]
    documented = re.findall(r"^\| (\w+) \| ([\w\[\](), ]+?) \|", section, re.MULTILINE)
    documented = [pair for pair in documented if pair[0] != "column"]
    real = filled.query(f"SELECT column_name, data_type FROM duckdb_columns() "
                        f"WHERE table_name = '{table}' ORDER BY column_index").rows
    assert documented == real


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_documented_query_runs_and_finds_something(query: str, filled: RunStore) -> None:
    answer = filled.query(query)
    assert answer.columns
    assert answer.rows


def test_documented_events_are_those_that_are_written(filled: RunStore) -> None:
    section = TEXT.split("## The spool")[1]
    documented = {kind: {key.strip() for key in keys.split(",") if key.strip()}
                  for kind, keys in re.findall(r"^\| (\w+) \| ([\w, ]*)\|", section, re.MULTILINE)
                  if kind != "type"}
    written: dict[str, set[str]] = {}
    for run in filled.runs():
        for event in filled.tail(run.run_id)[0]:
            keys = set(event) - {"seq", "t", "type"}
            written.setdefault(event["type"], set()).update(keys)
    assert written == documented


def test_documented_commands_exist() -> None:
    from hoserkd.commands.runs import app

    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    used = set(re.findall(r"^hoserkd runs (\w+)", TEXT, re.MULTILINE))
    assert used <= names
    assert used | {"delete"} == names
