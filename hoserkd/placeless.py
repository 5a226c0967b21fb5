"""Texts as they may leave the machine: without the folders of whoever made them.

Reports and bundles are handed on. Where their maker's files lay is nobody's business: a path tells
names of users, of machines and of projects.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PART = r"[^\s/\"'<>|,;()\[\]{}=]+"
_PATH = re.compile(rf"(?<![\w.~/:%-])(?:~[\w.-]*)?(?:/{_PART})*/(?P<name>{_PART})/?")
"""An absolute path within a text, or one below a user's home; not a URL, nor `and/or`."""
_FILE_URL = re.compile(rf"(?<=:///)/?(?:{_PART}/)*(?P<name>{_PART})")
"""The path of a URL without a host, as SQLite's has."""
_QUOTED = re.compile(r"""(?P<quote>["'])(?:~[\w.-]*)?/(?:[^"'/]*/)*(?P<name>[^"'/]+)/?(?P=quote)""")
"""An absolute path between quotes, which may hold spaces."""


def placeless_path(path: Path | str) -> str:
    """Return a path as it may be told: whole if it lies below the working folder, else its name."""
    known = Path(path)
    outside = known.is_absolute() or ".." in known.parts or str(path).startswith("~")
    return known.name if outside else str(path)


def placeless(text: str) -> str:
    """Return a text whose absolute paths are cut to their last part."""
    text = _QUOTED.sub(r"\g<quote>\g<name>\g<quote>", _FILE_URL.sub(r"\g<name>", text))
    return _PATH.sub(r"\g<name>", text)


def placeless_values(value: Any) -> Any:
    """Return what JSON holds with every text in it as `placeless` gives it."""
    if isinstance(value, str | Path):
        return placeless(str(value))
    if isinstance(value, Mapping):
        return {key: placeless_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [placeless_values(item) for item in value]
    return value


def placeless_command(words: Sequence[str]) -> str:
    """Return a command line for others to read: its paths are names, which they adapt."""
    return shlex.join(_word(word) for word in words)


def _word(word: str) -> str:
    option, equals, value = word.partition("=")
    if equals:
        return f"{option}={_word(value)}"
    # A word is one path also where it holds spaces.
    return placeless_path(word) if "/" in word and "://" not in word else placeless(word)
