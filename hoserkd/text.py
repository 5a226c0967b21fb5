"""Values as people and as JSON read them: figures, spans, sizes, safe text."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

LONGEST_STEM = 100
MARKDOWN_SIGNS = str.maketrans(
    {"|": "\\|", "`": "\\`", "<": "&lt;", "&": "&amp;", "*": "\\*", "\\": "\\\\"})
"""What would end a cell, begin code, HTML or emphasis, or be taken for the sign before it."""
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


def plain(value: Any) -> Any:
    """Return `value` as what JSON knows: no NaN, no infinity, no dataclass, path or date.

    Decimals become figures; what else JSON lacks, such as spans of time, becomes text.
    """
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    elif hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value if isinstance(value, str | int | None) else str(value)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` with the known word most like `word`, or nothing."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def utf8_text(text: str) -> str:
    """Return text that UTF-8 can hold: bytes of file names that are none become `\\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode()


def not_utf8(path: object) -> str | None:
    """Return words on the first byte of a path that is not UTF-8; None: there is none."""
    odd = next((c for c in str(path) if "\udc80" <= c <= "\udcff"), None)
    return None if odd is None else f"the byte 0x{ord(odd) - 0xDC00:02x}, which is not UTF-8"


def utf8_values(value: Any) -> Any:
    """Return what JSON holds with every text in it as `utf8_text` gives it."""
    if isinstance(value, str):
        return utf8_text(value)
    if isinstance(value, Mapping):
        return {utf8_values(key): utf8_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [utf8_values(item) for item in value]
    return value


def printable(text: str) -> str:
    """Return `text` with control characters made visible, so that no file can steer a terminal."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def markdown_text(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    plain = printable(text.replace("\n", " ").replace("\t", " ")).translate(MARKDOWN_SIGNS)
    return plain.replace("](", "]\\(").replace("![", "!\\[")


def no_formula(text: str) -> str:
    """Return text that a spreadsheet takes for text: what would begin a formula gets a quote."""
    return "'" + text if text.startswith(FORMULA_SIGNS) else text


def file_stem(name: str) -> str:
    """Return a name, which may come from a file, as a part of file names and command lines.

    It has no spaces and no separators, and is never hidden, an option or a folder above.
    """
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
    return safe.strip("-.")[:LONGEST_STEM] or "unnamed"


def cell_text(value: object) -> str:
    """Return how a table shows a value."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number_text(value)
    return printable(str(value))


def number_text(value: float) -> str:
    """Return a figure with four significant digits at least, without needless ones."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e9:
        return str(int(value))
    return f"{value:.4f}" if 0.1 <= abs(value) < 1000 else f"{value:.4g}"


def duration_text(seconds: float) -> str:
    """Return a span of time as people say it: 0.4 s, 42 s, 3 min 05 s, 2 h 07 min, 3 d 4 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size_text(size: float) -> str:
    """Return a number of bytes in the largest unit that keeps it above one."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
