"""Snapshots made of literals, and a source that gives them out."""

import math
from dataclasses import dataclass, field

import numpy as np

from hoserkd.store.elsewhere import OtherStore
from hoserkd.tui.judgements import judgement_of
from hoserkd.tui.launching import Launch
from hoserkd.tui.mapping import CityMap, MapData, MapTrip
from hoserkd.tui.snapshot import (
    RunDetail,
    RunRow,
    Setting,
    Snapshot,
    StoreHealth,
    curves_of,
)
from hoserkd.tui.studies import StudyRecord, record_of, studies_of
from hoserkd.tui.views.page import Wanted

START_S = 1_780_000_000.0


def row(number: int, **changes: object) -> RunRow:
    """Return one of many runs, alike but for what is given."""
    values: dict[str, object] = {
        "run_id": f"2611{number:02d}-abc{number}", "name": f"run-{number}", "kind": "train",
        "profile": "demo", "status": "finished", "seed": number, "device": "cpu",
        "started_s": START_S + 60 * number, "duration_s": 125.0, "step": 400, "total_steps": 400,
        "epoch": 9, "optimiser_steps_per_s": 3.2, "trips_per_s": 204.8,
        "val_accuracy": 0.8 + number / 100, "loss": 0.5, "loss_kl": None, "eta_s": None,
    }
    return RunRow(**{**values, **changes})  # type: ignore[arg-type]


def detail(of: RunRow, bend: float) -> RunDetail:
    """Return the page of a run whose curves depend on `bend`."""
    steps = range(1, (of.step or 0) + 1)
    rows = [point for step in steps for point in (
        (step, "loss", 0.4 + 2 * math.exp(-step * bend / 100)),
        (step, "loss_road", 0.3 + 1.5 * math.exp(-step * bend / 100)),
        (step, "loss_time", 0.1 + 0.5 * math.exp(-step * bend / 80)),
        (step, "accuracy", 0.9 - 0.5 * math.exp(-step * bend / 100)),
        (step, "trips_per_s", 200 + 10 * math.sin(step / 9)),
    )]
    rows += [(step, "val_accuracy", 0.88 - 0.4 * math.exp(-step * bend / 100))
             for step in steps if step % 40 == 0]
    if of.loss_kl is not None:
        rows += [(step, "loss_kl", 0.2 + math.exp(-step / 50)) for step in steps]
    return RunDetail(
        row=of, curves=curves_of(rows),
        timings_ms={"data": 4.1, "transfer": 0.4, "forward": 101.0, "teacher": 2.2,
                    "backward": 160.5, "optimiser": 12.0},
        settings=(Setting("train.epochs", "3", "10"),
                  Setting("distill.enabled", "yes" if of.loss_kl is not None else "no", None),
                  Setting("train.batch_size", "64", None), Setting("seed", str(of.seed), None)),
        log=("12:00:01  start", "12:00:09  epoch 1: val_accuracy 0.71",
             "12:00:17  wrote best.safetensors"))


def judged_document(names: tuple[str, ...] = ("vanilla", "distilled")) -> dict[str, object]:
    """Return an `evaluation.json` of two metrics and one distribution."""
    def figures(shift: float) -> dict[str, object]:
        return {"distance_jsd": {"value": 0.02 + shift, "low": 0.01, "high": 0.05},
                "completion": {"value": 0.9 + shift, "low": 0.85, "high": 0.99}}

    edge = [0.1 * bin for bin in range(40)]
    counts = [100 * math.exp(-((bin - 15) / 6) ** 2) for bin in range(40)]
    one = {"od": "test", "references": {"floor": figures(-0.01), "shortest path": figures(0.05)}}
    return {
        "evaluations": [
            {**one, "name": name, "metrics": figures(0.01 * index), "histograms": {
                "distance": {"edge": edge, "real": counts,
                             "generated": [10.0 * index] * 5 + counts[:-5]}}}
            for index, name in enumerate(names)],
        "comparisons": [{"a": names[0], "b": names[-1], "tests": {
            "dtw_km": {"mean_a": 0.41, "mean_b": 0.38, "p_holm": 0.003}}}],
    }


def toy_map() -> MapData:
    """Return a block of four streets with two trips on it."""
    corner = np.array([[13.0, 52.0], [13.02, 52.0], [13.02, 52.01], [13.0, 52.01]])
    city = CityMap("toy", corner, np.roll(corner, -1, axis=0), np.arange(5),
                   {10 * road: road for road in range(4)})
    return MapData(city, "test-astar.csv", (
        MapTrip((0, 1), "2024-05-06T08:00:00Z", True, "reached", -1.5),
        MapTrip((2, 3), "2024-05-06T09:00:00Z", False, "max steps", -2.5)))


def toy_document() -> dict[str, object]:
    """Return what a tuning study of vanilla and five trials writes of itself."""
    values = [0.83, 0.81, 0.84, 0.82, 0.85, 0.8]
    trials = [{"number": number, "state": "complete" if number < 5 else "pruned",
               "values": {"accuracy": value}, "run_id": row(20 + number).run_id,
               "params": {"lambda_kl": 0.01 * number, "temperature": 5.0 - number, "window": 4}
               if number else {}} for number, value in enumerate(values)]
    return {
        "objectives": ["accuracy"], "planned": 6, "trials": trials, "best": {"number": 4},
        "importances": {"accuracy": {"temperature": 0.7, "lambda_kl": 0.2, "window": 0.1}},
        "best_so_far": [{"number": n, "value": v} for n, v in zip(
            range(1, 5), (0.81, 0.84, 0.84, 0.85), strict=True)],
        "summary": ["6 of 6 trials: 5 complete, 1 pruned.",
                    "Trial 4 is best: accuracy 0.8500 with window 4; vanilla has 0.8300."]}


def toy_study() -> tuple[tuple[RunRow, ...], dict[str, str], dict[str, StudyRecord]]:
    """Return rows, studies and records of a study of six trials and a final run."""
    rows = [row(9, name="study", kind="tune", status="running")]
    for number in range(6):
        role = "vanilla" if number == 0 else "search"
        rows.append(row(20 + number, name=f"study-{number}", tags=(role,)))
    rows.append(row(30, name="study-final-best-42", tags=("final-best",)))
    return (tuple(reversed(rows)), {one.run_id: "study" for one in rows},
            {"study": record_of(toy_document())})


@dataclass
class LiteralSource:
    """Gives out snapshots of literals and remembers what was asked."""

    runs: tuple[RunRow, ...]
    asked: list[str] = field(default_factory=list)
    trouble: str | None = None
    news: tuple[str, ...] = ()
    map: MapData | None = field(default_factory=toy_map)
    map_missing: str = ""
    other_stores: tuple[OtherStore, ...] = ()

    def read(self, wanted: Wanted) -> Snapshot:
        """Return the literal snapshot."""
        ids = {wanted.run_id, *wanted.compared}
        details = {run.run_id: detail(run, 1 + index)
                   for index, run in enumerate(self.runs) if run.run_id in ids}
        empty = not self.runs
        return Snapshot(
            runs=self.runs, details=details, trouble=self.trouble, news=self.news,
            studies=() if empty else studies_of(*toy_study()),
            judgements=() if empty else (judgement_of(judged_document(), "26-e", "judged"),),
            map=None if empty else self.map, map_missing=self.map_missing,
            other_stores=self.other_stores if empty else (),
            store=StoreHealth("/data/store", 5_300_000, 33_200, 1_900_000_000, 79_000_000_000, 1,
                              {"running": 1, "finished": 2, "failed": 1, "dead": 1}, 3.0, 800,
                              (("vanilla", 1_200_000_000), ("distilled", 300_000_000))))

    def tag(self, run_id: str, tag: str) -> str:
        """Remember the tag."""
        self.asked.append(f"tag {run_id} {tag}")
        return "tagged"

    def stop(self, run: RunRow) -> str:
        """Remember the stop."""
        self.asked.append(f"stop {run.run_id}")
        return "asked to stop"

    def profiles(self) -> list[str]:
        """Return two profiles."""
        return ["beijing", "demo"]

    def refusal(self, launch: Launch) -> str | None:
        """Refuse what is no setting."""
        return None if "=" in launch.overrides or not launch.overrides else "expected key=value"

    def launch(self, launch: Launch) -> str:
        """Remember the launch."""
        self.asked.append(f"launch {launch}")
        return "started"


    def opened(self, store: OtherStore) -> "LiteralSource":
        """Return a store with two of the runs."""
        self.asked.append(f"open {store.directory}")
        return store_of_every_state()


def store_of_every_state() -> LiteralSource:
    """Return a source of six runs, one of every state."""
    return LiteralSource(runs=(
        row(1, name="distilled", status="running", step=130, loss_kl=0.31, eta_s=84.0, epoch=3,
            tags=("paper", "τ=2")),
        row(2, name="vanilla"),
        row(3, name="teacher", kind="train-teacher", val_accuracy=None, trips_per_s=None),
        row(4, name="too hot", status="failed", step=17, val_accuracy=None),
        row(5, name="killed", status="dead", step=55, val_accuracy=None),
        row(6, name="demo evaluation", kind="evaluate", status="stopped", step=None,
            total_steps=None, val_accuracy=None, trips_per_s=None, optimiser_steps_per_s=None),
    ))
