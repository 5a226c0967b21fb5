"""A teacher on disk: `weights.safetensors` and `teacher.json`, which says all about them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save as dump_safetensors

from hoserkd.engine.city.grid import Grid
from hoserkd.engine.files import file_sha256, replacing, write_json
from hoserkd.engine.teacher.card import (
    CARD,
    FORMAT,
    LMTADDimensions,
    TeacherCard,
    add_to_card,
    check_vocabulary,
    load_card,
)
from hoserkd.engine.teacher.lmtad import LMTAD
from hoserkd.engine.weights import read_weights
from hoserkd.errors import TeacherError

__all__ = ["CARD", "Teacher", "TeacherCard", "add_to_card", "build_model", "check_vocabulary",
           "load_card", "load_teacher", "save_teacher"]

WEIGHTS = "weights.safetensors"


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


def load_teacher(directory: Path, device: torch.device | str = "cpu") -> Teacher:
    """Load an export, its weights checked against the recorded hash.

    Raises:
        TeacherError: It is missing, damaged, or weights and card contradict each other.
    """
    card = load_card(directory)
    path = directory / WEIGHTS
    try:
        found = file_sha256(path)
        content = read_weights(path)[0] if found == card.weights_sha256 else {}
    except (OSError, SafetensorError, ValueError, KeyError) as error:
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
