"""Reading a public training checkpoint without running anything that it holds.

The public files are torch's zip archives. Their `data.pkl` names classes of a source tree that is
not here. Unpickling runs whatever callable a file names, so here every name is looked up in a
short list of stand-ins that are ours and do nothing but keep their arguments; any other name
refuses the file. Tensors stay descriptions until one is asked for, so an optimizer's state is
never read.
"""

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, Self

import numpy as np
import torch
from torch import Tensor

from hoserkd.engine.teacher.legacy import PICKLE, is_legacy, read_legacy
from hoserkd.engine.teacher.pickle_cost import RefusedPickleError as _Refused
from hoserkd.engine.teacher.pickle_cost import check_cost
from hoserkd.errors import TeacherError

MAX_PICKLE_BYTES = 256 << 20
"""A public checkpoint's pickle, tensors apart, is below 1 MB."""
MAX_SHARED = 4
"""So many times its size a file may hold in tensors that share their numbers."""
RECORD_MODULES = frozenset({"models", "datasets", "dataset", "data", "config", "configs", "utils",
                            "argparse", "pathlib", "__main__", "preprocess"})
"""Roots of the modules whose classes are kept as inert records."""
STORAGE_TYPES = MappingProxyType({
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
})
SCALAR_TYPES = frozenset(("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"))
OPCODES = frozenset("""PROTO STOP MARK POP POP_MARK DUP FRAME MEMOIZE PUT BINPUT LONG_BINPUT GET
    BINGET LONG_BINGET NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT
    BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 UNICODE STRING BINSTRING SHORT_BINSTRING
    BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE
    TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS EMPTY_SET ADDITEMS FROZENSET GLOBAL
    STACK_GLOBAL REDUCE NEWOBJ NEWOBJ_EX BUILD BINPERSID""".split())  # noqa: SIM905
"""The instructions that build data; those missing here (INST, OBJ, EXT1, ...) are never needed."""


class Record:
    """An object of a class that is not here: its name, arguments and state, and no behaviour."""

    name = ""

    def __init__(self, *arguments: object, **keywords: object) -> None:
        self.arguments = arguments
        self.state: dict[str, Any] = dict(keywords)

    def __new__(cls, *arguments: object, **keywords: object) -> Self:
        """Keep what a pickle passes to `__new__` alone (NEWOBJ calls no `__init__`)."""
        record = super().__new__(cls)
        record.arguments = arguments
        record.state = {}
        return record

    def __setstate__(self, state: object) -> None:
        """Keep a dictionary of attributes; anything else is dropped."""
        if isinstance(state, dict):
            self.state.update({k: v for k, v in state.items() if isinstance(k, str)})

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute that the object had."""
        return self.state.get(name, default)


class _Sealed:
    """An object whose attributes a pickle cannot set behind its constructor's back."""

    def __setstate__(self, state: object) -> NoReturn:
        raise _Refused("a change to a tensor's description")


@dataclass(frozen=True)
class StorageRef(_Sealed):
    """A tensor's memory: which entry of the archive, how many numbers of which type."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True)
class TensorRef(_Sealed):
    """A tensor that has not been read."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of numbers."""
        return math.prod(self.shape)


class _ScalarType:
    """Stands in for a numpy dtype."""

    __slots__ = ("code",)

    def __init__(self, code: object, *_: object) -> None:
        if code not in SCALAR_TYPES:
            raise _Refused(f"a numpy number of type {told(code)}")
        self.code = "<" + str(code)

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.code = str(state[1]).replace("|", "<").replace("=", "<") + self.code[1:]


class _Function:
    """A callable that a pickle may call and cannot change."""

    __slots__ = ("_call",)
    _call: Callable[..., object]

    def __init__(self, call: Callable[..., object]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: object) -> object:
        return self._call(*arguments)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise _Refused("a change to a function")


@dataclass(frozen=True, slots=True)
class Archive:
    """An open checkpoint: its object tree, with tensors as `TensorRef` until `tensor` reads one."""

    path: Path
    root: Any
    prefix: str
    places: Mapping[str, tuple[int, int]] | None = None
    """Of a file of torch's old form: where the numbers of each storage begin, and their bytes."""

    def tensor(self, ref: TensorRef) -> Tensor:
        """Read one tensor.

        Raises:
            TeacherError: The archive's entry is missing or too short for the tensor.
        """
        storage = ref.storage
        entry = f"{self.prefix}data/{storage.key}"
        try:
            raw = self._raw(storage.key, entry)
        except (KeyError, OSError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
            raise TeacherError(f"{self.path}: cannot read {entry}: {error}") from error
        width = storage.dtype.itemsize
        last = ref.offset + sum((n - 1) * s for n, s in zip(ref.shape, ref.stride, strict=True))
        if storage.numel * width != len(raw) or last >= max(storage.numel, 1):
            raise TeacherError(
                f"{self.path}: {entry} holds {len(raw)} bytes, but a tensor of shape "
                f"{list(ref.shape)} needs {(last + 1) * width}")
        if ref.numel > max(storage.numel, 1):
            raise TeacherError(f"{self.path}: {entry} has {storage.numel} numbers, but a tensor of "
                               f"shape {list(ref.shape)} repeats them")
        if not storage.numel:
            return torch.empty(ref.shape, dtype=storage.dtype)
        flat = torch.frombuffer(bytearray(raw), dtype=storage.dtype)
        return flat.as_strided(ref.shape, ref.stride, ref.offset).clone()

    def _raw(self, key: str, entry: str) -> bytes:
        if self.places is not None:
            start, length = self.places[key]
            with self.path.open("rb") as file:
                file.seek(start)
                return file.read(length)
        with zipfile.ZipFile(self.path) as archive:
            if archive.getinfo(entry).compress_type != zipfile.ZIP_STORED:
                raise TeacherError(f"{self.path}: {entry} is compressed; torch stores it plain")
            return archive.read(entry)

    def tensors(self, refs: Mapping[str, TensorRef]) -> dict[str, Tensor]:
        """Read several tensors.

        Raises:
            TeacherError: See `tensor`; or together they need far more bytes than the file has.
        """
        needed = sum(ref.storage.numel * ref.storage.dtype.itemsize for ref in refs.values())
        size = self.path.stat().st_size
        if needed > MAX_SHARED * size:
            raise TeacherError(f"{self.path}: its {len(refs)} tensors are {needed:,} bytes, but "
                               f"the file has {size:,}")
        return {name: self.tensor(ref) for name, ref in refs.items()}


def read_archive(path: Path) -> Archive:
    """Open a torch checkpoint and return its object tree; nothing from the file is run.

    Raises:
        TeacherError: The file is no checkpoint of torch, or names something that a teacher's
            checkpoint does not need.
    """
    with _refusing(path):
        if is_legacy(path):
            storages: dict[str, StorageRef] = {}
            root, places = read_legacy(
                path, lambda content: _unpickled(content, storages),
                lambda key: storages[key].dtype.itemsize, MAX_PICKLE_BYTES)
            return Archive(path, root, "", places)
        prefix, content = _pickle_bytes(path)
        return Archive(path, _unpickled(content, {}), prefix)


def is_torch_file(path: Path) -> bool:
    """Return whether a file is one that torch.save wrote, in its present form or its old one.

    Raises:
        OSError: it cannot be read.
    """
    return is_legacy(path) or zipfile.is_zipfile(path)


def _unpickled(content: bytes, storages: dict[str, "StorageRef"]) -> Any:
    check_cost(content, OPCODES)
    return _Reader(io.BytesIO(content), storages).load()


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn whatever a pickle is refused for into an error that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise TeacherError(f"{path}: no such file") from error
    except OSError as error:
        raise TeacherError(f"{path}: cannot be read: {error.strerror}") from error
    except _Refused as error:
        raise TeacherError(
            f"{path}: refused, because its pickle holds {error}",
            hint="only checkpoints as LM-TAD's training writes them are read; "
                 "nothing of this file was run") from error
    except (pickle.UnpicklingError, AttributeError, EOFError, IndexError, KeyError, TypeError,
            ValueError, OverflowError, struct.error) as error:
        raise TeacherError(f"{path}: its pickle is damaged: {error}") from error


def _pickle_bytes(path: Path) -> tuple[str, bytes]:
    """Return the folder inside the archive and the pickle's bytes, having checked both."""
    hint = "expected a file that torch.save wrote"
    with path.open("rb") as file:
        if file.read(len(PICKLE)) == PICKLE:
            raise TeacherError(f"{path}: no torch checkpoint, but a pickle of another program",
                               hint=f"{hint}; nothing of this file was run")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.count("/") == 1 and n.endswith("/data.pkl")]
            if len(names) != 1:
                raise TeacherError(f"{path}: no torch checkpoint: it has {len(names)} data.pkl",
                                   hint=hint)
            entry = archive.getinfo(names[0])
            prefix = names[0].removesuffix("data.pkl")
            if entry.file_size > MAX_PICKLE_BYTES or entry.compress_type != zipfile.ZIP_STORED:
                raise TeacherError(f"{path}: {names[0]} is compressed or has {entry.file_size} "
                                   f"bytes, above {MAX_PICKLE_BYTES}", hint=hint)
            order = prefix + "byteorder"
            if order in archive.namelist() and archive.read(order) != b"little":
                raise TeacherError(f"{path}: its numbers are big-endian", hint=hint)
            return prefix, archive.read(names[0])
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
        raise TeacherError(f"{path}: no torch checkpoint: {error}", hint=hint) from error


class _Reader(pickle.Unpickler):
    """An unpickler whose every name is one of ours, and which keeps the storages it met."""

    def __init__(self, file: io.BytesIO, storages: dict[str, StorageRef]) -> None:
        super().__init__(file)
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in _STAND_INS:
            return _STAND_INS[full]
        if module == "torch" and name in STORAGE_TYPES:
            return STORAGE_TYPES[name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module.split(".")[0] in RECORD_MODULES and full.replace(".", "").isidentifier():
            return type(name.replace(".", "_"), (Record,), {"name": full})
        raise _Refused(f"the name {full:.80}, which is not one of a checkpoint's")

    def persistent_load(self, pid: Any) -> StorageRef:
        kind, dtype, key, _location, numel, *view = pid
        # The old form has a sixth part, for a storage that is a part of another.
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not str(key).isalnum() \
                or view not in ([], [None]):
            raise _Refused(f"a reference that is no tensor storage: {told(pid)}")
        storage = StorageRef(str(key), dtype, _natural(numel))
        self._storages.setdefault(storage.key, storage)
        return storage


def told(value: object) -> str:
    """Return how a message shows a value of a pickle, which may hold itself many times over."""
    if isinstance(value, str | bytes | int | float | None):
        return f"{value!r:.60}"
    return f"a {type(value).__name__}"


def _natural(value: object) -> int:
    if not isinstance(value, int) or value < 0 or value > 1 << 48:
        raise _Refused(f"a size of {told(value)}")
    return value


def _rebuild_tensor(storage: object, offset: object, shape: Any, stride: Any, *_: object
                    ) -> TensorRef:
    if not isinstance(storage, StorageRef):
        raise _Refused("a tensor without storage")
    sizes, steps = tuple(map(_natural, shape)), tuple(map(_natural, stride))
    if len(sizes) != len(steps):
        raise _Refused("a tensor whose shape and strides disagree")
    return TensorRef(storage, _natural(offset), sizes, steps)


def _scalar(kind: object, content: object = b"") -> bool | int | float:
    if not isinstance(kind, _ScalarType) or not isinstance(content, bytes) or len(content) > 8:
        raise _Refused("a numpy number that is none")
    value: bool | int | float = np.frombuffer(content, dtype=kind.code)[0].item()
    return value


def _encode(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused(f"an encoding {told(encoding)}")
    return text.encode("latin1")


def _device(kind: object = "cpu", *_: object) -> str:
    if not isinstance(kind, str):
        raise _Refused("a device without a name")
    return kind


def _first(value: object, *_: object) -> object:
    return value


_STAND_INS: MappingProxyType[str, Any] = MappingProxyType({
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor_v2": _Function(_rebuild_tensor),
    "torch._utils._rebuild_parameter": _Function(_first),
    "torch.device": _Function(_device),
    "torch.Size": _Function(lambda shape=(): tuple(shape)),
    "numpy.dtype": _Function(_ScalarType),
    "numpy.core.multiarray.scalar": _Function(_scalar),
    "numpy._core.multiarray.scalar": _Function(_scalar),
    "_codecs.encode": _Function(_encode),
    "builtins.set": _Function(lambda items=(): set(items)),
    "__builtin__.set": _Function(lambda items=(): set(items)),
})
