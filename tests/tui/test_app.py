"""The dashboard driven by its keys."""

import pytest
from literals import LiteralSource
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from hoserkd.tui.app import Dashboard
from hoserkd.tui.views.chart import Chart
from hoserkd.tui.views.dialogs import HelpScreen
from hoserkd.tui.views.runs import RunsView

SIZES = [(80, 24), (160, 48)]


async def _settle(pilot: Pilot[None]) -> None:
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()
    await pilot.pause()


def _run(source: LiteralSource) -> Dashboard:
    return Dashboard(source, run_id=source.runs[0].run_id)


@pytest.mark.parametrize("size", SIZES)
async def test_runs_page_shows_every_run_and_what_fits(source: LiteralSource,
                                                       size: tuple[int, int]) -> None:
    app = _run(source)
    async with app.run_test(size=size) as pilot:
        await _settle(pilot)
        table = app.query_one("#runs-table", DataTable)
        assert table.row_count == 6
        titles = [str(column.label) for column in table.columns.values()]
        assert ("tags" in titles) == (size[0] >= 120)
        assert table.virtual_size.width <= size[0]
        assert "6 runs, 1 at work" in str(app.query_one("#runs-summary", Static).render())


async def test_runs_page_resized_keeps_the_cursor(source: LiteralSource) -> None:
    app = _run(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await _settle(pilot)
        await pilot.press("down", "down")
        assert app.query_one(RunsView).current == source.runs[2].run_id
        await pilot.resize_terminal(160, 48)
        await _settle(pilot)
        assert app.query_one(RunsView).current == source.runs[2].run_id


async def test_runs_page_filter_sort_and_mark_then_compare(source: LiteralSource) -> None:
    app = _run(source)
    async with app.run_test(size=(160, 48)) as pilot:
        await _settle(pilot)
        await pilot.press("slash", *"train", "enter")
        await _settle(pilot)
        view = app.query_one(RunsView)
        assert view.table.row_count == 5
        await pilot.press("space", "down", "space")
        await pilot.press("s", "s")
        assert "name↓" in [str(c.label) for c in view.table.columns.values()]
        await pilot.press("3")
        await _settle(pilot)
        chart = app.query_one("#compare-chart", Chart)
        assert chart.display
        assert "distilled" in str(chart.border_title)
        assert app.query_one("#compare-table", DataTable).row_count == 2


@pytest.mark.parametrize("size", SIZES)
async def test_run_page_opened_by_enter_shows_curves_and_panels(
        source: LiteralSource, size: tuple[int, int]) -> None:
    app = _run(source)
    async with app.run_test(size=size) as pilot:
        await _settle(pilot)
        await pilot.press("enter")
        await _settle(pilot)
        shown = [chart for chart in app.query("#run-charts Chart").results(Chart) if chart.display]
        assert len(shown) == (4 if size[0] >= 120 else 1)
        assert "loss" in str(shown[0].border_title)
        await pilot.press("p")
        assert app.query_one("#panel-settings").display
        assert app.query_one("#panel-time").display == (size[0] >= 120)
        assert "≠ train.epochs = 3" in str(app.query_one("#text-settings", Static).render())
        await pilot.press("x")
        assert source.asked == [f"stop {source.runs[0].run_id}"]


async def test_help_opens_and_closes_and_q_quits(source: LiteralSource) -> None:
    app = _run(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await _settle(pilot)
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        await pilot.press("escape")
        assert not isinstance(app.screen, HelpScreen)
        await pilot.press("q")
        await pilot.pause()
    assert app.return_code == 0


async def test_tag_is_asked_for_and_given_on(source: LiteralSource) -> None:
    app = _run(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await _settle(pilot)
        await pilot.press("t", *"best", "enter")
        await _settle(pilot)
        assert source.asked == [f"tag {source.runs[0].run_id} best"]


async def test_trouble_with_the_store_is_shown_not_raised(source: LiteralSource) -> None:
    source.trouble = "another process holds the database"
    app = _run(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await _settle(pilot)
        notice = app.query_one("#notice", Static)
        assert notice.display
        assert "another process" in str(notice.render())


async def test_empty_store_says_how_to_begin() -> None:
    app = Dashboard(LiteralSource(runs=()))
    async with app.run_test(size=(80, 24)) as pilot:
        await _settle(pilot)
        assert "hoserkd demo" in str(app.query_one("#runs-summary", Static).render())
        for key in ("2", "3", "1"):
            await pilot.press(key)
            await _settle(pilot)
