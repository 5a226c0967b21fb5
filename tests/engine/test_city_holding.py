"""A city that is prepared again while somebody reads it stays whole for that reader."""

import gc
import subprocess
import sys
from pathlib import Path

from source_folder import GEO_COLUMNS, RING, prepared, ring_road, table, write_source

from hoserkd.engine.city.storage import load_city

LONGER = table(GEO_COLUMNS, [ring_road(i, length=500.0) for i in range(RING)])


def contents(directory: Path) -> set[str]:
    return {path.name for path in directory.glob("content-*")}


def test_a_city_that_is_read_keeps_its_content_until_its_last_reader_is_done(
    tmp_path: Path,
) -> None:
    prepared(write_source(tmp_path / "source"), tmp_path / "city")
    city = load_city(tmp_path / "city")
    before = contents(tmp_path / "city")
    prepared(write_source(tmp_path / "source", geo=LONGER), tmp_path / "city", force=True)
    newer = load_city(tmp_path / "city")
    assert newer.sha256 != city.sha256
    assert len(city.split("train")) == 1  # read only now
    assert contents(tmp_path / "city") > before
    del city
    gc.collect()
    prepared(write_source(tmp_path / "source"), tmp_path / "city", force=True)
    assert load_city(tmp_path / "city").manifest["content"] in before
    assert len(contents(tmp_path / "city")) == 2  # `newer` is still held
    assert len(newer.split("val")) == 1


def test_a_reader_in_another_process_holds_a_city_too(tmp_path: Path) -> None:
    prepared(write_source(tmp_path / "source"), tmp_path / "city")
    code = ("import sys; from pathlib import Path; from hoserkd.engine.city.storage import "
            "load_city; city = load_city(Path(sys.argv[1])); print(1, flush=True); input();"
            "print(len(city.split('train')))")
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "city")], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdin is not None
        assert reader.stdout.readline() == "1\n"
        prepared(write_source(tmp_path / "source", geo=LONGER), tmp_path / "city", force=True)
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "1\n"
    assert reader.returncode == 0


def test_the_same_content_prepared_again_stays_under_its_readers(tmp_path: Path) -> None:
    prepared(write_source(tmp_path / "source"), tmp_path / "city")
    city = load_city(tmp_path / "city")
    place = tmp_path / "city" / city.manifest["content"]
    number = place.stat().st_ino
    prepared(write_source(tmp_path / "source"), tmp_path / "city", force=True)
    assert place.stat().st_ino == number
    array = place / "network" / "length_m.npy"
    array.write_bytes(array.read_bytes()[:-1] + b"x")
    prepared(write_source(tmp_path / "source"), tmp_path / "city", force=True)
    assert load_city(tmp_path / "city").network.length_m.tolist() == city.network.length_m.tolist()
