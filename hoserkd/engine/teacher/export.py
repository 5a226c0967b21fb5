"""From a training checkpoint, public or ours, to a safe export that says all about itself."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from operator import index
from pathlib import Path

from torch import Tensor

from hoserkd.engine.city.grid import Grid
from hoserkd.engine.files import file_sha256, new_folder, parse_json, read_json
from hoserkd.engine.teacher.grid_options import (
    ExportOptions,
    GridEvidence,
    find_grid,
    lay_grid,
    parse_bounds,
    parse_cell_size,
    read_shape,
)
from hoserkd.engine.teacher.lmtad import LMTADDimensions
from hoserkd.engine.teacher.pickles import Archive, Record, TensorRef, read_archive, told
from hoserkd.engine.teacher.storage import (
    CARD,
    Teacher,
    TeacherCard,
    build_model,
    check_vocabulary,
    load_card,
    load_teacher,
    save_teacher,
)
from hoserkd.engine.teacher.wrapping import FoundWeights, NoWeightsError, find_weights
from hoserkd.errors import TeacherError

__all__ = ["ExportOptions", "Teacher", "TeacherCard", "export_checkpoint", "load_card",
           "load_teacher", "parse_bounds", "parse_cell_size", "save_teacher"]

MARKER = "transformer.wte.weight"
"""A weight that every teacher has, by which its state dict is found."""
OWN_CHECKPOINT = "hoserkd-teacher-checkpoint"


@dataclass(frozen=True, slots=True)
class _Public:
    """A public checkpoint, its records read and its weights' shapes known."""

    path: Path
    archive: Archive
    found: FoundWeights
    model_config: Record
    dataset_config: Record

    @property
    def state(self) -> Mapping[str, TensorRef]:
        """The weights."""
        return self.found.state


def export_checkpoint(checkpoint: Path, output: Path, options: ExportOptions | None = None
                      ) -> TeacherCard:
    """Write the export of a public training checkpoint, of ours, or of another export.

    Nothing of a public checkpoint is run. `output` appears whole or not at all.

    Raises:
        TeacherError: The checkpoint is unreadable, unsafe, of a kind that cannot be used, lacks
            what no option gives, or contradicts itself or the options.
        UsageError: `output` exists and is no empty folder.
    """
    options = options or ExportOptions()
    with new_folder(output) as staging:
        if checkpoint.is_dir():
            teacher = load_teacher(checkpoint)
            model, card = teacher.model, _with_grid_of(options, teacher.card)
        else:
            card, state = _read(checkpoint, options)
            model = build_model(card.dimensions, state, str(checkpoint))
        return save_teacher(staging, model, replace(card, name=output.name))


def _read(path: Path, options: ExportOptions) -> tuple[TeacherCard, dict[str, Tensor]]:
    archive = read_archive(path)
    try:
        found = find_weights(archive.root, MARKER)
    except NoWeightsError as error:
        raise TeacherError(f"{path}: no training checkpoint, and not LM-TAD's weights: {error}",
                           hint="expected what LM-TAD's training saves, or its state dict"
                           ) from error
    if found.get("format") == OWN_CHECKPOINT:
        card = _own_card(path, found, options)
    else:
        public = _Public(path, archive, found, _record(found, "model_config"),
                         _record(found, "dataset_config"))
        card = _public_card(public, options)
    tensors = archive.tensors(found.state)
    head = tensors.pop("lm_head.weight", None)
    if head is not None and not head.equal(tensors.get("transformer.wte.weight", head)):
        raise TeacherError(f"{path}: lm_head and the token embedding differ; LM-TAD ties them")
    return card, tensors


def _record(found: FoundWeights, name: str) -> Record:
    value = found.get(name)
    if isinstance(value, dict):
        record = Record()
        record.__setstate__(value)
        return record
    return value if isinstance(value, Record) else Record()


def _public_card(public: _Public, options: ExportOptions) -> TeacherCard:
    dimensions = _dimensions(public)
    pad, eot, sot, source = _special_ids(public, dimensions.vocab_size, options.vocab)
    stated = [read_shape(config.get("grip_size"))
              for config in (public.dataset_config, public.model_config)]
    grid = find_grid(GridEvidence(public.path, min(pad, eot, sot), stated[0] or stated[1]), options)
    saved = public.found
    best = saved.get("best_val_loss")
    if isinstance(best, TensorRef):
        best = float(public.archive.tensor(best)) if best.numel == 1 else None
    meta = {"source": public.path.name, "source_sha256": file_sha256(public.path),
            "kind": "public LM-TAD checkpoint", "special_ids_from": source,
            "iterations": _number(saved.get("iter_num")), "val_loss": _number(best)}
    card = TeacherCard(public.path.stem, dimensions, grid, sot, eot, pad, "", meta)
    check_vocabulary(card, str(public.path))
    return card


def _dimensions(public: _Public) -> LMTADDimensions:
    """Read the dimensions off the weights, and hold the checkpoint's own words against them."""
    config, path = public.model_config, public.path
    if config.get("integer_poe") or "transformer.wpe.pe" in public.state:
        raise TeacherError(
            f"{path}: trained with integer_poe, which cannot be used: the public code adds those "
            "position codes by batch row, so what the model learnt has no meaning outside its "
            "batches", hint="train without --integer_poe, or use `hoserkd train-teacher`")
    if any(name.endswith(".bias") and "attn.bias" not in name for name in public.state):
        raise TeacherError(f"{path}: its layers have biases; LM-TAD's have none")
    embedding, position = (public.state.get(f"transformer.{n}.weight") for n in ("wte", "wpe"))
    if embedding is None or position is None or not (
            len(embedding.shape) == len(position.shape) == 2):
        raise TeacherError(f"{path}: not LM-TAD: transformer.wte and transformer.wpe are missing")
    layers = {int(found[1]) for name in public.state
              if (found := re.match(r"transformer\.h\.(\d{1,4})\.", name))}
    weights = {"vocab_size": embedding.shape[0], "n_embd": embedding.shape[1],
               "block_size": position.shape[0], "n_layer": len(layers)}
    stated = {name: config.get(name) for name in weights}
    # Exporters that know no sequence length write the block_size -1 of LM-TAD's train.sh.
    wrong = [f"{name} {told(stated[name])} (config) but {value} (weights)"
             for name, value in weights.items()
             if stated[name] not in (None, value, *((-1,) if name == "block_size" else ()))]
    if wrong:
        raise TeacherError(f"{path}: its settings contradict its weights: {'; '.join(wrong)}")
    heads = config.get("n_head")
    if not isinstance(heads, int) or heads < 1 or embedding.shape[1] % heads:
        raise TeacherError(f"{path}: n_head is {told(heads)}, which must divide the width "
                           f"{embedding.shape[1]}; the weights do not tell it")
    dropout = _number(config.get("dropout")) or 0.0
    if not 0 <= dropout <= 1:
        raise TeacherError(f"{path}: its dropout is {dropout}, which is no share")
    return LMTADDimensions(**weights, n_head=heads, dropout=float(dropout))


def _special_ids(public: _Public, size: int, vocab: Path | None) -> tuple[int, int, int, str]:
    """Return PAD, EOT, SOT and where they were read."""
    pad = public.model_config.get("pad_token")
    if vocab is None:
        if pad is None:
            return size - 3, size - 2, size - 1, "LM-TAD's order PAD, EOT, SOT"
        if pad != size - 3:
            raise TeacherError(
                f"{public.path}: its pad_token is {told(pad)}, but PAD, EOT, SOT should be the "
                f"last three of {size} tokens, so PAD {size - 3}", hint="give --vocab vocab.json")
        return size - 3, size - 2, size - 1, "pad_token, then LM-TAD's order PAD, EOT, SOT"
    words = _read_vocabulary(vocab)
    if len(words) != size or set(words.values()) != set(range(size)):
        raise TeacherError(
            f"{vocab} has {len(words)} tokens with ids up to {max(words.values(), default=0)}, but "
            f"the weights of {public.path} have {size} tokens")
    misplaced = [word for word, token in words.items()
                 if word.isdecimal() and word != str(token)]
    if misplaced:
        word = misplaced[0]
        raise TeacherError(f"{vocab}: cell {word} has id {words[word]}; expected ids in the order "
                           f"of the cells")
    if pad is not None and pad != words["PAD"]:
        raise TeacherError(f"{vocab} says PAD is {words['PAD']}, {public.path} says {told(pad)}")
    return words["PAD"], words["EOT"], words["SOT"], vocab.name


def _read_vocabulary(path: Path) -> dict[str, int]:
    try:
        words = read_json(path)
        words = {str(word): index(token) for word, token in words.items()}
    except (OSError, ValueError, AttributeError, TypeError, OverflowError) as error:
        raise TeacherError(f"{path}: no vocabulary of LM-TAD: {error}") from error
    missing = [word for word in ("PAD", "EOT", "SOT") if word not in words]
    if missing:
        raise TeacherError(f"{path}: the vocabulary has no {', '.join(missing)}")
    return words


def _own_card(path: Path, found: FoundWeights, options: ExportOptions) -> TeacherCard:
    try:
        content = parse_json(found.get("card"), non_finite=True)
        tokens = content["tokens"]
        card = TeacherCard(
            path.parent.name, LMTADDimensions.from_json(content["model"]),
            Grid.from_json(content["grid"]), index(tokens["sot"]), index(tokens["eot"]),
            index(tokens["pad"]), "", {**content.get("meta", {}), "source": path.name})
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise TeacherError(f"{path}: damaged checkpoint of train-teacher: {error!r}") from error
    return _with_grid_of(options, card)


def _with_grid_of(options: ExportOptions, card: TeacherCard) -> TeacherCard:
    """Refuse grid options where the source has a grid of its own that differs."""
    given = options.bounds is not None and lay_grid(options, (card.grid.rows, card.grid.cols))
    if (given and given != card.grid) or options.vocab is not None or \
            options.rows not in (None, card.grid.rows) or \
            options.cols not in (None, card.grid.cols):
        raise TeacherError(
            f"the source brings its own grid and vocabulary ({CARD}): {card.grid}; the options "
            f"say otherwise", hint="leave the grid options out")
    return card


def _number(value: object) -> int | float | None:
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if known and math.isfinite(value) else None  # type: ignore[arg-type, return-value]
