"""A teacher on disk: `weights.safetensors` and `teacher.json`, which says all about them."""

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as dump_safetensors

from hoserkd.engine.city.grid import Grid
from hoserkd.engine.files import file_sha256, replacing, write_json
from hoserkd.engine.teacher.lmtad import LMTAD, LMTADDimensions
from hoserkd.errors import TeacherError

FORMAT = "hoserkd-teacher"
VERSION = 1
WEIGHTS = "weights.safetensors"
CARD = "teacher.json"


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


@dataclass(frozen=True, slots=True)
class Teacher:
    """A teacher that can be asked: the model in evaluation mode, and its card."""

    model: LMTAD
    card: TeacherCard

    @property
    def grid(self) -> Grid:
        """The grid whose cells are its tokens."""
        return self.card.grid

    @property
    def sot_id(self) -> int:
        """Token before every trip."""
        return self.card.sot_id

    @property
    def eot_id(self) -> int:
        """Token after every trip."""
        return self.card.eot_id

    @property
    def pad_id(self) -> int:
        """Token that fills up a batch, on the right."""
        return self.card.pad_id

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self.card.vocab_size

    @property
    def sha256(self) -> str:
        """Hash of all that decides its answers."""
        return self.card.sha256

    @property
    def meta(self) -> Mapping[str, Any]:
        """Provenance and quality."""
        return self.card.meta


def save_teacher(directory: Path, model: LMTAD, card: TeacherCard) -> TeacherCard:
    """Write an export and return its card with the hash of the weights.

    The weights are replaced first and the card last: a reader in between finds a hash that does
    not match, never a wrong teacher.
    """
    state = {name: tensor.detach().to("cpu", torch.float32).contiguous()
             for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    directory.mkdir(parents=True, exist_ok=True)
    content = dump_safetensors(state, metadata={"format": FORMAT})
    with replacing(directory / WEIGHTS) as file:
        file.write(content)
    card = replace(card, weights_sha256=hashlib.sha256(content).hexdigest())
    write_json(directory / CARD, card.to_json())
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


def load_card(directory: Path) -> TeacherCard:
    """Read what an export says about itself, without its weights.

    Raises:
        TeacherError: There is no export, or its JSON is unreadable or contradicts itself.
    """
    path = directory / CARD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
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
            grid=Grid.from_json(content["grid"]), sot_id=int(tokens["sot"]),
            eot_id=int(tokens["eot"]), pad_id=int(tokens["pad"]),
            weights_sha256=str(content["weights_sha256"]), meta=dict(content.get("meta", {})))
    except (KeyError, TypeError, ValueError) as error:
        raise TeacherError(f"{path}: missing or wrong field: {error!r}") from error
    check_vocabulary(card, str(path))
    return card


def load_teacher(directory: Path, device: torch.device | str = "cpu") -> Teacher:
    """Load an export, its weights checked against the recorded hash.

    Raises:
        TeacherError: It is missing, damaged, or weights and card contradict each other.
    """
    card = load_card(directory)
    path = directory / WEIGHTS
    try:
        found = file_sha256(path)
        content = load_safetensors(path.read_bytes()) if found == card.weights_sha256 else {}
    except (OSError, SafetensorError) as error:
        raise TeacherError(f"{path}: unreadable: {error}") from error
    if found != card.weights_sha256:
        raise TeacherError(
            f"{path}: damaged or replaced: its hash is {found[:12]}, {CARD} says "
            f"{card.weights_sha256[:12]}", hint="export the checkpoint again")
    return Teacher(build_model(card.dimensions, content, str(path)).to(device), card)


def build_model(dimensions: LMTADDimensions, state: Mapping[str, torch.Tensor], where: str
                ) -> LMTAD:
    """Return the model in evaluation mode with `state`, whose tied head may be left out.

    Raises:
        TeacherError: Names or shapes do not fit the dimensions.
    """
    with torch.device("meta"):
        model = LMTAD(dimensions)
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    state = {k: v.float() for k, v in state.items() if v.is_floating_point()}
    state.setdefault("lm_head.weight", state.get("transformer.wte.weight", torch.empty(0)))
    found = {k: tuple(v.shape) for k, v in state.items()}
    wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
    if wrong:
        name = wrong[0]
        raise TeacherError(
            f"{where}: {len(wrong)} weights do not fit the dimensions, first {name}: found "
            f"{found.get(name, 'nothing')}, expected {expected.get(name, 'nothing')}")
    model.load_state_dict(state, strict=True, assign=True)
    # assign=True unties the head; tie it again.
    model.lm_head.weight = model.token_embedding
    return model.requires_grad_(False).eval()


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


def find_teacher(reference: str, teachers: Path) -> Path:
    """Return the export that `reference` names: a folder, or a name under `teachers`.

    Raises:
        TeacherError: There is none; names those that there are.
    """
    for candidate in (teachers / reference, Path(reference).expanduser()):
        if (candidate / CARD).is_file():
            return candidate
    known = [path.name for path in list_teachers(teachers)]
    close = difflib.get_close_matches(reference, known, n=1)
    there = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known) or 'none'}"
    raise TeacherError(
        f"no teacher {reference!r} in {teachers}, nor a folder of that name with {CARD} ({there})",
        hint="run `hoserkd train-teacher`, or `hoserkd export-teacher CHECKPOINT --output DIR`")


def list_teachers(teachers: Path) -> list[Path]:
    """Return the exports under a folder, by name."""
    return sorted(path.parent for path in teachers.glob(f"*/{CARD}"))
