"""Every command's `--json` answer is one document with the keys that docs/json.md lists."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "number": (int, float), "boolean": (bool,), "object": (dict,),
    "list": (list,), "null": (type(None),),
}
LINES = {
    "prepare": "prepare --demo", "train-teacher": "train-teacher", "precompute": "precompute",
    "train": "train --name student", "generate": "generate --run student --od test",
    "evaluate": "evaluate student --od test",
    "tune": "tune --set tune.trials=1 --set tune.final_seeds=[]",
    "tune show": "tune show",
    "study": "study --shares 1 --seeds 1,2 --steps 1",
    "bundle": "bundle student --output student.tar.zst",
    "bundle verify": "bundle verify student.tar.zst",
    "bundle unpack": "bundle unpack student.tar.zst unpacked",
    "teachers list": "teachers list", "teachers show": "teachers show smoke",
    "teachers judge": "teachers judge smoke --trips 20",
    "export-teacher": "export-teacher {lmtad} --output exported --grid-rows 9 --grid-cols 12 "
                      "--bounds 39.0,116.0,39.09,116.12",
    "runs list": "runs list", "runs show": "runs show student",
    "runs metrics": "runs metrics student loss",
    "runs compare": "runs compare student latest", "runs tag": "runs tag student a",
    "runs export": "runs export student --csv tables", "runs gc": "runs gc",
    "runs sql": "runs sql 'SELECT'", "runs repair": "runs repair",
    "runs delete": "runs delete student --yes", "profiles list": "profiles list",
    "profiles show": "profiles show demo", "doctor": "doctor --quick",
    "--show-config": "train --show-config",
}
WITH_PROFILE = ("prepare", "train-teacher", "precompute", "train", "generate", "evaluate", "tune",
                "study", "teachers judge", "--show-config")


def documented() -> dict[str, dict[str, str]]:
    """Return the keys and types of each section of the page."""
    text = (ROOT / "docs" / "json.md").read_text("utf-8")
    sections = re.split(r"^## (?:hoserkd )?", text, flags=re.MULTILINE)[1:]
    return {section.split("\n")[0]: dict(
        re.findall(r"^\| (\w+) \| ([\w ]+?) \|", section.split("|---|---|---|")[1], re.MULTILINE))
        for section in sections}


def fault(found: dict[str, Any], keys: dict[str, str]) -> str:
    """Return how a document differs from the page, or nothing."""
    if found.keys() - {"schema_version"} != keys.keys():
        return f"keys differ: {sorted(found.keys() ^ {'schema_version', *keys})}"
    wrong = [key for key, kinds in keys.items() if type(found[key]) not in
             [t for kind in kinds.split(" or ") for t in TYPES[kind]]]
    return f"types differ: {wrong}" if wrong else ""


def test_every_section_is_tested() -> None:
    # The demo takes minutes and calls the others; its own test looks at its answer.
    assert documented().keys() - {"demo"} == LINES.keys()


def test_every_answer_is_one_document_as_documented(
    run_cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    faults = []
    for name, line in LINES.items():
        words = line.format(lmtad=ROOT / "tests/data/lmtad/plain/ckpt.pt").split()
        words = ["SELECT name FROM runs" if word == "'SELECT'" else word for word in words]
        profile = ("--profile", "smoke") if name in WITH_PROFILE else ()
        answer = run_cli(*words, *profile, "--json", "--set", "train.epochs=1")
        assert answer.exit_code == 0, f"{line}\n{answer.stderr}"
        found = json.loads(answer.stdout)
        assert found["schema_version"] == 1
        if differs := fault(found, documented()[name]):
            faults.append(f"{name}: {differs}")
    assert not faults
