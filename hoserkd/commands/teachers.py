"""`hoserkd teachers`: the exports that there are and what they say about themselves."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hoserkd.commands.completion import complete_teacher
from hoserkd.commands.context import find_paths, open_console, open_context, session
from hoserkd.commands.options import City, Device, Profile
from hoserkd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from hoserkd.console import Console
    from hoserkd.engine.teacher.card import TeacherCard
    from hoserkd.engine.teacher.fit import GridReport

SPLITS = ("train", "val", "test")
app = typer.Typer(help="Show the exported teachers.", no_args_is_help=False)


@app.command("list")
def list_() -> None:
    """List the teachers under the data folder.

    Example: hoserkd teachers list
    """
    console = open_console()
    from hoserkd.engine.places import TEACHERS
    from hoserkd.engine.teacher.card import load_card
    from hoserkd.errors import TeacherError

    data_dir = find_paths(session().options).data_dir
    folder = data_dir / TEACHERS.folder
    cards = []
    for directory in TEACHERS.within(data_dir):
        try:
            cards.append((directory, load_card(directory)))
        except TeacherError as error:
            console.warn(error.message)
    payload = {"directory": str(folder), "teachers": [card_payload(d, c) for d, c in cards]}
    console.result(payload, lambda: console.table(
        None, ("teacher", "layers x heads x width", "cells", "perplexity", "from"),
        [(card.name, shape_text(card), f"{card.grid.rows} x {card.grid.cols}",
          card.meta.get("val_perplexity"), card.meta.get("city") or card.meta.get("source"))
         for _, card in cards]))


@app.command()
def show(
    teacher: str = typer.Argument(..., metavar="NAME|DIR", help="Teacher to show.",
                                  autocompletion=complete_teacher),
    city: str | None = City,
) -> None:
    """Show what a teacher is and, with --city, how its grid lies on the roads.

    Example: hoserkd teachers show beijing
    """
    context = open_context("teachers show")
    from hoserkd.engine.teacher.card import load_card

    directory = context.teacher_dir(teacher)
    card = load_card(directory)
    payload = card_payload(directory, card)
    rows = [*card_rows(card), *meta_rows(card),
            ("hash", card.sha256), ("folder", str(directory))]
    if city is not None:
        from hoserkd.engine.city.storage import load_city
        from hoserkd.engine.teacher.fit import grid_report

        town = load_city(context.city_dir(city))
        report = grid_report(card.grid, town.network, town.split("train"))
        payload["city"] = {"name": town.name, **report.to_json()}
        rows += report_rows(report)

    def render() -> "RenderableType":
        from rich.console import Group

        table = context.console.table(f"Teacher {card.name}", ("what", "value"), rows)
        anomalies = card.meta.get("anomalies")
        return Group(table, anomaly_table(context.console, anomalies)) if anomalies else table

    context.console.result(payload, render)


@app.command()
def judge(
    teacher: str = typer.Argument(..., metavar="NAME|DIR", help="Teacher to judge.",
                                  autocompletion=complete_teacher),
    city: str | None = City,
    profile: str | None = Profile,
    split: str = typer.Option("test", "--split", metavar="train|val|test", help="Which trips."),
    trips: int = typer.Option(5000, "--trips", min=1, help="At most so many of them."),
    device: str | None = Device,
) -> None:
    """Measure a teacher on a city's trips: perplexity, and LM-TAD's anomaly detection.

    Example: hoserkd teachers judge beijing --profile beijing
    """
    if split not in SPLITS:
        raise UsageError(f"--split: expected one of {', '.join(SPLITS)}, found {split!r}")
    context = open_context("teachers judge", profile, {"device": device})
    from hoserkd.engine.city.storage import load_city
    from hoserkd.engine.device import resolve_device
    from hoserkd.engine.identity import teacher_identity
    from hoserkd.engine.teacher.anomaly import judge_anomalies
    from hoserkd.engine.teacher.fit import check_grid_fit
    from hoserkd.engine.teacher.perplexity import score_trips
    from hoserkd.engine.teacher.storage import load_teacher

    town = load_city(context.city_dir(city))
    loaded = load_teacher(context.teacher_dir(teacher), resolve_device(context.config.device))
    check_grid_fit(loaded.grid, town.network, teacher=loaded.card.name, city=town.name)
    chosen = town.split(split)
    scores = score_trips(loaded, town.network, chosen, most=trips, seed=context.config.seed,
                         observer=context.observer, stop=context.stop)
    found = [a.to_json() for a in judge_anomalies(
        loaded, town.network, chosen, most=trips, seed=context.config.seed,
        observer=context.observer, stop=context.stop)]
    payload = {"teacher": loaded.card.name, "city": town.name,
               "made_from": context.made_from(town, teacher_identity(loaded.card)).to_json(),
               "split": split, "trips": len(scores.tokens), "perplexity": scores.perplexity,
               "anomalies": found}

    def render() -> "RenderableType":
        from rich.console import Group

        return Group(
            context.console.table(f"Teacher {loaded.card.name} on {town.name}, {split}",
                                  ("what", "value"), [("trips", len(scores.tokens)),
                                                      ("perplexity", scores.perplexity)]),
            anomaly_table(context.console, found))

    context.console.result(payload, render)


def anomaly_table(console: "Console", found: "Sequence[Mapping[str, Any]]") -> "RenderableType":
    """Return how well outliers are told from real trips."""
    return console.table(
        "Anomaly detection (LM-TAD's own task; log-perplexity)",
        ("outliers", "made", "cells aside", "probability", "F1 at mean + 3 std", "PR-AUC",
         "ROC-AUC"),
        [(a["kind"].replace("_", " "), a["outliers"], a["level"], a["probability"], a["f1"],
          a["pr_auc"], a["roc_auc"]) for a in found])


def shape_text(card: "TeacherCard") -> str:
    """Return layers, heads and width in the usual short form."""
    size = card.dimensions
    return f"{size.n_layer} x {size.n_head} x {size.n_embd}"


def card_rows(card: "TeacherCard") -> list[tuple[str, Any]]:
    """Return what a table shows of every teacher."""
    grid = card.grid
    return [
        ("layers x heads x width", shape_text(card)),
        ("vocabulary", f"{card.vocab_size:,} tokens (PAD {card.pad_id}, EOT {card.eot_id}, "
                       f"SOT {card.sot_id})"),
        ("positions", card.dimensions.block_size),
        ("grid", f"{grid.rows} x {grid.cols} cells of {grid.cell_height_deg * grid.downsample:.6g}"
                 f" x {grid.cell_width_deg * grid.downsample:.6g} degrees"),
        ("bounds", f"lat {grid.min_lat:.5f} to {grid.max_lat:.5f}, "
                   f"lng {grid.min_lng:.5f} to {grid.max_lng:.5f}"),
    ]


def meta_rows(card: "TeacherCard") -> list[tuple[str, Any]]:
    """Return what the teacher's maker noted; epochs are counted from 1, as everywhere on screen."""
    plain = {key: value for key, value in card.meta.items() if not isinstance(value, dict | list)}
    if isinstance(epoch := plain.get("best_epoch"), int):
        plain["best_epoch"] = epoch + 1
    return [(key.replace("_", " "), value) for key, value in plain.items()]


def report_rows(report: "GridReport") -> list[tuple[str, Any]]:
    """Return how a grid lies on a city."""
    rows: list[tuple[str, Any]] = [
        ("roads a cell, mean and most",
         f"{report.roads_per_cell_mean:.2f}, {report.roads_per_cell_max}"),
        ("cells used", f"{report.cells_used:,} of {report.cells:,}"),
        ("roads outside the grid", f"{report.clamped_share:.2%}"),
        ("candidate sets that collide", f"{report.colliding_roads_share:.1%}"),
        ("of them, all in one cell", f"{report.undecided_roads_share:.1%}"),
    ]
    if report.colliding_steps_share is not None:
        rows.append(("steps whose candidates collide", f"{report.colliding_steps_share:.1%}"))
    return rows


def card_payload(directory: Path, card: "TeacherCard") -> dict[str, Any]:
    """Return what `--json` prints of a teacher."""
    return {**card.to_json(), "name": card.name, "sha256": card.sha256,
            "directory": str(directory)}
