"""The checks that every other test runs under: they find what is wrong, and nothing else."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from jaxtyping import Float64, Int64, TypeCheckError, config, jaxtyped
from shape_checks import checked

from hoserkd.engine.geo import great_circle_m
from hoserkd.engine.types import GeneratedTrips, TrajectorySet

pytestmark = pytest.mark.skipif(config.jaxtyping_disable, reason="JAXTYPING_DISABLE is set")


def ints(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.int64)


def generated(trips: int, offsets: int) -> GeneratedTrips:
    return GeneratedTrips(
        origin=ints(trips), destination=ints(trips), departure_s=ints(trips),
        offset=ints(offsets), road=np.zeros(4, np.int32), entered_at_s=ints(4),
        log_prob=np.zeros(trips), reached=np.zeros(trips, bool), reason=("reached",) * trips)


def test_a_record_of_the_engine_is_refused_where_an_array_has_another_length() -> None:
    assert len(generated(trips=3, offsets=4)) == 3
    with pytest.raises(TypeCheckError, match="parameter 'offset'"):
        generated(trips=3, offsets=3)
    with pytest.raises(TypeCheckError, match="parameter 'entered_at_s'"):
        TrajectorySet(ints(3), np.zeros(7, np.int32), ints(6))


def test_a_function_of_the_engine_refuses_another_number_type_or_axis() -> None:
    with pytest.raises(TypeCheckError, match="parameter 'a'"):
        great_circle_m(np.zeros((5, 2), np.float32), np.zeros((5, 2)))
    with pytest.raises(TypeCheckError, match="parameter 'b'"):
        great_circle_m(np.zeros((5, 2)), np.zeros((5, 3)))


def test_an_unchecked_test_gets_the_bare_engine(unchecked: None) -> None:
    assert len(generated(trips=3, offsets=3)) == 3


@jaxtyped(typechecker=checked)
def joined(
    parts: Sequence[Int64[np.ndarray, " _"]] = (),
    named: Mapping[str, Float64[np.ndarray, " N"]] | None = None,
    both: tuple[Float64[np.ndarray, "N c"], Float64[np.ndarray, "N 3*c"]] | None = None,
    maybe: Int64[np.ndarray, " N"] | float = 0.0,
    answer: object = 0,
) -> Int64[np.ndarray, " N'"] | int:
    """Return `answer`, whatever it is."""
    return answer  # type: ignore[return-value]


@pytest.mark.parametrize("right", [
    {"parts": [ints(3), ints(2)]},
    {"named": {"a": np.zeros(2), "b": np.zeros(2)}, "maybe": ints(2), "answer": ints(5)},
    {"both": (np.zeros((2, 4)), np.zeros((2, 12)))},
    {"maybe": 1.5},
])
def test_arrays_as_hinted_are_let_through(right: dict[str, object]) -> None:
    joined(**right)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [
    {"parts": [*(ints(3) for _ in range(20)), ints(3, 1)]},
    {"parts": [ints(3), np.zeros(3)]},
    {"named": {"a": np.zeros(2), "b": np.zeros(3)}},
    {"named": {"a": np.zeros(2)}, "maybe": ints(3)},
    {"both": (np.zeros((2, 4)), np.zeros((2, 11)))},
    {"both": (np.zeros((2, 4)),)},
    {"maybe": np.zeros(2)},
    {"answer": np.zeros(5)},
])
def test_arrays_that_are_not_as_hinted_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(TypeCheckError):
        joined(**wrong)  # type: ignore[arg-type]
