"""Strangers' files of every kind: an answer or one clear error, and nothing else happens."""

import random

import pytest
from fuzzing import FaultError, attempt, found_inputs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutate import mutated
from readers import READERS

FEW = 12
SLOW = frozenset(("bundle-tar", "bundle-json", "city-json", "city-npy", "generated-parquet",
                  "trips-parquet", "od-parquet"))
"""Readers of many files at once; they get a third of the tries."""


@pytest.mark.parametrize("name", READERS)
def test_good_files_are_taken(name: str) -> None:
    taken = [attempt(name, seed) for seed in READERS[name].seeds()]
    assert any(taken)


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused(name: str) -> None:
    seeds = READERS[name].seeds()

    @settings(max_examples=FEW // 3 if name in SLOW else FEW, deadline=None, derandomize=True,
              database=None, suppress_health_check=list(HealthCheck))
    @given(seed=st.sampled_from(range(len(seeds))), draw=st.integers(0, 2**32))
    def tried(seed: int, draw: int) -> None:
        attempt(name, mutated(seeds[seed], random.Random(draw), READERS[name].words))

    tried()


@pytest.mark.parametrize("name", READERS)
def test_files_of_nothing_and_of_noise_are_refused(name: str) -> None:
    # No words are still words to these two: an empty profile, and a --set that is a usage error.
    assert attempt(name, b"") == (name == "profile-yaml")
    assert not attempt(name, random.Random(1).randbytes(4000))


@pytest.mark.parametrize("path", found_inputs(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_once_broke_a_reader_no_longer_does(path) -> None:  # type: ignore[no-untyped-def]
    attempt(path.parent.name, path.read_bytes())


@pytest.mark.parametrize("act", ["write", "command", "raise"])
def test_the_watch_sees_what_it_is_there_for(
    act: str, tmp_path, monkeypatch: pytest.MonkeyPatch  # type: ignore[no-untyped-def]
) -> None:
    import subprocess
    from types import MappingProxyType

    import fuzzing

    def read(data: bytes, folder: object) -> None:
        if act == "write":
            (tmp_path / "out").write_bytes(data)
        elif act == "command":
            subprocess.run(["true"], check=True)
        else:
            raise KeyError("x")

    reader = type(READERS["geo"])(list, read)
    monkeypatch.setattr(fuzzing, "READERS", MappingProxyType({act: reader}))
    with pytest.raises(FaultError, match=r"open .*out|subprocess|KeyError"):
        attempt(act, b"x")
