"""What `hoserkd evaluate` hands out: its documents, files, records and what it prints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoserkd.commands.context import Context
from hoserkd.commands.exports import export_trips
from hoserkd.commands.judged import Target

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hoserkd.report.records import Report
    from hoserkd.store.recorder import RunRecorder


@dataclass(frozen=True, slots=True)
class Judgement:
    """The report on one split's ODs and the folder that it goes to."""

    report: "Report"
    folder: Path


def document(judgements: Sequence[Judgement]) -> dict[str, Any]:
    """Return what evaluation.json holds (docs/metrics.md), of one split or of several."""
    from dataclasses import asdict

    from hoserkd.engine.metrics.evaluation import comparison_json, figures_json

    evaluations: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    groups: list[dict[str, Any]] = []
    unlike: dict[str, None] = {}
    commands: dict[str, None] = {}
    for judgement in judgements:
        report = judgement.report
        od = report.first.od
        evaluations += [
            {**run.evaluation.to_json(), "run_id": run.run_id, "source": run.source,
             "facts": dict(run.facts)} for run in report.runs]
        comparisons += [{"od": od, **comparison_json(found)} for found in report.comparisons]
        groups += [{"od": od, **asdict(group), "mean": figures_json(group.mean)}
                   for group in report.groups]
        unlike |= dict.fromkeys(report.unlike)
        commands |= dict.fromkeys(report.commands)
    return {"kind": "evaluation", "evaluations": evaluations, "comparisons": comparisons,
            "groups": groups, "unlike": list(unlike), "commands": list(commands)}


def report_files(folder: Path) -> dict[str, Path]:
    """Return the files of a report by kind."""
    return {"evaluation": folder / "evaluation.json", "report": folder / "report.html",
            "report-markdown": folder / "report.md"}


def write(judgement: Judgement, exports: tuple[str, ...]) -> dict[str, Path]:
    """Write the report in every form and return the files by kind."""
    from hoserkd.engine.files import replacing, write_json
    from hoserkd.engine.metrics.evaluation import SCHEMA_VERSION
    from hoserkd.report.html import render_html
    from hoserkd.report.markdown import render_markdown
    from hoserkd.text import plain

    report, folder = judgement.report, judgement.folder
    written = report_files(folder)
    content = {"schema_version": SCHEMA_VERSION, **document([judgement])}
    write_json(written["evaluation"], plain(content))
    for kind, text in (("report", render_html(report)),
                       ("report-markdown", render_markdown(report))):
        with replacing(written[kind], "w") as file:
            file.write(text)
    for kind in exports:
        written |= export_trips(report, folder, kind)
    return written


def record(
    recorder: "RunRecorder", targets: Sequence[Target], judgement: Judgement,
    written: Mapping[str, Path],
) -> None:
    """Record one flat judgement a run, and the files."""
    for target, run in zip(targets, judgement.report.runs, strict=True):
        found = run.evaluation
        recorder.evaluation(
            {"run_id": run.run_id, "name": target.name, "od": found.od,
             "model_sha256": run.facts.get("model sha256"), **found.counts,
             **{name: figure.value for name, figure in found.figures.items()
                if figure.value is not None}},
            label=f"{target.name} on {found.od} ODs")
    for kind, path in written.items():
        recorder.artifact(path, kind.split()[0])


def render(context: Context, judgements: Sequence[Judgement]) -> "RenderableType":
    """Return the figures of each split, apart, as the terminal shows them."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    for judgement in judgements:
        if len(judgements) > 1:
            parts.append(Text(f"{judgement.report.first.od} ODs\n", style="bold underline"))
        parts += _parts(context, judgement)
    return Group(*parts)


def _parts(context: Context, judgement: Judgement) -> "list[RenderableType]":
    from rich.text import Text

    from hoserkd.report.tables import comparison_table, headline_table, seeds_table
    from hoserkd.report.words import summary

    report = judgement.report
    parts: list[RenderableType] = []
    for table in (headline_table(report), *map(comparison_table, report.comparisons),
                  *map(seeds_table, report.groups)):
        if table.rows:
            parts.append(context.console.table(table.title, table.columns, table.rows))
        if table.caption:
            parts.append(Text(table.caption + "\n", style="dim"))
    for part in summary(report):
        if part.heading:
            parts.append(Text(part.heading, style="bold"))
        parts += [Text(f"- {line}") for line in part.sentences]
    parts.append(Text(f"\nreport: {judgement.folder / 'report.html'}"))
    return parts
