"""Hunt for files that break a reader: `python tests/fuzz/run.py [--seconds N] [READER ...]`.

Guided by coverage where atheris is installed (`pip install atheris`), else by chance: the same
damage without a guide, and the last line says so. One line of JSON a reader on stdout:
{"reader", "guide", "seconds", "tries", "taken", "faults"}; inputs that break a reader are kept in
`tests/fuzz/found/READER/`, where the test suite tries them for ever. Exit code 1 if there are any.
"""

import argparse
import hashlib
import importlib
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]
GUIDED = importlib.util.find_spec("atheris") is not None
MEMORY_MB = 4096
INSTRUMENTED = ("hoserkd.engine.city", "hoserkd.engine.teacher", "hoserkd.engine.student.storage",
                "hoserkd.engine.student.public_checkpoint", "hoserkd.engine.bundle",
                "hoserkd.engine.bundle_archive", "hoserkd.engine.search.od",
                "hoserkd.engine.trips.generated", "hoserkd.engine.trips.reading",
                "hoserkd.yaml_reader", "hoserkd.profile_files", "yaml", "zipfile", "tarfile",
                "csv", "json", "pickletools")


def main() -> int:
    """Hunt in every reader asked for, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("readers", nargs="*")
    given = parser.parse_args()
    if given.one:
        hunt = _guided if GUIDED else _unguided
        hunt(given.readers[0], given.seconds, given.seed)
        return 0
    names = given.readers or _reader_names()
    faults = [_in_a_process(name, given.seconds, given.seed) for name in names]
    if not GUIDED:
        sys.stderr.write("not guided by coverage: atheris is not installed\n")
    return int(any(faults))


def _reader_names() -> list[str]:
    from readers import READERS

    return list(READERS)


def _in_a_process(name: str, seconds: float, seed: int) -> int:
    """Hunt once, print the line of figures and return how many faults there were."""
    with tempfile.TemporaryDirectory(prefix="hoserkd-hunt-") as folder:
        figures = Path(folder) / "figures.json"
        environment = {**os.environ, "FUZZ_FIGURES": str(figures), "JAXTYPING_DISABLE": "1"}
        began = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, __file__, "--one", "--seconds", str(seconds), "--seed", str(seed),
             name], cwd=folder, env=environment, capture_output=True, text=True, check=False)
        try:
            line = json.loads(figures.read_text())
        except (OSError, ValueError):
            line = {"tries": 0, "taken": 0, "faults": 1, "said": ended.stderr[-2000:]}
        # libFuzzer itself stops at a crash, a hang or too much memory, and leaves the input.
        for path in Path(folder).glob("*-*"):
            if path.name.startswith(("crash-", "timeout-", "oom-")):
                line["faults"] += 1
                keep(name, path.read_bytes(), "stopped the reader")
    figured = {"reader": name, "guide": "atheris" if GUIDED else "chance",
               "seconds": round(time.perf_counter() - began, 1), **line}
    sys.stdout.write(json.dumps(figured) + "\n")
    sys.stdout.flush()
    return int(line["faults"])


def keep(name: str, data: bytes, why: str) -> None:
    """Keep an input that broke a reader."""
    from fuzzing import FOUND

    place = FOUND / name
    place.mkdir(parents=True, exist_ok=True)
    (place / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
    sys.stderr.write(f"{name}: {why}\n")


class Tally:
    """Counts tries, and keeps one input of each kind of fault."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tries = self.taken = 0
        self.kinds: set[str] = set()

    def attempt(self, data: bytes) -> None:
        """Try once."""
        from fuzzing import FaultError, attempt

        self.tries += 1
        try:
            self.taken += attempt(self.name, bytes(data))
        except FaultError as fault:
            kind = str(fault)[:60]
            if kind not in self.kinds:
                self.kinds.add(kind)
                keep(self.name, bytes(data), str(fault))
        if self.tries % 50 == 0:
            self.write()

    def write(self) -> None:
        """Leave the figures for the process that started this one."""
        Path(os.environ["FUZZ_FIGURES"]).write_text(json.dumps(
            {"tries": self.tries, "taken": self.taken, "faults": len(self.kinds)}))


def _guided(name: str, seconds: float, seed: int) -> None:
    import atheris

    # Before the instrumented parts, for these are large, foreign and read no strangers' files.
    import numba  # noqa: F401
    import torch  # noqa: F401

    # Numba compiles their bytecode, which must be their own.
    compiled = [".".join(path.relative_to(ROOT).with_suffix("").parts)
                for path in (ROOT / "hoserkd").rglob("*.py")
                if "engine.compiled import" in path.read_text()]
    for module in compiled:
        importlib.import_module(module)
    with atheris.instrument_imports(include=list(INSTRUMENTED), exclude=compiled):
        from fuzzing import warm
        from readers import READERS
    warm(name)
    tally = Tally(name)
    place = Path.cwd()
    for folder in ("corpus", "dictionary"):
        (place / folder).mkdir()
    for number, data in enumerate(READERS[name].seeds()):
        (place / "corpus" / str(number)).write_bytes(data)
    words = "".join(_word(word) for word in READERS[name].words)
    (place / "words").write_text(words)
    options = ["hunt", str(place / "corpus"), f"-max_total_time={int(seconds)}",
               f"-rss_limit_mb={MEMORY_MB}", "-timeout=30", f"-seed={seed + 1}", "-max_len=300000",
               "-print_final_stats=0", *([f"-dict={place / 'words'}"] if words else [])]
    atheris.Setup(options, tally.attempt)
    try:
        atheris.Fuzz()
    finally:
        tally.write()


def _word(word: str) -> str:
    data = word.encode().decode("unicode_escape").encode("latin-1")
    return '"' + "".join(f"\\x{byte:02x}" for byte in data) + '"\n' if data else ""


def _unguided(name: str, seconds: float, seed: int) -> None:
    from mutate import mutated
    from readers import READERS

    tally, draw = Tally(name), random.Random(seed)
    seeds = READERS[name].seeds()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        tally.attempt(mutated(draw.choice(seeds), draw, READERS[name].words))
    tally.write()


if __name__ == "__main__":
    raise SystemExit(main())
