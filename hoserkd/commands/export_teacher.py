"""`hoserkd export-teacher`: a training checkpoint becomes a safe, self-describing teacher."""

from pathlib import Path

import typer

from hoserkd.commands.context import open_context
from hoserkd.commands.options import City


def export_teacher(
    checkpoint: Path = typer.Argument(..., metavar="FILE|NAME|DIR", help="A public LM-TAD "
                                      "checkpoint, last.ckpt of train-teacher, or an exported "
                                      "teacher."),
    output: Path = typer.Option(..., "--output", help="Folder of the export; must not exist."),
    grid_rows: int | None = typer.Option(None, "--grid-rows", min=1, help="Rows of the grid."),
    grid_cols: int | None = typer.Option(None, "--grid-cols", min=1, help="Columns of the grid."),
    bounds: str | None = typer.Option(
        None, "--bounds", metavar="LAT0,LON0,LAT1,LON1", help="South-west and north-east corner."),
    cell_size: str | None = typer.Option(
        None, "--cell-size", metavar="DEG", help="Side of a cell in degrees, or as 0.1km; if not "
        "given, the bounds hold rows x columns exactly."),
    downsample: int = typer.Option(1, "--downsample", min=1, help="Cells, each way, in one."),
    vocab: Path | None = typer.Option(None, "--vocab", metavar="FILE", help="Its vocab.json."),
    city: str | None = City,
) -> None:
    """Export a teacher from a training checkpoint, running nothing that the file holds.

    Example: hoserkd export-teacher ckpt.pt --output teachers/porto
    --bounds 41.140092,-8.690261,41.185969,-8.549155 --cell-size 0.1km
    """
    context = open_context("export-teacher")
    from hoserkd.commands.teachers import card_payload, card_rows, report_rows
    from hoserkd.engine.teacher.export import (
        ExportOptions,
        export_checkpoint,
        parse_bounds,
        parse_cell_size,
    )

    options = ExportOptions(
        rows=grid_rows, cols=grid_cols, bounds=None if bounds is None else parse_bounds(bounds),
        cell_deg=None if cell_size is None else parse_cell_size(cell_size),
        downsample=downsample, vocab=vocab)
    town = None
    if city is not None:
        from hoserkd.engine.city.storage import load_city

        town = load_city(context.city_dir(city))
    if not checkpoint.is_file():
        checkpoint = context.teacher_dir(str(checkpoint))
    card = export_checkpoint(checkpoint, output, options)
    payload, rows = card_payload(output, card), card_rows(card)
    if town is not None:
        from hoserkd.engine.teacher.fit import MAX_CLAMPED_SHARE, grid_report

        report = grid_report(card.grid, town.network, town.split("train"))
        payload["city"] = {"name": town.name, **report.to_json()}
        rows += report_rows(report)
        if report.clamped_share > MAX_CLAMPED_SHARE:
            context.console.warn(f"{report.clamped_share:.1%} of the roads of {town.name} lie "
                                 "outside the teacher's grid: it cannot teach this city")
    rows.append(("special ids from", card.meta.get("special_ids_from")))
    context.console.result(payload, lambda: context.console.table(
        f"Teacher {card.name} in {output}", ("what", "value"), rows))
