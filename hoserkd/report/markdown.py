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
from hoserkd.text import markdown_text, printable


def render_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    first = report.first
    parts = [
        f"# {markdown_text(report.title)}",
        f"{markdown_text(str(first.city['name']))}: {first.counts['real']:,} real trips of the "
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
    lines = [f"- {markdown_text(line)}" for line in part.sentences]
    return "\n".join([f"**{markdown_text(part.heading)}**\n", *lines] if part.heading else lines)


def table_text(table: Table) -> str:
    """Return a table with its title and caption; without rows the caption alone, if any."""
    title, caption = markdown_text(table.title), markdown_text(table.caption)
    if not table.rows:
        return f"## {title}\n\n{caption}" if caption else ""
    head = "| " + " | ".join(map(markdown_text, table.columns)) + " |"
    rule = "|" + "|".join(" --- " if k == 0 else " ---: " for k in range(len(table.columns))) + "|"
    rows = ["| " + " | ".join(map(markdown_text, row)) + " |" for row in table.rows]
    text = "\n".join([f"## {title}\n", head, rule, *rows])
    return f"{text}\n\n{caption}" if caption else text


def _code(text: str) -> str:
    """Return text as code on one line; a backtick in it, which would end the code, is turned."""
    return "`" + printable(text.replace("\n", " ")).replace("`", "'") + "`"


def _provenance(report: Report) -> str:
    lines = ["## Where it comes from", ""]
    for run in report.runs:
        lines.append(f"- **{markdown_text(run.name)}**: {markdown_text(run.source)}")
        lines += [f"  - {markdown_text(key)}: {_code(value)}" for key, value in run.facts.items()]
        lines += [f"  - note: {markdown_text(note)}" for note in run.evaluation.notes]
    if report.versions:
        lines.append("- evaluated with " + ", ".join(
            markdown_text(f"{name} {value}") for name, value in report.versions.items()))
    if report.commands:
        lines += ["", "To make it again:", ""]
        lines += [f"    {printable(line)}" for line in report.commands]
    return "\n".join(lines)
