"""The report as Markdown: the same sentences and tables."""

from hoserkd.report.records import Report
from hoserkd.report.tables import (
    Table,
    comparison_table,
    divergence_table,
    headline_table,
    level_tables,
    scenario_comparison_table,
    scenario_table,
    seeds_table,
)
from hoserkd.report.words import Part, summary


def render_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    first = report.first
    parts = [
        f"# {report.title}",
        f"{first.city['name']}: {first.counts['real']:,} real trips of the {first.od} split, "
        f"{first.city['roads']:,} roads. {report.made}".strip(),
        *(_part(part) for part in summary(report)),
        _table(headline_table(report)),
        *(_table(table) for table in level_tables(report)),
        *(_table(scenario_table(report, k)) for k in range(len(report.runs))),
    ]
    for found in report.comparisons:
        parts += [_table(comparison_table(found)), _table(divergence_table(found)),
                  _table(scenario_comparison_table(found))]
    parts += [_table(seeds_table(group)) for group in report.groups]
    parts.append(_provenance(report))
    return "\n\n".join(part for part in parts if part) + "\n"


def _part(part: Part) -> str:
    lines = [f"- {_escaped(line)}" for line in part.sentences]
    return "\n".join([f"**{_escaped(part.heading)}**\n", *lines] if part.heading else lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _table(table: Table) -> str:
    if not table.rows:
        return f"## {_escaped(table.title)}\n\n{_escaped(table.caption)}" if table.caption else ""
    head = "| " + " | ".join(map(_escaped, table.columns)) + " |"
    rule = "|" + "|".join(" --- " if k == 0 else " ---: " for k in range(len(table.columns))) + "|"
    rows = ["| " + " | ".join(map(_escaped, row)) + " |" for row in table.rows]
    caption = f"\n\n{_escaped(table.caption)}" if table.caption else ""
    return "\n".join([f"## {_escaped(table.title)}\n", head, rule, *rows]) + caption


def _provenance(report: Report) -> str:
    lines = ["## Where it comes from", ""]
    for run in report.runs:
        lines.append(f"- **{_escaped(run.name)}**: {_escaped(run.source)}")
        lines += [f"  - {_escaped(key)}: `{_escaped(value)}`" for key, value in run.facts.items()]
        lines += [f"  - note: {_escaped(note)}" for note in run.evaluation.notes]
    if report.commands:
        lines += ["", "To make it again:", "", *(f"    {line}" for line in report.commands)]
    return "\n".join(lines)
