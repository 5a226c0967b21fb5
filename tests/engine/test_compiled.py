import numba
import pytest

from hoserkd.engine.compiled import compiled


def test_a_loop_is_compiled_even_where_no_cache_can_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = numba.njit

    def njit(**options: bool) -> object:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(numba, "njit", njit)

    @compiled
    def total(n):  # type: ignore[no-untyped-def]
        out = 0
        for i in range(n):
            out += i
        return out

    assert total(5) == 10
