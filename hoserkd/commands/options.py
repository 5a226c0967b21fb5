"""The options that several commands share, with what the shell offers for them."""

from typing import Any

import typer

from hoserkd.commands.completion import (
    complete_city,
    complete_profile,
    complete_run,
    complete_teacher,
    one_of,
)
from hoserkd.errors import UsageError

YES, AUTO = "yes", "auto"
"""What `--resume` may say: continue what was stopped; or that, and begin where nothing was."""


def resume_option(what: str) -> Any:
    """Return `--resume[=auto]` of a command that continues `what`; None: it is not given."""
    return typer.Option(
        None, "--resume", metavar="[=auto]", callback=_checked_resume,
        help=f"Continue {what}; --resume=auto begins where there is nothing to continue, so that "
             "a batch job that is requeued keeps its command line.")


def _checked_resume(value: str | None) -> str | None:
    if value not in (None, YES, AUTO):
        raise UsageError(f"--resume={value}: expected --resume or --resume=auto")
    return value


Profile = typer.Option(None, "--profile", metavar="NAME|FILE", help="Settings to start from.",
                       autocompletion=complete_profile)
City = typer.Option(None, "--city", metavar="NAME|DIR", autocompletion=complete_city,
                    help="Prepared city; the profile's if not given.")
RunCity = typer.Option(None, "--city", metavar="NAME|DIR", autocompletion=complete_city,
                       help="Prepared city; the one that the run was made on if not given.")
Teacher = typer.Option(None, "--teacher", metavar="NAME|DIR", autocompletion=complete_teacher,
                       help="Exported teacher; the profile's if not given.")
Device = typer.Option(None, "--device", metavar="auto|cpu|cuda", help="Where to compute.",
                      autocompletion=one_of("auto", "cpu", "cuda"))
Run = typer.Option(None, "--run", metavar="RUN", autocompletion=complete_run,
                   help="Run to take: its name, the start of its id, or `latest`.")
Force = typer.Option(False, "--force", help="Replace also files that hoserkd did not make.")
RunName = typer.Option(None, "--name", metavar="NAME", help="What to call the run.")
