"""Checks shapes and number types of the engine's arrays wherever a test calls it.

`conftest.py` installs it: as a module of `hoserkd.engine` is imported, each of its functions,
methods and records that has an array among its hints is wrapped by jaxtyping. Each call then holds
the arrays that go in and come out against their hints, those in tuples, lists and dicts included;
mypy sees to all other hints. Compiled loops and functions inside functions are left alone.

Within one call a name is one size: arrays of a list that differ in length have `_`. `N+1`, `S+N`
and `3*c` are computed where their names are known, and are names of their own elsewhere.

`JAXTYPING_DISABLE=1` leaves the checks out; the fixture `unchecked` does so for one test, such as
one of `torch.compile`, which cannot trace a check.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import FunctionType, ModuleType, NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from jaxtyping import AbstractArray, jaxtyped

Axes = Callable[[str], str]

PACKAGE = "hoserkd.engine."
UNIONS = {Union, UnionType}
SEQUENCES = {list, Sequence}
MAPPINGS = {dict, Mapping}
COMPUTED = re.compile(r"\w[+*]\w")
"""What tells an axis such as `N+1` or `3*c`."""
WRAPPED: list[tuple[ModuleType | type, str, Any]] = []
"""Whatever is checked: where it stands, its name, and what stood there before."""


class CheckingFinder(MetaPathFinder):
    """Finds the engine's modules for a loader that wraps what they define."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module of the engine lies, None for any other."""
        spec = PathFinder.find_spec(name, path, target) if name.startswith(PACKAGE) else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = CheckingLoader(spec.loader.name, spec.loader.path)
        return spec


class CheckingLoader(SourceFileLoader):
    """Loads a module and wraps what it defines."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then wrap its functions and those of its classes."""
        super().exec_module(module)
        own = {name: value for name, value in vars(module).items()
               if getattr(value, "__module__", None) == module.__name__}
        for value in own.values():
            if isinstance(value, type):
                wrap(value, dict(vars(value)))
        wrap(module, own)


def install() -> None:
    """Check whatever is imported of the engine from now on."""
    if any(name.startswith(PACKAGE) for name in sys.modules):
        raise RuntimeError("parts of the engine are imported already and would go unchecked")
    sys.meta_path.insert(0, CheckingFinder())


def wrap(owner: ModuleType | type, members: dict[str, Any]) -> None:
    """Have those members of a module or class checked that take or give arrays."""
    for name, member in members.items():
        if any(map(holds_array, hints_of(member).values())):
            setattr(owner, name, jaxtyped(member, typechecker=checked))
            WRAPPED.append((owner, name, member))


def hints_of(member: Any) -> dict[str, Any]:
    """Return the hints of a function, method or property; none of anything else."""
    if isinstance(member, property):
        member = member.fget
    elif isinstance(member, classmethod | staticmethod):
        member = member.__func__
    return inspect.get_annotations(member) if isinstance(member, FunctionType) else {}


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with checks of the arrays in its arguments or, if it has one, its answer.

    jaxtyping asks for it twice, for functions that do nothing but take what the checked one takes:
    it calls the first, whose answer is hinted as Any, before that one, and the second, which is
    given its answer, after it. The sizes of names are remembered in between.
    """
    hints = inspect.get_annotations(function)
    answers = hints.get("return", Any) is not Any
    looked_at = [(name, hint) for name, hint in hints.items()
                 if holds_array(hint) and (name == "return") == answers]
    # Names first, for the sums.
    hinted = [(name, hint, named_axes) for name, hint in looked_at]
    hinted += [(name, hint, computed_axes) for name, hint in looked_at if is_computed(hint)]
    parameters = list(inspect.signature(function).parameters)

    def check(*given: Any, **named: Any) -> Any:
        answer = function(*given, **named)
        values = {**dict(zip(parameters, given, strict=False)), **named, "return": answer}
        for name, hint, axes in hinted:
            if name in values and (wrong := finding(values[name], hint, axes)):
                raise TypeError(f"{name}: {wrong}")
        return answer

    return check if hinted else function


def is_computed(hint: Any) -> bool:
    """Return whether an array of a hint has an axis such as `N+1`."""
    if is_array(hint):
        return COMPUTED.search(hint.dim_str) is not None
    return any(map(is_computed, get_args(hint)))


def holds_array(hint: Any) -> bool:
    """Return whether a hint is an array's, or a container's that can be looked into."""
    if is_array(hint):
        return True
    looked_into = get_origin(hint) in {tuple} | UNIONS | SEQUENCES | MAPPINGS
    return looked_into and any(holds_array(part) for part in get_args(hint))


def is_array(hint: Any) -> bool:
    """Return whether a hint is an array's."""
    return isinstance(hint, type) and issubclass(hint, AbstractArray)


def finding(value: Any, hint: Any, axes: Axes) -> str:
    """Return in words what is wrong with the arrays of `value`, nothing where they are right."""
    if is_array(hint):
        return with_axes(hint, axes).__instancecheck_str__(value)
    if get_origin(hint) in UNIONS:
        found = [finding(value, part, axes) for part in get_args(hint)]
        return "" if "" in found else "; ".join(found)
    if hint in (None, NoneType):
        return "" if value is None else "this value is not None"
    if not holds_array(hint):
        return "this value is an array" if hasattr(value, "dtype") else ""
    return next(filter(None, (finding(*pair, axes) for pair in items(value, hint))), "")


def items(value: Any, hint: Any) -> Iterator[tuple[Any, Any]]:
    """Give each item of a container with its hint."""
    parts = get_args(hint)
    if get_origin(hint) in MAPPINGS:
        return ((item, parts[1]) for item in value.values())
    if get_origin(hint) in SEQUENCES or parts[-1] is ...:
        return ((item, parts[0]) for item in value)
    return zip(value, parts, strict=True)


@cache
def with_axes(hint: Any, axes: Axes) -> Any:
    """Return an array's hint with its axes written anew."""
    return hint.dtype[hint.array_type, axes(hint.dim_str)]


def named_axes(axes: str) -> str:
    """Return axes with a name for each that is computed: `of_N_plus_1` for `N+1`."""
    return " ".join(plain_name(axis) for axis in axes.split())


def computed_axes(axes: str) -> str:
    """Return axes with what jaxtyping computes, for each whose names have a size by now."""
    return " ".join(expression(axis) for axis in axes.split())


def plain_name(axis: str) -> str:
    """Return an axis as a name of its own; `3*c` becomes `of_3_times_c`."""
    axis = axis.replace("'", "_prime")
    if not COMPUTED.search(axis):
        return axis
    return "of_" + axis.replace("+", "_plus_").replace("*", "_times_")


def expression(axis: str) -> str:
    """Return an axis as Python without spaces: its value, or its plain name where that is open."""
    if not COMPUTED.search(axis):
        return plain_name(axis)
    known = "and".join(f'("{name}"in(vars()))' for name in re.findall(r"[A-Za-z]\w*", axis))
    return f"({axis})if({known})else({plain_name(axis)})"
