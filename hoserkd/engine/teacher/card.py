"""What `teacher.json` says about a teacher. Nothing here needs torch."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from operator import index
from pathlib import Path
from typing import Any, Self

from hoserkd.engine.city.grid import Grid
from hoserkd.engine.files import read_json, write_json
from hoserkd.errors import TeacherError

FORMAT = "hoserkd-teacher"
VERSION = 1
CARD = "teacher.json"


LARGEST = {"vocab_size": 1 << 28, "block_size": 1 << 20, "n_layer": 512, "n_head": 1024,
           "n_embd": 1 << 16}
"""Beyond which a card is taken for damaged, before anything of that size is made."""


@dataclass(frozen=True, slots=True)
class LMTADDimensions:
    """What the weights' shapes depend on."""

    vocab_size: int
    """Cells, then PAD, EOT and SOT."""
    block_size: int
    """Longest sequence that has positions, SOT included."""
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Return the dimensions that `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: A field is missing or is no number.
        """
        found = {name: index(value[name]) for name in LARGEST}
        wrong = [f"{name} {found[name]}" for name in LARGEST
                 if not 1 <= found[name] <= LARGEST[name]]
        dropout = float(value.get("dropout", 0.0))
        if wrong or not 0 <= dropout <= 1 or found["n_embd"] % found["n_head"]:
            raise ValueError(f"no model has {', '.join(wrong) or 'these dimensions'}")
        return cls(**found, dropout=dropout)


@dataclass(frozen=True, slots=True)
class TeacherCard:
    """What `teacher.json` says: everything about a teacher but its weights."""

    name: str
    dimensions: LMTADDimensions
    grid: Grid
    sot_id: int
    eot_id: int
    pad_id: int
    weights_sha256: str
    """Of the weights file; empty before it is written."""
    meta: Mapping[str, Any]
    """Provenance and, for a teacher trained here, how well it does."""

    @property
    def vocab_size(self) -> int:
        """Cells and the three special tokens (public Porto vocabularies have a few spare cells)."""
        return self.dimensions.vocab_size

    @property
    def sha256(self) -> str:
        """Hash of all that decides the teacher's answers: weights, dimensions, ids and grid."""
        content = self.to_json()
        decisive = {key: content[key] for key in ("model", "tokens", "grid", "weights_sha256")}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the content of `teacher.json`."""
        return {
            "format": FORMAT, "version": VERSION, "name": self.name,
            "model": self.dimensions.to_json(),
            "tokens": {"pad": self.pad_id, "eot": self.eot_id, "sot": self.sot_id},
            "grid": self.grid.to_json(), "weights_sha256": self.weights_sha256,
            "meta": dict(self.meta),
        }


def load_card(directory: Path) -> TeacherCard:
    """Read what an export says about itself, without its weights.

    Raises:
        TeacherError: There is no export, or its JSON is unreadable or contradicts itself.
    """
    path = directory / CARD
    try:
        content = read_json(path, non_finite=True)
    except FileNotFoundError as error:
        raise TeacherError(
            f"{directory}: no teacher here: it has no {CARD}",
            hint="run `hoserkd train-teacher`, or `hoserkd export-teacher CHECKPOINT --output "
                 f"{directory}`") from error
    except (OSError, ValueError) as error:
        raise TeacherError(f"{path}: unreadable: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise TeacherError(f"{path}: not a teacher's export (its format is not {FORMAT})")
    if content.get("version") != VERSION:
        raise TeacherError(f"{path}: export version {content.get('version')}, expected {VERSION}",
                           hint="export the checkpoint again with this version of hoserkd")
    try:
        tokens = content["tokens"]
        card = TeacherCard(
            name=directory.name, dimensions=LMTADDimensions.from_json(content["model"]),
            grid=Grid.from_json(content["grid"]), sot_id=index(tokens["sot"]),
            eot_id=index(tokens["eot"]), pad_id=index(tokens["pad"]),
            weights_sha256=str(content["weights_sha256"]), meta=dict(content.get("meta", {})))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise TeacherError(f"{path}: missing or wrong field: {error!r}") from error
    check_vocabulary(card, str(path))
    return card


def add_to_card(directory: Path, meta: Mapping[str, Any]) -> TeacherCard:
    """Add to what an export says about itself, and return its card; the hash stays.

    Raises:
        TeacherError: There is no export.
    """
    card = load_card(directory)
    card = replace(card, meta={**card.meta, **meta})
    write_json(directory / CARD, card.to_json())
    return card


def check_vocabulary(card: TeacherCard, where: str) -> None:
    """Check that cells and special tokens fill the vocabulary.

    Raises:
        TeacherError: They do not; shows both sides.
    """
    special = {"PAD": card.pad_id, "EOT": card.eot_id, "SOT": card.sot_id}
    ids = sorted(special.values())
    if len(set(ids)) < 3 or ids[0] < 0 or ids[-1] >= card.vocab_size:
        raise TeacherError(f"{where}: special ids {special} do not fit a vocabulary of "
                           f"{card.vocab_size} tokens")
    if ids[0] < card.grid.cells:
        raise TeacherError(
            f"{where}: the grid has {card.grid.rows} x {card.grid.cols} = {card.grid.cells} cells, "
            f"but the vocabulary has room for {ids[0]} before its special ids {special}")
