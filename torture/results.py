"""What a command came to, as plain values: all that no mishap on the way may change."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CLOCKED = frozenset({"trips_per_s", "trip_steps_per_s", "optimiser_steps_per_s",
                     "tokens_per_s", "epoch_s", "seconds"})
"""Figures that the clock decides."""


def city(home: Path) -> Any:
    """Return the prepared city's hash, after holding every array against its own."""
    from hoserkd.engine.city.storage import load_city

    directory = home / "cities" / "town"
    town = load_city(directory)
    content = directory / town.manifest["content"]
    wrong = [name for name, said in town.manifest["arrays"].items()
             if _sha256(content / f"{name}.npy") != said["sha256"]]
    return {"sha256": town.sha256, "wrong": wrong, "statistics": town.manifest["statistics"]}


def teacher(home: Path) -> Any:
    """Return the teacher's hash and card, and the record of its training."""
    from hoserkd.engine.teacher.storage import load_teacher

    directory = home / "teachers" / "lm"
    loaded = load_teacher(directory)
    meta = {key: value for key, value in loaded.card.meta.items() if key not in CLOCKED}
    return {"sha256": loaded.sha256, "meta": meta, "last": _tensors(directory / "last.ckpt"),
            # One killed before it had a checkpoint stays in the list, as dead.
            "record": [_record(home, run) for run in _runs(home, "train-teacher")
                       if run.status != "dead"]}


def signals(home: Path) -> Any:
    """Return the hashes of every array of the teacher's signal."""
    found = {}
    for path in sorted((home / "cities" / "town" / "signals").glob("*/*/*")):
        if not path.parent.name.startswith(".") and path.suffix == ".npy":
            found[f"{path.parent.name}/{path.name}"] = _sha256(path)
        elif path.name == "meta.json":
            found[f"{path.parent.name}/{path.name}"] = json.loads(path.read_bytes())
    return found


def student(home: Path) -> Any:
    """Return the student's weights and figures, and the record of its training."""
    return [_trained(home, run) for run in _runs(home, "train")]


def study(home: Path) -> Any:
    """Return a tuning study's table and final runs, each training by its weights and figures."""
    from hoserkd.store.runs import RunStore

    store = RunStore(home / "store")
    told = [e.payload for run in _runs(home, "tune") for e in store.evaluations(run.run_id)]
    trials = [{key: trial[key] for key in ("state", "values", "epochs", "params")}
              for trial in told[-1]["trials"] if trial["state"] in ("complete", "pruned")]
    tuned = [run for run in _runs(home, "train") if run.study]
    return {"trials": trials, "finals": told[-1]["finals"],
            "leader": told[-1]["leader"], "best": told[-1]["best"] is not None,
            "statuses": sorted({run.status for run in tuned}),
            "trainings": sorted(json.dumps(_trained(home, run), sort_keys=True) for run in tuned)}


def trips(home: Path) -> Any:
    """Return the hashes of the generated trips."""
    return {path.name: _sha256(path)
            for path in sorted(home.glob("store/runs/*/generated/*"))
            if not path.name.startswith(".")}


def report(home: Path) -> Any:
    """Return an evaluation's figures."""
    document = json.loads((home / "report" / "evaluation.json").read_bytes())
    for name in ("report.html", "report.md"):
        if not (home / "report" / name).read_text().rstrip():
            raise ValueError(f"{name} is empty")
    return {"metrics": [e["metrics"] for e in document["evaluations"]],
            "comparisons": document["comparisons"]}


def bundle(home: Path) -> Any:
    """Return a bundle's hash, and that it is sound."""
    from hoserkd.engine.bundle import verify_bundle

    path = home / "student.tar.zst"
    return {"sha256": _sha256(path), "faults": verify_bundle(path).faults}


def tables(home: Path) -> Any:
    """Return a hash of the rows of every table of the store."""
    from hoserkd.store.runs import RunStore

    found = {}
    with RunStore(home / "store").reading() as connection:
        for table in ("metrics", "timings", "epochs", "evaluations", "artifacts", "notes",
                      "runs"):
            rows = connection.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall()
            found[table] = [len(rows), hashlib.sha256(repr(rows).encode()).hexdigest()]
    return found


def _trained(home: Path, run: Any) -> Any:
    from safetensors import safe_open

    best = Path(run.directory) / "best.safetensors"
    with safe_open(best, framework="np") as file:
        header = json.loads(file.metadata()["hoserkd"])
    header.pop("run_id")
    return {"header": header, "best": _safe_tensors(best),
            "last": _tensors(Path(run.directory) / "last.ckpt"), "status": run.status,
            "record": _record(home, run)}


def _record(home: Path, run: Any) -> Any:
    """Return the rows of a run that do not depend on the clock, in order."""
    from hoserkd.store.runs import RunStore

    store = RunStore(home / "store")
    metrics = {name: [series.step.tolist(), [repr(v) for v in series.value.tolist()]]
               for name, series in store.metrics(run.run_id).items() if name not in CLOCKED}
    epochs = [[e.epoch, e.step, {k: repr(v) for k, v in e.metrics.items() if k not in CLOCKED}]
              for e in store.epochs(run.run_id)]
    judged = [[e.label, e.payload] for e in store.evaluations(run.run_id)]
    return {"status": run.status, "step": run.step, "best": [run.best_name, run.best_value,
            run.best_step], "metrics": metrics, "epochs": epochs, "evaluations": judged}


def _runs(home: Path, kind: str) -> Iterable[Any]:
    from hoserkd.store.runs import RunStore

    return RunStore(home / "store").runs(kind=kind)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _safe_tensors(path: Path) -> str:
    from safetensors.numpy import load_file

    digest = hashlib.sha256()
    for name, value in sorted(load_file(path).items()):
        digest.update(name.encode() + value.tobytes())
    return digest.hexdigest()


def _tensors(path: Path) -> str:
    """Return a hash of the weights and the optimiser's state in a checkpoint."""
    import torch

    content = torch.load(path, weights_only=True)
    digest = hashlib.sha256()
    _feed(digest, {"model": content["model"], "optimiser": content["optimiser"]})
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    import torch

    if isinstance(value, dict):
        for key in sorted(value, key=str):
            digest.update(str(key).encode())
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _feed(digest, item)
    elif isinstance(value, torch.Tensor):
        digest.update(value.detach().contiguous().numpy().tobytes())
    else:
        digest.update(repr(value).encode())
