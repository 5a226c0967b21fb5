"""Files made to cost: small ones that ask for minutes or gigabytes are refused at once."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from fuzzing import attempt
from readers import READERS
from source_folder import GEO_COLUMNS, ring_road, table, write_source
from workshop import tar_files, tar_of, workshop

from hoserkd.engine.bundle import verify_bundle
from hoserkd.engine.bundle_archive import write_archive
from hoserkd.engine.city.roadmap import highway_class, read_roadmap
from hoserkd.engine.search.od import parse_time
from hoserkd.errors import ConfigError
from hoserkd.yaml_reader import MAX_BYTES, read_document, read_value

LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20))


@pytest.mark.parametrize(("text", "said"), [
    (LAUGHS, "anchors"),
    ("[" * 60_000, "deep"),
    ("{a: " * 20_000, "deep"),
    ("- " * 30_000 + "x", "deep"),
    ("".join(" " * i + "a:\n" for i in range(200)), "deep"),
    ("train: {epochs: " + "9" * 5000 + "}", "5000 digits"),
    ("train: {epochs: 1}\n" * 50_000, "at most"),
    ("a: !!python/object/apply:os.system ['touch ran']", "tags"),
    ("a: !!python/name:os.system", "tags"),
    ("!!set {a, b}", "tags"),
])
def test_yaml_made_to_cost_is_refused_at_once(text: str, said: str) -> None:
    began = time.process_time()
    with pytest.raises(ConfigError, match=said):
        read_document(text, "mine.yaml")
    assert time.process_time() - began < 2


def test_yaml_of_the_largest_size_is_read_in_seconds() -> None:
    text = "".join(f"k{i}: v\n" for i in range(MAX_BYTES // 12))
    began = time.process_time()
    assert read_document(text, "mine.yaml").values
    assert time.process_time() - began < 20


def test_set_takes_no_number_that_python_cannot_write() -> None:
    with pytest.raises(ConfigError, match="digits"):
        read_value("9" * 5000, "--set train.epochs")


@pytest.mark.parametrize("name", [n for n in READERS if n.endswith(("-json", "-description"))])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" * 6000, "[]", "null", '""'],
                         ids=["lists", "objects", "digits", "list", "null", "text"])
def test_json_of_the_wrong_kind_is_refused(name: str, text: str) -> None:
    assert not attempt(name, text.encode())


def test_json_that_claims_large_models_is_refused_before_they_are_made() -> None:
    teacher = json.loads(READERS["teacher-json"].seeds()[0])
    for key, value in (("n_layer", 10**9), ("n_embd", 10**9), ("vocab_size", 10**12),
                       ("n_head", 0), ("n_layer", -1), ("dropout", 7)):
        claim = {**teacher, "model": {**teacher["model"], key: value}}
        assert not attempt("teacher-json", json.dumps(claim).encode())
    student = json.loads(READERS["student-description"].seeds()[0])
    for section, key, value in (("config", "hidden_dim", 2**40), ("config", "layers", 10**9),
                                ("times", "log1p_std", 0), ("times", "log1p_mean", "nan")):
        claim = {**student, section: {**student[section], key: value}}
        assert not attempt("student-description", json.dumps(claim).encode())


def test_npy_that_claims_a_terabyte_is_refused_in_bounded_memory() -> None:
    header = b"\x93NUMPY\x01\x00v\x00" + (
        b"{'descr': '<i8', 'fortran_order': False, 'shape': (1000000, 1000000), }".ljust(117)
        + b"\n")
    assert not attempt("transitions-npy", header)
    for place in range(8):
        assert not attempt("city-npy", bytes([place]) + header)


@pytest.mark.parametrize(("place", "values"), [
    (0, np.array([1, 2, 3, 4, 5, 6], np.int32)), (0, np.array([1, 2, 3, 4, 5, -1], np.int32)),
    (1, np.array([0, 1, 2, 3, 4, 5, 99], np.int64)), (1, np.array([0, 9, 2, 3, 4, 5, 6], np.int64)),
    (2, np.array([0, 1, 2, 0, 1, 9], np.int32)), (2, np.zeros(6, np.int64)),
    (4, np.full((2, 12), 6, np.int64)), (5, np.full(6, 3, np.int64)),
    (6, np.full((6, 2), np.nan)), (7, np.zeros((3, 2), np.int64)),
])
def test_a_city_whose_tables_point_outside_of_themselves_is_refused(
    place: int, values: np.ndarray
) -> None:
    from workshop import npy

    assert not attempt("city-npy", bytes([place]) + npy(values))


@pytest.mark.parametrize("content", ["/etc", "..", "content-0/../..", "content-", "", "a/b"])
def test_a_manifest_that_names_another_folder_is_refused(content: str) -> None:
    manifest = json.loads(READERS["city-json"].seeds()[0])
    assert not attempt("city-json", json.dumps({**manifest, "content": content}).encode())


def test_a_highway_list_with_a_number_of_any_length_is_a_word() -> None:
    text = "[0x" + "f" * 6000 + ", 'primary']"
    assert highway_class(text) == text
    assert highway_class("[" * 150 + "]" * 150)
    assert highway_class("[" + "-" * 9000 + "1]")


def test_an_odd_spelling_in_a_cell_warns_nobody(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    rows = [ring_road(i, highway=r"['a\d', 'primary']") for i in range(6)]
    source = write_source(tmp_path, geo=table(GEO_COLUMNS, rows))
    read_roadmap(source / "roadmap.geo", source / "roadmap.rel")
    assert not recwarn.list


@pytest.mark.parametrize("text", ["now", "today", "NaT", "2024", "2024-01", "99999-01-01T00:00:00",
                                  "2024-02-30T00:00:00Z", "2024-01-01T00:00:00+99:99", "", "12"])
def test_a_departure_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        parse_time(text)


@pytest.mark.parametrize("row", ["nan,50,10,50,", "inf,50,10,50,", "10,91,10,50,", "1e300,5,5,5,"])
def test_points_that_are_nowhere_are_refused(row: str) -> None:
    head = "origin_lon,origin_lat,destination_lon,destination_lat,departure\n"
    assert not attempt("od-csv", (head + row + "2024-01-01T00:00:00Z\n").encode())


def test_a_bundle_that_says_more_than_it_holds_is_refused() -> None:
    files = tar_files(tar_of(workshop().bundles[".tar.zst"]))
    manifest = json.loads(files["manifest.json"])
    for size in (10**18, -1, 1e999, "x", None):
        manifest["files"]["settings.json"]["size"] = size
        assert not attempt("bundle-json", json.dumps(manifest).encode())


def many_tensors(count: int) -> bytes:
    """Return a .safetensors of so many tensors of one byte each."""
    header = {f"t{i}": {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]}
              for i in range(count)}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(count)


@pytest.mark.parametrize("name", ["student-safetensors", "teacher-safetensors"])
def test_weights_of_half_a_million_tensors_are_refused_before_they_are_parsed(name: str) -> None:
    content = many_tensors(500_000)
    began = time.process_time()
    assert not attempt(name, content)
    assert time.process_time() - began < 5
    assert not attempt(name, (2**63).to_bytes(8, "little") + b"{}")


def test_a_bundle_of_100_000_missing_files_is_told_in_a_few_lines(tmp_path: Path) -> None:
    files = tar_files(tar_of(workshop().bundles[".tar.zst"]))
    manifest = json.loads(files["manifest.json"])
    missing = {f"f{i}": {"size": 1, "sha256": "0" * 64} for i in range(100_000)}
    claim = json.dumps({**manifest, "files": {**manifest["files"], **missing}}).encode()
    assert not attempt("bundle-json", claim)
    few = dict(list(missing.items())[:500])
    bundle = tmp_path / "b.tar.zst"
    content = {**files, "manifest.json": json.dumps(
        {**manifest, "files": {**manifest["files"], **few}}).encode()}
    write_archive(bundle, list(content.items()))
    found = verify_bundle(bundle)
    assert 2 < len(found.faults) < 40
    assert "more" in found.faults[-1]
