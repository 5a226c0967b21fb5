"""Many at once: eight writers and five readers for ten minutes; a store of fifty million rows."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks._report import REPOSITORY, Report
from benchmarks.store import READERS, WRITERS, load
from torture.ledger import Ledger, Tally

RUNS = 1000
STEPS = 5000
METRICS = 10
LIST_S = 1.0
"""Most processor time that `runs list` may take: on a quiet machine its time by the clock."""


class _Figures(Report):
    """Keeps a case's figures instead of printing them."""

    def __init__(self) -> None:
        super().__init__("torture")
        self.figures: dict[str, Any] = {}

    def add(self, case: str, ours_s: float, plain_s: float | None = None,
            peak_mb: float | None = None, **more: Any) -> None:
        """Keep them, in milliseconds where they are times."""
        self.figures = {"append_median_ms": round(1e3 * ours_s, 3)} | {
            name.removesuffix("_s") + "_ms" if name.endswith("_s") else name:
            round(1e3 * value, 3) if name.endswith("_s") else value
            for name, value in more.items()}


def many_at_once(folder: Path, ledger: Ledger, seconds: float) -> None:
    """Let writers record and readers ask while one of them is killed every half second."""
    figures = _Figures()
    tally = Tally("load", f"{WRITERS} writers, {READERS} readers, kill -9 of both")
    load(figures, folder / "load", seconds)
    found = figures.figures
    tally.more = {"for_s": seconds, **found}
    tally.faults = int(found["killed"])
    tally.failures = [f"{found[name]} {name}" for name in ("lost", "doubled", "errors")
                      if found[name]]
    ledger.enter(tally)


def big_store(folder: Path, ledger: Ledger, runs: int = RUNS, steps: int = STEPS) -> None:
    """Fill a store with fifty million metric rows, and ask it what people ask."""
    tally = Tally("a big store", f"{runs:,} runs, {runs * steps * METRICS:,} metric rows")
    place = folder / "big"
    began = time.monotonic()
    _fill(place, runs, steps)
    tally.more["filled_s"] = round(time.monotonic() - began, 1)
    tally.more["database_mb"] = round((place / "hoserkd.duckdb").stat().st_size / 1e6)
    for name, times in _asked(place).items():
        tally.more |= {f"{name}_s": round(times[0], 3), f"{name}_cpu_s": round(times[1], 3)}
    tally.judge("runs list", [f"takes {tally.more['list_cpu_s']} s"] * (
        tally.more["list_cpu_s"] > LIST_S))
    ledger.enter(tally)


def _fill(place: Path, runs: int, steps: int) -> None:
    from hoserkd.engine.files import write_json
    from hoserkd.store.runs import RunStore

    store = RunStore(place)
    for number in range(runs):
        # The folders as recorders leave them; the rows come straight into the database.
        run_id = f"20260101-{number:06d}-beef"
        home = store.folder(run_id)
        home.mkdir(parents=True)
        header = {"run_id": run_id, "name": f"run-{number}", "kind": "train", "profile": "big",
                  "config_json": "{}", "started_at": 1.7e9 + number, "tags": [], "notes": "",
                  "parents": [], "study": "", "host": "here", "pid": 1, "argv": []}
        write_json(home / "run.json", header)
        events = [{"seq": 1, "t": 1.7e9 + number, "type": "start"},
                  {"seq": 2, "t": 1.7e9 + number, "type": "step", "step": steps, "epoch": 4,
                   "total": steps, "m": {"metric_0": 0.5}},
                  {"seq": 3, "t": 1.7e9 + number, "type": "epoch", "step": steps, "epoch": 4,
                   "m": {"val_accuracy": number / runs}},
                  {"seq": 4, "t": 1.7e9 + number, "type": "end", "status": "finished",
                   "message": ""}]
        (home / "events.jsonl").write_text(
            "".join(json.dumps(event) + "\n" for event in events))
    store.sync(10.0)
    import duckdb

    connection = duckdb.connect(str(store.database))
    connection.execute(f"""
        INSERT INTO metrics
        SELECT r.run_id, 2, s.step, s.step // 1000, r.started_at, 'metric_' || m.n, random()
        FROM runs AS r, range(1, {steps}) AS s(step), range({METRICS}) AS m(n)
        ORDER BY r.run_id""")
    connection.close()


def _asked(place: Path) -> dict[str, tuple[float, float]]:
    """Return seconds by the clock and of the processor, by question."""
    from hoserkd.store.runs import RunStore

    store = RunStore(place)
    some = store.runs()[RUNS // 20].run_id
    questions: dict[str, Callable[[], object]] = {
        "list": store.runs,
        "show": lambda: (store.run(some), store.epochs(some), store.artifacts(some)),
        "series": lambda: store.metrics(some, ["metric_3"]),
        "names": store.metric_names,
    }
    times = {}
    for name, ask in questions.items():
        began, work = time.perf_counter(), time.process_time()
        ask()
        times[name] = (time.perf_counter() - began, time.process_time() - work)
    for name, words in {
        "list_command": ["runs", "list", "--json"],
        "show_command": ["runs", "show", some, "--json"],
        "dashboard_command": ["tui", "--screenshot", str(place / "picture.svg")],
    }.items():
        times[name] = _command([*words, "--store", str(place)])
    return times


def _command(words: list[str]) -> tuple[float, float]:
    before, began = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "hoserkd", *words], capture_output=True,
                          text=True, cwd=REPOSITORY, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    after = os.times()
    return time.perf_counter() - began, (after.children_user + after.children_system
                                         - before.children_user - before.children_system)
