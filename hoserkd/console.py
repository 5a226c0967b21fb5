"""Every byte that hoserkd prints: results on stdout; progress, notes and errors on stderr."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hoserkd.errors import HoserkdError
from hoserkd.streams import encodable
from hoserkd.text import cell_text, plain, printable

SCHEMA_VERSION = 1
"""Of every `--json` document; raised when a key changes its meaning or goes away."""
PIPE_WIDTH = 200
"""Columns of a table that does not go to a terminal, so that nothing is cut off."""


class Console:
    """Writes for one command; knows `--json`, `--quiet`, `-v`, and NO_COLOR through rich."""

    def __init__(self, json_output: bool = False, quiet: bool = False, verbosity: int = 0) -> None:
        self.json_output = json_output
        self.quiet = quiet
        self.verbosity = verbosity
        self._clear: list[Callable[[], None]] = []
        self._err = RichConsole(stderr=True, highlight=False, soft_wrap=True)

    def result(self, payload: Mapping[str, Any], render: Callable[[], RenderableType]) -> None:
        """Print a command's answer on stdout: one JSON document with `--json`, else `render()`."""
        self.close()
        if self.json_output:
            document = {"schema_version": SCHEMA_VERSION, **payload}
            sys.stdout.write(json_text(plain(document)) + "\n")
            sys.stdout.flush()
            return
        RichConsole(highlight=False, markup=False, width=_width()).print(_harmless(render()))

    def line(self, text: str) -> None:
        """Print a line of plain text on stdout."""
        self.close()
        sys.stdout.write(printable(text) + "\n")

    def note(self, message: str) -> None:
        """Tell something in passing; `--quiet` hides it."""
        if not self.quiet:
            self._say(Text(printable(message), style="dim"))

    def detail(self, message: str) -> None:
        """Tell something that only `-v` asks for."""
        if self.verbosity and not self.quiet:
            self._say(Text(printable(message), style="dim"))

    def warn(self, message: str) -> None:
        """Warn; `--quiet` does not hide it."""
        self._say(Text.assemble(("warning: ", "yellow"), printable(message)))

    def error(self, error: HoserkdError) -> None:
        """Print an error and its hint."""
        self.close()
        self._say(Text.assemble(("error: ", "bold red"), printable(error.message)))
        if error.hint:
            self._say(Text.assemble(("hint: ", "cyan"), printable(error.hint)))

    def table(
        self, title: str | None, columns: Sequence[str], rows: Sequence[Sequence[object]]
    ) -> Table:
        """Return a table; columns of numbers are set to the right, None shows as a dash."""
        table = Table(title=Text(printable(title), "bold") if title else None,
                      title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for index, name in enumerate(columns):
            cells = [row[index] for row in rows if row[index] is not None]
            numeric = bool(cells) and all(_is_number(cell) for cell in cells)
            table.add_column(Text(printable(name)), overflow="fold",
                             justify="right" if numeric else "left")
        for row in rows:
            table.add_row(*(Text(cell_text(cell)) for cell in row))
        return table

    def before_output(self, clear: Callable[[], None]) -> None:
        """Have `clear` called before a result or an error is printed, to take a bar away."""
        self._clear.append(clear)

    def close(self) -> None:
        """Take away whatever stands on the screen for a while only."""
        for clear in self._clear:
            clear()

    @property
    def stderr(self) -> RichConsole:
        """The rich console behind stderr, for live displays."""
        return self._err

    def _say(self, text: Text) -> None:
        self._err.print(text)


def json_text(value: object) -> str:
    """Return JSON of characters that stdout has and a terminal can show: others are escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if not encodable(text.replace("\n", ""), sys.stdout):
        return json.dumps(value, indent=2)
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def _harmless(found: RenderableType) -> RenderableType:
    """Return what a command wants shown, its plain strings freed of what steers a terminal."""
    if isinstance(found, str):
        return Text(printable(found))
    if isinstance(found, Group):
        return Group(*map(_harmless, found.renderables))
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _width() -> int | None:
    if sys.stdout.isatty():
        return None
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) > 0 else PIPE_WIDTH
