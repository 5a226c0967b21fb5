import re
import xml.dom.minidom
from html.parser import HTMLParser

import pytest

from hoserkd.report.html import render_html

VOID = {"meta", "link", "input", "br"}


class Balance(HTMLParser):
    """Collects attributes, and finds tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.links, self.ids = [], [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "action", "srcset"):
                self.links.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture(scope="module")
def page(report):
    return render_html(report)


@pytest.fixture(scope="module")
def parsed(page):
    parser = Balance()
    parser.feed(page)
    return parser


def test_the_page_is_well_formed(parsed):
    assert parsed.wrong == []
    assert parsed.open == []


def test_the_page_asks_for_nothing_from_the_network(page, parsed):
    assert all(link.startswith(("#", "data:")) for link in parsed.links)
    outside = set(re.findall(r"https?://[^\s\"'<)]+", page))
    assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in page
    assert "url(" not in page.replace("url(#", "")


def test_ids_are_unique_and_every_inner_link_meets_one(parsed):
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)


def test_a_hostile_name_stays_text(page, report):
    assert report.runs[1].name not in page
    assert page.count("<script") == 3
    assert page.count("</script>") == 3


def test_every_section_is_there(page):
    for words in ("In short", "Headline figures", "Comparison on the same requests",
                  "Distributions", "The model", "Map", "Kinds of trip", "Provenance",
                  "hoserkd evaluate fast usual"):
        assert words in page


def test_drawings_are_valid_and_take_their_colours_from_the_page(page):
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) > 6
    for drawing in drawings:
        xml.dom.minidom.parseString(drawing.replace(" hidden>", ">"))
    plots = [d for d in drawings if 'class="plot"' in d]
    assert not [m for d in plots for m in re.findall(r"#0[12a3][0-9a-f]{4}\b", d)]
    assert all("var(--ink)" in d for d in plots)


def test_the_same_report_gives_the_same_bytes(report, page):
    assert render_html(report) == page


def test_a_report_on_one_run_without_a_model_leaves_those_parts_out(report):
    from dataclasses import replace

    alone = replace(report, runs=(replace(report.runs[1], curves={}),), comparisons=())
    page = render_html(alone)
    assert "The model" not in page
    assert "Comparison on" not in page
