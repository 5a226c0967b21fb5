"""The command lines behind a report, from the run store."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hoserkd.commands.context import Context
from hoserkd.commands.judged import Target
from hoserkd.errors import StoreError
from hoserkd.placeless import placeless_command

if TYPE_CHECKING:
    from hoserkd.store.records import RunRecord


def command_lines(
    context: Context, targets: Sequence[Target], files: Mapping[str, Path]
) -> tuple[str, ...]:
    """Return the lines that made the models, their trips and this report, in that order.

    What the store does not know, such as who made a file from elsewhere, is left out.
    """
    found: dict[str, RunRecord] = {}
    for target in targets:
        if target.run is not None:
            _with_parents(context, target.run, found)
    for maker in _makers(context, set(files.values())):
        found[maker.run_id] = maker
    made = sorted(found.values(), key=lambda run: (run.started_at, run.run_id))
    lines = [_line(run.argv) for run in made if run.argv]
    return tuple(dict.fromkeys([*lines, _line(sys.argv)]))


def _with_parents(context: Context, run: "RunRecord", found: "dict[str, RunRecord]") -> None:
    if run.run_id in found:
        return
    found[run.run_id] = run
    for parent in run.parents:
        try:
            _with_parents(context, context.store.run(parent), found)
        except StoreError:
            # Deleted since.
            continue


def _makers(context: Context, files: set[Path]) -> "list[RunRecord]":
    """Return the runs of `generate` that wrote these files as they are."""
    from hoserkd.engine.files import file_sha256

    wanted = {str(path.absolute()): file_sha256(path) for path in files if path.is_file()}
    found = []
    for run in context.store.runs(kind="generate"):
        # A file that was written again since by something else is not this run's.
        here = [path for artifact in context.store.artifacts(run.run_id)
                if (path := str((Path(run.directory) / artifact.path).absolute())) in wanted
                and artifact.sha256 in (None, wanted[path])]
        if here:
            found.append(run)
        for path in here:
            del wanted[path]
        if not wanted:
            break
    return found


def _line(argv: Sequence[str]) -> str:
    return placeless_command(["hoserkd", *argv[1:]])
