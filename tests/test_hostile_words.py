"""Words of strangers in names, tags and messages: shown as they are, obeyed nowhere."""

import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Group

from hoserkd.console import Console, json_text
from hoserkd.engine.bundle_contents import csv_bytes, run_members
from hoserkd.engine.model_card import _cell
from hoserkd.engine.trips.generated import _quoted
from hoserkd.report.markdown import _code
from hoserkd.report.plots import curve_plot
from hoserkd.report.recorded import script_json
from hoserkd.report.records import Curve
from hoserkd.text import markdown_text, no_formula

HOSTILE = ("[/red]", "[bold]x[/bold]", "\x1b[31mred\x1b[0m", "\x1b]8;;http://x\x07y\x1b]8;;\x07",
           "\x9b31m", "‮evil", "a\rb", "\x07", "<script>alert(1)</script>", "{{ 7*7 }}", "$\\frac$",
           "_hidden", "&lt;b&gt;", "\udc80", "a`b", "![x](http://y)", "[x](javascript:1)", "=1+1")
STEERING = ("\x1b", "\x07", "\r", "\x9b", "‮", "\udc80")


@pytest.mark.parametrize("word", HOSTILE)
def test_nothing_that_is_printed_steers_the_terminal(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console()
    console.result({}, lambda: console.table(word, ("what", word), [(word, word)]))
    console.result({}, lambda: word)
    console.result({}, lambda: Group(word, console.table(None, (word,), [])))
    console.line(word)
    console.warn(word)
    out, err = capsys.readouterr()
    assert not any(sign in out + err for sign in STEERING)
    if word.isprintable():
        assert out.count(word) == 8
        assert word in err


@pytest.mark.parametrize("word", HOSTILE)
def test_json_is_printable_and_comes_back_as_it_was(word: str) -> None:
    text = json_text({"name": word, "even": "𐍈"})
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == {"name": word, "even": "𐍈"}


@pytest.mark.parametrize("word", HOSTILE)
def test_plots_show_every_name_and_stay_whole(word: str) -> None:
    curve = Curve(np.arange(3), np.arange(3.0))
    svg = curve_plot("val_accuracy", "Validation accuracy", {word: (0, curve)})
    assert "<script" not in svg
    shown = "".join(ET.fromstring(svg).itertext())
    if word.isprintable():
        assert word in shown


class Tags(HTMLParser):
    """Collects the tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Keep the tag."""
        self.found.append(tag)


@pytest.mark.parametrize("word", [*HOSTILE, "</script><img src=x>", "<!--", "]]>"])
def test_json_in_the_page_cannot_end_its_element(word: str) -> None:
    text = script_json({"names": [word]})
    tags = Tags()
    tags.feed(f"<script>{text}</script>")
    assert tags.found == ["script"]
    assert json.loads(text) == {"names": [word]}


def test_markdown_shows_links_pictures_code_and_html_as_words() -> None:
    assert markdown_text("[x](javascript:1)") == "[x]\\(javascript:1)"
    assert markdown_text("![x](y)") == "!\\[x]\\(y)"
    assert markdown_text("a|b\n# c\t<img>") == "a\\|b # c &lt;img>"
    assert markdown_text("\x1b[31m") == "\\\\x1b[31m"
    assert markdown_text("**a** &lt; b") == "\\*\\*a\\*\\* &amp;lt; b"
    assert markdown_text("0.12 [0.10, 0.13]") == "0.12 [0.10, 0.13]"
    assert _code("a`b\n# c") == "`a'b # c`"


def test_a_licence_is_shown_as_words(tmp_path: Path) -> None:
    (tmp_path / "best.safetensors").touch()
    terms = "mine\n# ![x](https://a.b/c.png) <script>|**"
    members = run_members(tmp_path, {}, {}, terms)
    licences = members["LICENCES.md"]
    assert isinstance(licences, bytes)
    assert _cell(terms).encode() in licences
    assert _cell(terms) == "mine # !\\[x]\\(https://a.b/c.png) &lt;script>\\|\\*\\*"


@pytest.mark.parametrize("word", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1"])
def test_text_in_exported_tables_is_no_formula(word: str) -> None:
    assert no_formula(word) == "'" + word
    assert csv_bytes(("a", "b"), [(word, -1.5)]).splitlines()[-1].endswith(b",-1.5")
    assert b"'" in csv_bytes(("a",), [(word,)])
    assert _quoted(word).lstrip('"').startswith("'")


def test_reasons_of_strangers_stay_in_their_cell() -> None:
    assert _quoted('a,"b"\nc') == '"a,""b""\nc"'
    assert _quoted("max steps") == "max steps"
