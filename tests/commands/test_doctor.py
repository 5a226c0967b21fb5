import json
from collections.abc import Callable
from pathlib import Path

import duckdb


def findings(answer: object) -> dict[str, dict]:
    return {f["what"]: f for f in json.loads(answer.stdout)["findings"]}  # type: ignore[attr-defined]


def test_doctor_says_what_works(run_cli: Callable) -> None:
    answer = run_cli("doctor", "--quick", "--json")
    assert answer.exit_code == 0
    found = findings(answer)
    assert found["Python"]["verdict"] == "fine"
    assert found["packages"]["verdict"] == "fine"
    assert found["run store"]["found"] == "empty"
    assert "torch" not in found


def test_doctor_asks_torch_in_a_process_of_its_own(run_cli: Callable) -> None:
    found = findings(run_cli("doctor", "--json"))
    assert found["torch"]["verdict"] == "fine"
    assert found["CUDA"]["verdict"] in {"fine", "limited"}


def test_doctor_exits_1_where_something_is_broken(run_cli: Callable, home: Path) -> None:
    (home / "store" / "runs").mkdir(parents=True)
    with duckdb.connect(str(home / "store" / "hoserkd.duckdb")) as newer:
        newer.execute("CREATE TABLE schema_migrations (version INTEGER, name VARCHAR, "
                      "applied_at TIMESTAMP)")
        newer.execute("INSERT INTO schema_migrations VALUES (99, 'to come', now()::TIMESTAMP)")
    answer = run_cli("doctor", "--quick", "--json")
    assert answer.exit_code == 1
    assert findings(answer)["run store"]["verdict"] == "broken"
