"""Every page as text, at the smallest and at a large size, held to stored pictures.

`UPDATE_PICTURES=1 pytest tests/tui/test_pictures.py` stores them anew.
"""

import html
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from literals import LiteralSource

from hoserkd.tui.app import PAGES, Dashboard
from hoserkd.tui.screenshot import screenshot

PICTURES = Path(__file__).parent / "pictures"
CHARACTER_PX = 12.2
"""Width of a character in Textual's SVG."""


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Show times in UTC, wherever the test runs."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def text_of(svg: str) -> str:
    """Return the characters of a screenshot, line by line."""
    lines: dict[float, list[str]] = {}
    for x, y, text in re.findall(
            r'<text class="[^"]*-r\d+" x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>', svg, re.S):
        line = lines.setdefault(float(y), [])
        column = round(float(x) / CHARACTER_PX)
        line += [" "] * (column - len(line)) + list(html.unescape(text).replace("\xa0", " "))
    return "\n".join("".join(lines[y]).rstrip() for y in sorted(lines)) + "\n"


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
@pytest.mark.parametrize("page", [page.name for page in PAGES])
def test_page_looks_as_stored(page: str, size: tuple[int, int], source: LiteralSource) -> None:
    runs = [run.run_id for run in source.runs]
    app = Dashboard(source, page=page, run_id=runs[0], compared=tuple(runs[:3]))
    shown = text_of(screenshot(app, *size))
    stored = PICTURES / f"{page}-{size[0]}x{size[1]}.txt"
    if os.environ.get("UPDATE_PICTURES"):
        stored.parent.mkdir(exist_ok=True)
        stored.write_text(shown, encoding="utf-8")
    assert shown == stored.read_text(encoding="utf-8")
