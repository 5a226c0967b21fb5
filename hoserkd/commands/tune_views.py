"""A tuning study as a document and as tables."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hoserkd.commands.context import Context
    from hoserkd.console import Console
    from hoserkd.engine.config import EngineConfig
    from hoserkd.engine.tuning.rows import TrialRow, TuneOutcome
    from hoserkd.store.records import RunRecord

SECTIONS = ("city", "data", "student", "teacher", "distill", "precompute", "train", "device",
            "seed")
"""What decides a training; the command line names what differs from the profile in these."""
FILES = ("tune.html", "tune.json")


def read_outcome(studies: Path, config: "EngineConfig") -> "TuneOutcome":
    """Return how far a study is, without touching it.

    Raises:
        StoreError: there is no such study.
    """
    from hoserkd.engine.tune import outcome
    from hoserkd.engine.tuning.ledger import open_ledger
    from hoserkd.engine.tuning.space import parameter_names
    from hoserkd.engine.tuning.storage import open_storage, shown, study_place

    place = study_place(studies, config.tune.study, config.tune.storage)
    ledger = open_ledger(open_storage(place, create=False), config.tune.study,
                         config.tune.patience_s, shown(place))
    return outcome(ledger, config, parameter_names(config), shown(place))


def train_command(
    profile: str, config: "EngineConfig", params: dict[str, Any], city: str | None
) -> str:
    """Return the command that trains with a trial's setting, complete with what differs."""
    from hoserkd.engine.tuning.space import with_setting
    from hoserkd.settings import flatten

    wanted = flatten(with_setting(config, params, config.train.epochs, config.seed)
                     .model_dump(mode="json"))
    plain = flatten(profile_config(profile).model_dump(mode="json"))
    searched = {key if "." in key else f"distill.{key}" for key in params}
    words = ["hoserkd", "train", *([] if profile == "default" else ["--profile", profile]),
             "--distill"]
    for key, value in wanted.items():
        differs = key.partition(".")[0] in SECTIONS and value != plain[key]
        if key != "distill.enabled" and (key in searched or differs):
            text = value if isinstance(value, str) else json.dumps(value)
            words += ["--set", f"{key}={text}"]
    return shlex.join(words + (["--city", city] if city else []))


def city_option(context: "Context", run: "RunRecord") -> str | None:
    """Return the `--city` of a study's run; None where its settings name that city already."""
    from hoserkd.engine.places import CITIES

    city = run.made_from.city
    if city is None or city.place is None:
        return None
    folder = context.paths.data_dir.absolute() / CITIES.folder
    if city.place.parent != folder:
        return str(city.place)
    name = city.place.name
    return None if name == context.config.city.name else name


def profile_config(profile: str) -> "EngineConfig":
    """Return the settings that a profile alone gives; the defaults where it is gone."""
    from hoserkd.commands.context import find_paths, session
    from hoserkd.errors import ConfigError
    from hoserkd.settings import load_profile, profile_folders, resolve_settings

    folders = profile_folders(find_paths(session().options).home)
    try:
        found = None if profile == "default" else load_profile(profile, folders)
    except ConfigError:
        found = None
    return resolve_settings(found).config


def payload(found: "TuneOutcome", profile: str, config: "EngineConfig", city: str | None,
            output: Path | None) -> dict[str, Any]:
    """Return what `--json` prints and the store keeps."""
    from hoserkd.report.tune import summary

    best = None if found.best is None else found.row(found.best)
    return {
        "study": found.name,
        "storage": found.place,
        "made_from": found.made_from.to_json(),
        "output": output,
        "objectives": [each.name for each in found.objectives],
        "planned": found.planned,
        "counts": found.counts,
        "summary": summary(found),
        "trials": [_row(row) for row in found.rows],
        "best": None if best is None else {
            "number": best.number, "values": dict(best.values), "params": dict(best.params),
            "run_id": best.run,
            "command": train_command(profile, config, dict(best.params), city)},
        "leader": found.leader,
        "best_so_far": [{"number": number, "value": value}
                        for number, value in found.best_so_far(found.objectives[0])],
        "front": list(found.front),
        "importances": {name: dict(shares) for name, shares in found.importances.items()},
        "finals": [
            {"metric": c.metric, "best": c.arm, "vanilla": c.vanilla,
             "difference": c.difference, "interval": c.interval, "p": c.p, "p_holm": c.p_holm,
             "verdict": c.verdict, "alone": c.alone}
            for c in found.comparisons],
    }


def render(console: "Console", found: "TuneOutcome", document: dict[str, Any]) -> "RenderableType":
    """Return trials, importances, the final comparison and the best command line."""
    from rich.console import Group
    from rich.text import Text

    from hoserkd.report.tune import finals_table, remark

    names = [each.name for each in found.objectives]
    parts: list[RenderableType] = [console.table(
        f"Study {found.name}: {', '.join(names)} on the validation trips",
        ("trial", "in Optuna", "state", *names, "epochs", *found.parameters, ""),
        [(row.number, row.optuna, row.state, *(row.value(name) for name in names), row.epochs,
          *(row.params.get(name) for name in found.parameters), remark(found, row))
         for row in found.rows])]
    if found.importances:
        parts.append(console.table(
            "Importance of the parameters (PED-ANOVA, complete trials)",
            ("parameter", *found.importances),
            [(name, *(f"{shares.get(name, 0):.0%}" for shares in found.importances.values()))
             for name in next(iter(found.importances.values()))]))
    finals = finals_table(found)
    if finals is not None:
        parts += [console.table(finals.title, finals.columns, finals.rows),
                  Text(finals.caption + "\n", style="dim")]
    parts += [Text(f"- {line}") for line in document["summary"]]
    if document["best"]:
        parts.append(Text(document["best"]["command"], overflow="fold"))
    if document["output"] is not None:
        parts.append(Text(f"plots: {document['output'] / 'tune.html'}"))
    return Group(*parts)


def write_report(found: "TuneOutcome", document: dict[str, Any], folder: Path) -> list[Path]:
    """Write the page with its plots, and the figures, and return the files."""
    from datetime import UTC, datetime

    from hoserkd import __version__
    from hoserkd.engine.files import replacing
    from hoserkd.report.tune import TuneReport, render_tune

    made = f"Made by hoserkd {__version__} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    with replacing(folder / "tune.html", "w") as file:
        file.write(render_tune(TuneReport(found, _best_command(document), made)))
    write_document(document, folder)
    return [folder / name for name in FILES]


def write_document(document: dict[str, Any], folder: Path) -> None:
    """Write how a study is, without the places of who made it."""
    from hoserkd.console import SCHEMA_VERSION
    from hoserkd.engine.files import write_json
    from hoserkd.placeless import placeless_values
    from hoserkd.text import plain

    best = document["best"] and {**document["best"], "command": _best_command(document)}
    write_json(folder / "tune.json", placeless_values(plain(
        {"schema_version": SCHEMA_VERSION, **document, "best": best})))


def _best_command(document: dict[str, Any]) -> str:
    """Return the command that trains the best setting, without places; empty where none is."""
    from hoserkd.placeless import placeless_command

    best = document["best"]
    return placeless_command(shlex.split(best["command"])) if best else ""


def _row(row: "TrialRow") -> dict[str, Any]:
    return {"number": row.number, "optuna": row.optuna, "state": row.state,
            "values": dict(row.values), "epochs": row.epochs, "params": dict(row.params),
            "run_id": row.run, "error": row.error, "went_on_as": row.went_on_as,
            "worker": row.worker}
