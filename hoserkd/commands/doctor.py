"""`hoserkd doctor`: what will work here and what will not."""

from typing import TYPE_CHECKING

import typer

from hoserkd.commands.context import find_paths, open_console, session

if TYPE_CHECKING:
    from hoserkd.commands.diagnosis import Finding


def doctor(
    quick: bool = typer.Option(False, "--quick", help="Leave out what takes seconds: torch."),
) -> None:
    """Check Python, torch, CUDA, memory, disk and optional packages.

    Example: hoserkd doctor
    """
    from hoserkd.commands.diagnosis import diagnose

    console = open_console()
    findings = diagnose(find_paths(session().options), quick=quick)
    console.result(
        {"healthy": all(f.verdict != "broken" for f in findings), "findings": list(findings)},
        lambda: console.table(None, ("", "what", "found", "means"), [
            (_mark(f), f.what, f.found, f.meaning) for f in findings]))
    if any(f.verdict == "broken" for f in findings):
        raise typer.Exit(1)


def _mark(finding: "Finding") -> str:
    return {"fine": "ok", "limited": "--", "broken": "!!"}[finding.verdict]
