"""Finding a model's weights in a checkpoint, whatever they are wrapped in.

Training programs put a state dict under a key of their own (`model`, `state_dict`, ...), and
wrappers of modules put a prefix before each name (`module.`, `_orig_mod.`, ...). One weight that
every model of a kind has tells where its state dict is and what stands before its names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hoserkd.engine.teacher.pickles import TensorRef

WRAPPERS = frozenset({"module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module",
                      "_checkpoint_wrapped_module"})
"""Parts of names that DataParallel, torch.compile, DeepSpeed, FSDP and its checkpointing add."""
USUAL = ("model", "state_dict", "model_state_dict")
"""Keys that say which of several state dicts is the model's own."""
DEEPEST = 4
MOST_SHOWN = 8


class NoWeightsError(ValueError):
    """A checkpoint holds no weights of the kind, or several; the message says what it holds."""


@dataclass(frozen=True, slots=True)
class FoundWeights:
    """A state dict, unwrapped."""

    state: dict[str, TensorRef]
    around: tuple[Mapping[str, Any], ...]
    """The dicts that it lies in, outermost first, itself last."""

    def get(self, name: str) -> Any:
        """Return what the dicts around the weights hold beside them, None if none does."""
        return next((level[name] for level in self.around if name in level), None)


@dataclass(frozen=True, slots=True)
class _Place:
    keys: tuple[str, ...]
    prefix: str
    names: dict[str, TensorRef]
    around: tuple[Mapping[str, Any], ...]

    @property
    def shown(self) -> str:
        where = "".join(f"[{key!r}]" for key in self.keys) or "the file itself"
        return where + (f" with the prefix {self.prefix!r}" if self.prefix else "")


def find_weights(root: object, marker: str) -> FoundWeights:
    """Return the state dict in a checkpoint's object tree, its names as the model has them.

    Args:
        root: What the file holds.
        marker: The name of a weight that every model of the kind has.

    Raises:
        NoWeightsError: There is none, or there are several and none has a usual name.
    """
    places = list(_places(root, marker))
    usual = [place for place in places
             if not place.prefix and (not place.keys or place.keys[-1] in USUAL)]
    chosen = places if len(places) == 1 else usual
    if len(chosen) != 1:
        raise NoWeightsError(
            f"it holds several models, at {', '.join(place.shown for place in places)}"
            if places else f"no name in it ends with {marker}; it holds {_contents(root)}")
    place = chosen[0]
    return FoundWeights({name.removeprefix(place.prefix): ref for name, ref in place.names.items()
                         if name.startswith(place.prefix)}, place.around)


def _places(root: object, marker: str) -> Iterator[_Place]:
    """Yield where weights of the kind are, dicts that are there twice once."""
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], object, tuple[Mapping[str, Any], ...]]] = [((), root, ())]
    while waiting:
        keys, value, around = waiting.pop(0)
        if not isinstance(value, dict) or id(value) in seen or len(keys) > DEEPEST:
            continue
        seen.add(id(value))
        level = {name: item for name, item in value.items() if isinstance(name, str)}
        names = _bare({name: ref for name, ref in level.items() if isinstance(ref, TensorRef)})
        for name in names:
            prefix = name.removesuffix(marker)
            if name.endswith(marker) and (not prefix or prefix.endswith(".")):
                yield _Place(keys, prefix, names, (*around, level))
        waiting += [((*keys, name), item, (*around, level)) for name, item in level.items()]


def _bare(refs: Mapping[str, TensorRef]) -> dict[str, TensorRef]:
    """Return tensors by their names without what wrappers of modules add."""
    bare: dict[str, TensorRef] = {}
    for name, ref in refs.items():
        plain = ".".join(part for part in name.split(".") if part not in WRAPPERS)
        if plain in bare:
            raise NoWeightsError(f"two of its names are {plain} without their wrappers' prefixes")
        bare[plain] = ref
    return bare


def _contents(root: object) -> str:
    """Return what a message says that a checkpoint holds."""
    if not isinstance(root, dict):
        return f"a {type(root).__name__}, not a dict of tensors"
    names = [f"{name!r:.60}" for name in list(root)[:MOST_SHOWN]]
    left = len(root) - len(names)
    return (", ".join(names) or "nothing") + (f" and {left} more" if left else "")
