"""Which city, teacher or student something is: a name for people, a content hash for the program.

Names come again: a teacher is retrained under its old name, a city is prepared anew. Whatever is
computed from an artefact therefore records the artefact's identity, and whoever continues or
reuses a result compares hashes, never names.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from hoserkd.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from hoserkd.engine.city.storage import City
    from hoserkd.engine.student.storage import LoadedStudent, StudentMeta
    from hoserkd.engine.teacher.card import TeacherCard

Kind = Literal["city", "teacher", "student"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NAMELESS = ("best", "model")
"""How the student's file is called in every run and every bundle."""
SHORT = 12
"""Digits of a hash in messages."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One artefact. Two identities are equal where kind and hash are; the rest is for people."""

    kind: Kind
    name: str = field(compare=False)
    sha256: str
    """Of all that decides what is computed from the artefact; in hex."""
    place: Path | None = field(default=None, compare=False)
    """Absolute folder or file where it was found; None: unknown. It stays on this machine."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name} (hash {self.sha256[:SHORT]})"

    def to_json(self, *, places: bool = False) -> dict[str, str]:
        """Return name and hash; the place only where asked, since files may leave the machine."""
        found = {"name": self.name, "sha256": self.sha256}
        return found | ({"place": str(self.place)} if places and self.place else {})

    @classmethod
    def from_json(cls, kind: Kind, value: Any) -> Self | None:
        """Return what `to_json` wrote, or None where `value` is no such thing."""
        if not isinstance(value, Mapping) or not isinstance(value.get("sha256"), str):
            return None
        place = value.get("place")
        return cls(kind, str(value.get("name", "")), value["sha256"],
                   Path(place) if isinstance(place, str) else None)


@dataclass(frozen=True, slots=True)
class MadeFrom:
    """The artefacts that a run or a student was made from; None: not involved, or unknown."""

    city: Identity | None = None
    teacher: Identity | None = None
    """Who taught: an LM-TAD export (`teacher`) or a trained HOSER (`student`)."""
    student: Identity | None = None
    """The student that made the trips, or whose weights a training started from."""
    data_dir: Path | None = None
    """Absolute data folder of the command. It stays on this machine."""

    def to_json(self, *, places: bool = False) -> dict[str, Any]:
        """Return the known artefacts by their role; with `places` also where they were."""
        found: dict[str, Any] = {}
        for role in KINDS:
            identity = getattr(self, role)
            if identity is not None:
                found[role] = identity.to_json(places=places)
                if identity.kind != role:
                    found[role]["kind"] = identity.kind
        return found | ({"data_dir": str(self.data_dir)} if places and self.data_dir else {})

    def told(self) -> dict[str, str]:
        """Return name and hash of the known artefacts, as comparisons of runs show them."""
        found = {f"made_from.{role}": getattr(self, role) for role in KINDS}
        return {key: f"{identity.name} {identity.sha256[:SHORT]}"
                for key, identity in found.items() if identity is not None}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return what `to_json` wrote; parts that are damaged or absent are None."""
        known = value if isinstance(value, Mapping) else {}
        found = {}
        for role in KINDS:
            entry = known.get(role)
            kind = entry.get("kind", role) if isinstance(entry, Mapping) else role
            found[role] = Identity.from_json(kind if kind in KINDS else role, entry)
        data_dir = known.get("data_dir")
        return cls(**found, data_dir=Path(data_dir) if isinstance(data_dir, str) else None)


def city_identity(city: "City") -> Identity:
    """Return which prepared city this is."""
    return Identity("city", city.name, city.sha256, city.directory.absolute())


def teacher_identity(card: "TeacherCard", directory: Path | None = None) -> Identity:
    """Return which LM-TAD teacher a card describes, and the folder of its export if known."""
    return Identity("teacher", card.name, card.sha256,
                    None if directory is None else directory.absolute())


def student_identity(student: "LoadedStudent", path: Path, name: str | None = None) -> Identity:
    """Return which student was loaded from `path`.

    Without a name it is called as the file, or as its run where all files are called so.
    """
    run_id = student.meta.run_id if path.stem in NAMELESS else None
    called = name or run_id or path.stem
    return Identity("student", called, student_sha256(student), path.absolute())


def student_sha256(student: "LoadedStudent") -> str:
    """Return the hash of all that decides a student's answers.

    That is its weights, its settings, the scale of its times, and among how many candidates it
    chooses.

    Who trained it, when, and with which result does not count: the same weights under another
    name, or in a bundle, are the same student.
    """
    return decisive_sha256(student.model.state_dict(), student.meta)


def decisive_sha256(weights: "Mapping[str, Tensor]", meta: "StudentMeta") -> str:
    """Return `student_sha256` of weights with their description."""
    decisive = {
        "weights": weights_sha256(weights),
        "config": meta.config.model_dump(mode="json", exclude={"dropout"}),
        "times": [meta.times.log1p_mean, meta.times.log1p_std],
        "candidates": meta.candidate_top_k,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def weights_sha256(weights: "Mapping[str, Tensor]") -> str:
    """Return the hash of named tensors: names, types, shapes and bits, wherever they lie."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        # As bytes, for NumPy has no bfloat16; flat, because a scalar has no bytes to view.
        digest.update(tensor.reshape(-1).view(dtype=_bytes_type()).numpy().tobytes())
    return digest.hexdigest()


def check_unchanged(
    doing: str, recorded: Identity | None, found: Identity | None, hint: str | None = None
) -> None:
    """Check that an artefact is still the one that a result was begun with.

    Args:
        doing: What would continue, such as `the run`; begins the message.
        recorded: What the result was begun with; None: nobody, or unknown.
        found: What there is now; None: nobody.
        hint: What to do; None: what helps where something is resumed.

    Raises:
        CheckpointError: they differ; shows both.
    """
    if recorded is None or recorded == found:
        return
    now = "there is none" if found is None else f"this one is {found}" + (
        f" in {found.place}" if found.place else "")
    raise CheckpointError(
        f"{doing} was begun with {recorded}, but now {now}",
        hint=hint or f"put the {recorded.kind} of that hash back, or begin anew without --resume")


def _bytes_type() -> Any:
    import torch

    return torch.uint8
