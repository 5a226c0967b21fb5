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
from hoserkd.text import printable

SPECIAL = str.maketrans({"|": "\\|", "`": "\\`", "<": "&lt;"})
"""What would end a cell, begin code or begin HTML."""


def render_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    first = report.first
    parts = [
        f"# {escaped(report.title)}",
        f"{escaped(str(first.city['name']))}: {first.counts['real']:,} real trips of the "
        f"{first.od} split, {first.city['roads']:,} roads. {report.made}".strip(),
        *(_part(part) for part in summary(report)),
        table_text(headline_table(report, floor_interval=True)),
        *(table_text(table) for table in level_tables(report)),
        *(table_text(scenario_table(report, k)) for k in range(len(report.runs))),
    ]
    for found in report.comparisons:
        parts += [table_text(comparison_table(found)), table_text(divergence_table(found)),
                  table_text(scenario_comparison_table(found))]
    parts += [table_text(seeds_table(group)) for group in report.groups]
    parts.append(_provenance(report))
    return "\n\n".join(part for part in parts if part) + "\n"


def _part(part: Part) -> str:
    lines = [f"- {escaped(line)}" for line in part.sentences]
    return "\n".join([f"**{escaped(part.heading)}**\n", *lines] if part.heading else lines)


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    return printable(text.replace("\n", " ").replace("\t", " ")).translate(SPECIAL).replace(
        "](", "]\\(").replace("![", "!\\[")


def table_text(table: Table) -> str:
    """Return a table with its title and caption; without rows the caption alone, if any."""
    if not table.rows:
        return f"## {escaped(table.title)}\n\n{escaped(table.caption)}" if table.caption else ""
    head = "| " + " | ".join(map(escaped, table.columns)) + " |"
    rule = "|" + "|".join(" --- " if k == 0 else " ---: " for k in range(len(table.columns))) + "|"
    rows = ["| " + " | ".join(map(escaped, row)) + " |" for row in table.rows]
    caption = f"\n\n{escaped(table.caption)}" if table.caption else ""
    return "\n".join([f"## {escaped(table.title)}\n", head, rule, *rows]) + caption


def _code(text: str) -> str:
    """Return text as code on one line; a backtick in it, which would end the code, is turned."""
    return "`" + printable(text.replace("\n", " ")).replace("`", "'") + "`"


def _provenance(report: Report) -> str:
    lines = ["## Where it comes from", ""]
    for run in report.runs:
        lines.append(f"- **{escaped(run.name)}**: {escaped(run.source)}")
        lines += [f"  - {escaped(key)}: {_code(value)}" for key, value in run.facts.items()]
        lines += [f"  - note: {escaped(note)}" for note in run.evaluation.notes]
    if report.versions:
        lines.append("- evaluated with " + ", ".join(
            f"{escaped(name)} {escaped(value)}" for name, value in report.versions.items()))
    if report.commands:
        lines += ["", "To make it again:", ""]
        lines += [f"    {printable(line)}" for line in report.commands]
    return "\n".join(lines)
