"""`hoserkd tui`: watch, compare and start runs in the terminal."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hoserkd.commands.completion import complete_run, one_of
from hoserkd.commands.context import open_console, open_store
from hoserkd.commands.options import Force

if TYPE_CHECKING:
    from hoserkd.store.runs import RunStore
    from hoserkd.tui.app import Dashboard


def tui(
    screen: str = typer.Option("runs", "--screen", help="The page to open with.",
                               autocompletion=one_of("runs", "run", "compare", "tune",
                                                     "evaluation", "map", "store")),
    run: str = typer.Option(None, "--run", metavar="RUN", autocompletion=complete_run,
                            help="The run that the page of one run shows; default: the newest."),
    compare: list[str] = typer.Option([], "--compare", metavar="RUN", autocompletion=complete_run,
                                      help="A run to compare; may be given again."),
    screenshot: Path = typer.Option(None, "--screenshot", metavar="FILE",
                                    help="Write a picture (.svg or .png) and leave."),
    size: str = typer.Option("160x48", "--size", metavar="WxH",
                             help="Columns and rows of the picture."),
    keys: str = typer.Option("", "--keys", help="Keys to press before the picture is taken."),
    force: bool = Force,
) -> None:
    """Watch runs, compare them and start new ones, in the terminal.

    Example: hoserkd tui --screen compare --compare vanilla --compare distilled
    """
    if screenshot is not None:
        columns, rows = _picture_size(screenshot, size, force)
    app = _dashboard(screen, run, compare)
    if screenshot is not None:
        _picture(app, screenshot, columns, rows, keys)
        return
    from hoserkd.errors import UsageError

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the dashboard needs a terminal",
                         hint="--screenshot FILE makes a picture; `hoserkd runs list` prints")
    app.run()


def _dashboard(screen: str, run: str | None, compare: list[str]) -> "Dashboard":
    from hoserkd.commands.context import find_paths, session
    from hoserkd.errors import UsageError
    from hoserkd.text import did_you_mean
    from hoserkd.tui.app import PAGES, Dashboard
    from hoserkd.tui.reading import StoreSource

    names = [page.name for page in PAGES]
    if screen not in names:
        raise UsageError(f"--screen {screen}: there is no such page{did_you_mean(screen, names)}",
                         hint=f"pages: {', '.join(names)}")
    store = open_store()
    chosen = store.run(run).run_id if run is not None else _newest_training(store, screen)
    compared = tuple(store.run(reference).run_id for reference in compare)
    paths = find_paths(session().options)
    source = StoreSource(store, paths.data_dir, paths.home)
    return Dashboard(source, page=screen, run_id=chosen, compared=compared)


def _newest_training(store: "RunStore", screen: str) -> str | None:
    """Return the run that a page about one run opens with where none was named."""
    if screen not in ("run", "map"):
        return None
    newest = store.runs(kind="train", limit=1) or store.runs(limit=1)
    return newest[0].run_id if newest else None


def _picture_size(path: Path, size: str, force: bool) -> tuple[int, int]:
    """Return columns and rows of a picture that can be written."""
    from hoserkd.engine.outputs import check_outputs
    from hoserkd.errors import UsageError

    match = re.fullmatch(r"(\d{2,3})x(\d{2,3})", size)
    if match is None:
        raise UsageError(f"--size {size}: expected columns x rows, such as 120x40")
    if path.suffix not in (".svg", ".png"):
        raise UsageError(f"--screenshot {path}: the name must end in .svg or .png")
    check_outputs([path], force=force)
    return int(match[1]), int(match[2])


def _picture(app: "Dashboard", path: Path, columns: int, rows: int, keys: str) -> None:
    from hoserkd.engine.files import replacing
    from hoserkd.engine.outputs import marked_png, marked_svg
    from hoserkd.tui.screenshot import screenshot

    svg = screenshot(app, columns, rows, keys.split())
    with replacing(path) as file:
        file.write(marked_svg(svg).encode() if path.suffix == ".svg" else marked_png(_png(svg)))
    open_console().note(f"wrote {path}")


def _png(svg: str) -> bytes:
    from hoserkd.errors import UsageError

    try:
        import resvg_py
    except ImportError as error:
        raise UsageError("a .png needs the package resvg_py",
                         hint="pip install resvg_py, or write a .svg") from error
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, font_family="DejaVu Sans Mono",
                                       monospace_family="DejaVu Sans Mono"))
