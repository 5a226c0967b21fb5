"""The times of a W&B offline run, set to those of the run that it tells of.

W&B stamps a run with the moments at which it is written, and no setting changes that. Its file is
a log of protobuf records in LevelDB's framing, which is rewritten here once W&B has closed it.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hoserkd.engine.files import parse_json, replacing
from hoserkd.errors import StoreError

BLOCK = 1 << 15
HEADER = b":W&B\xe1\xbe"
"""Mark and magic number; a version byte follows."""
FRAME = struct.Struct("<IHB")
"""Checksum of kind and content, size, kind."""
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def set_times(path: Path, started_s: float, ended_s: float) -> None:
    """Let a closed `.wandb` file say when its run began and ended, in seconds since 1970.

    Raises:
        StoreError: the file is none that this version knows.
    """
    from wandb.proto import wandb_internal_pb2

    content = path.read_bytes()
    start = len(HEADER) + 1
    if not content.startswith(HEADER):
        raise StoreError(f"{path}: not a file of W&B that is known here")
    records = []
    for data in _records(content, start, path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        _set_record(record, started_s, ended_s)
        records.append(record.SerializeToString())
    with replacing(path) as file:
        file.write(content[:start])
        place = start
        for data in records:
            for frame in _frames(data, place):
                file.write(frame)
                place += len(frame)


def _set_record(record: Any, started_s: float, ended_s: float) -> None:
    kind = record.WhichOneof("record_type")
    if kind == "run":
        record.run.start_time.FromMicroseconds(int(started_s * 1e6))
    elif kind == "environment" and record.environment.HasField("started_at"):
        record.environment.started_at.FromMicroseconds(int(started_s * 1e6))
    elif kind == "history":
        _set_runtime(record.history.item, started_s, ended_s)
    elif kind == "summary":
        _set_runtime(record.summary.update, started_s, ended_s)
    elif kind == "exit":
        record.exit.runtime = max(int(ended_s - started_s), 0)


def _set_runtime(items: Any, started_s: float, ended_s: float) -> None:
    """Let rows be as long after the start as their own time says, and all else at the end."""
    found = {(item.key or "/".join(item.nested_key)): item for item in items}
    at = found.get("_timestamp")
    at_s = ended_s if at is None or not at.value_json else float(parse_json(at.value_json))
    elapsed_s = max(at_s - started_s, 0.0)
    if "_runtime" in found:
        found["_runtime"].value_json = json.dumps(elapsed_s)
    if "_wandb/runtime" in found:
        found["_wandb/runtime"].value_json = json.dumps(int(elapsed_s))


def _records(content: bytes, place: int, path: Path) -> Iterator[bytes]:
    parts: list[bytes] = []
    while place + FRAME.size <= len(content):
        room = BLOCK - place % BLOCK
        if room < FRAME.size:
            place += room
            continue
        checksum, size, kind = FRAME.unpack_from(content, place)
        data = content[place + FRAME.size:place + FRAME.size + size]
        if checksum != _checksum(kind, data):
            raise StoreError(f"{path}: damaged, or of a version of W&B that is not known here")
        place += FRAME.size + size
        parts.append(data)
        if kind in (WHOLE, LAST):
            yield b"".join(parts)
            parts.clear()


def _frames(data: bytes, place: int) -> Iterator[bytes]:
    """Yield a record cut at the bounds of blocks, from a place in the file."""
    first = True
    while first or data:
        room = BLOCK - place % BLOCK
        if room < FRAME.size:
            yield bytes(room)
            place += room
            continue
        part, data = data[:room - FRAME.size], data[room - FRAME.size:]
        kind = (LAST if not data else MIDDLE) if not first else (FIRST if data else WHOLE)
        yield FRAME.pack(_checksum(kind, part), len(part), kind) + part
        place += FRAME.size + len(part)
        first = False


def _checksum(kind: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(bytes([kind])))
