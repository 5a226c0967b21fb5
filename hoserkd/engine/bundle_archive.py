"""The archives behind bundles: sealed, the same bytes for the same content, read with suspicion.

Two kinds: POSIX ustar in one zstd frame, and zip. Both end in a seal, 64 hex digits of the SHA-256
of all bytes before them, in a skippable zstd frame or in the zip comment.
"""

import hashlib
import io
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import zstandard

from hoserkd.engine.files import CHUNK, replacing
from hoserkd.errors import BundleError
from hoserkd.text import not_utf8

Content = Path | bytes
BROKEN = (zstandard.ZstdError, zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError,
          NotImplementedError, RuntimeError, ValueError, struct.error)
"""What the readers raise on a damaged archive; zipfile says RuntimeError for encrypted members and
NotImplementedError for odd methods."""
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZIP_MAGIC = b"PK\x03\x04"
_SEAL_HEADER = struct.pack("<II", 0x184D2A50, 64)
_SEAL_BYTES = 64
_BLOCK = tarfile.BLOCKSIZE
_LEVEL = 10
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may hold before it is taken for a bomb."""

    total_bytes: int = 16 << 30
    files: int = 20_000
    manifest_bytes: int = 4 << 20
    """20,000 names with sizes and hashes take 3 MB."""
    ratio: float = 300.0
    """Unpacked bytes for each packed one; judged once `ratio_floor_bytes` have come out."""
    ratio_floor_bytes: int = 32 << 20


DEFAULT_LIMITS = Limits()


def archive_suffix(path: Path) -> str:
    """Return `.tar.zst`, `.zip` or whatever else the name ends in."""
    return ".tar.zst" if path.name.endswith(".tar.zst") else path.suffix


def is_archive(path: Path) -> bool:
    """Tell whether a file starts like one of the two kinds, whatever it is called."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) in (_ZSTD_MAGIC, _ZIP_MAGIC)


def write_archive(path: Path, contents: list[tuple[str, Content]]) -> None:
    """Write and seal the members in the given order.

    Raises:
        BundleError: the name of `path` ends in neither .tar.zst nor .zip.
    """
    write = {".tar.zst": _write_tar, ".zip": _write_zip}.get(archive_suffix(path))
    if write is None:
        raise BundleError(f"{path}: a bundle ends in .tar.zst or .zip",
                          hint="choose the ending with --output FILE")
    with replacing(path, "w+b") as file:
        write(file, contents)


def check_name(name: str) -> None:
    """Refuse a member name that is not a plain relative path.

    Raises:
        BundleError: the name could leave the target folder or means different things elsewhere.
    """
    path = PurePosixPath(name)
    bad = (
        not path.parts or path.is_absolute() or str(path) != name or ".." in path.parts
        or "\\" in name or ":" in name or any(ord(c) < 32 or ord(c) == 127 for c in name)
        or not_utf8(name) is not None or len(name.encode("utf-8", "replace")) > 250
    )
    if bad:
        raise BundleError(f"{name!r}: a name that could leave the target folder")


def seal_holds(path: Path) -> bool:
    """Tell whether the file is, to the byte, what was sealed."""
    remaining = path.stat().st_size - _SEAL_BYTES
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while remaining > 0:
            chunk = file.read(min(CHUNK, remaining))
            digest.update(chunk)
            remaining -= len(chunk)
        return file.read() == digest.hexdigest().encode()


@dataclass(slots=True)
class Guard:
    """Counts what comes out of an archive and stops a bomb."""

    limits: Limits
    packed: int
    unpacked: int = 0

    def count(self, size: int) -> None:
        """Take note of `size` more bytes.

        Raises:
            BundleError: they are too many.
        """
        self.unpacked += size
        limits = self.limits
        if self.unpacked > limits.total_bytes:
            raise BundleError(f"holds more than {limits.total_bytes:,} bytes")
        if self.unpacked > max(limits.ratio_floor_bytes, limits.ratio * self.packed):
            raise BundleError(
                f"unpacks to over {limits.ratio:g} times its size: looks like a bomb")


@dataclass(slots=True)
class Entry:
    """A member as the archive presents it; `chunks` must be read before the next entry."""

    name: str
    chunks: Iterator[bytes]


def entries(file: IO[bytes], guard: Guard) -> Iterator[Entry]:
    """Yield the members of an archive in order; only plain files pass.

    Raises:
        BundleError: a link, a device, a folder, an odd name or a bomb; or one of `BROKEN`.
    """
    start = file.read(4)
    file.seek(0)
    return _tar_entries(file, guard) if start == _ZSTD_MAGIC else _zip_entries(file, guard)


def _tar_entries(file: IO[bytes], guard: Guard) -> Iterator[Entry]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    with decompressor.stream_reader(file, closefd=False) as stream:
        while True:
            header = _exactly(stream, _BLOCK)
            if header == bytes(_BLOCK):
                return
            # One header at a time, so that no extended header is obeyed.
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            if info.type != tarfile.REGTYPE:
                raise BundleError(f"{info.name!r}: not a plain file")
            yield Entry(info.name, _chunks(stream, info.size, guard))
            _exactly(stream, -info.size % _BLOCK)


def _chunks(stream: IO[bytes], size: int, guard: Guard) -> Iterator[bytes]:
    while size > 0:
        chunk = _exactly(stream, min(size, CHUNK))
        guard.count(len(chunk))
        size -= len(chunk)
        yield chunk


def _exactly(stream: IO[bytes], size: int) -> bytes:
    parts = []
    while size > 0:
        part = stream.read(size)
        if not part:
            raise EOFError("it ends too early")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _zip_entries(file: IO[bytes], guard: Guard) -> Iterator[Entry]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            kind = (info.external_attr >> 16) & 0o170000
            if info.filename.endswith("/") or kind not in (0, 0o100000):
                raise BundleError(f"{info.filename!r}: not a plain file")
            if info.orig_filename != info.filename:
                raise BundleError(f"{info.orig_filename!r}: a name that could clash")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BundleError(f"{info.filename!r}: packed in an unusual way")
            with _zip_member(archive, info) as member:
                yield Entry(info.filename, _zip_chunks(member, guard))


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    try:
        return archive.open(info)
    except OSError as error:
        # A wrong offset sends it before the file's beginning.
        raise zipfile.BadZipFile(f"{info.filename!r}: {error}") from error


def _zip_chunks(member: IO[bytes], guard: Guard) -> Iterator[bytes]:
    while chunk := member.read(CHUNK):
        guard.count(len(chunk))
        yield chunk


@contextmanager
def _opened(content: Content) -> Iterator[IO[bytes]]:
    if isinstance(content, bytes):
        yield io.BytesIO(content)
    else:
        with content.open("rb") as file:
            yield file


def _write_tar(file: IO[bytes], contents: list[tuple[str, Content]]) -> None:
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
    with compressor.stream_writer(file, closefd=False) as stream:
        for name, content in contents:
            info = tarfile.TarInfo(name)
            info.size = _size(content)
            info.mode = 0o644
            stream.write(info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict"))
            with _opened(content) as source:
                shutil.copyfileobj(source, stream, CHUNK)
            stream.write(bytes(-info.size % _BLOCK))
        stream.write(bytes(2 * _BLOCK))
    file.write(_SEAL_HEADER)
    _seal(file)


def _write_zip(file: IO[bytes], contents: list[tuple[str, Content]]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = bytes(_SEAL_BYTES)
        for name, content in contents:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            info.file_size = _size(content)
            with archive.open(info, "w") as target, _opened(content) as source:
                shutil.copyfileobj(source, target, CHUNK)
    file.seek(-_SEAL_BYTES, os.SEEK_END)
    file.truncate()
    _seal(file)


def _size(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _seal(file: IO[bytes]) -> None:
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
    file.seek(0, os.SEEK_END)
    file.write(digest.hexdigest().encode())
