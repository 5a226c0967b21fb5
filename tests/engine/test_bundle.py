"""Bundles: equal bytes for equal content, no change unseen, nothing unsafe unpacked."""

import io
import json
import os
import random
import tarfile
import zipfile
from pathlib import Path

import pytest
import zstandard

from hoserkd.engine import bundle
from hoserkd.engine.bundle import open_bundle, unpack_bundle, verify_bundle, write_bundle
from hoserkd.engine.bundle_archive import Limits
from hoserkd.errors import BundleError

SUFFIXES = [".tar.zst", ".zip"]
ABOUT = {"run": "toy", "roads": 3, "city": {"name": "toy", "sha256": "c1"}}


def _members(directory: Path) -> dict[str, Path | bytes]:
    directory.mkdir(exist_ok=True)
    table = directory / "length_m.npy"
    table.write_bytes(random.Random(1).randbytes(3000))
    return {"model.safetensors": b"weights", "city/network/length_m.npy": table,
            "settings.json": b"{}", "generated/trips.csv": b"1,2\n" * 400}


@pytest.fixture(params=SUFFIXES)
def sound(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"toy{request.param}"
    write_bundle(path, _members(tmp_path / "source"), ABOUT)
    return path


def _tar(path: Path, infos: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for info, data in infos:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    path.write_bytes(zstandard.compress(plain.getvalue()))
    return path


def _manifest(names: dict[str, bytes]) -> tuple[tarfile.TarInfo, bytes]:
    import hashlib

    files = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
             for name, data in names.items()}
    document = {"format": bundle.FORMAT, "version": 1, "about": {}, "files": files}
    return tarfile.TarInfo("manifest.json"), json.dumps(document).encode()


def test_write_bundle_twice_with_other_times_and_modes_gives_the_same_bytes(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        members = _members(tmp_path / "one")
        write_bundle(tmp_path / f"a{suffix}", members, ABOUT)
        other = _members(tmp_path / "two")
        table = other["city/network/length_m.npy"]
        assert isinstance(table, Path)
        os.utime(table, (5, 5))
        table.chmod(0o600)
        write_bundle(tmp_path / f"b{suffix}", dict(reversed(other.items())), ABOUT)
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_unpack_bundle_sound_gives_back_every_byte(sound: Path, tmp_path: Path) -> None:
    assert verify_bundle(sound).sound
    manifest = unpack_bundle(sound, tmp_path / "out")
    assert manifest.about == ABOUT
    for name, content in _members(tmp_path / "source").items():
        expected = content if isinstance(content, bytes) else content.read_bytes()
        assert (tmp_path / "out" / name).read_bytes() == expected
    with pytest.raises(BundleError, match="already"):
        unpack_bundle(sound, tmp_path / "out")


def test_write_bundle_is_read_by_common_tools(tmp_path: Path) -> None:
    members = _members(tmp_path / "source")
    write_bundle(tmp_path / "a.tar.zst", members, ABOUT)
    write_bundle(tmp_path / "a.zip", members, ABOUT)
    with (tmp_path / "a.tar.zst").open("rb") as file:
        stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            names = archive.getnames()
    with zipfile.ZipFile(tmp_path / "a.zip") as zipped:
        assert zipped.testzip() is None
        assert zipped.namelist() == names == ["manifest.json", *sorted(members)]


def test_verify_bundle_any_changed_byte_is_found(sound: Path, tmp_path: Path) -> None:
    data = sound.read_bytes()
    draw = random.Random(2)
    places = {0, 4, 5, len(data) - 1, len(data) - 65, len(data) - 70} | {
        draw.randrange(len(data)) for _ in range(60)}
    changed = tmp_path / sound.name.replace("toy", "changed")
    for place in places:
        bit = 1 << draw.randrange(8)
        changed.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1:])
        assert verify_bundle(changed).faults, f"byte {place}"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_verify_bundle_every_single_byte_counts(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"tiny{suffix}"
    write_bundle(path, {"a": b"1"}, {})
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1:])
        assert not verify_bundle(path).sound, f"byte {place} of {len(data)}"


@pytest.mark.parametrize("cut", [1, 70, 300])
def test_verify_bundle_cut_short_or_lengthened_is_found(sound: Path, cut: int) -> None:
    data = sound.read_bytes()
    sound.write_bytes(data[:-cut])
    assert verify_bundle(sound).faults
    sound.write_bytes(data + b"x" * cut)
    assert verify_bundle(sound).faults


def test_verify_bundle_several_faults_are_all_listed(tmp_path: Path) -> None:
    right = {"a": b"one", "b": b"two", "c": b"three"}
    path = _tar(tmp_path / "x.tar.zst", [
        _manifest(right), (tarfile.TarInfo("a"), b"ONE"), (tarfile.TarInfo("b"), b"too long")])
    faults = verify_bundle(path).faults
    assert [fault.split(":")[0] for fault in faults[1:]] == ["a", "b", "c"]
    assert "written" in faults[0]
    assert "missing" in faults[3]


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "a\\evil", "C:evil",
                                  "a//evil", "./evil", "a\x07", ".."])
def test_unpack_bundle_name_that_escapes_is_refused(name: str, tmp_path: Path) -> None:
    path = _tar(tmp_path / "x.tar.zst", [_manifest({name: b"!"}), (tarfile.TarInfo(name), b"!")])
    with pytest.raises(BundleError, match="leave the target"):
        unpack_bundle(path, tmp_path / "out" / "deep")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["out", "x.tar.zst"]
    with pytest.raises(BundleError, match="leave the target"):
        write_bundle(tmp_path / "y.zip", {name: b"!"}, ABOUT)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
                                  tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_LONGNAME,
                                  tarfile.XHDTYPE])
def test_unpack_bundle_anything_but_a_plain_file_is_refused(kind: bytes, tmp_path: Path) -> None:
    info = tarfile.TarInfo("a")
    info.type = kind
    info.linkname = "/etc/passwd"
    path = _tar(tmp_path / "x.tar.zst", [_manifest({"a": b""}), (info, b"")])
    with pytest.raises(BundleError, match="not a plain file"):
        unpack_bundle(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unpack_bundle_zip_link_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info, data = _manifest({"a": b"/etc"})
        archive.writestr(info.name, data)
        link = zipfile.ZipInfo("a")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc")
    with pytest.raises(BundleError, match="not a plain file"):
        unpack_bundle(path, tmp_path / "out")


def test_unpack_bundle_zip_member_without_a_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info, data = _manifest({"a": b"1"})
        archive.writestr(info.name, data)
        archive.writestr(zipfile.ZipInfo("a"), b"1")
    data = path.read_bytes()
    place = data.rindex(b"PK\x01\x02")
    path.write_bytes(data[:place + 28] + b"\0" + data[place + 29:])
    with pytest.raises(BundleError, match="not unpacked"):
        unpack_bundle(path, tmp_path / "out")


@pytest.mark.parametrize("twin", ["a", "A"])
def test_unpack_bundle_duplicate_is_refused(twin: str, tmp_path: Path) -> None:
    path = _tar(tmp_path / "x.tar.zst", [
        _manifest({"a": b"1", twin: b"1"}),
        (tarfile.TarInfo("a"), b"1"), (tarfile.TarInfo(twin), b"1")])
    with pytest.raises(BundleError, match="twice"):
        unpack_bundle(path, tmp_path / "out")


@pytest.mark.parametrize(("names", "fault"), [
    (("a", "a/b"), "lies under a file"), (("a/b", "a"), "or its folder"),
    (("A/b", "a"), "or its folder"), (("a", "A/b"), "lies under a file"),
    (("\u00e9", "e\u0301"), "twice"), (("manifest.json/a",), "lies under a file"),
    (("MANIFEST.JSON",), "or its folder"), (("\udcff",), "no Unicode"),
])
def test_verify_finds_what_unpack_refuses(
        names: tuple[str, ...], fault: str, tmp_path: Path) -> None:
    path = _tar(tmp_path / "x.tar.zst", [
        _manifest(dict.fromkeys(names, b"1")),
        *((tarfile.TarInfo(name), b"1") for name in names)])
    faults = verify_bundle(path).faults
    assert any(fault in each for each in faults)
    with pytest.raises(BundleError) as refused:
        unpack_bundle(path, tmp_path / "out")
    assert refused.value.message == f"{path}: not unpacked: " + "; ".join(faults)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_unpack_bundle_bomb_is_refused_by_ratio_and_by_size(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"bomb{suffix}"
    write_bundle(path, {"zeros": bytes(4 << 20)}, ABOUT)
    with pytest.raises(BundleError, match="bomb"):
        unpack_bundle(path, tmp_path / "out", Limits(ratio=20, ratio_floor_bytes=1 << 20))
    with pytest.raises(BundleError, match="holds more than"):
        unpack_bundle(path, tmp_path / "out", Limits(total_bytes=1 << 20))
    with pytest.raises(BundleError, match="files"):
        unpack_bundle(path, tmp_path / "out", Limits(files=0))
    with pytest.raises(BundleError, match=r"manifest\.json: larger"):
        unpack_bundle(path, tmp_path / "out", Limits(manifest_bytes=99))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_verify_bundle_other_files_are_not_bundles(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.zst"
    path.write_bytes(b"")
    assert verify_bundle(path).faults
    path.write_bytes(zstandard.compress(b"no tar" * 200))
    assert verify_bundle(path).manifest is None
    with pytest.raises(BundleError, match="no such file"):
        verify_bundle(tmp_path / "none.zip")
    with pytest.raises(BundleError, match=r"ends in \.tar\.zst"):
        write_bundle(tmp_path / "x.rar", {}, ABOUT)


def test_open_bundle_another_process_was_quicker_is_taken(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bundle.unpack_bundle

    def slower(path: Path, directory: Path) -> None:
        whole(path, directory)
        whole(path, directory)

    monkeypatch.setattr(bundle, "unpack_bundle", slower)
    assert open_bundle(str(sound), str(tmp_path / "cache")).model.read_bytes() == b"weights"
    sound.write_bytes(sound.read_bytes() + b"x")
    with pytest.raises(BundleError, match="not unpacked"):
        open_bundle(sound, tmp_path / "cache")


def test_open_bundle_twice_unpacks_once(sound: Path, tmp_path: Path) -> None:
    first = open_bundle(sound, tmp_path / "cache")
    assert first.model.read_bytes() == b"weights"
    assert first.city == first.directory / "city"
    stamp = first.model.stat().st_mtime_ns
    assert open_bundle(sound, tmp_path / "cache").model.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(("name", "data", "what"), [
    ("settings.json", b'{"a":' * 100_000, "deeper than 64"),
    ("settings.json", b"[]", "no settings"),
    ("settings.json", b'{"generate": []}', "generate is no section"),
    ("settings.json", b'{"seed": 1, "seed": 2}', "'seed' twice"),
    ("city/manifest.json", b"[" * 1000, "deeper than 64"),
    ("metrics/evaluations.json", b"1e999", "double"),
])
def test_a_document_that_no_command_can_read_is_not_called_sound(
    name: str, data: bytes, what: str, tmp_path: Path
) -> None:
    members = {**_members(tmp_path / "source"), name: data}
    with pytest.raises(BundleError, match=f"{name}: unreadable: .*{what}"):
        write_bundle(tmp_path / "a.tar.zst", members, ABOUT)


@pytest.mark.parametrize("about", [{}, {"city": "toy"}, {"city": {"name": "toy"}}])
def test_a_model_whose_city_is_not_named_is_not_called_sound(
    about: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="does not say which city"):
        write_bundle(tmp_path / "a.tar.zst", _members(tmp_path / "source"), about)
    members = _members(tmp_path / "source")
    del members["settings.json"]
    with pytest.raises(BundleError, match=r"settings\.json: missing"):
        write_bundle(tmp_path / "a.tar.zst", members, ABOUT)
