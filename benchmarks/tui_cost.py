"""What the dashboard costs while it watches: processor time of a real one on a live run.

    python benchmarks/tui_cost.py [--runs 200] [--seconds 30] [--page runs]

Makes a store with ended runs and one that a second process keeps writing (10 steps a second),
starts `hoserkd tui` on a terminal of 160 x 48, and reads its processor time from the system.
"""

import argparse
import fcntl
import json
import math
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

from hoserkd.engine.config import EngineConfig
from hoserkd.engine.events import EpochDone, StepDone
from hoserkd.store.recorder import RunRecorder
from hoserkd.store.runs import RunStore

STEPS_PER_S = 10


def step(recorder: RunRecorder, number: int, total: int) -> None:
    """Record one step as a distilled training does."""
    fall = math.exp(-number / 300)
    recorder.notify(StepDone(number, number // 1000, total, {
        "loss": 0.4 + 2 * fall, "loss_road": 0.3 + 1.5 * fall, "loss_time": 0.1 + 0.5 * fall,
        "loss_kl": 0.2 + fall, "accuracy": 0.9 - 0.5 * fall, "learning_rate": 1e-3,
        "grad_norm": 1.0, "temperature": 2.0, "lambda_kl": 0.01, "trips_per_s": 210.0,
        "steps_per_s": 3400.0, "agreement": 0.8}, {"data": 2.0, "forward": 90.0, "backward": 130.0}
        if number % 20 == 0 else {}))


def make_store(directory: Path, runs: int) -> None:
    """Fill a store with ended runs of 400 steps."""
    store = RunStore(directory)
    config = json.dumps(EngineConfig().model_dump(mode="json"))
    for number in range(runs):
        with store.create_run("train", "demo", f"run-{number}", config, number, "cpu") as recorder:
            for index in range(1, 401):
                step(recorder, index, 400)
            recorder.notify(EpochDone(0, 400, {"val_accuracy": 0.8}))


def write_live(directory: Path) -> None:
    """Keep one run going until killed; it starts with 5,000 steps."""
    config = json.dumps(EngineConfig().model_dump(mode="json"))
    recorder = RunStore(directory).create_run("train", "demo", "live", config, 0, "cpu")
    number = 0
    while True:
        number += 1
        step(recorder, number, 100_000)
        if number > 5000:
            time.sleep(1 / STEPS_PER_S)


def processor_s(pid: int) -> float:
    """Return the processor seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watch(directory: Path, page: str, seconds: float) -> tuple[float, float]:
    """Return (processor seconds to start, share of one core while watching)."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "hoserkd", "tui", "--store",
                                  str(directory), "--screen", page, "--run", "live"])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 48, 160, 0, 0))
    threading.Thread(target=_drain, args=(terminal,), daemon=True).start()
    time.sleep(8)
    start, began = processor_s(pid), time.monotonic()
    time.sleep(seconds)
    share = (processor_s(pid) - start) / (time.monotonic() - began)
    os.write(terminal, b"q")
    os.waitpid(pid, 0)
    return start, share


def _drain(terminal: int) -> None:
    try:
        while os.read(terminal, 1 << 16):
            pass
    except OSError:
        return  # the dashboard has left its terminal


def main() -> None:
    """Print one line a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--page", action="append")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write_live(options.write)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "store"
        make_store(place, options.runs)
        writer = subprocess.Popen([sys.executable, __file__, "--write", str(place)])
        time.sleep(3)
        try:
            for page in options.page or ["runs", "run"]:
                start, share = watch(place, page, options.seconds)
                print(f"{page:<6} start and first 8 s {start:.2f} s of processor time, "
                      f"then {share:.1%} of one core")
        finally:
            writer.kill()
            writer.wait()


if __name__ == "__main__":
    main()
