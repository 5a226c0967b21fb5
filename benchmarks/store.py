"""What recording, filling and asking the run store costs, alone and under load.

    python -m benchmarks.store [--quick]

Cases: `record a step` beside one DuckDB transaction a step; `fill` a database from a spool beside
row-by-row inserts; `list` a thousand runs, first and again, and as a command; `load`: eight
writers at 50 Hz, five readers, and kill -9 of both, which must lose and double nothing; `crowd`:
the same with four writers, two readers, five real dashboards on terminals, and two that ask
`hoserkd runs list` and `runs sql` again and again.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._report import REPOSITORY, Report, arguments, timed
from benchmarks._terminal import Watcher
from hoserkd.engine.events import EpochDone, StepDone
from hoserkd.engine.files import write_json
from hoserkd.store.recorder import RunRecorder
from hoserkd.store.runs import RunStore

METRICS = {f"metric_{i}": i * 0.1234567 for i in range(14)}
WRITERS = 8
READERS = 5
HZ = 50
CROWD = {"write_steps": 4, "read_runs": 2, "watch": 5, "ask": 2}
PAGES = ("runs", "run", "compare", "tune", "store")
LISTED = 1000


def record(report: Report, folder: Path, steps: int) -> None:
    """Measure `notify` of one step, and one DuckDB transaction for the same figures."""
    run = RunStore(folder).create_run("train", "bench", "recorded")
    times = []
    for step in range(1, steps + 1):
        began = time.perf_counter()
        run.notify(StepDone(step, 0, steps, METRICS))
        times.append(time.perf_counter() - began)
    run.finish("finished")
    ordered = sorted(times)
    report.add("record a step", ordered[steps // 2], plain_append(folder, 20),
               p99_s=ordered[steps * 99 // 100], most_s=ordered[-1])


def plain_append(folder: Path, steps: int) -> float:
    """Return seconds a step where each step opens the database, inserts and closes."""
    import duckdb

    path = str(folder / "plain.duckdb")
    began = time.perf_counter()
    for step in range(steps):
        connection = duckdb.connect(path)
        connection.execute("CREATE TABLE IF NOT EXISTS m (step BIGINT, name TEXT, value DOUBLE)")
        for name, value in METRICS.items():
            connection.execute("INSERT INTO m VALUES (?, ?, ?)", [step, name, value])
        connection.close()
    return (time.perf_counter() - began) / steps


def fill(report: Report, folder: Path, steps: int) -> None:
    """Measure how fast a spool is read into the database, and row-by-row inserts beside it."""
    import duckdb

    store = RunStore(folder)
    run = store.create_run("train", "bench", "filled")
    for step in range(1, steps + 1):
        run.notify(StepDone(step, 0, steps, METRICS))
    run.finish("finished")
    seconds, _ = timed(store.repair)
    rows = steps * len(METRICS)
    connection = duckdb.connect(":memory:")
    connection.execute("CREATE TABLE m (step BIGINT, name TEXT, value DOUBLE)")
    sample = [(step, "metric", 0.5) for step in range(2000)]
    plain, _ = timed(lambda: connection.executemany("INSERT INTO m VALUES (?, ?, ?)", sample))
    report.add("fill", seconds, plain * rows / len(sample), rows=rows, rows_per_s=rows / seconds,
               plain_sample_rows=len(sample))


def listing(report: Report, folder: Path, runs: int) -> None:
    """Measure a list of many runs: the first with filling, again, and as a command."""
    store = RunStore(folder)
    for number in range(runs):
        header: dict[str, Any] = {"run_id": f"20260101-{number:06d}-beef", "name": f"run-{number}",
                                  "kind": "train", "profile": "bench", "config_json": "{}",
                                  "started_at": time.time()}
        place = store.folder(header["run_id"])
        place.mkdir(parents=True)
        # Without the store's own sync at the end of a run: the first list is to do all the work.
        run = RunRecorder(place, header)
        write_json(place / "run.json", header)
        run.notify(StepDone(1, 0, 1, METRICS))
        run.notify(EpochDone(0, 1, {"val_accuracy": number / runs}))
        run.finish("finished")
    first, found = timed(store.repair)
    again, listed = timed(store.runs, repeats=3)
    command = [sys.executable, "-m", "hoserkd", "runs", "list", "--limit", str(runs), "--json",
               "--store", str(folder)]
    whole, _ = timed(lambda: subprocess.run(command, check=True, capture_output=True), repeats=3)
    report.add(f"list {runs} runs", again, runs=len(listed), first_s=first, command_s=whole,
               events=found.events)


def write_steps(folder: str, name: str) -> None:
    """Record steps at HZ until killed; print the wait of each append. Run in a process."""
    run = RunStore(Path(folder)).create_run("train", "bench", name)
    print(run.run_id, flush=True)
    step, due = 0, time.perf_counter()
    while True:
        step += 1
        began = time.perf_counter()
        run.notify(StepDone(step, 0, 10**6, METRICS))
        print(step, time.perf_counter() - began, flush=True)
        due += 1 / HZ
        time.sleep(max(0.0, due - time.perf_counter()))


def read_runs(folder: str, kind: str) -> None:
    """Ask the store again and again until killed; print each wait. Run in a process."""
    store = RunStore(Path(folder))
    while True:
        began = time.perf_counter()
        runs = store.runs()
        if kind == "metrics" and runs:
            store.metrics(random.choice(runs).run_id, ["metric_1"])
        print(time.perf_counter() - began, flush=True)
        time.sleep(0.5)


def watch(folder: str, page: str) -> None:
    """Keep a dashboard open until killed; print its process, then what it has drawn so far.

    Run in a process.
    """
    watcher = Watcher(Path(folder), page, "latest")
    print(watcher.pid, flush=True)
    watcher.wait_for("hoserkd", 120.0)
    while watcher.works():
        print(f"{watcher.redraws:040d}", flush=True)
        if b"Traceback" in watcher.written:
            raise SystemExit(watcher.written[-3000:].decode(errors="replace"))
        time.sleep(1.0)
    raise SystemExit(f"the dashboard has ended: {watcher.written[-3000:].decode(errors='replace')}")


def ask(folder: str, kind: str) -> None:
    """Run commands that read the store until killed; print each wait. Run in a process."""
    words = {"list": ["list"], "sql": ["sql", "SELECT count(*), max(step) FROM metrics"]}[kind]
    while True:
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "hoserkd", "runs", *words, "--json",
                               "--store", folder], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        print(f"{time.perf_counter() - began:041.6f}", flush=True)


def load(report: Report, folder: Path, seconds: float) -> None:
    """Measure waits and count losses while writers and readers are killed and replaced."""
    running = [_start(folder, "write_steps", f"w{i}") for i in range(WRITERS)]
    running += [_start(folder, "read_runs", ("list", "metrics")[i % 2]) for i in range(READERS)]
    _under_load(report, "load", folder, running, seconds)


def crowd(report: Report, folder: Path, seconds: float) -> None:
    """Measure the same with dashboards and commands among those that are killed."""
    arguments_of = {"write_steps": ("w0", "w1", "w2", "w3"), "read_runs": ("list", "metrics"),
                    "watch": PAGES, "ask": ("list", "sql")}
    first = RunStore(folder).create_run("train", "bench", "first")
    first.finish("finished")
    running = [_start(folder, work, arguments_of[work][i % len(arguments_of[work])])
               for work, count in CROWD.items() for i in range(count)]
    _under_load(report, "crowd", folder, running, seconds)


def _under_load(
    report: Report, case: str, folder: Path, running: "list[Worker]", seconds: float
) -> None:
    chance = random.Random(0)
    ended: list[Worker] = []
    while not all(worker.works() for worker in running):
        time.sleep(0.1)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.5)
        index = chance.randrange(len(running))
        if not running[index].works():
            continue
        ended.append(running[index].kill())
        running[index] = _start(folder, running[index].work, running[index].argument)
    ended += [worker.kill() for worker in running]
    writers = [w for w in ended if w.work == "write_steps" and w.lines]
    readers = [w for w in ended if w.work == "read_runs"]
    waits = sorted(float(line.split()[1]) for w in writers for line in w.lines[1:])
    asked = sorted(float(line) for w in readers for line in w.lines)
    told = {w.lines[0]: int(w.lines[-1].split()[0]) for w in writers if len(w.lines) > 1}
    lost, doubled = _audit(RunStore(folder), told)
    report.add(
        case, waits[len(waits) // 2], steps=len(waits), lost=lost, doubled=doubled,
        errors=sum(w.failed for w in ended), killed=len(ended), most_s=waits[-1],
        p99_s=waits[len(waits) * 99 // 100], reads=len(asked), read_s=asked[len(asked) // 2],
        read_p99_s=asked[len(asked) * 99 // 100], read_most_s=asked[-1],
        commands=sum(len(w.lines) for w in ended if w.work == "ask"),
        dashboards=sum(w.work == "watch" for w in ended))


def _audit(store: RunStore, told: dict[str, int]) -> tuple[int, int]:
    # A command whose asker was killed may still hold the database: a read would not wait for it.
    while store.sync().skipped:
        time.sleep(0.1)
    rows = store.query("SELECT run_id, count(*), count(DISTINCT step), max(step) FROM metrics "
                       "WHERE name = 'metric_1' GROUP BY run_id").rows
    kept = {run_id: (count, distinct, last) for run_id, count, distinct, last in rows}
    lost = sum(max(0, last - kept.get(run_id, (0, 0, 0))[1]) for run_id, last in told.items())
    gaps = sum(last - distinct for _, distinct, last in kept.values())
    return lost + gaps, sum(count - distinct for count, distinct, _ in kept.values())


class Worker:
    """One process of the load, and what it said."""

    def __init__(self, folder: Path, work: str, argument: str) -> None:
        self.work, self.argument = work, argument
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - read after the process's end
        self._err = tempfile.TemporaryFile("w+")  # noqa: SIM115
        call = f"import benchmarks.store as b; b.{work}({str(folder)!r}, {argument!r})"
        self._process = subprocess.Popen([sys.executable, "-c", call], cwd=REPOSITORY,
                                         stdout=self._said, stderr=self._err)
        self.lines: list[str] = []
        self.failed = False

    def works(self) -> bool:
        """Return whether it is past its start, or has ended."""
        return os.fstat(self._said.fileno()).st_size > 40 or self._process.poll() is not None

    def kill(self) -> "Worker":
        """Kill it as the system would, and collect the whole lines that it printed."""
        self.failed = self._process.poll() is not None
        self._process.send_signal(signal.SIGKILL)
        if self.work == "watch":
            self._kill_dashboard()
        self._process.wait()
        self._said.seek(0)
        text = self._said.read()
        self.lines = text[: text.rfind("\n") + 1].splitlines()
        if self.failed:
            self._err.seek(0)
            print(json.dumps({"failed": self.work, "said": self._err.read()[-500:]}),
                  file=sys.stderr)
        return self


    def _kill_dashboard(self) -> None:
        self._said.seek(0)
        pid = self._said.readline()
        if pid.endswith("\n"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _start(folder: Path, work: str, argument: str) -> Worker:
    return Worker(folder, work, argument)


def main() -> None:
    """Run all cases."""
    quick = arguments(str(__doc__).splitlines()[0]).quick
    report = Report("store")
    sizes: dict[str, Any] = {"steps": 2000, "fill": 5000, "list": 200, "seconds": 10.0} if quick \
        else {"steps": 20000, "fill": 50000, "list": LISTED, "seconds": 60.0}
    with tempfile.TemporaryDirectory(prefix="hoserkd-store-") as name:
        folder = Path(name)
        record(report, folder / "record", sizes["steps"])
        fill(report, folder / "fill", sizes["fill"])
        listing(report, folder / "list", sizes["list"])
        load(report, folder / "load", sizes["seconds"])
        crowd(report, folder / "crowd", sizes["seconds"])
    report.finish()


if __name__ == "__main__":
    main()
