"""docs/metrics.md names what there is."""

import re
from pathlib import Path

import pytest

from hoserkd.commands.exports import EXPORTS
from hoserkd.engine.metrics.catalogue import METRICS
from hoserkd.engine.metrics.evaluation import comparison_json
from hoserkd.engine.metrics.statistics import PairedTest


@pytest.fixture(scope="module")
def text():
    return (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text("utf-8")


def test_every_metric_is_defined_with_its_unit(text):
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    for metric in METRICS:
        row = next((r for r in rows if f"`{metric.name}`" in r.split("|")[1]), None)
        assert row is not None, metric.name
        unit = metric.unit or "–"
        assert unit in [u.strip() for u in row.split("|")[2].split(",")], metric.name


def test_the_page_names_no_figure_that_is_not_there(text):
    defined = {name for line in text.splitlines() if line.startswith("| `")
               for name in re.findall(r"`([a-z0-9_]+)`", line.split("|")[1])}
    files = {kind for kind in EXPORTS if "-" not in kind}
    assert defined - {metric.name for metric in METRICS} <= files


def test_every_key_of_the_json_is_described(text, report):
    described = text.split("## evaluation.json")[1].split("## Exports")[0]
    words = set(re.findall(r"[a-z_]+", described))
    assert set(report.first.to_json()) <= words
    assert set(comparison_json(report.comparisons[0])) <= words
    assert set(PairedTest.__dataclass_fields__) <= words


def test_every_export_is_described(text):
    table = text.split("## Exports")[1]
    assert all(f"`{kind}`" in table for kind in EXPORTS)
