"""`hoserkd profiles`: what settings there are and where each value comes from."""

import typer

from hoserkd.commands.completion import complete_profile
from hoserkd.commands.context import find_paths, open_console, open_context, session

app = typer.Typer(help="Show the profiles and what they hold.", no_args_is_help=False)


@app.command("list")
def list_() -> None:
    """List the profiles, the user's own and the shipped ones.

    Example: hoserkd profiles list
    """
    from hoserkd.settings import list_profiles, load_profile, profile_folders

    console = open_console()
    folders = profile_folders(find_paths(session().options).home)
    found = [load_profile(str(path), folders) for path in list_profiles(folders).values()]
    payload = {"profiles": [
        {"name": p.name, "description": p.description, "extends": list(p.extends),
         "path": p.path} for p in found]}
    console.result(payload, lambda: console.table(
        None, ("profile", "what it is", "extends", "file"),
        [(p.name, p.description, ", ".join(p.extends) or None, p.path) for p in found]))


@app.command()
def show(
    profile: str = typer.Argument(..., metavar="NAME|FILE", help="Profile to show.",
                                  autocompletion=complete_profile),
    changed: bool = typer.Option(False, "--changed", help="Only what differs from the defaults."),
) -> None:
    """Show every setting of a profile: value, source and meaning.

    Example: hoserkd profiles show beijing --changed
    """
    context = open_context("profiles show", profile)
    settings = [s for s in context.resolved.settings() if not changed or s.source != "default"]
    payload = {"profile": context.profile, "settings": {
        s.key: {"value": s.value, "source": s.source, "description": s.description}
        for s in settings}}
    context.console.result(payload, lambda: context.console.table(
        f"Profile {context.profile}", ("setting", "value", "source", "meaning"),
        [(s.key, s.text, s.source, s.description) for s in settings]))
