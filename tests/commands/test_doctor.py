import json
from collections.abc import Callable
from pathlib import Path

import pytest


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


def test_doctor_exits_1_where_something_is_broken(
    run_cli: Callable, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "store" / "runs").mkdir(parents=True)
    (home / "store" / "hoserkd.duckdb").write_bytes(b"not a database")
    answer = run_cli("doctor", "--quick", "--json")
    assert answer.exit_code == 1
    assert findings(answer)["run store"]["verdict"] == "broken"
