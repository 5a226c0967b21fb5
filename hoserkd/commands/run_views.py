"""Runs as tables and as documents: what `hoserkd runs` shows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoserkd.engine.files import file_sha256
from hoserkd.engine.identity import KINDS
from hoserkd.engine.metrics.catalogue import ONE_TRAINING
from hoserkd.errors import UsageError
from hoserkd.text import did_you_mean, duration_text, number_text, size_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hoserkd.console import Console
    from hoserkd.store.records import EvaluationRecord, RunRecord
    from hoserkd.store.runs import RunStore

EARLIER = "earlier weights"
MODEL_HASH = "model_sha256"
"""Key by which a judgement names the file of the weights that it is of."""
LIST_COLUMNS = ("run", "id", "kind", "profile", "status", "done", "best", "started", "took", "tags")


def run_document(run: "RunRecord") -> dict[str, Any]:
    """Return a run as the `--json` documents show it."""
    document = {name: getattr(run, name) for name in run.__dataclass_fields__
                if name != "config_json"}
    document["made_from"] = run.made_from.to_json(places=True)
    return {**document, "progress": run.progress, "duration_s": run.duration_s}


def list_rows(runs: Sequence["RunRecord"], now: datetime | None = None) -> list[tuple[object, ...]]:
    """Return one row a run, in the columns of LIST_COLUMNS."""
    clock = now or datetime.now(UTC)
    return [
        (run.name, run.run_id, run.kind, run.profile, run.status, _share(run), _best(run),
         ago_text((clock - run.started_at).total_seconds()), duration_text(run.duration_s),
         " ".join(run.tags) or None)
        for run in runs
    ]


def ago_text(seconds: float) -> str:
    """Return how long ago something was."""
    return "just now" if seconds < 60 else f"{duration_text(seconds)} ago"


def repair_view(console: "Console", document: Mapping[str, Any]) -> "RenderableType":
    """Return the tables of `runs repair`."""
    from rich.console import Group

    parts = [console.table(None, ("database", "runs", "events"), [
        (document["database"], document["runs"], document["events"])])]
    if document["quarantine"]:
        parts.append(console.table("Set aside", ("run", "file", "lines", "first", "reason"), [
            (found.run_id, found.file, found.lines or "all",
             None if found.byte is None else f"byte {found.byte}", found.reason)
            for found in document["quarantine"]]))
    return Group(*parts)


def show_document(store: "RunStore", run: "RunRecord") -> dict[str, Any]:
    """Return all that the store says about one run."""
    return {
        "run": run_document(run),
        "settings": run.settings(),
        "metrics": {name: _summary(series.value) for name, series in
                    store.metrics(run.run_id).items()},
        "timings_ms": {part: _summary(series.value) for part, series in
                       store.timings(run.run_id).items()},
        "epochs": [{"epoch": e.epoch, "step": e.step, "at": e.at, "metrics": e.metrics}
                   for e in store.epochs(run.run_id)],
        "evaluations": [{"label": e.label, "at": e.at, "payload": e.payload}
                        for e in judgements(store, run)],
        "artifacts": list(store.artifacts(run.run_id)),
        "notes": list(store.notes(run.run_id)),
    }


def show_view(console: "Console", document: Mapping[str, Any]) -> "RenderableType":
    """Return the tables of `runs show`."""
    from rich.console import Group

    run = document["run"]
    parts = [console.table(f"Run {run['name']}", ("what", "value"), _facts(run))]
    if document["epochs"]:
        names = list(dict.fromkeys(n for e in document["epochs"] for n in e["metrics"]))[:8]
        parts.append(console.table("Epochs", ("epoch", "step", *names), [
            (e["epoch"] + 1, e["step"], *(e["metrics"].get(n) for n in names))
            for e in document["epochs"]]))
    for title, key in (("Metrics of the steps", "metrics"),
                       ("Milliseconds a part", "timings_ms")):
        if document[key]:
            parts.append(console.table(title, ("name", "last", "mean", "least", "most", "values"), [
                (name, s["last"], s["mean"], s["min"], s["max"], s["count"])
                for name, s in document[key].items()]))
    for judged in document["evaluations"]:
        parts.append(console.table(f"Judged: {judged['label']}", ("metric", "value"),
                                   list(figures(judged["payload"]).items())))
    if document["artifacts"]:
        parts.append(console.table("Files", ("file", "kind", "size"), [
            (a.path, a.kind, None if a.size is None else size_text(a.size))
            for a in document["artifacts"]]))
    if document["notes"]:
        parts.append(console.table("Notes", ("level", "message"), [
            (n.level, n.message) for n in document["notes"][-10:]]))
    return Group(*parts)


def judgements(store: "RunStore", run: "RunRecord") -> list["EvaluationRecord"]:
    """Return the judgements of a run: its own, then those of runs that judged it.

    Labels say which are of weights that the run no longer has.
    """
    found = list(store.evaluations(run.run_id))
    for other in reversed(store.runs(kind="evaluate")):
        if run.run_id in other.parents:
            found += [judged for judged in store.evaluations(other.run_id)
                      if judged.payload.get("run_id", run.run_id) == run.run_id]
    return with_earlier_told(run, found)


def with_earlier_told(
    run: "RunRecord", found: Sequence["EvaluationRecord"]
) -> list["EvaluationRecord"]:
    """Return the judgements with labels that say which of them are of weights since replaced.

    Of a judgement that does not name its model nothing is known.
    """
    model = Path(run.directory) / "best.safetensors"
    if not model.is_file() or not any(MODEL_HASH in each.payload for each in found):
        return list(found)
    current = file_sha256(model)
    return [replace(each, label=f"{each.label}, {EARLIER}")
            if each.payload.get(MODEL_HASH) not in (None, current) else each for each in found]


def series_document(
    store: "RunStore", run: "RunRecord", names: Sequence[str]
) -> dict[str, Any]:
    """Return how figures of a run went: of the steps where they tell them, else of the epochs.

    Raises:
        UsageError: the run has no such figure.
    """
    steps, epochs = store.metrics(run.run_id), store.epochs(run.run_id)
    known = list(dict.fromkeys([*steps, *(name for epoch in epochs for name in epoch.metrics)]))
    for name in names:
        if name not in known:
            raise UsageError(f"run {run.name} has no figure {name!r}{did_you_mean(name, known)}",
                             hint=f"it has {', '.join(known) or 'none yet'}")
    found = {}
    for name in names or known:
        if name in steps:
            found[name] = {"step": steps[name].step.tolist(), "value": steps[name].value.tolist()}
        else:
            told = [epoch for epoch in epochs if name in epoch.metrics]
            found[name] = {"step": [epoch.step for epoch in told],
                           "value": [epoch.metrics[name] for epoch in told]}
    return {"run_id": run.run_id, "name": run.name, "metrics": found}


def series_rows(document: Mapping[str, Any]) -> list[tuple[object, ...]]:
    """Return one row a step: the step, then each figure's value there or None."""
    series = [dict(zip(one["step"], one["value"], strict=True))
              for one in document["metrics"].values()]
    steps = sorted({step for one in series for step in one})
    return [(step, *(one.get(step) for one in series)) for step in steps]


def compare_document(store: "RunStore", runs: Sequence["RunRecord"]) -> dict[str, Any]:
    """Return what differs between runs: settings, best epochs, judgements, speed."""
    from hoserkd.settings import flatten

    # Names may be the same where the teachers or the cities are not.
    settings = [flatten(run.settings()) | run.made_from.told() for run in runs]
    keys = list(dict.fromkeys(key for flat in settings for key in flat))
    measured = [_measured(store, run) for run in runs]
    names = list(dict.fromkeys(name for figures_ in measured for name in figures_))
    return {
        "runs": [run_document(run) for run in runs],
        "settings": {key: [flat.get(key) for flat in settings] for key in keys
                     if any(flat.get(key) != settings[0].get(key) for flat in settings)},
        "metrics": {name: [figures_.get(name) for figures_ in measured] for name in names},
        "caution": ONE_TRAINING,
    }


def compare_view(console: "Console", document: Mapping[str, Any]) -> "RenderableType":
    """Return the tables of `runs compare`."""
    from rich.console import Group
    from rich.text import Text

    names = [run["name"] for run in document["runs"]]
    settings = [(key, *(json.dumps(v) if not isinstance(v, str) else v for v in values))
                for key, values in document["settings"].items()]
    metrics = [(name, *values) for name, values in document["metrics"].items()]
    return Group(
        console.table("Settings that differ", ("setting", *names), settings)
        if settings else "The settings are the same.",
        console.table("Figures", ("figure", *names), metrics),
        Text(document["caution"], style="dim"))


def figures(payload: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the plain numbers of a judgement by dotted name; lists are left out."""
    found: dict[str, float] = {}
    for key, value in payload.items():
        if isinstance(value, Mapping):
            found |= figures(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[prefix + key] = float(value)
    return found


def _measured(store: "RunStore", run: "RunRecord") -> dict[str, float]:
    found: dict[str, float] = {}
    if run.best_value is not None:
        found[f"best {run.best_name}"] = run.best_value
    epochs = store.epochs(run.run_id)
    if epochs:
        found |= {f"last {name}": value for name, value in epochs[-1].metrics.items()}
    found["duration_s"] = run.duration_s
    for judged in judgements(store, run):
        found |= figures(judged.payload, f"{judged.label}: ")
    return found


def _facts(run: Mapping[str, Any]) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = [
        ("id", run["run_id"]), ("kind", run["kind"]), ("profile", run["profile"]),
        ("status", run["status"]), ("message", run["message"] or None),
        ("started", f"{run['started_at']:%Y-%m-%d %H:%M:%S} UTC"),
        ("took", duration_text(run["duration_s"])),
        ("step", f"{run['step']} of {run['total_steps']}" if run["total_steps"] else run["step"]),
        ("best", None if run["best_value"] is None else
         f"{run['best_name']} {number_text(run['best_value'])} at step {run['best_step']}"),
        ("tags", " ".join(run["tags"]) or None), ("notes", run["notes"] or None),
        ("parents", " ".join(run["parents"]) or None), ("study", run["study"] or None),
        ("seed", run["seed"]), ("device", run["device"] or None),
        ("commit", run["git_revision"] or None),
        ("versions", "  ".join(f"{k} {v}" for k, v in run["versions"].items())),
        ("command", " ".join(run["argv"])), ("host", f"{run['host']}, process {run['pid']}"),
        ("settings hash", run["config_sha256"][:16]), ("data hash", run["data_sha256"][:16]),
        *_artefacts(run["made_from"]),
        ("folder", run["directory"]),
    ]
    return [fact for fact in facts if fact[1] not in (None, "")]


def _artefacts(made_from: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Return the artefacts that a run was made from: name, hash and place."""
    return [(f"{role}, hash and place",
             f"{found['name']}, {found['sha256'][:16]}, {found.get('place', 'unknown')}")
            for role, found in made_from.items() if role in KINDS]


def _summary(values: Any) -> dict[str, float | int]:
    import numpy as np

    finite = values[np.isfinite(values)]
    if not len(finite):
        return {"last": float("nan"), "mean": float("nan"), "min": float("nan"),
                "max": float("nan"), "count": len(values)}
    return {"last": float(values[-1]), "mean": float(finite.mean()), "min": float(finite.min()),
            "max": float(finite.max()), "count": len(values)}


def _share(run: "RunRecord") -> str | None:
    return None if run.progress is None else f"{run.progress:.0%}"


def _best(run: "RunRecord") -> str | None:
    return None if run.best_value is None else f"{run.best_name} {number_text(run.best_value)}"
