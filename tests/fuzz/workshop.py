"""Good files of every kind that hoserkd reads, to be damaged."""

import gzip
import hashlib
import io
import json
import pickle
import struct
import sys
import tarfile
import tempfile
import zipfile
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
import zstandard

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))

from source_folder import prepared, trip, trips_table, write_source
from toy_teacher import toy_teacher
from toy_training import STUDENT

from hoserkd.engine.bundle import write_bundle
from hoserkd.engine.city.storage import City, load_city
from hoserkd.engine.student.public_export import save_public_checkpoint
from hoserkd.engine.student.storage import LoadedStudent, StudentMeta, new_student, save_student
from hoserkd.engine.teacher.storage import Teacher

DATA = Path(__file__).resolve().parents[1] / "data" / "lmtad"
ABOUT = {"run_id": "r", "name": "toy", "city": {"name": "toy", "sha256": "c"}}


class Workshop:
    """One of each, made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def source(self) -> dict[str, bytes]:
        """Files of a source folder by name."""
        folder = write_source(
            self.folder / "source", partition="0\n1\n2\n0\n1\n2\n",
            train=trips_table([trip([0, 1, 2]), trip([5, 0]), trip([3, 4, 5, 0])]))
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    @cached_property
    def city(self) -> City:
        """A prepared city of a ring of six roads."""
        self.source  # noqa: B018 - writes the folder
        prepared(self.folder / "source", self.folder / "city", zones=3)
        return load_city(self.folder / "city")

    @cached_property
    def teacher(self) -> Teacher:
        """A teacher's export for that city."""
        return toy_teacher(self.city.network, self.folder / "teacher", cells=3, block_size=8,
                           layers=1, width=4)

    @cached_property
    def student(self) -> Path:
        """A student file of that city."""
        path = self.folder / "student.safetensors"
        config = STUDENT.model_copy(update={"features": "aaai2025"})
        torch.manual_seed(0)
        model = new_student(config, self.city.network)
        network = self.city.network
        meta = StudentMeta(config, network.roads, len(network.highway_names), network.zones,
                           self.city.times)
        save_student(path, model, meta)
        save_public_checkpoint(self.folder / "best.pth", LoadedStudent(model, meta), self.city,
                               max_len=4)
        return path

    @cached_property
    def public_student(self) -> bytes:
        """The same student as the public code saves it."""
        self.student  # noqa: B018 - writes the file
        return (self.folder / "best.pth").read_bytes()

    @cached_property
    def checkpoints(self) -> list[bytes]:
        """Training checkpoints of the public LM-TAD."""
        return [(DATA / kind / "ckpt.pt").read_bytes() for kind in ("plain", "compiled")]

    @cached_property
    def bundles(self) -> dict[str, bytes]:
        """A bundle of each kind, by suffix."""
        members: dict[str, Path | bytes] = {
            "model.safetensors": self.student, "settings.json": b"{}", "run.json": b"{}",
            "city/manifest.json": self.city.directory / "manifest.json"}
        made = {}
        for suffix in (".tar.zst", ".zip"):
            path = self.folder / f"bundle{suffix}"
            write_bundle(path, members, ABOUT)
            made[suffix] = path.read_bytes()
        return made

    def city_files(self) -> dict[str, bytes]:
        """The files of the prepared city by their path in its folder."""
        folder = self.city.directory
        return {path.relative_to(folder).as_posix(): path.read_bytes()
                for path in folder.rglob("*") if path.is_file()}


@cache
def workshop() -> Workshop:
    """Return the one workshop of this process; its folder goes with the process."""
    keep = tempfile.TemporaryDirectory(prefix="hoserkd-fuzz-")
    made = Workshop(Path(keep.name))
    made.keep = keep  # type: ignore[attr-defined]
    return made


def npy(values: np.ndarray) -> bytes:
    """Return the bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def pickle_of(checkpoint: bytes) -> bytes:
    """Return the pickle inside a checkpoint's archive."""
    with zipfile.ZipFile(io.BytesIO(checkpoint)) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("/data.pkl")]
        return archive.read(name)


def with_pickle(checkpoint: bytes, content: bytes) -> bytes:
    """Return the checkpoint with another pickle inside."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(checkpoint)) as old, zipfile.ZipFile(made, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, content if info.filename.endswith("/data.pkl")
                         else old.read(info))
    return made.getvalue()


def old_form(checkpoint: bytes) -> bytes:
    """Return the checkpoint as torch saved it before version 1.6."""
    made = io.BytesIO()
    torch.save(torch.load(io.BytesIO(checkpoint), weights_only=True), made,
               _use_new_zipfile_serialization=False)
    return made.getvalue()


def small_pickle() -> bytes:
    """Return a pickle of what a checkpoint holds apart from tensors."""
    return pickle.dumps({"model": {}, "iter_num": 3, "args": [1, 2.5, "x", None, (1, 2), b"y"]})


def tar_of(archive: bytes) -> bytes:
    """Return the unpacked bytes of a .tar.zst."""
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(archive)) as stream:
        return stream.read()


def tar_files(tar: bytes) -> dict[str, bytes]:
    """Return the files of a .tar."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {info.name: archive.extractfile(info).read()  # type: ignore[union-attr]
                for info in archive if info.isfile()}


def tar_with(files: dict[str, bytes]) -> bytes:
    """Return a .tar of those files."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return plain.getvalue()


def sealed(archive: bytes) -> bytes:
    """Return the archive with a seal that holds, as a stranger can make one too."""
    whole = archive + struct.pack("<II", 0x184D2A50, 64)
    return whole + hashlib.sha256(whole).hexdigest().encode()


def safetensors_parts(data: bytes) -> tuple[bytes, bytes]:
    """Return header and body of a .safetensors file."""
    size = int.from_bytes(data[:8], "little")
    return data[8:8 + size], data[8 + size:]


def with_header(header: bytes, body: bytes) -> bytes:
    """Return a .safetensors file of header and body."""
    return len(header).to_bytes(8, "little") + header + body


def described(header: bytes) -> bytes:
    """Return hoserkd's own description inside the header of a student file."""
    return json.loads(header)["__metadata__"]["hoserkd"].encode()


def with_description(header: bytes, text: str) -> bytes:
    """Return the header with another description."""
    content = json.loads(header)
    content["__metadata__"]["hoserkd"] = text
    return json.dumps(content).encode()


def packed(data: bytes, suffix: str) -> bytes:
    """Return data packed as the suffix says."""
    return {".gz": gzip.compress, ".zst": zstandard.compress}[suffix](data)

