"""Every number in the settings has bounds, and any value is taken or refused in one line."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel

from hoserkd.engine.config import EngineConfig
from hoserkd.errors import ConfigError
from hoserkd.settings import resolve_settings

EXTREMES = ("0", "-1", "1", "1e308", "-1e308", "1e400", ".nan", "-.inf", str(2**63),
            str(-2**63 - 1), "9" * 400, "0.5", "''", "x", "[]", "[1e308, 1e308]", "{a: 1e308}",
            "null", "true")


def numbers(annotation: Any, metadata: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the constraints of every number that values of a type hold."""
    if get_origin(annotation) is Annotated:
        inner, *constraints = get_args(annotation)
        yield from numbers(inner, (*metadata, *constraints))
    elif annotation in (int, float):
        yield metadata
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return
    else:
        for argument in get_args(annotation):
            # Constraints of an optional number stand at the union that holds it.
            yield from numbers(argument, metadata if type(None) in get_args(annotation) else ())


def flat(constraints: tuple[Any, ...]) -> Iterator[Any]:
    for constraint in constraints:
        inner = getattr(constraint, "metadata", None)
        yield from flat(tuple(inner)) if inner is not None else (constraint,)


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from fields(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


SETTINGS = dict(fields(EngineConfig))
FREE = {"tune.choices"}
"""Its values are checked by the settings that they are for."""


@pytest.mark.parametrize("key", [key for key in SETTINGS if key not in FREE])
def test_every_number_has_a_lower_and_an_upper_bound(key: str) -> None:
    field = SETTINGS[key]
    for constraints in numbers(field.annotation, tuple(field.metadata)):
        found = list(flat(constraints))
        assert any(isinstance(c, Ge | Gt) for c in found), f"{key} has no lower bound"
        upper = [c.le if isinstance(c, Le) else c.lt for c in found if isinstance(c, Le | Lt)]
        assert upper, f"{key} has no upper bound"
        assert all(math.isfinite(bound) for bound in upper)


@pytest.mark.parametrize("key", SETTINGS)
def test_any_value_is_taken_or_refused_in_a_line(key: str) -> None:
    for value in EXTREMES:
        try:
            resolve_settings(None, flags={}, sets=(f"{key}={value}",))
        except ConfigError as error:
            lines = str(error).splitlines()
            # One per finding: a key and a value of a mapping can both be wrong.
            assert len(lines) <= 2, (value, lines)
            assert key.partition(".")[0] in lines[0]


@pytest.mark.parametrize("sets", [
    ("student.layers=128", "student.hidden_dim=8192", "student.road_id_dim=4096",
     "student.attribute_dim=1024"),
    ("teacher.n_layer=128", "teacher.n_embd=16384", "teacher.n_head=16"),
])
def test_a_model_too_large_for_any_machine_is_refused(sets: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="parameters, at most"):
        resolve_settings(None, flags={}, sets=sets)


def test_the_forms_of_a_word_or_number_share_a_line() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_settings(None, flags={}, sets=("distill.window=9",))
    assert str(caught.value) == (
        "--set distill.window: distill.window: input should be less than or equal to 8"
        " or 'full', found 9")
