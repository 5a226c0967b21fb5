"""docs/metrics.md names what there is."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from hoserkd.commands.exports import EXPORTS
from hoserkd.commands.judgements import Judgement, document
from hoserkd.engine.metrics.catalogue import ALL
from hoserkd.engine.metrics.evaluation import comparison_json
from hoserkd.engine.metrics.paired import PairedTest
from hoserkd.engine.metrics.statistics import Figure
from hoserkd.report.records import SeedGroup
from hoserkd.text import plain

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def text():
    return (DOCS / "metrics.md").read_text("utf-8")


def test_every_metric_is_defined_with_its_unit(text):
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    for metric in ALL:
        row = next((r for r in rows if f"`{metric.name}`" in r.split("|")[1]), None)
        assert row is not None, metric.name
        unit = metric.unit or "–"
        assert unit in [u.strip() for u in row.split("|")[2].split(",")], metric.name


def test_the_page_names_no_figure_that_is_not_there(text):
    defined = {name for line in text.splitlines() if line.startswith("| `")
               for name in re.findall(r"`([a-zN0-9_]+)`", line.split("|")[1])}
    files = {kind for kind in EXPORTS if "-" not in kind}
    assert defined - {metric.name for metric in ALL} <= files


def test_every_key_of_the_json_is_described(text, report):
    described = text.split("## evaluation.json")[1].split("## Exports")[0]
    words = set(re.findall(r"[a-z_]+", described))
    assert set(report.first.to_json()) <= words
    assert set(comparison_json(report.comparisons[0])) <= words
    assert set(PairedTest.__dataclass_fields__) <= words


def test_every_export_is_described(text):
    table = text.split("## Exports")[1]
    assert all(f"`{kind}`" in table for kind in EXPORTS)


@pytest.fixture(scope="module")
def written(report):
    """Return evaluation.json of two runs that differ in their seed."""
    group = SeedGroup("fast", ("fast", "usual"), {"edr": Figure(0.5, 0.4, 0.6)}, {"edr": 0.1})
    judged = Judgement(replace(report, groups=(group,)), Path())
    return json.loads(json.dumps(plain({"schema_version": 1, **document([judged])})))


@pytest.fixture(scope="module")
def schema():
    return Draft202012Validator(json.loads((DOCS / "evaluation.schema.json").read_text("utf-8")))


def test_the_document_keeps_to_its_schema(written, schema):
    Draft202012Validator.check_schema(schema.schema)
    assert written["groups"]
    assert [error.message for error in schema.iter_errors(written)] == []


@pytest.mark.parametrize("spoil", [
    lambda d: d.pop("kind"),
    lambda d: d["evaluations"][0].update(surprise=1),
    lambda d: d["evaluations"][0]["metrics"]["edr"].update(value="0.5"),
    lambda d: d["evaluations"][0]["references"].pop("floor"),
    lambda d: d["comparisons"][0]["tests"]["edr"].update(p=2),
    lambda d: d["groups"][0].pop("od"),
])
def test_the_schema_notices_a_fault(written, schema, spoil):
    spoilt = json.loads(json.dumps(written))
    spoil(spoilt)
    assert list(schema.iter_errors(spoilt))
