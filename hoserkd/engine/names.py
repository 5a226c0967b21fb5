"""One check for every name that a user gives: of cities, teachers, studies, runs, arms and tags.

A name becomes a part of paths, command lines and other names. Where a folder may be named
instead, as by `--city NAME|DIR`, `is_path` tells the two apart.
"""

import re

from hoserkd.errors import UsageError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+=-]*")
HASH = re.compile(r"[0-9A-Za-z]{1,64}")
LONGEST = 100
LONGEST_PATH = 4096


def checked_name(name: str, longest: int = LONGEST) -> str:
    """Return the name if it is one.

    Raises:
        ValueError: It is not; says why.
    """
    if not NAME.fullmatch(name):
        raise ValueError("cannot be a name: letters, digits and _ . + = - only, a letter or digit "
                         "first")
    if len(name) > longest:
        raise ValueError(f"cannot be a name: longer than {longest} characters")
    return name


def check_name(name: str, what: str = "") -> str:
    """Return the name if it is one.

    Args:
        what: What it names, for the message.

    Raises:
        UsageError: It is not; shows it and says why.
    """
    try:
        return checked_name(name)
    except ValueError as error:
        raise UsageError(f"{what + ' ' if what else ''}{name[:LONGEST]!r} {error}") from None


def is_path(reference: str) -> bool:
    """Return whether a word of the command line can only mean a folder or file, not a name."""
    return "/" in reference or reference.startswith((".", "~"))


def checked_reference(reference: str) -> str:
    """Return what names something either by its name or by its path.

    Raises:
        ValueError: It is neither; says why.
    """
    if not is_path(reference):
        return checked_name(reference)
    if len(reference) > LONGEST_PATH or not reference.isprintable():
        raise ValueError("cannot be a path: too long, or with characters that cannot be shown")
    return reference


def is_hash(text: str) -> bool:
    """Return whether a text from a file may stand for a hash in the names of folders."""
    return HASH.fullmatch(text) is not None
