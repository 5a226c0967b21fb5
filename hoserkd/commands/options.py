"""The options that several commands share, with what the shell offers for them."""

import typer

from hoserkd.commands.completion import (
    complete_city,
    complete_profile,
    complete_run,
    complete_teacher,
    one_of,
)

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
