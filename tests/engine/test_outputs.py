"""The one rule for outputs that the user names."""

from pathlib import Path

import pytest

from hoserkd.engine.outputs import check_outputs, file_stems, is_own, marked_png, marked_svg
from hoserkd.errors import UsageError


@pytest.mark.parametrize(("names", "stems"), [
    (["vanilla", "distilled"], ["vanilla", "distilled"]),
    (["a/trips.csv", "b/trips.csv"], ["a-trips", "b-trips"]),
    (["a b", "a-b", "A-B"], ["a-b", "a-b-2", "A-B-3"]),
    (["v1.2", "x (20260101-000000-abcd)"], ["v1.2", "x--20260101-000000-abcd"]),
    (["../..", "/"], ["unnamed", "unnamed-2"]),
])
def test_file_stems_are_safe_and_each_another(names: list[str], stems: list[str]) -> None:
    assert list(file_stems(names).values()) == stems


def test_an_input_is_never_replaced_not_even_by_force(tmp_path: Path) -> None:
    source, link = tmp_path / "mine.csv", tmp_path / "link.csv"
    source.write_text("run_id,seq,\n")
    link.symlink_to(source)
    for output in (source, link, tmp_path / "x" / ".." / "mine.csv"):
        with pytest.raises(UsageError, match="is an input"):
            check_outputs([output], inputs=[None, source], force=True)


@pytest.mark.parametrize(("name", "content"), [
    ("a.csv", b"origin,destination\n1,2\n"), ("a.parquet", b"PAR1"), ("a.html", b"<html>mine"),
    ("a.json", b'{"mine": 1}'), ("a.md", b"# hoserkd is fine"), ("a.svg", b"<svg/>"),
    ("a.png", b"\x89PNG"), ("a.zip", b"precious"), ("a.tar.zst", b"\x28\xb5\x2f\xfd"),
    ("a.geojson", b'{"type": "FeatureCollection", "features": []}'), ("a.pth", b"weights"),
    ("gene.csv", b"origin_road_id,destination_road_id,source_origin_time,gene_trace_road_id\n"),
    ("a.pt2", b"PK\x03\x04"), ("a.txt", b""), ("a.csv", b""),
])
def test_a_file_of_the_users_is_replaced_by_force_alone(
    tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not made by hoserkd") as refused:
        check_outputs([path, tmp_path / "new.csv"])
    assert "--force" in (refused.value.hint or "")
    check_outputs([path], force=True)


@pytest.mark.parametrize(("name", "content"), [
    ("a.csv", b"origin,destination,departure,rid_list,time_list,log_prob,reached,reason\n"),
    ("a.html", b'<html><meta name="generator" content="hoserkd">'),
    ("a.json", b'{\n  "schema_version": 1,\n  "kind": "evaluation"'),
    ("a.svg", marked_svg("<?xml?><svg width='1'/>").encode()),
    ("a.png", marked_png(bytes(33) + b"IDAT")),
])
def test_files_of_our_own_are_replaced(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert is_own(path)
    check_outputs([path])


def test_folders_devices_and_doubles_are_no_outputs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for wrong in ([Path("/dev/null")], [tmp_path], [tmp_path / "file" / "x.csv"],
                  [tmp_path / "x.csv", tmp_path / "." / "x.csv"]):
        with pytest.raises(UsageError):
            check_outputs(wrong, force=True)
