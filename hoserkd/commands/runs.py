"""`hoserkd runs`: what was done, how it went, and putting it in order."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hoserkd.commands.completion import (
    complete_city,
    complete_kind,
    complete_metric,
    complete_run,
    complete_tag,
    one_of,
)
from hoserkd.commands.context import find_paths, open_console, open_store, session
from hoserkd.commands.options import Force
from hoserkd.errors import UsageError
from hoserkd.text import did_you_mean

if TYPE_CHECKING:
    from hoserkd.store.records import Status

app = typer.Typer(help="Look through runs, compare them, put them in order.")

STATUSES = ("running", "finished", "stopped", "failed", "dead")
Reference = typer.Argument(..., metavar="RUN", autocompletion=complete_run,
                           help="Name, start of the id, or `latest`.")
References = typer.Argument(..., metavar="RUN...", autocompletion=complete_run,
                            help="Names, starts of ids, or `latest`.")


@app.command("list")
def list_(
    kind: str | None = typer.Option(None, autocompletion=complete_kind,
                                    help="Only runs of this kind, such as train."),
    status: str | None = typer.Option(
        None, autocompletion=one_of(*STATUSES),
        help="Only running, finished, stopped, failed or dead ones."),
    tag: str | None = typer.Option(None, autocompletion=complete_tag,
                                   help="Only runs with this tag."),
    limit: int = typer.Option(50, min=1, help="At most so many, the newest."),
) -> None:
    """List the runs, the newest first.

    Example: hoserkd runs list --kind train --status finished
    """
    from hoserkd.commands.run_views import LIST_COLUMNS, list_rows, run_document
    from hoserkd.store.elsewhere import other_stores
    from hoserkd.store.quarantine import quarantine_text

    console, paths = open_console(), find_paths(session().options)
    if status is not None and status not in STATUSES:
        raise UsageError(
            f"--status {status}: there is no such status{did_you_mean(status, STATUSES)}",
            hint=f"one of {', '.join(STATUSES)}")
    store = open_store()
    with store.reading():
        runs, damaged = store.runs(kind=kind, status=status, tag=tag), store.quarantine()
    shown = runs[:limit]
    console.result({"runs": [run_document(run) for run in shown], "total": len(runs)},
                   lambda: console.table(None, LIST_COLUMNS, list_rows(shown)))
    for other in () if runs else other_stores(paths.home, paths.store):
        console.note(f"{other.count} in another store: hoserkd runs list {other.options}")
    if len(shown) < len(runs):
        console.note(f"{len(runs) - len(shown)} older runs are not shown; --limit shows more")
    if damaged:
        console.warn(f"{quarantine_text(damaged)}; `hoserkd runs repair` lists them")


@app.command()
def show(run: str = Reference) -> None:
    """Show one run: facts, epochs, figures, judgements, files.

    Example: hoserkd runs show latest
    """
    from hoserkd.commands.run_views import show_document, show_view

    console, store = open_console(), open_store()
    with store.reading():
        document = show_document(store, store.run(run))
    console.result(document, lambda: show_view(console, document))


@app.command()
def metrics(
    run: str = Reference,
    names: list[str] = typer.Argument(
        None, metavar="[METRIC]...", autocompletion=complete_metric,
        help="Figures to show; all of them if none is named."),
    last: int = typer.Option(20, "--last", metavar="N", min=0,
                             help="Show the newest N lines; 0: all, as --json always does."),
) -> None:
    """Show how figures went over the steps and epochs of a run.

    Example: hoserkd runs metrics latest loss val_accuracy
    """
    from hoserkd.commands.run_views import series_document, series_rows

    console, store = open_console(), open_store()
    with store.reading():
        document = series_document(store, store.run(run), names or ())
    rows = series_rows(document)
    console.result(document, lambda: console.table(
        None, ("step", *document["metrics"]), rows[-last:]))
    if last and len(rows) > last and not console.json_output:
        console.note(f"{len(rows) - last} earlier lines are not shown; --last 0 shows all")


@app.command()
def compare(runs: list[str] = References) -> None:
    """Compare runs: settings that differ, figures side by side.

    Example: hoserkd runs compare vanilla distilled
    """
    from hoserkd.commands.run_views import compare_document, compare_view

    console, store = open_console(), open_store()
    with store.reading():
        document = compare_document(store, [store.run(reference) for reference in runs])
    console.result(document, lambda: compare_view(console, document))


@app.command()
def tag(
    run: str = Reference,
    tags: list[str] = typer.Argument(None, metavar="[TAG]...", help="Tags to add."),
    remove: list[str] = typer.Option([], "--remove", metavar="TAG", autocompletion=complete_tag,
                                     help="Tag to take away."),
    name: str | None = typer.Option(None, "--name", help="New name of the run."),
    notes: str | None = typer.Option(None, "--notes", help="What to remember about it."),
) -> None:
    """Tag a run, rename it, or write notes to it.

    Example: hoserkd runs tag latest paper --notes "the one in table 2"
    """
    from hoserkd.commands.run_views import run_document

    console = open_console()
    labelled = open_store().label(run, name=name, add=tags or (), remove=remove, notes=notes)
    console.result({"run": run_document(labelled)}, lambda: console.table(
        None, ("run", "id", "tags", "notes"),
        [(labelled.name, labelled.run_id, " ".join(labelled.tags) or None,
          labelled.notes or None)]))


@app.command()
def delete(
    runs: list[str] = References,
    yes: bool = typer.Option(False, "--yes", "-y", help="Do not ask."),
) -> None:
    """Delete runs with all their files.

    Example: hoserkd runs delete trial-1 trial-2 --yes
    """
    console, store = open_console(), open_store()
    found = [store.run(reference) for reference in runs]
    confirm(f"delete {', '.join(run.name for run in found)} with all files", yes)
    gone = store.delete([run.run_id for run in found])
    console.result({"deleted": [run.run_id for run in gone]}, lambda: console.table(
        None, ("deleted", "id"), [(run.name, run.run_id) for run in gone]))


@app.command()
def sql(
    query: str = typer.Argument(..., metavar="QUERY", help="One SQL statement."),
    limit: int = typer.Option(10_000, min=1, max=10_000_000, help="Rows to show at most."),
) -> None:
    """Query the store in SQL; nothing can be changed and nothing outside can be read.

    Example: hoserkd runs sql "SELECT name, best_value FROM runs ORDER BY best_value DESC"
    """
    from hoserkd.store.sql import QueryLimits

    console = open_console()
    answer = open_store().query(query, QueryLimits(rows=limit))
    if answer.truncated:
        console.note(f"only the first {len(answer.rows):,} rows are shown; --limit shows more")
    console.result(
        {"columns": answer.columns, "rows": answer.rows, "truncated": answer.truncated},
        lambda: console.table(None, answer.columns, answer.rows))


@app.command()
def repair() -> None:
    """Rebuild the database from the runs' own records, and list what of these is damaged.

    Example: hoserkd runs repair
    """
    from hoserkd.commands.run_views import repair_view

    console, store = open_console(), open_store()
    report = store.repair()
    damaged = store.quarantine()
    payload = {"runs": report.runs, "events": report.events, "database": store.database,
               "quarantine": damaged}
    console.result(payload, lambda: repair_view(console, payload))


@app.command()
def export(
    runs: list[str] = References,
    csv: Path | None = typer.Option(None, metavar="DIR", help="Write the tables as CSV files."),
    parquet: Path | None = typer.Option(
        None, metavar="DIR", help="Write the tables as Parquet files."),
    tensorboard: Path | None = typer.Option(
        None, metavar="DIR", help="Write TensorBoard event files, a folder a run."),
    wandb_offline: Path | None = typer.Option(
        None, metavar="DIR", help="Write W&B runs for `wandb sync`; needs no network."),
    hoser: Path | None = typer.Option(
        None, metavar="DIR|FILE.pth",
        help="Write a folder that the public HOSER code runs, or its best.pth alone."),
    max_len: int | None = typer.Option(
        None, "--max-len", metavar="N", min=1,
        help="With --hoser: max_len of the public settings that will load it; else 2000, as "
             "published."),
    with_real_trips: bool = typer.Option(
        False, "--with-real-trips",
        help="With --hoser: put the recorded trips into the folder; gene.py draws from them."),
    torch_export: Path | None = typer.Option(
        None, metavar="FILE.pt2",
        help="Write the student's next-road predictor as a program that runs without hoserkd."),
    form: str | None = typer.Option(
        None, "--format", metavar="FORM",
        autocompletion=one_of("csv", "parquet", "tensorboard", "wandb-offline", "hoser"),
        help="The same by name: csv, parquet, tensorboard, wandb-offline, hoser or "
             "torch-export."),
    output: Path | None = typer.Option(
        None, metavar="PATH", help="Where --format writes; without it, under the run's name."),
    city: str | None = typer.Option(
        None, metavar="NAME|DIR", autocompletion=complete_city,
        help="Prepared city of the student that is written; the run's if not given."),
    force: bool = Force,
) -> None:
    """Export what the store holds on runs, or a run's student, for other tools.

    Example: hoserkd runs export vanilla distilled --parquet exported
    """
    from hoserkd.commands.run_exports import PublicForm, Targets, export_runs

    console, store = open_console(), open_store()
    targets = Targets(csv, parquet, tensorboard, wandb_offline, hoser, torch_export)
    found = [store.run(reference) for reference in runs]
    if form is not None:
        targets = targets.with_format(form, output, found[0].name)
    elif output is not None:
        raise UsageError("--output goes with --format", hint="such as --format hoser")
    exported = export_runs(store, found, targets, PublicForm(max_len, with_real_trips), city,
                           force=force)
    for warning in exported.warnings:
        console.warn(warning)
    console.result({"files": exported.files}, lambda: console.table(
        None, ("written",), [(path,) for path in exported.files]))
    for note in exported.notes:
        console.note(note)


@app.command()
def gc(
    older_than: float = typer.Option(
        30.0, "--older-than", metavar="DAYS", min=0, help="Days since the last sign of life."),
    status: str = typer.Option(
        "dead,failed,stopped", metavar="LIST", help="Runs that ended so."),
    resume_files: bool = typer.Option(
        False, "--resume-files", help="Also what only a resume needs, from finished runs."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Remove; else only show what would go."),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Only show what would go, which is the default."),
) -> None:
    """Remove old runs that failed or were stopped; tagged ones and those others build on stay.

    Example: hoserkd runs gc --older-than 7 --yes
    """
    from datetime import UTC, datetime, timedelta

    from hoserkd.store.retention import Retention, clear, find_waste
    from hoserkd.text import size_text

    if yes and dry_run:
        raise UsageError("runs gc: --yes and --dry-run contradict each other", hint="give one")
    console, store = open_console(), open_store()
    retention = Retention(ended_statuses(status), timedelta(days=older_than), resume_files)
    waste = find_waste(store, retention, datetime.now(UTC))
    if yes:
        clear(store, waste)
    console.result(
        {"removed": yes, "bytes": sum(item.size for item in waste), "items": waste},
        lambda: console.table(None, ("what", "size", "path"), [
            (item.why, size_text(item.size), item.path) for item in waste]))
    if waste and not yes:
        console.note("nothing was removed; --yes removes these")


def ended_statuses(text: str) -> tuple["Status", ...]:
    """Return the statuses of a comma-separated list.

    Raises:
        UsageError: one of them is none, or means a run that still runs.
    """
    known: dict[str, Status] = {
        "dead": "dead", "failed": "failed", "stopped": "stopped", "finished": "finished"}
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in known:
            raise UsageError(f"--status {word}: expected some of {', '.join(known)}")
    return tuple(known[word] for word in words)


def confirm(what: str, yes: bool) -> None:
    """Ask before something that cannot be undone.

    Raises:
        UsageError: nobody is there to be asked, and `--yes` was not given.
    """
    import sys

    from hoserkd.errors import HoserkdError, UsageError

    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"to {what}, say --yes", hint="there is no terminal to ask on")
    if not typer.confirm(f"{what[:1].upper()}{what[1:]}?", err=True):
        raise HoserkdError("nothing was done")
