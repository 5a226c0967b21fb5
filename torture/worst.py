"""Peak memory and time of the worst input that each reader accepts, and of the worst it refuses.

Every case runs in a process of its own. A case is a fault if the reader takes longer than
`MOST_SECONDS` of processor time, grows by more than `MOST_MB`, raises anything but a HoserkdError,
or takes what it should refuse.
"""

import gzip
import io
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from torture.ledger import Ledger, Tally

MOST_SECONDS = 120.0
MOST_MB = 2500.0
ROADS = 60_000
"""Of the large city: half as many again as Beijing has."""


@dataclass(frozen=True, slots=True)
class Case:
    """One input of one reader."""

    reader: str
    what: str
    taken: bool
    """Whether the reader should accept it."""
    read: Callable[[Path], Any]
    """Makes the input in an empty folder and returns a function without arguments that reads it."""


def worst_inputs(folder: Path, ledger: Ledger) -> None:
    """Run all cases, a tally per reader."""
    tallies: dict[str, Tally] = {}
    for number, case in enumerate(CASES):
        tally = tallies.setdefault(case.reader, Tally("worst input", case.reader))
        place = folder / f"worst-{number}"
        place.mkdir()
        found = _measure(case, place)
        size = sum(f.stat().st_size for f in place.rglob("*") if f.is_file())
        tally.more.setdefault("inputs", []).append(
            {"what": case.what, "bytes": size, "taken": found["taken"],
             "cpu_s": found["cpu_s"], "peak_mb": found["peak_mb"], "said": found["said"]})
        tally.judge(case.what, _faults(case, found))
    for tally in tallies.values():
        ledger.enter(tally)


def _faults(case: Case, found: dict[str, Any]) -> list[str]:
    wrong = []
    if found["taken"] is not case.taken:
        wrong.append(f"taken: {found['taken']}, said: {found['said']}")
    if found["cpu_s"] > MOST_SECONDS:
        wrong.append(f"{found['cpu_s']} s of processor time")
    if found["peak_mb"] > MOST_MB:
        wrong.append(f"{found['peak_mb']} MB")
    return wrong


def _measure(case: Case, place: Path) -> dict[str, Any]:
    """Return what became of a case, from a child process."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _child(case, place, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if not text:
        return {"taken": None, "said": f"the process ended with status {status}",
                "cpu_s": 0.0, "peak_mb": 0.0}
    found: dict[str, Any] = json.loads(text)
    return found


def _child(case: Case, place: Path, write_end: int) -> None:
    from hoserkd.errors import HoserkdError

    taken: bool | None = True
    said = ""
    try:
        read = case.read(place)
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making the input
        before, began = _peak_mb(), time.process_time()
        try:
            read()
        except HoserkdError as error:
            taken, said = False, str(error).splitlines()[0].replace(str(place), "…")[:160]
        found = {"taken": taken, "said": said, "cpu_s": round(time.process_time() - began, 2),
                 "peak_mb": round(max(_peak_mb() - before, 0.0), 1)}
    except BaseException:  # noqa: BLE001 - whatever it is, the parent has to hear of it
        found = {"taken": None, "said": traceback.format_exc()[-300:], "cpu_s": 0.0, "peak_mb": 0.0}
    os.write(write_end, json.dumps(found).encode())
    os._exit(0)


def _peak_mb() -> float:
    """Return the largest memory this process has held since its peak was last forgotten."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _roads(count: int, same_point: int = 0) -> Iterator[str]:
    """Yield the lines of a `roadmap.geo`; the first `same_point` roads begin in one point."""
    yield "geo_id,coordinates,highway,length\n"
    for i in range(count):
        a = (10, 50) if i < same_point else (10 + (i % 300) * 1e-3, 50 + (i // 300) * 1e-3)
        b = (10 + ((i + 1) % 300) * 1e-3, 50 + (i // 300) * 1e-3)
        yield f'{i},"[[{a[0]:.6f},{a[1]:.6f}],[{b[0]:.6f},{b[1]:.6f}]]",residential,70\n'


def _write(path: Path, pieces: Iterator[str] | Iterator[bytes]) -> None:
    with ExitStack() as stack:
        file: Any = stack.enter_context(path.open("wb"))
        if path.suffix == ".gz":
            file = stack.enter_context(gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1))
        elif path.suffix == ".zst":
            file = stack.enter_context(zstandard.ZstdCompressor().stream_writer(file))
        for piece in pieces:
            file.write(piece.encode() if isinstance(piece, str) else piece)


def _network(place: Path, geo: Iterator[str], rel: Iterator[str], suffix: str = ""
             ) -> Callable[[], object]:
    from hoserkd.engine.city.network import build_network
    from hoserkd.engine.city.roadmap import read_roadmap

    paths = place / f"roadmap.geo{suffix}", place / f"roadmap.rel{suffix}"
    _write(paths[0], geo)
    _write(paths[1], rel)

    def read() -> object:
        roadmap = read_roadmap(*paths)
        return build_network(roadmap, np.zeros(roadmap.roads, np.int32), np.zeros((1, 1), np.int64))

    return read


HEAD = "origin_id,destination_id\n"


def _large_city(place: Path) -> Callable[[], object]:
    return _network(place, _roads(ROADS), iter([HEAD, *(
        f"{i},{(i + k) % ROADS}\n" for i in range(ROADS) for k in (1, 2, 3))]))


def _large_junction(place: Path) -> Callable[[], object]:
    return _network(place, _roads(8000, same_point=3000), iter([HEAD]))


def _star(place: Path) -> Callable[[], object]:
    return _network(place, _roads(20_000, same_point=20_000), iter([HEAD]))


def _wide(place: Path) -> Callable[[], object]:
    columns = ",".join(f"c{i}" for i in range(80_000))
    return _network(place, iter([f"geo_id,coordinates,highway,length,{columns}\n"]), iter([HEAD]))


def _bomb_of_rows(place: Path) -> Callable[[], object]:
    return _network(place, _roads(10), (b"\n" * (1 << 20) if i else HEAD.encode()
                                        for i in range(2000)), ".gz")  # type: ignore[arg-type]


def _bomb_of_one_line(place: Path) -> Callable[[], object]:
    return _network(place, _roads(10), (b"1" * (1 << 20) if i else HEAD.encode()
                                        for i in range(2000)), ".zst")  # type: ignore[arg-type]


def _open_quote(place: Path) -> Callable[[], object]:
    return _network(place, _roads(10), iter([
        HEAD, '0,"', *("1" * 1000 + "\n" for _ in range(90_000))]))


def _trips(
    name: str, pieces: Callable[[], Iterator[bytes]]
) -> Callable[[Path], Callable[[], object]]:
    def make(place: Path) -> Callable[[], object]:
        from hoserkd.engine.trips.reading import read_trips

        path = place / name
        _write(path, pieces())

        def read() -> object:
            return sum(int(piece.points.sum()) for piece, _ in read_trips(path))

        return read

    return make


def _many_trips() -> Iterator[bytes]:
    roads = ",".join(map(str, range(30)))
    times = ",".join(f"2024-01-01T00:{i:02d}:00Z" for i in range(30))
    line = f'"{roads}","{times}"\n'.encode() * 1000
    yield b"rid_list,time_list\n"
    for _ in range(600):
        yield line


def _long_line() -> Iterator[bytes]:
    yield b"rid_list,time_list\n"
    for _ in range(4000):
        yield b"1," * (1 << 19)


def _empty_lines() -> Iterator[bytes]:
    yield b"rid_list,time_list\n"
    for _ in range(1000):
        yield b"\n" * (1 << 20)


def _parquet(rows: int, roads: int) -> Callable[[Path], Callable[[], object]]:
    """Trips of one road over and over, which Parquet writes in a few bytes each."""
    def make(place: Path) -> Callable[[], object]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        from hoserkd.engine.trips.reading import read_trips

        values = pa.ListArray.from_arrays(
            pa.array(np.arange(rows + 1) * roads, pa.int32()),
            pa.array(np.zeros(rows * roads, np.int64)))
        path = place / "train.parquet"
        pq.write_table(pa.table({"rid_list": values, "time_list": values}), path,
                       compression="zstd", row_group_size=rows)
        return lambda: sum(int(piece.points.sum()) for piece, _ in read_trips(path))

    return make


def _partition(text: str) -> Callable[[Path], Callable[[], object]]:
    def make(place: Path) -> Callable[[], object]:
        from hoserkd.engine.city.zones import read_partition

        path = place / "road_network_partition"
        path.write_text(text)
        return lambda: read_partition(path, ROADS)

    return make


def _transitions(zones: int, claim: str | None = None) -> Callable[[Path], Callable[[], object]]:
    def make(place: Path) -> Callable[[], object]:
        from hoserkd.engine.city.zones import read_zone_transitions

        path = place / "zone_trans_mat.npy"
        np.save(path, np.ones((zones, zones), np.int64))
        if claim is not None:
            path.write_bytes(path.read_bytes().replace(f"({zones}, {zones})".encode(),
                                                       claim.encode()))
        return lambda: read_zone_transitions(path, zones)

    return make


def _requests(lines: Callable[[], Iterator[str]]) -> Callable[[Path], Callable[[], object]]:
    def make(place: Path) -> Callable[[], object]:
        sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests" / name)
                        for name in ("engine", "fuzz")]
        from readers import READERS

        text = io.StringIO()
        text.writelines(lines())
        data = text.getvalue().encode()
        (place / "as-given.csv").write_bytes(data)
        return lambda: READERS["od-csv"].read(data, place)

    return make


def _many_requests() -> Iterator[str]:
    yield "origin,destination,departure\n"
    for i in range(200_000):
        yield f"{i % 6},{(i + 2) % 6},2024-01-01T08:00:00Z\n"


def _wide_requests() -> Iterator[str]:
    yield "origin,destination,departure," + ",".join(f"c{i}" for i in range(80_000)) + "\n"


def _weights(tensors: int, claim: int | None = None) -> Callable[[Path], Callable[[], object]]:
    def make(place: Path) -> Callable[[], object]:
        from safetensors import SafetensorError

        from hoserkd.engine.weights import read_weights
        from hoserkd.errors import CheckpointError

        header = json.dumps({f"t{i}": {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]}
                             for i in range(tensors)}).encode()
        path = place / "model.safetensors"
        path.write_bytes((claim or len(header)).to_bytes(8, "little") + header + bytes(tensors))

        def read() -> object:
            try:
                return read_weights(path)
            except SafetensorError as error:
                raise CheckpointError(f"{path}: {error}") from error

        return read

    return make


def _statement(sql: str) -> Callable[[Path], Callable[[], object]]:
    def make(place: Path) -> Callable[[], object]:
        from hoserkd.store.runs import RunStore

        store = RunStore(place / "store")
        store.create_run("train", "torture", "one").finish("finished")
        store.sync()
        return lambda: store.query(sql)

    return make


CASES = (
    Case("roads", f"{ROADS:,} roads, {3 * ROADS:,} relations", True, _large_city),
    Case("roads", "a junction of 3,000 roads", True, _large_junction),
    Case("roads", "20,000 roads that begin in one point", False, _star),
    Case("roads", "80,004 columns", False, _wide),
    Case("roads", "gzip of 2 GiB of empty lines", False, _bomb_of_rows),
    Case("roads", "zstd of one line of 2 GiB", False, _bomb_of_one_line),
    Case("roads", "a double quote that is never closed, 90 MB", False, _open_quote),
    Case("trips", "600,000 trips of 30 roads", True, _trips("train.csv", _many_trips)),
    Case("trips", "zstd of one trip of 2 billion roads", False,
         _trips("train.csv.zst", _long_line)),
    Case("trips", "gzip of 1 GiB of empty lines", True, _trips("train.csv.gz", _empty_lines)),
    Case("trips", "Parquet: 600,000 trips of 30 roads", True, _parquet(600_000, 30)),
    Case("trips", "Parquet: a trip of 100 million roads in 1 kB", False,
         _parquet(1, 100_000_000)),
    Case("zones", f"a zone for each of {ROADS:,} roads", True, _partition("4095\n" * ROADS)),
    Case("zones", "300 MB in place of zone ids", False, _partition("0 " * 150_000_000)),
    Case("zones", "transitions between 4,096 zones", True, _transitions(4096)),
    Case("zones", "transitions of 300 zones that claim a terabyte", False,
         _transitions(300, "(999999, 999999)")),
    Case("requests", "200,000 requests", True, _requests(_many_requests)),
    Case("requests", "80,003 columns", False, _requests(_wide_requests)),
    Case("weights", "5,000 tensors", True, _weights(5_000)),
    Case("weights", "500,000 tensors", False, _weights(500_000)),
    Case("weights", "a header that claims 8 exabytes", False, _weights(1, 2**63 - 1)),
    Case("runs sql", "a million rows", True, _statement("SELECT * FROM range(1000000)")),
    Case("runs sql", "a text of 4 GB", False, _statement("SELECT repeat('x', 4000000000)")),
    Case("runs sql", "10^16 pairs of rows", False, _statement(
        "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range <> b.range")),
)
