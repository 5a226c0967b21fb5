"""Bundles: one archive with all that is needed to use a model or to check a result elsewhere.

A bundle is a `.tar.zst` (POSIX ustar in one zstd frame) or a `.zip`. Its first member is
`manifest.json`, which names every other member with its size and SHA-256. After the archive comes
a seal, the SHA-256 of all bytes before it (a skippable zstd frame, or the zip comment), so that no
byte can change unseen. Equal content gives equal bytes.

What is read here comes from strangers: names, kinds, sizes and ratios are checked before a byte
is written, and nothing appears at the target before all of it is right.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import index
from pathlib import Path, PurePosixPath
from typing import Any

from hoserkd.engine.bounded_json import LIMITS, parse_json
from hoserkd.engine.bundle_archive import (
    BROKEN,
    DEFAULT_LIMITS,
    Content,
    Entry,
    Guard,
    Limits,
    check_name,
    entries,
    is_archive,
    seal_holds,
    write_archive,
)
from hoserkd.engine.bundle_documents import document_fault
from hoserkd.engine.files import file_sha256
from hoserkd.errors import BundleError

FORMAT = "hoserkd bundle"
VERSION = 1
MANIFEST = "manifest.json"
MODEL = "model.safetensors"
SETTINGS = "settings.json"
CITY = "city"


FAULTS_TOLD = 20
"""A bundle with more faults than this is told by its first ones and their number."""


@dataclass(frozen=True, slots=True)
class FileFact:
    """Size and hash of one member."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself."""

    about: Mapping[str, Any]
    """Facts in words and numbers: run, city, versions, what the parts are."""
    files: Mapping[str, FileFact]
    """Every member but the manifest, by name."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of checking a bundle: all faults, in the order in which they were met."""

    manifest: Manifest | None
    """None: there is no readable manifest."""
    faults: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Tell whether nothing is wrong."""
        return not self.faults


@dataclass(frozen=True, slots=True)
class OpenBundle:
    """An unpacked bundle."""

    directory: Path
    manifest: Manifest
    model: Path
    settings: Path
    city: Path | None
    """Folder with the city's tables; None: the bundle only names its city by hash."""


def write_bundle(path: Path, members: Mapping[str, Content],
                 about: Mapping[str, Any]) -> Manifest:
    """Write `members` (name in the bundle -> file or bytes) and return the manifest.

    Equal members and facts give equal bytes, whatever the files' times, owners and modes.

    Raises:
        BundleError: the name of `path` or of a member does not do.
    """
    for name in members:
        check_name(name)
        if name == MANIFEST:
            raise BundleError(f"{MANIFEST}: the bundle writes this itself")
    files = {name: _fact(members[name]) for name in sorted(members)}
    manifest = Manifest(about=about, files=files)
    contents: list[tuple[str, Content]] = [(MANIFEST, _manifest_bytes(manifest))]
    contents += [(name, members[name]) for name in files]
    write_archive(path, contents)
    if not (verification := verify_bundle(path)).sound:
        path.unlink()
        raise BundleError(f"{path}: not kept: " + "; ".join(verification.faults),
                          hint="a file changed while it was being packed; try again")
    return manifest


def verify_bundle(path: Path, limits: Limits = DEFAULT_LIMITS) -> Verification:
    """Check every byte of a bundle and return all faults found; nothing is written."""
    return _examine(path, limits, None)


def unpack_bundle(path: Path, directory: Path, limits: Limits = DEFAULT_LIMITS) -> Manifest:
    """Unpack a sound bundle to `directory`, which appears whole or not at all.

    Raises:
        BundleError: the bundle has faults (all of them are named), or `directory` is not empty.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise BundleError(f"{directory}: is there already",
                          hint="name a folder that does not exist")
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        verification = _examine(path, limits, temporary)
        manifest = verification.manifest
        if manifest is None or not verification.sound:
            raise BundleError(f"{path}: not unpacked: " + "; ".join(verification.faults),
                              hint="fetch the bundle again, or ask its maker for a sound one")
        temporary.chmod(0o755)
        temporary.replace(directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return manifest


def open_bundle(path: str | Path, into: str | Path) -> OpenBundle:
    """Return the bundle unpacked under `into`, in a folder named by its hash; once only.

    Raises:
        BundleError: see `unpack_bundle`; or the bundle holds no model.
    """
    path = Path(path)
    directory = Path(into) / file_sha256(path)[:16]
    if not (directory / MANIFEST).is_file():
        try:
            unpack_bundle(path, directory)
        except (BundleError, OSError):
            # Another process may have been quicker; the folder appears whole or not at all.
            if not (directory / MANIFEST).is_file():
                raise
    return opened(directory)


def opened(directory: Path) -> OpenBundle:
    """Return the paths in the unpacked bundle at `directory`."""
    manifest = _parse_manifest((directory / MANIFEST).read_bytes())
    if MODEL not in manifest.files:
        raise BundleError(f"{directory}: the bundle holds no {MODEL}")
    city = directory / CITY
    return OpenBundle(directory, manifest, directory / MODEL, directory / SETTINGS,
                      city if city.is_dir() else None)


def _fact(content: Content) -> FileFact:
    if isinstance(content, bytes):
        return FileFact(len(content), hashlib.sha256(content).hexdigest())
    return FileFact(content.stat().st_size, file_sha256(content))


def _manifest_bytes(manifest: Manifest) -> bytes:
    document = {
        "format": FORMAT,
        "version": VERSION,
        "about": manifest.about,
        "files": {name: {"size": fact.size, "sha256": fact.sha256}
                  for name, fact in manifest.files.items()},
    }
    return (json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode()


@dataclass(slots=True)
class _Reading:
    """What a pass over an archive has found so far."""

    directory: Path | None
    manifest: Manifest | None = None
    faults: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    """Names so far, as `_one_form` gives them."""
    folders: set[str] = field(default_factory=set)
    """Those that the names so far lie in, in the same form."""


def _examine(path: Path, limits: Limits, directory: Path | None) -> Verification:
    if not path.is_file():
        raise BundleError(f"{path}: no such file")
    if not is_archive(path):
        return Verification(None, ("not a bundle: neither .tar.zst nor .zip",))
    reading = _Reading(directory)
    if not seal_holds(path):
        reading.faults.append("bytes were changed, added or cut since it was written")
    try:
        with path.open("rb") as file:
            for entry in entries(file, Guard(limits, path.stat().st_size)):
                _take(entry, reading, limits)
    except BundleError as error:
        reading.faults.append(error.message)
    except BROKEN as error:
        reading.faults.append(f"the archive cannot be read on: {error}")
    except OSError as error:
        # What a zip that sends its reader before the start of the file comes to.
        if error.errno != errno.EINVAL:
            raise
        reading.faults.append(f"the archive cannot be read on: {error}")
    named = sorted(reading.manifest.files) if reading.manifest else []
    reading.faults += [f"{name}: missing" for name in named if _one_form(name) not in reading.seen]
    if MODEL in named and SETTINGS not in named:
        reading.faults.append(f"{SETTINGS}: missing beside {MODEL}")
    faults = reading.faults
    if len(faults) > FAULTS_TOLD + 1:
        faults = [*faults[:FAULTS_TOLD], f"and {len(faults) - FAULTS_TOLD:,} more"]
    return Verification(reading.manifest, tuple(faults))


def _take(entry: Entry, reading: _Reading, limits: Limits) -> None:
    check_name(entry.name)
    if reading.manifest is None:
        if entry.name != MANIFEST:
            raise BundleError(f"does not start with {MANIFEST}")
        _take_manifest(entry, reading, limits)
        return
    if len(reading.seen) >= limits.files:
        raise BundleError(f"holds more than {limits.files:,} files")
    fact = reading.manifest.files.get(entry.name)
    if fact is None:
        raise BundleError(f"{entry.name}: not in {MANIFEST}")
    _check_among(entry.name, reading)
    document = bytearray() if entry.name.endswith(".json") else None
    try:
        found = _copy(entry, fact.size, reading.directory, document)
    except BROKEN as error:
        reading.faults.append(f"{entry.name}: cannot be read: {error}")
        return
    if found.size != fact.size:
        reading.faults.append(f"{entry.name}: has {found.size:,} bytes, not {fact.size:,}")
    elif found.sha256 != fact.sha256:
        reading.faults.append(f"{entry.name}: SHA-256 is {found.sha256[:12]}…, "
                              f"not {fact.sha256[:12]}…")
    elif document is not None:
        decisive = entry.name == SETTINGS and MODEL in reading.manifest.files
        fault = document_fault(document, reading.manifest.about if decisive else None)
        reading.faults += [f"{entry.name}: unreadable: {fault}"] if fault else []


def _check_among(name: str, reading: _Reading) -> None:
    """Refuse a member that would be in another's way, whether or not it is written now."""
    own = _one_form(name)
    above = {_one_form(str(parent)) for parent in PurePosixPath(name).parents[:-1]}
    if own in reading.seen:
        raise BundleError(f"{name}: twice in the archive")
    if above & (reading.seen | {MANIFEST}):
        raise BundleError(f"{name}: lies under a file")
    if own in reading.folders or own == MANIFEST:
        raise BundleError(f"{name}: has the name of another member or its folder")
    reading.seen.add(own)
    reading.folders |= above


def _one_form(name: str) -> str:
    """Return a name so that those that are one file on some system are equal."""
    return unicodedata.normalize("NFC", name).casefold()


def _take_manifest(entry: Entry, reading: _Reading, limits: Limits) -> None:
    data = bytearray()
    for chunk in entry.chunks:
        data += chunk
        if len(data) > limits.manifest_bytes:
            raise BundleError(f"{MANIFEST}: larger than {limits.manifest_bytes:,} bytes")
    reading.manifest = _parse_manifest(bytes(data))
    if reading.directory is not None:
        (reading.directory / MANIFEST).write_bytes(data)


def _copy(entry: Entry, size: int, directory: Path | None, document: bytearray | None
          ) -> FileFact:
    """Hash a member, and write up to `size` bytes of it if there is a folder to write to.

    Args:
        document: Gets the bytes too, up to one more than a JSON text may have.
    """
    digest, count = hashlib.sha256(), 0
    target: Path | None = None
    if directory is not None:
        target = directory / entry.name
        target.parent.mkdir(parents=True, exist_ok=True)
    with (target.open("xb") if target else open(os.devnull, "wb")) as file:  # noqa: PTH123
        for chunk in entry.chunks:
            digest.update(chunk)
            count += len(chunk)
            if count <= size:
                file.write(chunk)
            if document is not None and len(document) <= LIMITS.size:
                document += chunk[:LIMITS.size + 1 - len(document)]
    return FileFact(count, digest.hexdigest())


def _parse_manifest(data: bytes) -> Manifest:
    try:
        document = parse_json(data)
        if document["format"] != FORMAT:
            raise BundleError(f"{MANIFEST}: not of a hoserkd bundle")
        if document["version"] > VERSION:
            raise BundleError(f"{MANIFEST}: version {document['version']} is newer than {VERSION}",
                              hint="upgrade hoserkd")
        files = {str(name): FileFact(index(fact["size"]), str(fact["sha256"]))
                 for name, fact in document["files"].items()}
        about = dict(document["about"])
        if len(files) > DEFAULT_LIMITS.files:
            raise BundleError(f"{MANIFEST}: names {len(files):,} files, at most "
                              f"{DEFAULT_LIMITS.files:,} are allowed")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise BundleError(f"{MANIFEST}: unreadable: {error}") from error
    return Manifest(about=about, files=files)
