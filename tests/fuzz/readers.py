"""Every reader of strangers' files as a function of the bytes it is given.

A reader may answer or raise HoserkdError. Whatever else it raises, starts or writes is a fault.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from workshop import (
    described,
    npy,
    old_form,
    packed,
    pickle_of,
    safetensors_parts,
    sealed,
    small_pickle,
    tar_files,
    tar_of,
    tar_with,
    with_description,
    with_header,
    with_pickle,
    workshop,
)

from hoserkd.engine.bundle import open_bundle, unpack_bundle, verify_bundle
from hoserkd.engine.city.roadmap import read_roadmap
from hoserkd.engine.city.storage import load_city
from hoserkd.engine.city.zones import read_partition, read_zone_transitions
from hoserkd.engine.search.od import draw_queries
from hoserkd.engine.student.storage import load_student
from hoserkd.engine.teacher.export import ExportOptions, export_checkpoint
from hoserkd.engine.teacher.storage import load_teacher
from hoserkd.engine.trips.generated import load_generated
from hoserkd.engine.trips.maker import other_maker, read_note
from hoserkd.engine.trips.reading import read_trips
from hoserkd.errors import DataError, HoserkdError
from hoserkd.settings import load_profile, resolve_settings

BOUNDS = (41.10, -8.70, 41.17, -8.60)


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader under test."""

    seeds: Callable[[], list[bytes]]
    """Good files."""
    read: Callable[[bytes, Path], object]
    """Writes the bytes into the folder and reads them from there."""
    words: tuple[str, ...] = ()
    """What the format is made of, for a fuzzer's dictionary."""


def _source(name: str) -> bytes:
    return workshop().source[name]


def _geo(data: bytes, folder: Path) -> None:
    (folder / "roadmap.geo").write_bytes(data)
    (folder / "roadmap.rel").write_bytes(_source("roadmap.rel"))
    found = read_roadmap(folder / "roadmap.geo", folder / "roadmap.rel")
    assert np.isfinite(found.shape_lonlat).all()
    assert len(found.highway) == found.roads


def _rel(data: bytes, folder: Path) -> None:
    (folder / "roadmap.geo").write_bytes(_source("roadmap.geo"))
    (folder / "roadmap.rel").write_bytes(data)
    found = read_roadmap(folder / "roadmap.geo", folder / "roadmap.rel")
    assert found.destination.max(initial=0) < found.roads


def _trips(suffix: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        path = folder / f"train{suffix}"
        path.write_bytes(data)
        for piece, _ in read_trips(path, 1 << 16):
            assert int(piece.points.sum()) == len(piece.road) == len(piece.entered_at_s)

    return read


def _partition(data: bytes, folder: Path) -> None:
    (folder / "road_network_partition").write_bytes(data)
    zone = read_partition(folder / "road_network_partition", 6)
    assert zone.shape == (6,)
    assert zone.min() >= 0


def _transitions(data: bytes, folder: Path) -> None:
    (folder / "zone_trans_mat.npy").write_bytes(data)
    assert read_zone_transitions(folder / "zone_trans_mat.npy", 3).min() >= 0


def _profile(data: bytes, folder: Path) -> None:
    (folder / "mine.yaml").write_bytes(data)
    resolve_settings(load_profile(str(folder / "mine.yaml"), (folder,)))


def _set(data: bytes, folder: Path) -> None:
    resolve_settings(None, sets=[data.decode("utf-8", "replace")])


def _vocabulary(data: bytes, folder: Path) -> None:
    (folder / "ckpt.pt").write_bytes(workshop().checkpoints[1])
    (folder / "vocab.json").write_bytes(data)
    export_checkpoint(folder / "ckpt.pt", folder / "out",
                      ExportOptions(bounds=BOUNDS, vocab=folder / "vocab.json"))


def _vocabulary_seeds() -> list[bytes]:
    words = {str(i): i for i in range(70)} | {"PAD": 70, "EOT": 71, "SOT": 72}
    return [json.dumps(words).encode()]


def _checkpoint(data: bytes, folder: Path) -> None:
    (folder / "ckpt.pt").write_bytes(data)
    export_checkpoint(folder / "ckpt.pt", folder / "out", ExportOptions(bounds=BOUNDS))


def _pickle(data: bytes, folder: Path) -> None:
    _checkpoint(with_pickle(workshop().checkpoints[0], data), folder)


def _teacher_card(data: bytes, folder: Path) -> None:
    (folder / "teacher.json").write_bytes(data)
    load_teacher(_beside(folder, "weights.safetensors"))


def _teacher_weights(data: bytes, folder: Path) -> None:
    import hashlib

    (folder / "weights.safetensors").write_bytes(data)
    card = json.loads((workshop().folder / "teacher" / "teacher.json").read_text())
    card["weights_sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "teacher.json").write_text(json.dumps(card))
    load_teacher(folder)


def _beside(folder: Path, name: str) -> Path:
    workshop().teacher  # noqa: B018 - writes the folder
    (folder / name).write_bytes((workshop().folder / "teacher" / name).read_bytes())
    return folder


def _teacher_file(name: str) -> bytes:
    workshop().teacher  # noqa: B018 - writes the folder
    return (workshop().folder / "teacher" / name).read_bytes()


def _student(data: bytes, folder: Path) -> None:
    (folder / "best.safetensors").write_bytes(data)
    load_student(folder / "best.safetensors", workshop().city)


def _student_header(data: bytes, folder: Path) -> None:
    _student(with_header(data, safetensors_parts(workshop().student.read_bytes())[1]), folder)


def _student_description(data: bytes, folder: Path) -> None:
    header, body = safetensors_parts(workshop().student.read_bytes())
    text = data.decode("utf-8", "replace")
    _student(with_header(with_description(header, text), body), folder)


def _public_student(data: bytes, folder: Path) -> None:
    (folder / "best.pth").write_bytes(data)
    load_student(folder / "best.pth", workshop().city)


def _public_pickle(data: bytes, folder: Path) -> None:
    _public_student(with_pickle(workshop().public_student, data), folder)


def _bundle(suffix: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        path = folder / f"in{suffix}"
        path.write_bytes(data)
        sound = verify_bundle(path).sound
        before = {p.name for p in folder.iterdir()}
        try:
            unpack_bundle(path, folder / "deep" / "out")
            assert sound
        except HoserkdError:
            assert not sound
            assert not (folder / "deep" / "out").exists()
        assert {p.name for p in folder.iterdir()} <= before | {"deep"}
        open_bundle(path, folder / "cache")

    return read


def _bundle_tar(data: bytes, folder: Path) -> None:
    _bundle(".tar.zst")(sealed(packed(data, ".zst")), folder)


def _bundle_manifest(data: bytes, folder: Path) -> None:
    files = tar_files(tar_of(workshop().bundles[".tar.zst"]))
    del files["manifest.json"]
    _bundle(".tar.zst")(sealed(packed(tar_with({"manifest.json": data, **files}), ".zst")), folder)


def _bundle_manifest_seeds() -> list[bytes]:
    return [tar_files(tar_of(workshop().bundles[".tar.zst"]))["manifest.json"]]


def _od(suffix: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        (folder / f"od{suffix}").write_bytes(data)
        found = draw_queries(workshop().city, str(folder / f"od{suffix}"), None, 0)
        assert len(found.origin) == len(found.destination) == len(found.departure_s)
        assert np.abs(found.departure_s).max(initial=0) < 2**40

    return read


def _generated(suffix: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        (folder / f"trips{suffix}").write_bytes(data)
        found = load_generated(folder / f"trips{suffix}", workshop().city.network)
        assert np.isfinite(found.log_prob).all()
        assert np.abs(found.entered_at_s).max(initial=0) < 2**40

    return read


def _trips_note(data: bytes, folder: Path) -> None:
    (folder / "trips.csv").write_bytes(_GENERATED)
    (folder / "trips.csv.json").write_bytes(data)
    note = read_note(folder / "trips.csv")
    if note is None:
        raise DataError("no note")
    assert read_note(folder / "trips.csv") == note
    assert len(note.maker.sha256) == 64
    assert not note.maker.differences(note.maker)
    assert other_maker(folder / "trips.csv", note.maker)


def _note_seeds() -> list[bytes]:
    from hoserkd.engine.config import GenerateConfig
    from hoserkd.engine.identity import Identity
    from hoserkd.engine.trips.maker import TripsNote, trips_maker

    city = workshop().city
    queries = draw_queries(city, "test-trips", None, 0)
    maker = trips_maker(Identity("student", "x", "1" * 64), city, queries, "test",
                        GenerateConfig(), 0)
    note = TripsNote(maker, len(queries), "2" * 64).to_json()
    return [json.dumps({**note, "file_sha256": "3" * 64}).encode()]


_GENERATED = (
    b"origin,destination,departure,rid_list,time_list,log_prob,reached,reason\n"
    b'0,2,2024-01-01T00:00:00Z,"[0, 1, 2]","2024-01-01T00:00:00Z,2024-01-01T00:00:10Z,'
    b'2024-01-01T00:00:20Z",-0.5,true,reached\n')


def _parquet() -> list[bytes]:
    from hoserkd.engine.trips.generated import load_generated, save_generated

    path = workshop().folder / "made.csv"
    path.write_bytes(_GENERATED)
    trips = load_generated(path, workshop().city.network)
    save_generated(path.with_suffix(".parquet"), trips, workshop().city.network)
    return [path.with_suffix(".parquet").read_bytes()]


def _city_manifest(data: bytes, folder: Path) -> None:
    _city_with(folder, "manifest.json", data)


def _city_with(folder: Path, name: str, data: bytes) -> None:
    for path, content in workshop().city_files().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data if path == name else content)
    city = load_city(folder)
    for split in ("train", "val", "test"):
        trips = city.split(split)
        assert trips.road.max(initial=0) < city.network.roads


_ARRAYS = ("candidate_road", "candidate_offset", "zone", "shape_offset", "adjacency", "highway",
           "centroid_lonlat", "zone_transitions")


def _city_array(data: bytes, folder: Path) -> None:
    """Read a city of which one array, named by the first byte, is as a stranger's manifest says."""
    name = f"network/{_ARRAYS[(data[0] if data else 0) % len(_ARRAYS)]}"
    manifest = json.loads(workshop().city_files()["manifest.json"])
    (folder / "x.npy").write_bytes(data[1:])
    try:
        array = np.load(folder / "x.npy", mmap_mode="r", allow_pickle=False)
        manifest["arrays"][name] |= {"shape": list(array.shape), "dtype": str(array.dtype)}
    except Exception:  # noqa: BLE001 - whatever numpy says: the reader must say it well
        pass
    for path, content in workshop().city_files().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        mine = path.endswith(f"{name}.npy")
        (folder / path).write_bytes(data[1:] if mine else content)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    load_city(folder)


def _city_array_seeds() -> list[bytes]:
    folder = workshop().city.directory / str(workshop().city.manifest["content"]) / "network"
    return [bytes([i]) + (folder / f"{name}.npy").read_bytes() for i, name in enumerate(_ARRAYS)]


_CSV = ("rid_list", "time_list", '"', ",", "\\r\\n", "[", "]", "2024-02-29T23:59:59Z", "0000",
        "-", "\\xef\\xbb\\xbf", "\\x00", "1e999", "nan", "9223372036854775808")
_JSON = ("{", "}", "[", "]", "null", "true", "1e999", "-1", "NaN", "Infinity", '"', ":",
         "\\\\u0000", "\\\\ud800", "99999999999999999999")
_PICKLE = ("cos\\nsystem\\n", "\\x85R.", "(", "t", "u", "s", "\\x94", "\\x8c", "K\\x01", "2",
           "q\\x00", "h\\x00", "}", "]", ")", "\\x93", "\\x81", "b", "Q",
           "ccollections\\nOrderedDict\\n",
           "ctorch._utils\\n_rebuild_tensor_v2\\n", "cbuiltins\\nset\\n", "cmodels\\nA\\n")
_YAML = ("extends: ", "train:", "\\n  ", "!!python/object:os.system", "&a", "*a", "[", "{", "- ",
         "? ", ": ", "1e3", ".nan", "|", ">", "'", '"', "#", "%YAML 1.2", "---")

READERS: Mapping[str, Reader] = MappingProxyType({
    "geo": Reader(lambda: [_source("roadmap.geo")], _geo,
                  ("geo_id", "coordinates", "highway", "length", "[[", "0x", *_CSV)),
    "rel": Reader(lambda: [_source("roadmap.rel")], _rel, ("origin_id", "destination_id", *_CSV)),
    "trips-csv": Reader(lambda: [_source("train.csv")], _trips(".csv"), _CSV),
    "trips-gz": Reader(lambda: [packed(_source("train.csv"), ".gz")], _trips(".csv.gz")),
    "trips-zst": Reader(lambda: [packed(_source("train.csv"), ".zst")], _trips(".csv.zst")),
    "trips-parquet": Reader(_parquet, _trips(".parquet"), ("PAR1",)),
    "partition": Reader(lambda: [b"0\n1\n2\n0\n1\n2\n"], _partition, ("4095", "\\n", "-0")),
    "transitions-npy": Reader(
        lambda: [npy(np.arange(9).reshape(3, 3)), npy(np.ones((3, 3)))], _transitions,
        ("\\x93NUMPY", "descr", "fortran_order", "shape", "|O", "<i8", "<U9", "(3, 3)", "L", "PK")),
    "profile-yaml": Reader(
        lambda: [b"description: mine\ntrain:\n  epochs: 3\n  learning_rate: 1e-3\n"
                 b"distill: {enabled: true, lambda_kl: 0.01}\n"], _profile, _YAML),
    "set-yaml": Reader(lambda: [b"train.epochs=3", b"train={epochs: 3, batch_size: 4}"], _set,
                       ("train.", "epochs", "=", "distill.temperature", *_YAML)),
    "vocab-json": Reader(_vocabulary_seeds, _vocabulary, ("PAD", "EOT", "SOT", *_JSON)),
    "teacher-checkpoint": Reader(lambda: workshop().checkpoints, _checkpoint, ("PK", "data.pkl")),
    "teacher-pickle": Reader(
        lambda: [pickle_of(workshop().checkpoints[0]), small_pickle()], _pickle, _PICKLE),
    "teacher-json": Reader(lambda: [_teacher_file("teacher.json")], _teacher_card, _JSON),
    "teacher-safetensors": Reader(
        lambda: [_teacher_file("weights.safetensors")], _teacher_weights, _JSON),
    "student-safetensors": Reader(lambda: [workshop().student.read_bytes()], _student, _JSON),
    "student-header": Reader(
        lambda: [safetensors_parts(workshop().student.read_bytes())[0]], _student_header,
        ("data_offsets", "dtype", "F32", "BF16", "shape", *_JSON)),
    "student-description": Reader(
        lambda: [described(safetensors_parts(workshop().student.read_bytes())[0])],
        _student_description, ("hidden_dim", "layers", "times", *_JSON)),
    "student-pth": Reader(lambda: [workshop().public_student], _public_student, ("PK",)),
    "student-old-form": Reader(
        lambda: [old_form(workshop().public_student)], _public_student, _PICKLE),
    "student-pickle": Reader(
        lambda: [pickle_of(workshop().public_student)], _public_pickle, _PICKLE),
    "bundle-zst": Reader(lambda: [workshop().bundles[".tar.zst"]], _bundle(".tar.zst")),
    "bundle-zip": Reader(lambda: [workshop().bundles[".zip"]], _bundle(".zip"), ("PK", "../")),
    "bundle-tar": Reader(lambda: [tar_of(workshop().bundles[".tar.zst"])], _bundle_tar,
                         ("../", "/", "ustar", "manifest.json", "5", "1", "x")),
    "bundle-json": Reader(_bundle_manifest_seeds, _bundle_manifest, ("version", "files", *_JSON)),
    "od-csv": Reader(
        lambda: [b"origin,destination,departure\n0,3,2024-01-01T08:00:00Z\n1,2,\n",
                 b"origin_lon,origin_lat,destination_lon,destination_lat\n10,50,10.03,50.001\n"],
        _od(".csv"), ("origin", "destination", "departure", "now", "NaT", *_CSV)),
    "od-parquet": Reader(_parquet, _od(".parquet"), ("PAR1",)),
    "generated-csv": Reader(lambda: [_GENERATED], _generated(".csv"),
                            ("reached", "log_prob", "gene_trace_road_id", *_CSV)),
    "generated-note": Reader(_note_seeds, _trips_note,
                             ("made_by", "settings", "sha256", "count", *_JSON)),
    "generated-parquet": Reader(_parquet, _generated(".parquet"), ("PAR1",)),
    "city-json": Reader(lambda: [workshop().city_files()["manifest.json"]], _city_manifest,
                        ("content", "arrays", "../", *_JSON)),
    "city-npy": Reader(_city_array_seeds, _city_array, ("descr", "shape", "\\x93NUMPY")),
})
