"""JSON from files: bounded, the same for every reader, and read nowhere else."""

import json
import os
import random
import re
import time
from pathlib import Path

import pytest

import hoserkd
from hoserkd.engine.bounded_json import (
    JsonLimits,
    finite,
    parse_json,
    read_json,
    read_json_object,
)
from hoserkd.engine.study_journal import StudyJournal
from hoserkd.engine.tuning.storage import open_storage
from hoserkd.errors import StoreError

DEEP = '{"a":' * 100_000


@pytest.mark.parametrize(("text", "what"), [
    (DEEP, "deeper than 64"), (DEEP + "1" + "}" * 100_000, "deeper than 64"),
    ("[" * 65 + "]" * 65, "deeper than 64"), ("[" * 10_000_000, "values"),
    ('{"a": 1, "a": 2}', "'a' twice"), ('{"b": {"a": 1, "a": 1}}', "'a' twice"),
    ("1e400", "1e400"), ("[-1e+0400]", "double"), ("NaN", "NaN"), ("[1, -Infinity]", "Infinity"),
    ("1" * 5000, "64 bits"), (str(2**64), "64 bits"), (str(-2**63 - 1), "64 bits"),
    ("1" * 400 + ".5", "double"),
    (r'{"path": "\udcff"}', "surrogate"), (b'{"path": "\xff"}', "UTF-8"),
    ("x" * 101, "longer than 100"), ("{", "Expecting"), ("", "Expecting"),
    ('"' + r"\"" * 200_000, "Unterminated"), ("[" * 65 + '"' + '"\\' * 200_000, "deeper than"),
])
def test_text_beyond_the_bounds_is_refused_at_once(text: str | bytes, what: str) -> None:
    limits = JsonLimits(size=100) if what.startswith("longer") else JsonLimits()
    began = time.perf_counter()
    with pytest.raises(ValueError, match=what):
        parse_json(text, limits)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("value", [
    {}, [], None, "a\\\"[{", ["[" * 500, '"{' * 500], 2**64 - 1, -2**63, 1e308, 1e-320, -0.0,
    "😀", "\u2028", {"": {"a": [1.5, True]}}, "1e400", "NaN", "9" * 40, {"1e400": "9" * 40},
])
def test_what_json_can_hold_comes_back(value: object) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert parse_json(text) == value
        assert parse_json(text.encode()) == value
        assert parse_json(b"\xef\xbb\xbf" + text.encode()) == value


def test_depth_is_counted_as_the_parser_nests() -> None:
    draw = random.Random(1)

    def nested(depth: int) -> object:
        if depth == 0:
            return draw.choice([1, "]}[{", "\\\"", 'a"b'])
        inner = nested(depth - 1)
        return [inner, "["] if draw.random() < 0.5 else {'"{': "}", "b": inner}

    for depth in (1, 63, 64, 65, 66, 200):
        text = json.dumps([nested(depth - 1), *["[]"] * 80])
        if depth <= 64:
            parse_json(text)
        else:
            with pytest.raises(ValueError, match="deeper"):
                parse_json(text)


def test_numbers_that_python_writes_are_read_where_they_are_allowed() -> None:
    found = parse_json('{"a": [NaN, Infinity]}', non_finite=True)
    assert str(found) == "{'a': [nan, inf]}"
    assert finite(found) == {"a": [None, None]}


def test_a_file_is_read_only_if_it_is_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name in ("pipe", "device"):
        with pytest.raises(OSError, match="not a plain file"):
            read_json(tmp_path / name)
    (tmp_path / "long").write_text("[" + "1," * 100)
    with pytest.raises(ValueError, match="longer than 20"):
        read_json(tmp_path / "long", JsonLimits(size=20))
    (tmp_path / "list").write_text("[1]")
    with pytest.raises(ValueError, match="expected an object, found list"):
        read_json_object(tmp_path / "list")


def test_json_is_read_in_one_place_only() -> None:
    """Who calls the library itself reads files that the others refuse, or the other way round."""
    raw = re.compile(r"\bjson\.loads?\(|JSONDecoder|from json import|\b(?:orjson|ujson)\b")
    package = Path(hoserkd.__file__).parent
    found = [str(path.relative_to(package)) for path in package.rglob("*.py")
             if raw.search(path.read_text("utf-8"))]
    assert found == ["engine/bounded_json.py"]


@pytest.mark.parametrize("line", [DEEP, '{"a":1,"a":1}', "[1]", "{", "{}", '{"op_code": 99}',
                                  '{"op_code": 4, "worker_id": "x"}'])
def test_a_damaged_journal_of_a_study_is_told_in_one_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    path.write_text('{"op_code": 10, "worker_id": "x"}\n' + line + "\n")
    with pytest.raises(StoreError, match="journal cannot be read") as caught:
        open_storage(str(path))
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300


def test_a_torn_entry_is_none_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    journal = StudyJournal(path)
    journal.append_logs([{"a": 1}, {"b": float("nan")}])
    with path.open("ab") as file:
        file.write(b'{"c":')
    assert [list(entry) for entry in journal.read_logs(0)] == [["a"], ["b"]]
    journal.append_logs([{"d": 4}])
    assert [list(entry) for entry in journal.read_logs(2)] == [["d"]]
    assert [list(entry) for entry in StudyJournal(path).read_logs(1)] == [["b"], ["d"]]
